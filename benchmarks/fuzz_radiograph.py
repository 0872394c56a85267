"""Fuzz `radiograph.read`: any bytes must give a picture or its own exception, within 1 GiB.

    pip install atheris
    python -m benchmarks.fuzz_radiograph --seconds=600 --corpus=runs/fuzz

The Python of the project, of Pillow and of pydicom is instrumented; the decoders in C are only run.
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

_SIZE = 16
_LONGEST = 40_000


def one_input(contents: bytes) -> None:
    """Read the bytes as a file; return if they were decoded or refused as documented."""
    try:
        pixels = radiograph.load(contents, _SIZE)
    except radiograph.RadiographError as error:
        assert error.reason in radiograph.REASONS
        return
    assert pixels.shape == (_SIZE, _SIZE, 1)


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
    atheris.Setup([sys.argv[0], *limits, str(options.corpus)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
