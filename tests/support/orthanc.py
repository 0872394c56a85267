"""Run Orthanc, a real DICOM archive of Debian, on loopback with DICOMweb and a user."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

import dicomweb_client
import pydicom
import pytest
from dicomweb_client import session_utils

USER, PASSWORD = "humerus", "secret-of-orthanc"
_PLUGINS = ("/usr/share/orthanc/plugins", "/usr/local/share/orthanc/plugins")
_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Orthanc:
    """A running archive: `url` is that of its DICOMweb services, `log` its log."""

    url: str
    log: pathlib.Path

    def client(self) -> dicomweb_client.DICOMwebClient:
        session = session_utils.create_session_from_user_pass(USER, PASSWORD)
        return dicomweb_client.DICOMwebClient(self.url, session=session)

    def store(self, files: Sequence[bytes]) -> None:
        """Store files by STOW-RS; fail unless the archive takes all of them."""
        datasets = [pydicom.dcmread(pydicom.filebase.DicomBytesIO(file)) for file in files]
        answer = self.client().store_instances(datasets)
        assert len(answer.ReferencedSOPSequence) == len(files)
        assert not answer.get("FailedSOPSequence")


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[Orthanc]:
    """Start an empty archive in a folder and end it; skip the test where there is no Orthanc."""
    program = shutil.which("Orthanc")
    plugins = [path for path in _PLUGINS if pathlib.Path(path, "libOrthancDicomWeb.so").exists()]
    if not program or not plugins:
        pytest.skip("Debian's orthanc and orthanc-dicomweb are not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = {
        "Name": "tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [f"{plugins[0]}/libOrthancDicomWeb.so"],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, str(folder / "orthanc.json")], stdout=out, stderr=out, cwd=folder
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/system", log)
        yield Orthanc(f"http://127.0.0.1:{port}/dicom-web", log)
    finally:
        process.terminate()
        process.wait(_SECONDS)


def _wait(process: subprocess.Popen, url: str, log: pathlib.Path) -> None:
    """Wait until the server answers, if only that it wants a password."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=1)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"Orthanc does not answer: {log.read_text()[-2000:]}")
