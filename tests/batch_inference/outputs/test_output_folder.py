"""The folder for the results: what a run deletes there is its own, and what it scores is not."""

import json
import os
import pathlib

import cv2
import pytest

from batch_inference import pipeline, preflight
from batch_inference.inputs import sources
from batch_inference.outputs import journal, output_folder, run_record
from tests.batch_inference.conftest import json_rows, picture
from trainer.errors import ConfigError

OURS = [
    "predictions.jsonl-00000-of-00001", "studies.csv-00002-of-00011",
    "rejections-00000-of-00001.parquet", "predictions.jsonl", "studies.parquet", "summary.json",
    "gallery.html", "gallery_rows/images-00000.js", "beam-temp-predictions.csv-1234/x",
]  # fmt: skip
KEPT = ["cams/a.png.jpg", f"journal/0001-{32 * 'a'}.jsonl.gz"]
OTHERS = [
    "studies.csv.txt", "studies.xlsx", "studies-2019/a.png", "predictions.ipynb",
    "predictions-mine.parquet", "rejections.md", "cams_backup/a.jpg", "journal.md", "journal2/x",
    "summary.json.bak", "gallery.html.old", "run.json.bak", "notes.txt",
    "predictions.jsonl-00000-of-00001.bak", ".mine.partial", "old predictions.jsonl-00000-of-00001",
]  # fmt: skip


def write(folder: pathlib.Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def files(folder: pathlib.Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def record() -> run_record.RunRecord:
    return run_record.RunRecord("model", "engine", {"cam": "overlay"}, 0.5, None, 1.0)


@pytest.fixture
def scored(tmp_path, record) -> pathlib.Path:
    """Make a folder with all that a run leaves, and other files with similar names."""
    folder = tmp_path / "out"
    write(
        folder,
        *OURS,
        *KEPT,
        *OTHERS,
        f".{'0123456789abcdef' * 2}.partial",
        f"cams/.{'a' * 32}.partial",
    )
    record.write(str(folder), finished=True)
    return folder


def test_overwriting_deletes_what_a_run_made_and_nothing_else(scored, record):
    output_folder.claim(str(scored), record, resume=False, overwrite=True)
    assert files(scored) == {*OTHERS, "run.json"}


def test_resuming_keeps_pictures_and_journal_too(scored, record):
    output_folder.claim(str(scored), record, resume=True, overwrite=False)
    assert files(scored) == {*OTHERS, *KEPT, "run.json"}


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_pages_of_a_part_are_deleted_and_pages_of_others_are_not(scored, record, how):
    page = '<head><meta name="humerus-rows" content="3"></head>'
    theirs = {"notes_rows/images-00000.js", "mine.html", "mine_rows/images-00000.js"}
    write(scored, *theirs, "part_rows/images-00000.js", "part_rows/rejected-00001.js")
    write(scored, "both_rows/studies-00000.js", "both_rows/mine.js", "both_rows/images-1.js")
    for name in ("part.html", "both.html"):
        (scored / name).write_text(page)
    (scored / "folder.html").mkdir()
    output_folder.claim(str(scored), record, **{"resume": False, "overwrite": False} | {how: True})
    kept = {*KEPT} if how == "resume" else set()
    assert files(scored) == {
        *OTHERS,
        *theirs,
        *kept,
        "run.json",
        "both_rows/mine.js",
        "both_rows/images-1.js",
    }
    assert not (scored / "part_rows").exists() and (scored / "folder.html").is_dir()


def test_a_page_whose_deletion_was_killed_is_deleted_by_the_next_run(scored, record, monkeypatch):
    (scored / "part.html").write_text('<meta name="humerus-rows" content="3">')
    write(scored, "part_rows/images-00000.js")
    original = output_folder.filesystem.delete

    def delete(uri: str) -> None:
        original(uri)
        if "part" in uri:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(output_folder.filesystem, "delete", delete)
        output_folder.claim(str(scored), record, resume=True, overwrite=False)
    output_folder.claim(str(scored), record, resume=True, overwrite=False)
    assert files(scored) == {*OTHERS, *KEPT, "run.json"}


def test_what_a_kill_left_before_run_json_was_in_place_is_deleted(tmp_path, record):
    write(tmp_path, f".{'0123456789abcdef' * 2}.partial", "notes.txt")
    output_folder.claim(str(tmp_path), record, resume=True, overwrite=False)
    assert files(tmp_path) == {"notes.txt", "run.json"}


def test_names_that_are_almost_ours_are_no_results(tmp_path, record):
    write(tmp_path, *OTHERS)
    output_folder.claim(str(tmp_path), record, resume=False, overwrite=False)
    assert files(tmp_path) == {*OTHERS, "run.json"}


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}], ids=str)
@pytest.mark.parametrize(
    "run_json", [None, "", "[]", '{"options": {}}', '{"model": 1, "engine": 2, "options": 3}']
)
def test_without_the_record_of_a_run_nothing_is_deleted(scored, record, how, run_json):
    if run_json is None:
        (scored / "run.json").unlink()
    else:
        (scored / "run.json").write_text(run_json)
    before = files(scored)
    with pytest.raises(ConfigError, match=r"no run\.json that says what run made it"):
        output_folder.claim(str(scored), record, **{"resume": False, "overwrite": False} | how)
    assert files(scored) == before


def test_overwriting_that_was_killed_can_be_begun_again_and_has_nothing_to_go_on_from(
    scored, record, monkeypatch
):
    """Killed ahead of each deletion in turn."""
    for survived in range(20):
        deleted = []

        def delete(
            uri, original=output_folder.filesystem.delete, deleted=deleted, survived=survived
        ):
            if len(deleted) == survived:
                raise KeyboardInterrupt
            deleted.append(uri)
            original(uri)

        with monkeypatch.context() as patch:
            patch.setattr(output_folder.filesystem, "delete", delete)
            try:
                output_folder.claim(str(scored), record, resume=False, overwrite=True)
                break
            except KeyboardInterrupt:
                assert json.loads((scored / "run.json").read_text())["model"] == "model"
                assert not deleted or not (scored / "journal").exists()
    assert survived >= 5 and files(scored) == {*OTHERS, "run.json"}


@pytest.fixture
def tree(tmp_path) -> pathlib.Path:
    """Images and a manifest in the very folder that is to take the results, as people keep them."""
    root = tmp_path / "t1"
    (root / "studies-2019").mkdir(parents=True)
    for index in range(2):
        cv2.imwrite(str(root / "studies-2019" / f"{index}.png"), picture(index))
    (root / "list.csv").write_text("path\nstudies-2019/0.png\nstudies-2019/1.png\n")
    return root


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_a_manifest_and_its_images_may_lie_in_the_output(tree, model, how):
    before = files(tree)
    for more in ({}, {how: True}):
        pipeline.run(pipeline.Options(str(tree / "list.csv"), str(model), str(tree), **more))
        assert [row["uri"] for row in json_rows(tree, "predictions")] == [
            f"{tree}/studies-2019/{i}.png" for i in (0, 1)
        ]
        assert before < files(tree)


def plan(location, model, output, **options) -> preflight.Plan:
    return preflight.plan(pipeline.Options(str(location), str(model), str(output), **options))


@pytest.mark.parametrize("manifest", ["../list.txt", "cams/list.txt", "gallery_rows/list.csv"])
def test_a_result_is_no_input(tree, model, manifest):
    write(tree, "cams/a.png.jpg", "predictions.csv-00000-of-00001")
    (tree / manifest).parent.mkdir(exist_ok=True)
    (tree / manifest).write_text(f"path\n{tree}/cams/../cams/a.png.jpg\n")
    with pytest.raises(ConfigError, match=r"a result in --output=|lies inside --output="):
        plan(tree / manifest, model, tree, overwrite=True)


@pytest.mark.parametrize(
    "location", ["cams/*.jpg", "cams", "cams/a.png.jpg", "predictions.csv-00000-of-00001"]
)
def test_a_place_in_the_output_is_no_input(tree, model, location):
    write(tree, "cams/a.png.jpg", "predictions.csv-00000-of-00001")
    with pytest.raises(ConfigError, match="lies inside"):
        plan(tree / location, model, tree, overwrite=True)


@pytest.mark.parametrize(
    ("pattern", "output", "refused"),
    [
        ("t2/*", "t2/out", True),
        ("t2/*", "t2/a/b/out", True),
        ("t2/*/*", "t2/a/out", True),
        ("t2/**/*.png", "t2/a/out", True),
        ("*/out", "t2/out", True),
        ("t2/*.OUT", "t2/x.out", True),
        ("t2/[ab]*", "t2/c/out", False),
        ("t2/*.png", "t2/out", False),
        ("t2/*/*.png", "t2/out", False),
        ("t2/*", "t3/out", False),
        ("t2/*", "t2", False),
    ],
)
@pytest.mark.parametrize("scheme", ["", "gs://bucket"])
def test_a_pattern_that_takes_in_the_output_is_refused(tmp_path, pattern, output, refused, scheme):
    root = scheme or str(tmp_path)
    if refused:
        with pytest.raises(ConfigError, match=r"--output=.* lies inside the input"):
            preflight.check_apart(f"{root}/{output}", f"{root}/{pattern}")
    else:
        preflight.check_apart(f"{root}/{output}", f"{root}/{pattern}")


@pytest.mark.parametrize("output", ["in/out", "in", "out", "in/arm.png.out"])
@pytest.mark.parametrize("name", ["arm.png", "arm", "arm[1].png", "files.txt"])
def test_a_file_takes_in_no_output(tmp_path, output, name):
    write(tmp_path / "in", name, "other.png")
    location, place = str(tmp_path / "in" / name), str(tmp_path / output)
    (tmp_path / "in" / "files.txt").write_text("arm.png\n")
    preflight.check_apart(place, location)
    assert preflight.count_inputs(location, (), True, place) == 1


def test_results_that_a_pattern_or_a_link_leads_to_are_passed_over(tmp_path):
    output, source = tmp_path / "elsewhere" / "out", tmp_path / "in"
    write(output, *OURS, *KEPT, "mine.png")
    write(source, "a.png")
    (source / "link").symlink_to(tmp_path / "elsewhere")
    os.link(output / "mine.png", output / "cams" / "same content.png")

    def found(location) -> set[str]:
        return {source.name for source in sources.find(str(location), output=str(output))}

    assert found(source) == {"a.png", "link/out/mine.png"}
    assert found(source / "*") == {"a.png", "link/out/mine.png"}
    assert found(tmp_path / "elsewhere" / "*" / "*") == {"out/mine.png"}


def test_a_record_of_the_run_that_cannot_be_read_is_not_called_absent(tmp_path):
    write(tmp_path, *OURS[:1])
    (tmp_path / "run.json").mkdir()
    with pytest.raises(ConfigError, match=r"its run\.json cannot be read \(.*\); check access"):
        output_folder.check(str(tmp_path), None, resume=True, overwrite=False)


def test_other_files_in_the_journal_are_left_alone(tmp_path):
    ours = [f"journal/000{number}-{32 * 'a'}.jsonl.gz" for number in (1, 2)]
    others = ["journal/README", "journal/dir/0001-a", f"journal/1-{32 * 'a'}.jsonl.gz"]
    write(tmp_path, *ours, *others)
    assert journal.list_parts(str(tmp_path)) == [f"{tmp_path}/{name}" for name in ours]
    journal.keep_only(str(tmp_path), "0002")
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {ours[1], *others}
