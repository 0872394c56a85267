"""A DICOM archive as input: a real Orthanc, and addresses, faults and secrets."""

import contextlib
import http.server
import json
import pathlib
import threading
import urllib.parse
from collections.abc import Iterator

import pytest
from google.cloud.storage.retry import DEFAULT_RETRY

from batch_inference import main
from batch_inference.inputs import sources
from batch_inference.inputs.study_key import StudyKey
from batch_inference.storage import dicomweb, dicomweb_address, filesystem, storage_errors
from tests.batch_inference.conftest import json_rows, picture
from tests.support import orthanc as orthanc_lib
from tests.support.dicom_files import dicom_file
from trainer.errors import ConfigError, DataError, StorageOutageError
from trainer.files.regular_file import TooLargeError

ROOT = "1.2.826.0.1.3680043.8.498.5550123"
STUDIES = {f"{ROOT}.1": ("CR", "CR", "SR"), f"{ROOT}.2": ("DX",)}
PATIENT = "Secret-9"


def instance_uid(study: str, number: int) -> str:
    return f"{study}.{number}.1"


def files() -> dict[str, bytes]:
    """Return the files of two studies by their instance UID; each is a series of its own."""
    found = {}
    for seed, (study, modalities) in enumerate(STUDIES.items()):
        for number, modality in enumerate(modalities):
            uid = instance_uid(study, number)
            found[uid] = dicom_file(
                picture(10 * seed + number),
                SOPClassUID="1.2.840.10008.5.1.4.1.1.1",
                SOPInstanceUID=uid,
                SeriesInstanceUID=f"{study}.{number}",
                StudyInstanceUID=study,
                Modality=modality,
                PatientID=PATIENT + study[-1],
            )
    return found


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Iterator[orthanc_lib.Orthanc]:
    with orthanc_lib.running(tmp_path_factory.mktemp("orthanc")) as running:
        running.store(list(files().values()))
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    """Give the right ones."""
    monkeypatch.setenv(dicomweb_address.USER, orthanc_lib.USER)
    monkeypatch.setenv(dicomweb_address.PASSWORD, orthanc_lib.PASSWORD)
    monkeypatch.delenv(dicomweb_address.TOKEN, raising=False)


FIRST, SECOND = STUDIES
PICTURES = {instance_uid(FIRST, 0), instance_uid(FIRST, 1)}


@pytest.mark.parametrize(
    ("path", "uids"),
    [
        (f"studies/{FIRST}", PICTURES),
        (f"studies/{FIRST}/", PICTURES),
        (f"studies/{FIRST}/series/{FIRST}.1", {instance_uid(FIRST, 1)}),
        (f"studies/{FIRST}/series/{FIRST}.1/instances/{FIRST}.1.1", {instance_uid(FIRST, 1)}),
        (f"studies?PatientID={PATIENT}1", PICTURES),
        ("studies", PICTURES | {instance_uid(SECOND, 0)}),
        ("series?Modality=DX", {instance_uid(SECOND, 0)}),
        (f"studies/{FIRST}/series?Modality=CR", PICTURES),
        (f"studies/{FIRST}/instances", {*PICTURES, instance_uid(FIRST, 2)}),
        (f"instances?SOPInstanceUID={SECOND}.0.1", {instance_uid(SECOND, 0)}),
        ("studies?PatientID=nobody", set()),
        (f"studies/{ROOT}.3", set()),
    ],
)
def test_which_instances_an_address_names(archive, monkeypatch, path, uids):
    monkeypatch.setattr(dicomweb, "PAGE_SIZE", 1)  # so that results come in several pages
    found = list(dicomweb.find(f"dicomweb+{archive.url}/{path}"))
    assert {each.uid for each in found} == uids and len(found) == len(uids)
    for each in found:
        assert filesystem.read(each.address) == files()[each.uid]


def test_names_are_pseudonyms_unless_a_flag_asks_for_uids(archive):
    location, key = f"dicomweb+{archive.url}/studies/{SECOND}", StudyKey(salt="salt")
    (named,) = sources.find(location, key=key)
    (public,) = sources.find(location)
    (by_uid,) = sources.find(location, key=None)
    uid = instance_uid(SECOND, 0)
    assert named.name == f"{key.pseudonym(SECOND)}/{key.pseudonym(uid)}" != public.name
    assert named.uri == f"dicomweb+{archive.url}/{named.name}" and ROOT not in repr(named)
    assert by_uid.name == f"{SECOND}/{SECOND}.0/{uid}" and by_uid.address is None
    assert named.address == public.address == by_uid.uri
    assert not list(sources.find(location, exclude=[key.pseudonym(SECOND)], key=key))


def test_a_study_is_scored_and_nothing_that_is_written_or_said_names_it(
    archive, model, tmp_path, capfd
):
    flags = [f"--model={model}", f"--output={tmp_path}/out"]
    location = f"--input=dicomweb+{archive.url}/studies?PatientID={PATIENT}1"
    assert main.score(["humerus-score", location, *flags]) == 0
    rows = json_rows(tmp_path / "out", "predictions")
    assert sorted(row["uri"].rpartition("/")[2] for row in rows) == sorted(
        map(StudyKey().pseudonym, PICTURES)
    )
    assert {row["study"] for row in rows} == {StudyKey().pseudonym(FIRST)}
    said = "".join(capfd.readouterr())
    secrets = (ROOT, PATIENT, orthanc_lib.PASSWORD)
    for path in (tmp_path / "out").rglob("*"):
        said += str(path) + (path.read_text(errors="replace") if path.is_file() else "")
    assert not [secret for secret in secrets if secret in said]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["options"]["input"] == f"dicomweb+{archive.url}/studies?PatientID=*"
    again = main.score(["humerus-score", location, *flags, "--resume", "--json=-"])
    assert again == 0 and json.loads(capfd.readouterr().out)["kept"] == 2


@pytest.mark.parametrize(
    ("variables", "code"),
    [({dicomweb_address.PASSWORD: "wrong"}, 401), ({dicomweb_address.TOKEN: "wrong"}, 401)],
)
def test_wrong_credentials_end_with_one_sentence(
    archive, model, tmp_path, monkeypatch, capsys, variables, code
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    flags = [f"--model={model}", f"--output={tmp_path}/out"]
    location = f"--input=dicomweb+{archive.url}/studies/{FIRST}"
    assert main.score(["humerus-score", location, *flags]) == 3
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"refuses the credentials ({code}); set {dicomweb_address.USER}" in last
    assert "wrong" not in last and ROOT not in last
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "uri",
    [
        "dicomweb+https://host/dicom-web",
        "dicomweb+https://host/dicom-web/patients/1",
        "dicomweb+https://host/studies/abc",
        "dicomweb+https://host/studies/1.2?PatientID=1",
        "dicomweb+https://host/series/1.2",
        "dicomweb+https://host/studies/1.2/instances/1.3",
        "dicomweb+https://user:word@host/studies/1.2",
        "dicomweb+https://host/studies?limit=3",
    ],
)
def test_malformed_addresses_are_refused_without_being_repeated(uri):
    with pytest.raises(ConfigError, match="DICOM archive") as caught:
        dicomweb_address.parse(uri)
    assert "1.2" not in str(caught.value) and "word" not in str(caught.value).replace(
        "PASSWORD", ""
    )


def test_an_address_is_described_without_identifiers():
    uri = "dicomweb+http://host/a/studies/1.2/series?PatientName=DOE&Modality=CR"
    assert dicomweb_address.describe(
        uri, str.upper
    ) == "dicomweb+http://host/a/studies/1.2/series?" + ("PatientName=*&Modality=*")
    assert "/studies/x/series/x" in dicomweb_address.describe(
        "dicomweb+http://host/studies/1.2/series/3.4", lambda uid: "x"
    )


def test_with_a_salt_queries_for_different_patients_are_different_inputs():
    key = StudyKey(salt="secret")
    one, other = (
        sources.describe(f"dicomweb+http://host/studies?PatientID={number}", key)
        for number in ("4711", "4712")
    )
    assert one != other and "471" not in one + other


class Archive(http.server.BaseHTTPRequestHandler):
    """Lists `server.total` instances of a study; `server.ignores` names what it does not heed."""

    def do_GET(self) -> None:
        asked = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        self.server.asked += 1
        limit = self.server.total if "limit" in self.server.ignores else int(asked["limit"][0])
        first = 0 if "offset" in self.server.ignores else int(asked["offset"][0])
        end = min(first + limit, first + self.server.cap, self.server.total)
        numbers = list(range(first, end))
        if self.server.asked % 2:
            numbers.reverse()  # an order that differs from answer to answer
        uids = {"0020000D": "1.2", "0020000E": "1.3"}
        found = [
            {
                tag: {"vr": "UI", "Value": [uid]}
                for tag, uid in {**uids, "00080018": f"1.4.{n}"}.items()
            }
            for n in numbers
        ]
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("total", "cap", "ignores", "outcome"),
    [
        (1001, 10_000, (), None),
        (1000, 10_000, (), None),
        (1001, 100, (), None),
        (501, 10_000, ("offset",), "the same 500 results at any offset"),
        (501, 10_000, ("offset", "limit"), None),
        (40, 10_000, ("offset",), "ignores the offset"),
        (0, 10_000, ("offset",), None),
    ],
)
def test_a_listing_is_whole_or_says_that_it_is_not(total, cap, ignores, outcome, caplog):
    with serving(Archive, total=total, cap=cap, ignores=ignores, asked=0) as server:
        found = dicomweb.find(f"dicomweb+http://127.0.0.1:{server.server_port}/instances")
        if total > 500 and outcome:
            with pytest.raises(DataError, match=outcome):
                list(found)
            return
        assert sorted(each.uid for each in found) == sorted(f"1.4.{n}" for n in range(total))
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == bool(outcome) and all(outcome in line for line in warned)


def test_a_run_on_a_cut_listing_ends_with_one_sentence(model, tmp_path, capsys):
    with serving(Archive, total=501, cap=501, ignores=("offset",), asked=0) as server:
        location = f"--input=dicomweb+http://127.0.0.1:{server.server_port}/instances"
        flags = [f"--model={model}", f"--output={tmp_path}/out"]
        assert main.score(["humerus-score", location, *flags]) == 3
    assert capsys.readouterr().err.strip().endswith("or a query that matches less")
    assert not (tmp_path / "out" / "summary.json").exists()


class Answers(http.server.BaseHTTPRequestHandler):
    """Gives the answers of its server one after the other: status, headers, body."""

    def do_GET(self) -> None:
        self.server.asked.append(self.headers)
        status, headers, body = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(handler: type, **attributes) -> Iterator[http.server.HTTPServer]:
    """Yield a server on this machine whose handler finds `attributes` on it."""
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        vars(server).update(attributes)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def answering(*answers) -> contextlib.AbstractContextManager[http.server.HTTPServer]:
    return serving(Answers, answers=list(answers), asked=[])


def address(server: http.server.HTTPServer) -> str:
    return f"dicomweb+http://127.0.0.1:{server.server_port}/studies/1.2/series/1.3/instances/1.4"


@pytest.fixture
def hasty(monkeypatch):
    """Repeat requests at once, and not for two minutes."""
    monkeypatch.setattr(
        dicomweb, "DEFAULT_RETRY", DEFAULT_RETRY.with_delay(0.01, 0.01).with_timeout(5)
    )


def test_outages_are_retried_as_those_of_a_bucket(hasty):
    multipart = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\nDICM\r\n--c\r\nfile\r\n--b--"
    cut = (200, {**multipart, "Content-Length": str(len(body))}, body[:-9])
    plain = (200, {"Content-Type": "application/dicom"}, b"bare")
    with answering((503, {}, b""), (429, {}, b""), cut, (200, multipart, body), plain) as server:
        assert filesystem.read(address(server)) == b"DICM\r\n--c\r\nfile"
        assert filesystem.read(address(server)) == b"bare"
        assert len(server.asked) == 5
        assert all("transfer-syntax=*" in headers["Accept"] for headers in server.asked)


def test_an_archive_that_does_not_answer_is_an_outage(monkeypatch):
    monkeypatch.setattr(dicomweb, "DEFAULT_RETRY", DEFAULT_RETRY.with_timeout(0.01))
    with answering() as server:
        gone = address(server)
    with (
        pytest.raises(StorageOutageError, match="cannot be listed"),
        storage_errors.explain_failure(ConfigError, "it cannot be listed", "check it"),
    ):
        list(sources.find(gone))


def test_a_file_over_the_limit_is_not_fetched_to_its_end():
    endless = (200, {"Content-Type": "application/dicom"}, bytes(1 << 20))
    with answering(endless) as server, pytest.raises(TooLargeError, match="at most 1000 bytes"):
        dicomweb.read(address(server), 1000)


@pytest.mark.parametrize("status", [400, 404, 500])
def test_an_instance_that_is_refused_has_a_reason_without_its_address(monkeypatch, status):
    monkeypatch.setattr(dicomweb, "DEFAULT_RETRY", DEFAULT_RETRY.with_timeout(0.01))
    with (
        answering(*[(status, {}, b"")] * 3) as server,
        pytest.raises(storage_errors.StorageError, match=f"answers {status}") as caught,
    ):
        filesystem.read(address(server))
    assert "1.4" not in str(caught.value)


def test_the_token_goes_before_a_password_and_only_to_its_host(monkeypatch):
    monkeypatch.setenv(dicomweb_address.TOKEN, "abc")
    plain = (200, {"Content-Type": "application/dicom"}, b"bare")
    with answering(plain) as other, answering() as server:
        moved = f"http://localhost:{other.server_port}/elsewhere"
        server.answers.append((302, {"Location": moved}, b""))
        assert filesystem.read(address(server)) == b"bare"
        assert server.asked[0]["Authorization"] == "Bearer abc"
        assert other.asked[0]["Authorization"] is None


def test_a_manifest_may_list_instances(tmp_path, archive):
    uid = instance_uid(SECOND, 0)
    path = f"dicomweb+{archive.url}/studies/{SECOND}/series/{SECOND}.0/instances/{uid}"
    manifest = pathlib.Path(tmp_path, "list.txt")
    manifest.write_text(path)
    (found,) = sources.find(str(manifest))
    assert filesystem.read(found.uri) == files()[uid]
    assert found.uri == path
