"""The page to look through a scored folder: driven in a browser as a reader would, and what is written for it."""

import csv
import json
import pathlib

import pytest

from batch_inference import gallery, main, pipeline, redraw
from tests.batch_inference.conftest import json_rows
from tests.support import browser, scored_folder
from trainer.errors import DataError

ROWS = "document.querySelectorAll('.row').length"
NAME = "document.querySelector('#selected h2').textContent"
COUNT = "document.querySelector('#count').textContent"
MAP = "getComputedStyle(document.querySelector('#selected .over')).opacity"
PLAIN = "getComputedStyle(document.querySelector('#selected .plain')).display"
LOOKED = "document.querySelector('#selected .fades') !== null"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> browser.Page:
    with browser.chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> pathlib.Path:
    """5,000 images; the first 20 have no original where it was."""
    folder = scored_folder.write(tmp_path_factory.mktemp("large"), 5000, cautions=["The <i>check</i> of sign fails."])
    assert gallery.write(gallery.Options(str(folder))).images == 5000
    return folder


@pytest.fixture
def opened(page, large) -> browser.Page:
    page.errors.clear()
    page.requests.clear()
    page.open(large / "gallery.html")
    page.ask("localStorage.clear()")
    page.open(large / "gallery.html")
    page.wait(f"{ROWS} > 5 && !{COUNT}.includes('loading')")
    return page


def test_it_opens_with_the_highest_and_draws_only_what_is_seen(opened, large):
    assert opened.ask(COUNT) == "5000 images"
    assert opened.ask(NAME) == scored_folder.HOSTILE
    assert opened.ask(ROWS) < 40
    assert "<i>check</i>" in opened.ask("document.querySelector('.caution').textContent")
    opened.wait(LOOKED)
    assert all(request.startswith(("file://", "data:")) for request in opened.requests)
    assert not opened.errors


def test_what_file_names_hold_is_shown_and_never_done(opened):
    opened.press("s")
    assert opened.ask(NAME) == scored_folder.HOSTILE_STUDY
    opened.wait("document.querySelectorAll('#selected .fades').length === 2")
    assert opened.ask("document.title") == "scored - gallery"
    assert opened.ask("document.querySelector('main img[src=x], main b[onerror]')") is None
    assert not opened.errors


def test_keys_go_through_the_queue(opened):
    opened.press("j", "ArrowDown", "j")
    assert opened.ask(NAME) == "image4996.png"
    opened.press("k")
    assert opened.ask(NAME) == "image4997.png"
    opened.press("End")
    assert opened.ask(NAME) == "image0.png"
    assert opened.ask("document.querySelector('.row[aria-selected=true]').getAttribute('aria-posinset')") == "5000"
    box = "document.querySelector('.row[aria-selected=true]').getBoundingClientRect().bottom"
    assert opened.ask(f"{box} <= document.querySelector('#list').getBoundingClientRect().bottom + 1")
    opened.press("Home")
    assert opened.ask(NAME) == scored_folder.HOSTILE
    active = opened.ask("document.querySelector('#list').getAttribute('aria-activedescendant')")
    assert opened.ask(f"document.getElementById('{active}').getAttribute('aria-selected')") == "true"


def test_filters_and_orders(opened):
    opened.choose("#label", "negative")
    assert opened.ask(COUNT) == "2500 of 5000 images" and opened.ask(NAME) == "image2499.png"
    opened.choose("#order", "low")
    assert opened.ask("document.querySelector('.row .name').textContent") == "image0.png"
    opened.choose("#order", "near")
    opened.choose("#label", "")
    assert {opened.ask(f"document.querySelectorAll('.row .name')[{i}].textContent") for i in (0, 1)} == {
        "image2500.png",
        "image2499.png",
    }
    opened.type("#text", "image123.png")
    assert opened.ask(COUNT) == "1 of 5000 images" and opened.ask(NAME) == "image123.png"
    opened.type("#text", "w2")
    assert opened.ask(COUNT) == "1666 of 5000 images", "further columns of the manifest are searched too"
    opened.type("#text", "")
    opened.type("#study", "study61")
    assert opened.ask(COUNT) == "22 of 5000 images"
    opened.type("#study", "no such study")
    assert "Nothing is listed" in opened.ask("document.querySelector('#selected').textContent")
    assert not opened.errors


def test_letters_typed_into_a_field_are_no_commands(opened):
    opened.press("/")
    assert opened.ask("document.activeElement.id") == "text"
    opened.press("a", "j")
    assert opened.ask("document.querySelector('#text').value") == "aj"
    assert opened.ask("document.querySelector('#marked').textContent") == "0 marked"
    opened.press("Escape")
    assert opened.ask("document.activeElement.id") == "list"


def test_studies_and_rejections(opened):
    opened.ask("document.querySelector('[data-view=studies]').click()")
    assert opened.ask(COUNT) == "2500 studies"
    opened.type("#text", "image4001.png")
    assert opened.ask(NAME) == "study2000", "a study is found by its images"
    assert opened.ask("document.querySelectorAll('#selected figure').length") == 2
    opened.type("#text", "")
    opened.ask("document.querySelector('[data-view=rejected]').click()")
    assert opened.ask(COUNT) == "3 rejected files"
    opened.choose("#reason", "truncated")
    assert opened.ask(COUNT) == "2 of 3 rejected files"
    assert "<i>detail</i>" in opened.ask("document.querySelector('#selected').textContent")
    assert opened.ask("getComputedStyle(document.querySelector('#marks')).display") == "none"
    assert not opened.errors


def test_the_map_fades_over_the_original(opened):
    opened.wait(LOOKED)
    assert opened.ask(MAP) == "1"
    opened.choose("#opacity", "40")
    assert opened.ask(MAP) == "0.4"
    opened.press("[")
    assert opened.ask(MAP) == "0.3"
    opened.press("m")
    assert opened.ask(MAP) == "0" and opened.ask("document.querySelector('#map').ariaPressed") == "false"
    opened.press("]")
    assert opened.ask(MAP) == "0.4"
    assert opened.ask(PLAIN) == "none"
    opened.press("b")
    opened.wait(f"{PLAIN} === 'block'")


def test_marks_are_kept_filtered_and_exported(opened, tmp_path):
    opened.press("a", "d", "d", "k", "u")
    assert opened.ask("document.querySelector('#marked').textContent") == "2 marked"
    opened.choose("#mark", "disagree")
    assert opened.ask(COUNT) == "1 of 5000 images" and opened.ask(NAME) == "image4998.png"
    opened.choose("#mark", "none")
    assert opened.ask(COUNT) == "4998 of 5000 images"
    opened.ask("document.querySelector('[data-view=studies]').click()")
    opened.choose("#mark", "")
    opened.press("a")
    opened.open(pathlib.Path(opened.ask("decodeURIComponent(location.pathname)")))
    opened.wait("document.querySelector('#marked').textContent === '3 marked'")
    opened.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    opened.ask("document.querySelector('#export').click()")
    opened.wait("new Promise(done => setTimeout(() => done(true), 100))")
    file = tmp_path / "marks.csv"
    for _ in range(200):
        if file.exists() and file.stat().st_size:
            break
        opened.wait("new Promise(done => setTimeout(() => done(true), 50))")
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["kind"], pathlib.PurePath(row["uri"]).name, row["study"], row["mark"]) for row in rows] == [
        ("image", scored_folder.HOSTILE, scored_folder.HOSTILE_STUDY, "agree"),
        ("image", "image4998.png", scored_folder.HOSTILE_STUDY, "disagree"),
        ("study", "", scored_folder.HOSTILE_STUDY, "agree"),
    ]
    assert rows[0]["model"] == "0123456789abcdef" and float(rows[0]["probability"]) == 5000 / 5001 and rows[0]["marked_at"]
    assert not opened.errors


def test_a_narrow_window_holds_it_and_every_control_has_a_name(opened, large):
    opened.open(large / "gallery.html", 400, 800)
    opened.wait(f"{ROWS} > 2")
    assert opened.ask("document.documentElement.scrollWidth") <= 400
    tree = opened.call("Accessibility.getFullAXTree")["nodes"]
    controls = [
        node
        for node in tree
        if node.get("role", {}).get("value") in ("button", "searchbox", "combobox", "slider", "listbox", "option")
    ]
    assert len(controls) > 15
    assert all(node.get("name", {}).get("value") for node in controls)
    assert not opened.errors


@pytest.mark.parametrize("style", ["side_by_side", "overlay", "none"])
def test_where_originals_are_out_of_reach(page, tmp_path, style):
    """Pictures that hold both are cut in two; a map that is drawn in can't fade, and the page says so; the rest is text."""
    folder = scored_folder.write(tmp_path, 4, style=style, originals=0)
    gallery.write(gallery.Options(str(folder)))
    page.errors.clear()
    page.open(folder / "gallery.html")
    page.wait(f"{ROWS} === 4 && !{COUNT}.includes('loading')")
    if style == "side_by_side":
        page.wait(LOOKED)
        page.choose("#opacity", "50")
        assert page.ask(MAP) == "0.5"
        page.wait("document.querySelector('#selected .picture').style.aspectRatio === '60 / 90'")
        assert not page.errors
        return
    assert page.ask("document.querySelector('#opacity').disabled") is True
    said = {"overlay": "--cam=side_by_side keeps both", "none": "The picture is not where it was written"}[style]
    page.wait(f"document.querySelector('#viewer').innerText.includes({said!r})")


def test_every_run_writes_it_and_it_shows_what_the_rows_say(page, model, radiographs, tmp_path):
    broken = tmp_path / "in" / "broken.png"
    broken.parent.mkdir()
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    for path in radiographs.rglob("image*"):
        (broken.parent / path.name).write_bytes(path.read_bytes())
    output = tmp_path / "out"
    pipeline.run(pipeline.Options(str(broken.parent), str(model), str(output), format=("csv",)))
    page.errors.clear()
    page.open(output / "gallery.html")
    page.wait(f"{ROWS} >= 10 && !{COUNT}.includes('loading')")
    with next(output.glob("predictions.csv-*")).open(newline="") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: (-float(row["probability"]), row["uri"]))
    shown = page.ask("[...document.querySelectorAll('.row')].map(r => [r.style.top, r.querySelector('.name').textContent])")
    names = [name for _, name in sorted(shown, key=lambda pair: int(pair[0][:-2]))]
    assert names == [pathlib.PurePath(row["uri"]).name for row in rows][: len(names)]
    page.wait("[...document.querySelectorAll('.row img')].every(image => image.naturalWidth > 0)")
    page.ask("document.querySelector('[data-view=rejected]').click()")
    assert page.ask(COUNT) == "1 rejected files"
    assert not page.errors


def test_packed_maps_are_shown_once_they_are_drawn(model, radiographs, tmp_path):
    pipeline.run(pipeline.Options(str(radiographs), str(model), str(tmp_path), cam_store="parquet", format=("parquet",)))
    redraw.run(redraw.Options(str(tmp_path), str(tmp_path)))
    (script,) = (tmp_path / "gallery_rows").glob("images-*.js")
    rows = json.loads(script.read_text().partition(",")[2].rpartition(")")[0])
    assert len(rows) == 14 and all((tmp_path / row[4]).is_file() for row in rows)


def test_rows_come_in_several_files_and_a_part_can_be_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "ROWS_PER_FILE", 10)
    folder = scored_folder.write(tmp_path, 24)
    assert gallery.write(gallery.Options(str(folder))).rejected == 3
    assert len(list((folder / "gallery_rows").glob("images-*.js"))) == 3
    part = gallery.write(gallery.Options(str(folder), label="positive", min_probability=0.9, uri="*/image*"))
    assert (part.images, part.rejected) == (1, 0)
    assert len(list((folder / "gallery_rows").glob("images-*.js"))) == 1
    assert "a part of them" in (folder / "gallery.html").read_text()
    with pytest.raises(DataError, match="no row of what was asked for"):
        gallery.write(gallery.Options(str(folder), uri="nothing"))


def test_too_many_rows_are_refused_with_the_way_out_and_cost_no_run(model, radiographs, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MAX_ROWS", 13)
    done = pipeline.run(pipeline.Options(str(radiographs), str(model), str(tmp_path / "out")))
    assert done.content["scored"] == 14 and len(json_rows(tmp_path / "out", "predictions")) == 14
    assert not (tmp_path / "out" / "gallery.html").exists()
    with pytest.raises(DataError, match=r"more than the 13 rows .* humerus-gallery --scored=.* --label=positive"):
        gallery.write(gallery.Options(str(tmp_path / "out")))


def test_the_command(tmp_path, capsys):
    folder = scored_folder.write(tmp_path, 3)
    assert main.gallery(["humerus-gallery", f"--scored={folder}"]) == 0
    assert capsys.readouterr().out == f"3 images and 3 rejected files; open {folder}/gallery.html\n"
    assert main.gallery(["humerus-gallery", f"--scored={tmp_path}"]) == 3
    assert "is not the folder of a finished run: its run.json cannot be read" in capsys.readouterr().err


def test_originals_in_the_same_bucket_are_reached_and_others_not():
    assert gallery._originals("gs://bucket/runs/scored") == {"from": "gs://bucket/", "to": "../../"}
    assert gallery._originals("/data/scored") == {"from": "/", "to": "../../"}
