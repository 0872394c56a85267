"""Write docs/scale.md: what ten million and a billion images take, computed from measurements.

python docs/scale.py
"""

import pathlib

PAGE = pathlib.Path(__file__).with_name("scale.md")

# From benchmarks/README.md, DenseNet121 at 224 px on two cores: processor milliseconds per image
# without start-up, and processor seconds of the start-up.
CPU_MS = {"int8": 11.8, "bfloat16": 18.2}
START_S = 4.6
INPUT_KB, PICTURE_KB = 77, 27  # mean size of the benchmark's files
# Assumed: a packed map with its small picture; the rows in two formats and the journal.
PACKED_KB, ROW_KB = 20, 1.0

# Google Cloud, list prices as remembered when this was written: look them up.
VCPU_HOUR = 0.06  # Dataflow batch, per vCPU with its share of memory
READ, WRITE = 0.0004 / 1000, 0.005 / 1000  # per request
# A bucket whose index is not yet divided.
READS_PER_SECOND, WRITES_PER_SECOND = 5_000, 1_000
LISTED_PER_SECOND = 1_000 / 0.2  # 1,000 names to a request, one after the other

GROUPS = 1_024  # batch_inference/outputs/grouping.py
MAPS_PER_PACK = 256  # batch_inference/outputs/cam_store.py
ROWS_PER_PART = 1_000  # batch_inference/outputs/journal.py
VCPUS = 2  # per worker
UTILISATION = 0.8  # share of the time in which processors compute rather than wait for storage


def page() -> str:
    """Return the content of the page."""
    ten_million, billion = 10**7, 10**9
    int8, bfloat16 = CPU_MS["int8"], CPU_MS["bfloat16"]
    reads, writes = f"{READ * 1e4:.3f}", f"{WRITE * 1e4:.2f}"
    hourly_pictures = f"{WRITES_PER_SECOND * 3600 / 1e6:.1f}"
    listing_minutes = f"{ten_million / LISTED_PER_SECOND / 60:.0f}"
    listing_hours = f"{billion / LISTED_PER_SECOND / 3600:.0f}"
    sources_small, sources_large = ten_million // GROUPS, billion // GROUPS
    megabytes, gigabytes = f"{sources_small * 500 / 1e6:.0f}", f"{sources_large * 500 / 1e9:.1f}"
    hours, minutes = _least_hours(billion), _group_minutes(ten_million)
    return f"""# Scale and cost, computed

What large folders take on Dataflow, computed from [benchmarks/README.md](../benchmarks/README.md).
Nothing here was run on the real service, and no run had more than 50,000 images. `python
docs/scale.py` writes this page and holds the arithmetic.

Measured: {int8} processor milliseconds per image in int8 and {bfloat16} in bfloat16 (from files to
rows and pictures), {START_S:.0f} processor seconds to start a worker's process, files of {INPUT_KB}
kB, pictures of {PICTURE_KB} kB. Assumed: packed maps of {PACKED_KB} kB, workers of {VCPUS} vCPUs
with one process each that compute {UTILISATION:.0%} of the time, ${VCPU_HOUR} per vCPU-hour,
${reads} per 10,000 reads and ${writes} per 10,000 writes.

## Computing

One worker scores {VCPUS} x 1000 ms x {UTILISATION} / {int8} ms = {_per_second("int8"):.0f} images/s
in int8, and {_per_second("bfloat16"):.0f} in bfloat16.

| images | arithmetic | vCPU-hours | workers to be done in an hour | in eight hours | $ |
|---|---|---:|---:|---:|---:|
{_computing(ten_million, "int8")}
{_computing(ten_million, "bfloat16")}
{_computing(billion, "int8")}
{_computing(billion, "bfloat16")}

vCPU-hours = images x ms / {UTILISATION} / 3,600,000. The start of a worker ({START_S:.0f} s, and a
minute or two for the machine) is small beside this. With `--setup_file` instead of a container,
each worker installs TensorFlow first; in runs under an hour this costs more than scoring. Workers
on other machines score in TensorFlow by default. For int8, build the image with the extra `cpu`,
take a machine type with AMX or AVX512-VNNI (C3, N2), and name `--engine=openvino --precision=int8`.

## Storage

An image costs one read and, with `--cam_store=files`, one write. Rows and journal are written by
the thousand.

{_STORAGE_HEAD}
{_storage(ten_million)}
{_storage(billion)}

A bucket begins with some {READS_PER_SECOND:,} reads and {WRITES_PER_SECOND:,} writes a second. It
divides its index by ranges of names as load rises, doubling every twenty minutes or so. It divides
well if names that are written at the same time differ early. Pictures are named after their inputs
(`cams/patient00017/study1_positive/image1.png.jpg`). Inputs come in the order of a hash, in
{GROUPS:,} groups that are processed in parallel, so writes fall on all folders as evenly as
patients do. Names of journal parts and packs begin with the attempt and then a hash. Up to
{WRITES_PER_SECOND:,} writes a second, which is {hourly_pictures} million pictures an hour, nothing
need be done. So:

- up to a million images, write a picture each (`--cam_store=files`), for people to look at;
- beyond that, use `--cam_store=parquet`, and `humerus-overlay` for pictures on request. At a
  billion the pictures' requests alone cost ${billion * WRITE:,.0f}; computing in int8 costs
  ${_dollars(billion, "int8"):,.0f}.

## Listing

One request lists 1,000 names in some 0.2 s, one request after the other: {LISTED_PER_SECOND:,.0f}
names/s. Ten million take {listing_minutes} minutes, a billion {listing_hours} hours, with one
worker busy. Give a manifest instead (`--input=gs://bucket/list.txt`), from a storage inventory
report.

## Limits

1. **Listing**, from ten million on, as above.
2. **The {GROUPS:,} groups.** Every URI passes through one of {GROUPS:,} groups, so that each is
   scored once. One process works on a group, in order, so no more than {GROUPS:,} processes ever
   score. A billion then take at least {hours:.1f} hours in int8. A group holds {sources_large:,}
   sources, at some 500 bytes {gigabytes} GB in the memory of its process; at ten million it holds
   {sources_small:,} sources and {megabytes} MB. A worker that dies repeats its group from the
   beginning: {minutes:.0f} min of work at ten million, {hours:.1f} hours at a billion, though
   pictures and parts of the journal are the same files again.
3. **Pictures as files** at more than {WRITES_PER_SECOND:,} a second, until the bucket has divided
   its index.
4. **Repeated contents** are a side input of every worker: some 200 bytes for each content that
   occurs more than once. A tenth of a billion would be 20 GB and not fit.

So ten million images in an hour take {_workers(ten_million, "int8", 1):.0f} small workers and a
manifest, and nothing breaks. Run a billion as a hundred manifests of ten million, one after the
other or in parallel, each with an output of its own: every limit above is then that of ten million.
"""


_STORAGE_HEAD = (
    "| images | in an hour: reads/s | pictures: writes/s | packed: writes/s"
    " | pictures: $ for requests | packed: $ | pictures: GB | packed: GB |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|"
)


def _per_second(precision: str) -> float:
    return VCPUS * 1000 * UTILISATION / CPU_MS[precision]


def _vcpu_hours(images: int, precision: str) -> float:
    return images * CPU_MS[precision] / UTILISATION / 3_600_000


def _dollars(images: int, precision: str) -> float:
    return _vcpu_hours(images, precision) * VCPU_HOUR


def _workers(images: int, precision: str, hours: float) -> float:
    return _vcpu_hours(images, precision) / VCPUS / hours


def _least_hours(images: int) -> float:
    return images / GROUPS / _per_second("int8") / 3600


def _group_minutes(images: int) -> float:
    return _least_hours(images) * 60


def _computing(images: int, precision: str) -> str:
    hours = _vcpu_hours(images, precision)
    cells = [
        f"{images:,} in {precision}",
        f"{images:.0e} x {CPU_MS[precision]} / {UTILISATION} / 3.6e6",
        f"{hours:,.0f}",
        f"{_workers(images, precision, 1):,.0f}",
        f"{_workers(images, precision, 8):,.0f}",
        f"{_dollars(images, precision):,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def _storage(images: int) -> str:
    packed = images / MAPS_PER_PACK
    rows = 3 * images / ROWS_PER_PART
    cells = [
        f"{images:,}",
        f"{images / 3600:,.0f}",
        f"{images / 3600:,.0f}",
        f"{packed / 3600:,.0f}",
        f"{images * READ + (images + rows) * WRITE:,.0f}",
        f"{images * READ + (packed + rows) * WRITE:,.0f}",
        f"{images * (PICTURE_KB + ROW_KB) / 1e6:,.0f}",
        f"{images * (PACKED_KB + ROW_KB) / 1e6:,.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
