"""dcmtk as an independent reference."""

import shutil
import subprocess

import cv2
import numpy as np
import pytest

_PROGRAMS = ("dcm2pnm", "dcmj2pnm", "dcml2pnm")
"""For uncompressed and run-length, JPEG, and JPEG-LS files."""


@pytest.fixture(scope="session")
def by_dcmtk(tmp_path_factory):
    """Return a function that renders a DICOM file with dcmtk to grey, uint8 [h, w], or to None."""
    programs = [found for name in _PROGRAMS if (found := shutil.which(name))]
    if not programs:
        pytest.skip("dcm2pnm of Debian's dcmtk is not installed")
    folder = tmp_path_factory.mktemp("dcmtk")

    def render(data: bytes, *flags: str) -> np.ndarray | None:
        source, target = folder / "in.dcm", folder / "out.pnm"
        source.write_bytes(data)
        for program in programs:
            target.unlink(missing_ok=True)
            command = [program, *flags, str(source), str(target)]
            subprocess.run(command, capture_output=True, timeout=60)
            if target.exists() and target.stat().st_size:
                return cv2.imread(str(target), cv2.IMREAD_GRAYSCALE)
        return None

    return render
