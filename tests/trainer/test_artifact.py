"""The exported directory says what it is; one that is damaged, foreign or too new is refused."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainer import artifact
from trainer.artifact import ArtifactError
from trainer.errors import ConfigError
from trainer.model_json.scaling import Scaling

FIELDS = {
    "weights_digest": "0" * 64,
    "image_size": 64,
    "preprocessing": {"version": 1},
    "threshold": 0.4,
    "temperature": 1.5,
    "uncertain_band": (0.35, 0.45),
    "cam": {"layer": "features", "height": 2, "width": 2, "scale": 0.5},
    "architecture": {"backbone": "densenet121"},
    "dataset": {"name": "radiographs", "fingerprint": "f"},
    "metrics": {"test": {}},
    "versions": {"tensorflow": "2.21.0"},
    "created": "2026-01-01T00:00:00+00:00",
}


def files(root: pathlib.Path, weights: bytes = b"weights") -> pathlib.Path:
    (root / "variables").mkdir(parents=True)
    (root / "saved_model.pb").write_bytes(b"graph")
    (root / "variables" / "variables.data-00000-of-00001").write_bytes(weights)
    (root / "model.keras").write_bytes(b"keras")
    (root / "MODEL_CARD.md").write_text("# card\n")
    return root


@pytest.fixture
def sealed(tmp_path) -> pathlib.Path:
    artifact.seal(files(tmp_path / "artifact"), **FIELDS)
    return tmp_path / "artifact"


def edited(root: pathlib.Path, **changes) -> pathlib.Path:
    path = root / artifact.MODEL_JSON
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return root


def test_what_is_loaded_is_what_was_sealed(tmp_path):
    made = artifact.seal(files(tmp_path / "a"), **FIELDS)
    loaded = artifact.load(tmp_path / "a")
    assert dataclasses.asdict(loaded) == dataclasses.asdict(made)
    assert (
        loaded.uncertain_band == (0.35, 0.45) and loaded.format_version == artifact.FORMAT_VERSION
    )
    assert sorted(loaded.files) == [
        "MODEL_CARD.md",
        "model.keras",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
    ]
    # SHA-256 of b"graph", from coreutils.
    assert (
        loaded.files["saved_model.pb"]
        == "eef93e1d14482804277fca0172464032d1a4fdbcc338524059fa1e861454ad4d"
    )


def test_it_may_be_moved(sealed, tmp_path):
    shutil.move(sealed, tmp_path / "elsewhere")
    assert artifact.load(tmp_path / "elsewhere").image_size == 64


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"threshold": 0.9, "metrics": {}, "created": "2027-01-01T00:00:00+00:00"}, True),
        ({"architecture": FIELDS["architecture"] | {"recipe": "humerus", "seed": 7}}, True),
        ({"cam": FIELDS["cam"] | {"scale": 0.7}}, True),
        ({"weights_digest": "1" * 64}, False),
        ({"temperature": 1.6}, False),
        ({"intercept": 0.0}, True),
        ({"intercept": -0.5}, False),
        ({"image_size": 96}, False),
        ({"preprocessing": {"version": 2}}, False),
        ({"cam": FIELDS["cam"] | {"layer": "other"}}, False),
        ({"architecture": FIELDS["architecture"] | {"mirrored": True}}, False),
        ({"architecture": FIELDS["architecture"] | {"flips": "both"}}, False),
        ({"architecture": FIELDS["architecture"] | {"flip_gains": {"both": 0.01}}}, True),
    ],
)
def test_the_id_of_a_model_depends_on_what_it_computes(tmp_path, changes, is_same):
    first = artifact.seal(files(tmp_path / "a"), **FIELDS)
    # The files of a SavedModel differ between two exports of the same weights.
    again = artifact.seal(files(tmp_path / "b", weights=b"Weights"), **(FIELDS | changes))
    assert (first.model_id == again.model_id) is is_same
    assert first.saved_model_id != again.saved_model_id
    assert artifact.load(tmp_path / "b").model_id == again.model_id


@pytest.mark.parametrize(
    "name",
    ["saved_model.pb", "variables/variables.data-00000-of-00001", "model.keras"],
)
def test_an_altered_or_missing_file_is_named(sealed, name):
    content = (sealed / name).read_bytes()
    (sealed / name).write_bytes(content[:-1] + b"!")
    with pytest.raises(ArtifactError, match=f"{name} is not the file that was exported"):
        artifact.load(sealed)
    (sealed / name).unlink()
    sentence = f"lacks its file {name}; copy the whole artifact again"
    with pytest.raises(ArtifactError, match=sentence):
        artifact.load(sealed)


@pytest.mark.parametrize("name", [artifact.MODEL_CARD, artifact.HUB_CARD])
def test_a_model_card_may_be_edited_or_deleted(tmp_path, name):
    root = files(tmp_path / "artifact")
    (root / name).write_text("# card\n")
    described = artifact.seal(root, **FIELDS)
    (root / name).write_text("# card with a licence\n")
    assert artifact.load(root) == described
    (root / name).unlink()
    assert artifact.load(root) == described


def test_a_newer_format_is_refused_and_a_field_from_the_future_is_not(sealed):
    assert artifact.load(edited(sealed, invented_later=1)).threshold == 0.4
    with pytest.raises(
        ArtifactError, match="artifact format 3, this program reads up to 2; upgrade humerus"
    ):
        artifact.load(edited(sealed, format_version=3))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '{"model_id": "x"}', '{"format_version": "one"}']
)
def test_what_is_not_ours_is_refused(sealed, text):
    (sealed / artifact.MODEL_JSON).write_text(text)
    with pytest.raises(ArtifactError, match="damaged or was not written by this program"):
        artifact.load(sealed)


def test_bytes_that_are_no_text_are_refused(sealed):
    (sealed / artifact.MODEL_JSON).write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(ArtifactError):
        artifact.load(sealed)


@pytest.mark.parametrize("field", ["threshold", "uncertain_band", "cam"])
def test_a_lacking_field_is_named(sealed, field):
    whole = json.loads((sealed / artifact.MODEL_JSON).read_text())
    assert artifact.parse(json.dumps(whole)).threshold == 0.4
    del whole[field]
    with pytest.raises(ArtifactError, match=f"`{field}` is missing"):
        artifact.parse(json.dumps(whole), source="gs://bucket/run")


@pytest.mark.parametrize(
    "name", ["../secret", "variables/../../secret", "{outside}/secret"], ids=repr
)
def test_no_file_outside_is_ever_read(sealed, name):
    (sealed.parent / "secret").write_text("secret")
    digest = (
        "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # SHA-256 of b"secret"
    )
    listed = json.loads((sealed / artifact.MODEL_JSON).read_text())["files"]
    changed = edited(sealed, files=listed | {name.format(outside=sealed.parent): digest})
    with pytest.raises(ArtifactError, match=r"lacks its file|`model_id` is not that"):
        artifact.load(changed)


def test_no_folder_and_no_model_in_it(tmp_path):
    with pytest.raises(
        ConfigError, match=r"is not an exported model.*name the `artifact` folder of a run"
    ):
        artifact.load(tmp_path)
    with pytest.raises(ArtifactError, match="holds no SavedModel"):
        artifact.seal(tmp_path, **FIELDS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [artifact.MODEL_JSON, "saved_model.pb"])
def test_files_that_may_not_be_read_are_named(sealed, monkeypatch, name):
    """Files that may not be read are a double: root may read everything."""

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    if name == artifact.MODEL_JSON:
        monkeypatch.setattr(artifact.regular_file, "read", refuse)
    else:
        monkeypatch.setattr(artifact, "_sha256", refuse)
    with pytest.raises(ConfigError, match=r"cannot be read \(Permission denied\)"):
        artifact.load(sealed)


def test_a_pipe_in_place_of_the_description_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / artifact.MODEL_JSON)
    with pytest.raises(ConfigError, match="is not an exported model"):
        artifact.load(tmp_path)


@pytest.mark.parametrize(
    "band, probability, label",
    [
        (None, 0.4, "positive"),
        (None, 0.3999, "negative"),
        ((0.35, 0.45), 0.35, "uncertain"),
        ((0.35, 0.45), 0.4, "uncertain"),
        ((0.35, 0.45), 0.45, "positive"),
        ((0.35, 0.45), 0.3499, "negative"),
    ],
)
def test_a_label_by_threshold_and_band(sealed, band, probability, label):
    assert artifact.load(edited(sealed, uncertain_band=band)).label(probability) == label


def test_an_artifact_without_a_calibration_of_studies_takes_that_of_images(sealed):
    older = artifact.load(sealed)
    assert older.scaling == older.study_scaling == Scaling(1.5, 0.0)
    line = {"temperature": 0.8, "intercept": 0.1}
    newer = artifact.load(edited(sealed, study_calibration=line))
    assert newer.study_scaling == Scaling(0.8, 0.1) and newer.scaling == older.scaling


WEIGHTS = {"saved_model.pb": "0" * 64}
FULL = FIELDS | {
    "format_version": 1,
    "weights_digest": None,
    # Format 1 names the model by the files of its SavedModel.
    "model_id": hashlib.sha256(f"saved_model.pb:{'0' * 64}\n".encode()).hexdigest()[:16],
    "files": WEIGHTS,
    "cam": FIELDS["cam"] | {"methods": {"score_cam": {"height": 2, "width": 2, "scale": 0.5}}},
    "architecture": {
        "backbone": "densenet121",
        "pooling": "avg",
        "head_widths": [8],
        "dropout": 0.2,
        "members": 2,
        "temperatures": [1.0, 2.0],
        "flips": "horizontal",
        "flip_gains": {"horizontal": 0.009, "both": -0.001},
        "mirrored": True,
        "networks": [
            {"backbone": "densenet121", "pooling": "avg", "head_widths": [8], "dropout": 0.2}
        ],
        "parts": [{"model_id": "0" * 16, "weight": 0.5}],
    },
    "dataset": {"fingerprint": "f", "simulated": False, "body_parts": ["XR_HUMERUS"]},
    "reference": {"probability": {"edges": [0.0, 0.5, 1.0], "shares": [0.5, 0.5], "images": 9}},
    "engines": {
        "openvino/int8": {
            "within_tolerance": True,
            "images_per_second": 9.0,
            "device": "CPU",
            "error": "",
            "verdict": "not inferior",
            "probability_mean": 0.01,
            "probability_largest": 0.1,
            "labels_changed": 0.01,
            "labels_changed_high": 0.03,
            "logit_difference": 0.1,
            "cam_correlation": 0.99,
            "alignment": {"slope": 1.1, "offset": -0.1},
            "auroc": {"difference": 0.0, "low": -0.01, "high": 0.01},
            "accuracy": {"difference": 0.0, "low": None, "high": None},
            "ece": {"difference": 0.0, "low": -0.01, "high": 0.01},
        }
    },
    "map_checks": {"flip": {"passed": None, "said": "2 images are too few"}},
    "intercept": -0.5,
    "study_calibration": {"temperature": 0.8, "intercept": 0.1},
    "calibration": {
        "image": {
            "method": "platt",
            "cases": 200,
            "methods": {"platt": {"log_loss": 0.3, "brier": 0.1, "ece": 0.03}},
        }
    },
}
"""A `model.json` with a value for each field of the schema."""
OTHER_TYPES = {
    "string": 1.5,
    "integer": "1",
    "number": "1",
    "boolean": "yes",
    "array": {},
    "object": [],
    "null": 3.5,
}


def walk(schema: dict, content: dict, path: tuple[str, ...] = ()):
    """Yield the path, the schema, and whether it is required, of each field of `content`."""
    definitions = artifact.schema()["$defs"]
    for name, field in schema["properties"].items():
        assert name in content, f"FULL lacks {path} {name}"
        yield (*path, name), field, name in schema.get("required", ())
        inner, at = field, (*path, name)
        held = content[name]
        if isinstance(field.get("additionalProperties"), dict):
            inner, key = field["additionalProperties"], next(iter(held), "")
            held, at = held.get(key), (*at, key)
        if "$ref" in inner:
            yield from walk(definitions[inner["$ref"].rpartition("/")[2]], held, at)


def damages(field: dict):
    """Yield values that a field must not have, by name of what is wrong."""
    options = [option.get("type", "object") for option in field.get("anyOf", [field])]
    yield "another type", OTHER_TYPES[options[0]]
    if "null" not in options:
        yield "null", None
    if options[0] in ("integer", "number"):
        yield "text", "a"
        yield "a boolean", True
        yield "not a number", float("nan")
        yield "infinity", float("inf")
        yield "huge below", -(10**30)
        for limit, step in (("minimum", -1), ("exclusiveMinimum", 0), ("maximum", 1)):
            if limit in field:
                yield f"beyond its {limit}", field[limit] + step
    if options[0] == "string" and ("pattern" in field or field.get("minLength")):
        yield "empty", ""
    if "pattern" in field.get("anyOf", [field])[0]:
        yield "text of another form", "../../../etc"


CASES = [
    pytest.param(path, value, id=f"{'.'.join(path)} is {wrong}")
    for path, field, _ in walk(artifact.schema(), FULL)
    for wrong, value in damages(field)
] + [
    pytest.param(("uncertain_band",), [0.1], id="uncertain_band has one value"),
    pytest.param(("uncertain_band",), [0.6, 0.5], id="uncertain_band is upside down"),
    pytest.param(("uncertain_band",), [0.5, 1.5], id="uncertain_band ends beyond 1"),
    pytest.param(("created",), "yesterday", id="created is no time"),
    pytest.param(("files",), {"saved_model.pb": "0"}, id="files has a short checksum"),
    pytest.param(("architecture", "temperatures"), [0], id="a member's temperature is 0"),
    pytest.param(("reference", "probability", "shares"), [0.5], id="a histogram lacks a share"),
    pytest.param(("reference", "probability", "shares"), [0.5, 7], id="a share is above 1"),
]


def replaced(path: tuple[str, ...], change) -> dict:
    """Return a copy of `FULL` with `change(owner, key)` applied to the field at `path`."""
    content = json.loads(json.dumps(FULL))
    owner = content
    for key in path[:-1]:
        owner = owner[key]
    change(owner, path[-1])
    return content


def test_the_full_example_is_an_artifact():
    assert artifact.parse(json.dumps(FULL)).cam["methods"]["score_cam"]["scale"] == 0.5
    assert len(CASES) > 200


@pytest.mark.parametrize(("path", "value"), CASES)
def test_a_field_of_another_type_or_range_is_named(path, value):
    content = replaced(path, lambda owner, key: owner.__setitem__(key, value))
    with pytest.raises(ArtifactError) as caught:
        artifact.parse(json.dumps(content))
    message = str(caught.value)
    assert f"`{path[0]}" in message and message.endswith("; export the model again")
    assert message.isprintable()


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=".".join(path))
        for path, _, required in walk(artifact.schema(), FULL)
        if required or path == ("format_version",)
    ],
)
def test_a_field_that_is_removed_is_named(path):
    content = replaced(path, lambda owner, key: owner.pop(key))
    with pytest.raises(ArtifactError, match=rf"`{re.escape('.'.join(path))}` is missing"):
        artifact.parse(json.dumps(content))


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=".".join(path)) for path, _, _ in walk(artifact.schema(), FULL)],
)
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_a_field_that_is_nested_deep_is_refused(path, brackets):
    content = json.dumps(replaced(path, lambda owner, key: owner.__setitem__(key, "NESTED")))
    opening = '{"a":' if brackets == "{}" else "["
    nested = opening * 10_000 + "1" + brackets[1] * 10_000
    with pytest.raises(ArtifactError, match="recursion limit exceeded"):
        artifact.parse(content.replace('"NESTED"', nested))


@pytest.mark.parametrize(
    ("files", "model_id"),
    [({}, FULL["model_id"]), ({"MODEL_CARD.md": "0" * 64}, FULL["model_id"]), (WEIGHTS, "0" * 16)],
)
def test_an_id_that_is_not_that_of_the_other_fields_is_refused(files, model_id):
    with pytest.raises(ArtifactError, match="`model_id` is not that of the other fields"):
        artifact.parse(json.dumps(FULL | {"files": files, "model_id": model_id}))


def test_names_from_outside_are_printed_harmlessly():
    checks = {"\x1b[2J\nflip" * 50: {"passed": "\x1b[2J", "said": ""}}
    with pytest.raises(ArtifactError) as caught:
        artifact.parse(json.dumps(FULL | {"map_checks": checks}))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@example(changes={"format_version": float("inf")}, whole=None)
@given(
    changes=st.dictionaries(
        st.sampled_from([*FIELDS, "model_id", "files", "format_version"]), _JSON
    ),
    whole=_JSON,
)
def test_whatever_stands_in_model_json_is_an_artifact_or_a_refusal(changes, whole):
    for fields in (FULL | changes, whole):
        try:
            described = artifact.parse(json.dumps(fields))
        except ArtifactError:
            continue
        assert described.label(0.5) in ("positive", "negative", "uncertain")
        assert re.fullmatch("[0-9a-f]{16}", described.model_id)


def test_what_is_amended_stays_the_same_model(sealed):
    before = artifact.load(sealed)
    (sealed / "openvino").mkdir()
    (sealed / artifact.INT8_NETWORK).write_text("network")
    engines = {"openvino/int8": {"within_tolerance": True}}
    amended = artifact.amend(sealed, before, engines=engines)
    assert artifact.load(sealed) == amended
    assert amended.engines == engines and amended.model_id == before.model_id
    assert set(amended.files) - set(before.files) == {artifact.INT8_NETWORK}


def test_other_weights_cannot_be_amended(sealed):
    before = artifact.load(sealed)
    (sealed / "saved_model.pb").write_bytes(b"others")
    with pytest.raises(ArtifactError, match="weights have changed"):
        artifact.amend(sealed, before, engines={})


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_stop_while_files_are_replaced_leaves_an_artifact(sealed, tmp_path, monkeypatch, moved):
    network, weights = artifact.INT8_NETWORK, artifact.INT8_NETWORK.replace("xml", "bin")

    def make(content: str) -> pathlib.Path:
        made = tmp_path / content
        (made / network).parent.mkdir(parents=True)
        for name in (network, weights):
            (made / name).write_text(content)
        return made

    before = artifact.replace_files(sealed, artifact.load(sealed), make("old"))
    assert {network, weights} < set(before.files)
    replace, moves = pathlib.Path.replace, []

    def stop(path: pathlib.Path, target: pathlib.Path) -> None:
        moves.append(target)
        if len(moves) > moved:
            raise KeyboardInterrupt
        replace(path, target)

    monkeypatch.setattr(pathlib.Path, "replace", stop)
    with contextlib.suppress(KeyboardInterrupt):
        artifact.replace_files(sealed, before, make("new"))
    monkeypatch.undo()
    left = artifact.load(sealed)
    assert left.model_id == before.model_id
    assert ({network, weights} < set(left.files)) == (moved == 2)
    again = artifact.replace_files(sealed, left, make("newer"))
    assert artifact.load(sealed) == again and (sealed / weights).read_text() == "newer"


def test_hidden_and_unfinished_files_are_none_of_an_artifact(sealed):
    before = artifact.load(sealed)
    (sealed / ".DS_Store").write_text("a file manager's")
    (sealed / ".tmp" / "openvino").mkdir(parents=True)
    (sealed / ".tmp" / artifact.INT8_NETWORK).write_text("unfinished")
    assert artifact.amend(sealed, before).files == before.files
