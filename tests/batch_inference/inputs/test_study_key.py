"""Which study an image belongs to, by every key, and the pseudonyms of studies."""

import hashlib
import hmac

import pytest

from batch_inference.inputs.study_key import StudyKey, make_study_key
from batch_inference.outputs.records import Source
from trainer.errors import ConfigError

UID = "1.2.826.0.1.3680043.8.498.77"
PSEUDONYM = hmac.new(b"humerus", UID.encode(), hashlib.sha256).hexdigest()[:16]
MURA = "train/XR_HUMERUS/patient00011/study1_positive"


def of(
    by: str,
    name: str,
    uri: str = "",
    study: str = "",
    carried=(),
    uid: str = "",
    is_grouped: bool = True,
) -> str:
    source = Source(uri or f"/in/{name}", name, study, carried, is_grouped)
    return StudyKey(by)(source, {"study_uid": uid} if uid else {})


@pytest.mark.parametrize(
    ("by", "given", "study"),
    [
        # auto: the manifest, else DICOM, else MURA, else the folder, else alone.
        ("auto", {"name": f"{MURA}/a.dcm", "study": "s1", "uid": UID}, "s1"),
        ("auto", {"name": f"{MURA}/a.dcm", "uid": UID}, PSEUDONYM),
        ("auto", {"name": f"{MURA}/image1.png"}, MURA),
        ("auto", {"name": f"{MURA}/series/image1.png"}, MURA),
        (
            "auto",
            {"name": "study1_positive/image1.png", "uri": f"/x/{MURA}/image1.png"},
            "patient00011/study1_positive",
        ),
        (
            "auto",
            {"name": "image1.png", "uri": f"/x/{MURA}/image1.png"},
            "patient00011/study1_positive",
        ),
        ("auto", {"name": "a/b/c.png"}, "a/b"),
        ("auto", {"name": "a/b/c.png", "is_grouped": False}, "a/b/c.png"),
        ("folder", {"name": "a/b/c.png", "is_grouped": False}, "a/b"),
        ("auto", {"name": "c.png"}, "c.png"),
        ("auto", {"name": "c.png", "uri": "/patient1/study_data/c.png"}, "c.png"),
        ("auto", {"name": "train/Patient2/STUDY1/c.png"}, "train/Patient2/STUDY1"),
        ("auto", {"name": "train/Positive/c.png"}, "train/Positive/c.png"),
        ("auto", {"name": "positive/exam/c.png"}, "positive/exam"),
        ("image", {"name": f"{MURA}/a.dcm", "uid": UID, "study": "s1"}, f"{MURA}/a.dcm"),
        ("auto", {"name": "gs://b/x/c.png", "uri": "gs://b/x/c.png"}, "gs://b/x"),
        ("folder", {"name": f"{MURA}/series/a.dcm", "uid": UID, "study": "s1"}, f"{MURA}/series"),
        ("folder", {"name": "c.png"}, "in"),
        ("path", {"name": f"{MURA}/a.dcm", "uid": UID, "study": "s1"}, MURA),
        ("path", {"name": "a/c.png"}, "a/c.png"),
        ("dicom", {"name": f"{MURA}/a.dcm", "uid": UID, "study": "s1"}, PSEUDONYM),
        ("dicom", {"name": f"{MURA}/image1.png"}, f"{MURA}/image1.png"),
        ("study", {"name": "a/c.png", "study": "s1", "uid": UID}, "s1"),
        ("study", {"name": "a/c.png"}, "a/c.png"),
        ("exam", {"name": "a/c.png", "carried": (("exam", "e7"),), "study": "s1"}, "e7"),
        ("exam", {"name": "a/c.png", "carried": (("exam", ""),), "study": "s1"}, "a/c.png"),
    ],
)
def test_the_study_by_each_key(by, given, study):
    assert of(by, **given) == study


@pytest.mark.parametrize(
    ("earlier", "given", "study"),
    [
        ("a/b", {}, "a/b"),
        ("a/b", {"is_grouped": False}, "a/b/c.png"),
        ("a/b/c.png", {}, "a/b"),
        ("a/b/c.png", {"is_grouped": False}, "a/b/c.png"),
        (PSEUDONYM, {"is_grouped": False}, PSEUDONYM),
        (PSEUDONYM, {"name": f"{PSEUDONYM}/c", "is_grouped": False, "address": "x"}, PSEUDONYM),
    ],
)
def test_a_kept_row_has_the_study_that_its_folder_makes_now(earlier, given, study):
    source = Source(**{"uri": "/in/a/b/c.png", "name": "a/b/c.png"} | given)
    assert StudyKey().rename(source, earlier) == study


def test_a_kept_row_has_the_study_that_its_column_names():
    source = Source("/in/c.png", "c.png", "p1/s1", (("exam", "e7"),))
    assert StudyKey("study").rename(source, "s1") == "p1/s1"
    assert StudyKey("exam").rename(source, "e7") == "e7"


def test_a_salt_gives_other_pseudonyms_the_same_every_time():
    assert (
        StudyKey(salt="pepper").pseudonym(UID)
        == hmac.new(b"pepper", UID.encode(), hashlib.sha256).hexdigest()[:16]
    )
    assert (
        len({StudyKey(salt=salt).pseudonym(UID) for salt in (None, "pepper", "Pepper", "ä")}) == 4
    )
    assert len({StudyKey().pseudonym(f"{UID}.{index}") for index in range(1000)}) == 1000


def test_the_salt_is_in_no_text_of_the_key():
    key = StudyKey(salt="pepper")
    assert "pepper" not in f"{key!r} {key} {key.fingerprint_salt()}"
    assert (
        key.fingerprint_salt()
        == StudyKey(salt="pepper").fingerprint_salt()
        != StudyKey(salt="salt").fingerprint_salt()
    )
    assert StudyKey().fingerprint_salt() is None


def test_a_key_that_nothing_has_is_refused(tmp_path):
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,exam,study\na.png,e1,s1\n")
    assert [
        make_study_key(by, None, str(manifest)).by for by in ("auto", "exam", "study", "dicom")
    ] == [
        "auto",
        "exam",
        "study",
        "dicom",
    ]
    with pytest.raises(
        ConfigError, match=r"--study_key=Exam: .* column of the manifest \(exam, study\)"
    ):
        make_study_key("Exam", None, str(manifest))
    with pytest.raises(ConfigError, match=r"--study_key=exam: .*there is none"):
        make_study_key("exam", None, str(tmp_path))
    with pytest.raises(ConfigError, match="--id_salt is empty"):
        make_study_key("auto", "", str(tmp_path))
