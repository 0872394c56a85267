"""A run that is killed at any moment and resumed ends like one that was never stopped."""

import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys

import cv2
import pytest

from batch_inference import pipeline
from batch_inference.outputs import cam_store, journal, overlay_pictures
from batch_inference.scoring import model_handler
from tests.batch_inference.conftest import VERIFIED, csv_rows, json_rows, picture
from tests.support import tiny_artifact
from tests.support.dicom_files import dicom_file
from trainer import artifact
from trainer.errors import ConfigError
from trainer.program import run_lock
from trainer.workers.imaging import Imaging

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGES = 25
ALIGNED = {
    "openvino/float32": {"within_tolerance": True, "alignment": {"slope": 1.5, "offset": 0.25}}
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Images in studies, two of the same content, and two files that are none."""
    root = tmp_path_factory.mktemp("folder")
    for index in range(IMAGES):
        (root / f"study{index // 3}").mkdir(exist_ok=True)
        cv2.imwrite(
            str(root / f"study{index // 3}" / f"{index:02d}.png"),
            picture(index if index != 7 else 3),
        )
    (root / "study1" / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_bytes(b"no image")
    return root


def score(source, model, output, **options) -> pipeline.summary.Summary:
    return pipeline.run(pipeline.Options(str(source), str(model), str(output), **options))


def everything(output: pathlib.Path) -> dict:
    """All that a run left, but for the order of rows, the time it took, and the journal."""
    summary = json.loads((output / "summary.json").read_text())
    others = sorted(
        str(path.relative_to(output)) for path in output.rglob("*") if path.parent.name != "journal"
    )
    return {
        **{name: json_rows(output, name) for name in ("predictions", "studies", "rejections")},
        **{
            f"{name}.csv": csv_rows(output, name)
            for name in ("predictions", "studies", "rejections")
        },
        "summary": {
            key: value
            for key, value in summary.items()
            if key not in ("seconds", "images_per_second")
        },
        "pictures": {
            str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*.png")
        },
        "names": others,
        "state": json.loads((output / "run.json").read_text())["state"],
    }


@pytest.fixture(scope="module")
def undisturbed(folder, model, tmp_path_factory) -> dict:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    score(folder, model, output, cam_format="png")
    left = everything(output)
    assert (
        len(left["predictions"]) == len(left["pictures"]) == IMAGES and len(left["rejections"]) == 2
    )
    assert left["state"] == "finished"
    return left


def drawn(output: pathlib.Path, folder: pathlib.Path) -> dict[str, bytes]:
    """Draw the packed maps; return what could be drawn."""
    overlay_pictures.run(
        overlay_pictures.OverlayOptions(str(output), str(folder), cam_format="png")
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def check_packs(output: pathlib.Path) -> None:
    """Each row's map is where the row says, and nothing else is there."""
    rows = json_rows(output, "predictions")
    assert {str(path.relative_to(output)) for path in output.rglob("*.parquet")} == {
        row["cam"] for row in rows
    }
    for row in rows:
        assert row["uri"] in {uri for uri, _, _ in cam_store.list_maps(str(output / row["cam"]))}


def run_until(
    moment: int, folder, model, output, *flags: str, below: str = ""
) -> subprocess.CompletedProcess:
    """Score until the moment-th event in the output, or in a folder of it."""
    arguments = [
        f"--input={folder}",
        f"--model={model}",
        f"--output={output}",
        "--cam_format=png",
        "--batch_size=4",
        *flags,
    ]
    command = [
        sys.executable,
        "-m",
        "tests.support.killed_run",
        str(moment),
        str(output / below),
        *arguments,
    ]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def killed_at(moment: int, folder, model, output, *flags: str) -> None:
    """Kill at that event, or at an earlier one where this run has fewer: parts differ by timing."""
    before = output.with_name("before")
    shutil.rmtree(before, ignore_errors=True)
    if output.exists():
        shutil.copytree(output, before)
    while (
        ended := run_until(moment, folder, model, output, *flags)
    ).returncode == 0 and moment > 5:
        moment -= 5
        shutil.rmtree(output)
        if before.exists():
            shutil.copytree(before, output)
    assert ended.returncode == -signal.SIGKILL, (moment, ended.stderr)


def test_after_a_kill_the_rest_is_scored_and_nothing_twice(
    folder, model, undisturbed, tmp_path, monkeypatch
):
    output = tmp_path / "out"
    # By then there are parts of three rows, whatever the number of cores.
    assert run_until(12, folder, model, output, below="journal").returncode == -signal.SIGKILL
    assert json.loads((output / "run.json").read_text())["state"] == "running"
    done = sum(len(journal.read_entries(part)) for part in journal.list_parts(str(output)))
    assert 0 < done < IMAGES
    with pytest.raises(ConfigError, match=r"not finished; add --resume .* or --overwrite"):
        score(folder, model, output, cam_format="png")
    inferred = []
    original = model_handler.ScoringHandler.run_inference

    def spy(self, batch, *rest):
        inferred.extend(batch)
        return original(self, batch, *rest)

    monkeypatch.setattr(model_handler.ScoringHandler, "run_inference", spy)
    score(folder, model, output, cam_format="png", resume=True)
    assert len(inferred) == IMAGES - done
    assert everything(output) == undisturbed


def test_after_a_kill_each_packed_map_is_there_once(folder, model, tmp_path):
    output, whole = tmp_path / "out", tmp_path / "whole"
    flags = ("--cam_store=parquet", "--format=jsonl")
    assert (
        run_until(12, folder, model, output, *flags, below="journal").returncode == -signal.SIGKILL
    )
    assert list(output.rglob("*.parquet"))
    options = {"cam_format": "png", "cam_store": "parquet", "format": ("jsonl",)}
    score(folder, model, output, **options, resume=True)
    score(folder, model, whole, **options)
    for left in (output, whole):
        check_packs(left)
    assert drawn(output, tmp_path / "drawn") == drawn(whole, tmp_path / "expected")
    for name in ("predictions", "studies", "rejections"):
        assert [row | {"cam": 0} for row in json_rows(output, name)] == [
            row | {"cam": 0} for row in json_rows(whole, name)
        ]


@pytest.mark.parametrize("store", ["files", "parquet"])
def test_resuming_mends_what_was_lost_and_clears_away_what_no_row_names(
    folder, model, tmp_path, monkeypatch, store
):
    monkeypatch.setattr(cam_store, "MAPS_PER_PACK", 4)
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(folder, source)
    options = {"cam_format": "png", "cam_store": store}
    score(source, model, output, **options)
    lost = {
        row["cam"]
        for row in json_rows(output, "predictions")
        if row["uri"].endswith("/study0/00.png")
    }
    (output / lost.pop()).unlink()
    (source / "study0" / "01.png").write_bytes(b"no image any more")
    (source / "study1" / "04.png").unlink()
    (output / "cams" / "note of mine.txt").write_text("kept")
    excluded = {"exclude": ("study2", "*.txt")}
    score(source, model, output, **options, **excluded, resume=True)
    score(source, model, tmp_path / "fresh", **options, **excluded)
    assert (output / "cams" / "note of mine.txt").exists()
    if store == "parquet":
        check_packs(output)
    else:
        assert everything(output)["pictures"] == everything(tmp_path / "fresh")["pictures"]
        assert json_rows(output, "predictions") == json_rows(tmp_path / "fresh", "predictions")
    assert len(json_rows(output, "predictions")) == IMAGES - 5


@pytest.mark.parametrize("workers_write", [True, False])
def test_a_changed_file_that_a_browser_shows_itself_keeps_no_copy(
    model, tmp_path, monkeypatch, workers_write
):
    if not workers_write:
        monkeypatch.setattr(Imaging, "DRAW", "tests.support.worker_tasks:draw_only")
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("changed", "kept"):
        cv2.imwrite(str(source / f"{name}.png"), picture(1).astype("uint16") * 257)
    score(source, model, output)
    copies = output / "originals"
    assert {path.name for path in copies.iterdir()} == {"changed.png.jpg", "kept.png.jpg"}
    cv2.imwrite(str(source / "changed.png"), picture(2))
    score(source, model, output, resume=True)
    assert {path.name for path in copies.iterdir()} == {"kept.png.jpg"}
    rows = (output / "gallery_rows" / "images-00000.js").read_text()
    assert rows.count("originals/") == 1 and '"originals/kept.png.jpg"]' in rows


@pytest.mark.parametrize("store", ["files", "parquet"])
def test_a_name_in_cams_that_is_not_unicode_is_left_alone(folder, model, tmp_path, store):
    output = tmp_path / "out"
    score(folder / "study0", model, output, cam_store=store)
    others = [output / "cams" / os.fsdecode(b"\xff" + end) for end in (b".jpg", b".parquet")]
    for path in others:
        path.write_bytes(b"mine")
    score(folder / "study0", model, output, cam_store=store, resume=True)
    assert all(path.read_bytes() == b"mine" for path in others)
    assert (output / "gallery.html").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_twenty_moments_and_once_more_while_it_goes_on(
    folder, model, undisturbed, tmp_path
):
    whole = run_until(0, folder, model, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    moments = int(whole.stdout.splitlines()[-1])
    assert moments > 100
    for moment in random.Random(5).sample(range(1, moments), 20):
        output = tmp_path / "out"
        shutil.rmtree(output, ignore_errors=True)
        killed_at(moment, folder, model, output)
        killed_at(moment // 2 + 1, folder, model, output, "--resume")
        last = run_until(0, folder, model, output, "--resume")
        assert last.returncode == 0, (moment, last.stderr)
        assert everything(output) == undisturbed, moment


def test_a_finished_folder_takes_in_what_is_new_or_changed(folder, model, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(folder, source)
    score(source, model, output, cam_format="png")
    with pytest.raises(ConfigError, match=r"results already; add --resume"):
        score(source, model, output, cam_format="png")
    cv2.imwrite(str(source / "study0" / "new.png"), picture(99))
    cv2.imwrite(str(source / "study0" / "00.png"), picture(98))
    (source / "study0" / "01.png").unlink()
    summary = score(
        source, model, output, cam_format="png", resume=True, batch_size=3, format=("jsonl",)
    )
    assert summary.content["scored"] == IMAGES and summary.kept == IMAGES - 2
    assert f"{IMAGES - 2} of them before and 2 now, 2 rejected" in str(summary)
    # Two images and two files that were tried again.
    assert summary.content["images_per_second"] == pytest.approx(
        4 / summary.content["seconds"], abs=0.01
    )
    score(source, model, tmp_path / "fresh", cam_format="png")
    for name in ("predictions", "studies", "rejections"):
        assert json_rows(output, name) == json_rows(tmp_path / "fresh", name)
    assert not list(output.glob("*.csv*")), (
        "files of formats that were not asked for this time would be out of date"
    )


def test_a_folder_that_becomes_too_large_for_a_study_or_small_enough(model, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    (source / "exam").mkdir(parents=True)
    cv2.imwrite(str(source / "exam" / "0.png"), picture(0))
    (source / "exam" / "film.dcm").write_bytes(dicom_file(picture(1), StudyInstanceUID="1.2.3"))
    score(source, model, output, cam="none")
    for number in range(2, 13):
        cv2.imwrite(str(source / "exam" / f"{number}.png"), picture(number))
    for kept, studies in ((2, 13), (2, 2)):
        summary = score(source, model, output, cam="none", resume=True)
        assert summary.kept == kept and len(json_rows(output, "studies")) == studies
        fresh = tmp_path / f"fresh{studies}"
        score(source, model, fresh, cam="none")
        for name in ("predictions", "studies"):
            assert json_rows(output, name) == json_rows(fresh, name)
        for number in range(2, 13):
            (source / "exam" / f"{number}.png").unlink(missing_ok=True)


def test_a_row_that_depends_on_the_manifest_is_not_taken_from_the_journal(folder, model, tmp_path):
    manifest, output = tmp_path / "list.csv", tmp_path / "out"
    manifest.write_text(
        f"path,study,ward\n{folder}/study0/00.png,a,1\n{folder}/study0/01.png,a,1\n"
    )
    score(manifest, model, output)
    manifest.write_text(
        f"path,study,ward\n{folder}/study0/00.png,b,1\n{folder}/study0/01.png,a,2\n"
    )
    score(manifest, model, output, resume=True)
    assert [(row["study"], row["ward"]) for row in json_rows(output, "predictions")] == [
        ("b", "1"),
        ("a", "2"),
    ]


@pytest.fixture(scope="module")
def scored(folder, model, tmp_path_factory) -> pathlib.Path:
    """Return the output of a finished run, which refused runs must not change."""
    output = tmp_path_factory.mktemp("scored") / "out"
    score(folder, model, output)
    return output


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {"model": "{other}"},
            r"made with model \w{16}, and this run has model \w{16}; --resume needs the same",
        ),
        (
            {"engine": "tensorflow"},
            "made with engine openvino/float32, and this run has engine tensorflow/float32",
        ),
        ({"cam": "none"}, "made with --cam=overlay, and this run has --cam=none"),
        ({"input": "{folder}/study0"}, "made with --input="),
        ({"threshold": 0.3}, "made with threshold 0.5, and this run has threshold 0.3"),
        ({"overwrite": True}, "choose one of them"),
    ],
    ids=str,
)
def test_results_of_another_model_or_other_options_are_refused(
    folder, model, scored, tmp_path, changed, sentence
):
    tiny_artifact.make(tmp_path / "other", seed=1, engines=VERIFIED)
    before = everything(scored)
    options = {"input": str(folder), "model": str(model), "output": str(scored)}
    paths = {"other": tmp_path / "other", "folder": folder}
    changed = {
        name: value.format(**paths) if isinstance(value, str) else value
        for name, value in changed.items()
    }
    with pytest.raises(ConfigError, match=sentence):
        pipeline.run(pipeline.Options(**options | {"resume": True} | changed))
    assert everything(scored) == before


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"engines": ALIGNED}, "made with engine openvino/float32, and this run has engine .*@"),
        ({"threshold": 0.4}, "made with threshold 0.5, and this run has threshold 0.4"),
        (
            {"uncertain_band": (0.4, 0.6)},
            r"uncertain_band None, and .* uncertain_band \[0.4, 0.6\]",
        ),
        ({"cam": {"scale": 0.25}}, "made with cam_scale 0.5, and this run has cam_scale 0.25"),
    ],
    ids=str,
)
def test_results_of_the_same_model_that_was_amended_are_refused(
    folder, model, scored, tmp_path, changed, sentence
):
    """The model's id does not cover how an engine is aligned, nor how its answers are called."""
    shutil.copytree(model, tmp_path / "model")
    described = artifact.load(model)
    if "cam" in changed:
        changed = {"cam": described.cam | changed["cam"]}
    amended = artifact.amend(tmp_path / "model", described, **changed)
    assert amended.model_id == described.model_id
    before = everything(scored)
    with pytest.raises(ConfigError, match=sentence):
        score(folder, tmp_path / "model", scored, resume=True)
    assert everything(scored) == before


def test_rows_of_an_aligned_engine_are_named_after_its_alignment(folder, model, scored, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    artifact.amend(tmp_path / "model", artifact.load(model), engines=ALIGNED)
    score(folder, tmp_path / "model", tmp_path / "out")
    before, after = (json_rows(place, "predictions") for place in (scored, tmp_path / "out"))
    (name,) = {row["engine"] for row in after}
    assert re.fullmatch(r"openvino/float32@[0-9a-f]{8}", name)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["engine"] == name
    for one, other in zip(before, after, strict=True):
        assert other["logit"] == pytest.approx(1.5 * one["logit"] + 0.25, abs=1e-5)


def test_results_without_the_record_of_their_run_are_refused(folder, model, scored, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(scored, output)
    (output / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"no run\.json that says what run made it"):
        score(folder, model, output, resume=True)


def test_resume_may_always_be_given(folder, model, undisturbed, tmp_path):
    first = score(folder, model, tmp_path / "out", cam_format="png", resume=True)
    assert everything(tmp_path / "out") == undisturbed
    assert first.kept == 0 and "before" not in str(first)
    again = score(folder, model, tmp_path / "out", cam_format="png", resume=True)
    assert everything(tmp_path / "out") == undisturbed
    assert f"{IMAGES} of them before and 0 now" in str(again)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}], ids=str)
def test_a_second_run_on_an_output_that_is_being_written_is_refused(
    folder, model, undisturbed, tmp_path, options
):
    output = tmp_path / "out"
    with (
        run_lock.hold(str(output), "humerus-score"),
        pytest.raises(ConfigError, match="is being written by process"),
    ):
        score(folder, model, output, **options)
    assert not list(output.iterdir())
    score(folder, model, output, cam_format="png")
    assert everything(output) == undisturbed


def test_a_damaged_part_costs_its_images_only(folder, model, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "ROWS_PER_PART", 5)
    score(folder, model, tmp_path / "out", cam_format="png")
    first, second, *_ = journal.list_parts(str(tmp_path / "out"))
    pathlib.Path(first).write_bytes(pathlib.Path(first).read_bytes()[:-20])
    pathlib.Path(second).write_bytes(b"")
    score(folder, model, tmp_path / "out", cam_format="png", resume=True)
    assert everything(tmp_path / "out") == undisturbed
