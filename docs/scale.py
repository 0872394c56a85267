"""Writes docs/scale.md: what ten million and a billion images take, computed from what was measured.

python docs/scale.py
"""

import pathlib

PAGE = pathlib.Path(__file__).with_name("scale.md")

# benchmarks/README.md, DenseNet121 at 224 px: processor milliseconds per image beyond start-up, two cores, and processor seconds of the start.
CPU_MS = {"int8": 11.8, "bfloat16": 18.2}
START_S = 4.6
INPUT_KB, PICTURE_KB = 77, 27  # the benchmark's files, mean
PACKED_KB, ROW_KB = (
    20,
    1.0,
)  # assumed: a packed map with its small picture; the rows in two formats and the journal

# Google Cloud, list prices as remembered when this was written: look them up.
VCPU_HOUR = 0.06  # Dataflow batch, per vCPU with its share of memory
READ, WRITE = 0.0004 / 1000, 0.005 / 1000  # per request
READS_PER_SECOND, WRITES_PER_SECOND = 5_000, 1_000  # of a bucket whose index is not yet divided
LISTED_PER_SECOND = 1_000 / 0.2  # 1,000 names to a request, one after the other

GROUPS = 1_024  # batch_inference/outputs/grouping.py
MAPS_PER_PACK = 256  # batch_inference/outputs/cam_store.py
ROWS_PER_PART = 1_000  # batch_inference/outputs/journal.py
VCPUS = 2  # of a worker
UTILISATION = 0.8  # of the processors, storage being waited for


def page() -> str:
    ten_million, billion = 10**7, 10**9
    return f"""# Scale, on paper

What large folders take on Dataflow, from the figures of [benchmarks/README.md](../benchmarks/README.md). Nothing here was run on the
real service, nor more than 50,000 images in one run. Written by `python docs/scale.py`, which holds the arithmetic.

Measured: {CPU_MS["int8"]} processor milliseconds per image in int8 and {CPU_MS["bfloat16"]} in bfloat16 (files in, rows and pictures out), {START_S:.0f} processor seconds
to start a worker's process, files of {INPUT_KB} kB, pictures of {PICTURE_KB} kB. Assumed: packed maps of {PACKED_KB} kB, workers of {VCPUS} vCPUs with one process each, {UTILISATION:.0%} of
them computing, {VCPU_HOUR} $ per vCPU-hour, {READ * 1e4:.3f} $ per 10,000 reads and {WRITE * 1e4:.2f} $ per 10,000 writes.

## Computing

One worker: {VCPUS} x 1000 ms x {UTILISATION} / {CPU_MS["int8"]} ms = {_per_second("int8"):.0f} images/s in int8, {_per_second("bfloat16"):.0f} in bfloat16.

| images | arithmetic | vCPU-hours | workers to be done in an hour | in eight hours | $ |
|---|---|---:|---:|---:|---:|
{_computing(ten_million, "int8")}
{_computing(ten_million, "bfloat16")}
{_computing(billion, "int8")}
{_computing(billion, "bfloat16")}

vCPU-hours = images x ms / {UTILISATION} / 3,600,000. The start of a worker ({START_S:.0f} s, and a minute or two for the machine) is lost in this; with
`--setup_file` instead of a container, each worker installs TensorFlow first, which for runs under an hour costs more than scoring.
Workers elsewhere score in TensorFlow unless told otherwise: build the image with the extra `cpu`, take a machine type with AMX or
AVX512-VNNI (C3, N2), and name `--engine=openvino --precision=int8`.

## Storage

An image costs one read and, with `--cam_store=files`, one write; rows and journal are written by the thousand.

| images | in an hour: reads/s | pictures: writes/s | packed: writes/s | pictures: $ for requests | packed: $ | pictures: GB | packed: GB |
|---|---:|---:|---:|---:|---:|---:|---:|
{_storage(ten_million)}
{_storage(billion)}

A bucket begins with some {READS_PER_SECOND:,} reads and {WRITES_PER_SECOND:,} writes a second and divides its index by ranges of names as load rises, doubling
every twenty minutes or so. It divides well where names that are written at the same time differ early. Pictures are named after their
inputs (`cams/patient00017/study1_positive/image1.png.jpg`), and inputs come in the order of a hash, in {GROUPS:,} groups that are worked on
side by side: writes fall on all folders at once, as evenly as patients do. Parts of the journal and packs begin with the attempt and
then a hash. Up to {WRITES_PER_SECOND:,} writes a second nothing need be done, which is {WRITES_PER_SECOND * 3600 / 1e6:.1f} million pictures an hour. So:

- up to a million images: a picture each (`--cam_store=files`), for people to look at;
- beyond: `--cam_store=parquet`, and `humerus-overlay` for those that somebody asks for. At a billion the pictures' requests alone cost
  {billion * WRITE:,.0f} $, more than the computing in int8 ({_dollars(billion, "int8"):,.0f} $).

## Listing

One listing gives 1,000 names in some 0.2 s, one after the other: {LISTED_PER_SECOND:,.0f} names/s. Ten million take {ten_million / LISTED_PER_SECOND / 60:.0f} minutes, a billion
{billion / LISTED_PER_SECOND / 3600:.0f} hours, with one worker busy. Give a manifest instead (`--input=gs://bucket/list.txt`), from a storage inventory report.

## What breaks first

1. **Listing**, from ten million on, as above.
2. **The {GROUPS:,} groups.** Every URI passes through one of {GROUPS:,} groups, so that each is scored once; a group is worked on by one
   process, in order. So no more than {GROUPS:,} processes ever score, which at a billion is {_least_hours(billion):.1f} hours in int8 at least, and a group then
   holds {billion // GROUPS:,} sources, at some 500 bytes {billion // GROUPS * 500 / 1e9:.1f} GB in the memory of its process. At ten million it is {ten_million // GROUPS:,} sources and
   {ten_million // GROUPS * 500 / 1e6:.0f} MB. A worker that dies repeats its group from the beginning: {_group_minutes(ten_million):.0f} min of work at ten million,
   {_group_minutes(billion) / 60:.1f} hours at a billion, though pictures and parts of the journal are the same files again.
3. **Pictures as files** at more than {WRITES_PER_SECOND:,} a second, until the bucket has divided.
4. **Contents that come several times** are a side input of every worker: some 200 bytes for each content that is not alone. A tenth
   of a billion would be 20 GB and not fit.

So ten million images in an hour are {_workers(ten_million, "int8", 1):.0f} small workers and a manifest, and nothing breaks. A billion are best run as a hundred
manifests of ten million, one after the other or side by side, each with an output of its own: every limit above is then that of
ten million.
"""


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
