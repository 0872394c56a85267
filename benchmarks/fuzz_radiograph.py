"""Fuzz the decoder: any bytes must give a picture or a refusal, the same from a worker process.

    pip install atheris
    python -m benchmarks.fuzz_radiograph --seconds=600 --corpus=runs/fuzz

Each file is decoded twice: in this process, where the Python of the project, of Pillow and of
pydicom is instrumented and guides the search (within 1 GiB; the decoders in C are only run), and in
a worker process with its limits, as all commands decode.
What breaks it is left in the working folder of libFuzzer (`crash-*`, `oom-*`, `timeout-*`) and
belongs into tests/support/image_files.py.
"""

import argparse
import logging
import pathlib
import sys
import warnings

import atheris

with atheris.instrument_imports(include=["trainer", "pydicom", "PIL"]):
    from trainer import radiograph

from tests.support.image_files import image_files
from trainer.workers.imaging import Imaging
from trainer.workers.pool import Pool

_SIZE = 16
_LONGEST = 40_000


def one_input(contents: bytes, worker: Imaging) -> None:
    """Read the bytes as a file; return if both ways agree on the pixels, or on the refusal."""
    answer = worker.decode(contents, _SIZE)
    try:
        pixels = radiograph.load(contents, _SIZE)
    except radiograph.RadiographError as error:
        assert error.reason in radiograph.REASONS
        assert answer.refusal and answer.refusal[0] == error.reason, answer.refusal
        return
    assert pixels.shape == (_SIZE, _SIZE, 1)
    assert answer.square is not None and (answer.square == pixels).all(), answer.refusal


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument(
        "--corpus",
        type=pathlib.Path,
        default=pathlib.Path("runs/fuzz"),
        help="grows from call to call",
    )
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    for index, file in enumerate(image_files().values()):
        if len(file.data) <= _LONGEST:
            (options.corpus / f"seed{index:03d}").write_bytes(file.data)
    warnings.simplefilter("ignore")
    logging.disable()
    limits = [
        f"-max_total_time={options.seconds}",
        "-rss_limit_mb=1024",
        "-timeout=10",
        f"-max_len={_LONGEST}",
        "-print_final_stats=1",
    ]
    worker = Imaging(Pool(1))
    atheris.Setup(
        [sys.argv[0], *limits, str(options.corpus)], lambda contents: one_input(contents, worker)
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
