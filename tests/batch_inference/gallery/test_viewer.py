"""The tools of the gallery, used with real events of mouse and keyboard."""

import json
import pathlib

import cv2
import numpy as np
import pydicom.data
import pytest
from PIL import Image
from scipy.stats import binomtest

from batch_inference import pipeline
from batch_inference.gallery import page as gallery_page
from tests.support import browser, scored_folder
from trainer.drawing import legend, overlay
from trainer.errors import ConfigError

COUNT = "document.querySelector('#count').textContent"
NAME = "document.querySelector('#selected h2').textContent"
FADES = "document.querySelector('#selected .fades') !== null"
ZOOM = """[...document.querySelectorAll('#selected .layers')].map(layers => {
    const m = new DOMMatrix(getComputedStyle(layers).transform), b = layers.parentElement;
    return [m.a, m.e / b.clientWidth, m.f / b.clientHeight].map(v => Math.round(v * 1000) / 1000);
})"""
VALUES = "document.querySelector('#window-values').textContent"


def label_of(image: int) -> dict[str, str]:
    """Return the truth of an image: every third is positive, every tenth unknown.

    Every fourth has spaces around it, as in a manifest written by hand.
    """
    truth = "" if image % 10 == 9 else str(int(image % 3 == 0))
    return {"truth": f" {truth} " if truth and image % 4 == 0 else truth, "mask": "mask.png"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """200 images with labels, and a mask that all of them share."""
    root = tmp_path_factory.mktemp("viewed")
    scored = scored_folder.write(root, 200, further=label_of, input=str(root / "in" / "list.csv"))
    mask = np.zeros((90, 60), np.uint8)
    mask[20:40, 20:40] = 255
    cv2.imwrite(str(root / "in" / "mask.png"), mask)
    gallery_page.write(gallery_page.GalleryOptions(str(scored)))
    return scored


def read(page: browser.Page, folder: pathlib.Path, address: str = "", **window: int) -> None:
    page.open(folder / "gallery.html", part=address, **window)
    page.wait(f"{COUNT}.length > 3 && !{COUNT}.includes('loading')")


@pytest.fixture
def opened(page, folder) -> browser.Page:
    read(page, folder)
    page.ask("localStorage.clear()")
    read(page, folder)
    page.press("j")
    page.wait(FADES)
    return page


def row_of_colours(page: browser.Page, selector: str, y: float, tmp_path) -> np.ndarray:
    """Return the colours, int [width, 3] in RGB, across an element at a share of its height."""
    page.screenshot(tmp_path / "seen.png")
    left, top, width, height = page.ask(
        f"(b => [b.x, b.y, b.width, b.height])"
        f"(document.querySelector({selector!r}).getBoundingClientRect())"
    )
    seen = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB")).astype(int)
    return seen[int(top + y * height), int(left) + 1 : int(left + width) - 1]


def colour_at(page: browser.Page, selector: str, x: float, y: float, tmp_path) -> np.ndarray:
    """Return the colour at a place of an element, as shares of its width and height."""
    row = row_of_colours(page, selector, y, tmp_path)
    return row[int(x * len(row))]


def test_map_and_original_zoom_and_pan_in_step(opened):
    opened.press("b")
    opened.wheel("#selected .picture", -400)
    opened.wait(f"{ZOOM}[0][0] > 1.5")
    one, other = opened.ask(ZOOM)
    assert one == pytest.approx(other, abs=0.002) and one[1] < 0 and one[2] < 0
    opened.drag("#selected .plain", 60, 40)
    moved, other = opened.ask(ZOOM)
    assert moved == pytest.approx(other, abs=0.002)
    assert moved[0] == one[0] and moved[1] > one[1] and moved[2] > one[2], "the other way too"
    opened.drag("#selected .plain", 2000, 2000)
    assert opened.ask(ZOOM)[0][1:] == [0, 0], "the picture fills its pane"
    opened.press("-", "r")
    opened.wait(f"{ZOOM}[0][0] === 1")
    opened.press("+")
    opened.wait(f"{ZOOM}[0][0] > 1.4")
    opened.press("j")
    assert opened.ask(ZOOM)[0] == [1, 0, 0], "the next case opens whole"
    assert not opened.errors


def test_window_level_invert_and_reset(opened, tmp_path):
    """The bar of the picture is at grey 200 and its ground at 30 or more; the map is off."""
    opened.press("m")
    ground = colour_at(opened, "#selected .picture", 0.9, 0.5, tmp_path)
    opened.drag("#selected .picture", -128, 40, shift=True)
    assert opened.ask(VALUES) == "level 148, width 128"
    darker = colour_at(opened, "#selected .picture", 0.9, 0.5, tmp_path)
    assert ground.max() > 25 and darker.max() == 0, "it lies below the window"
    assert colour_at(opened, "#selected .picture", 0.42, 0.5, tmp_path).min() > 220
    opened.press("i")
    assert colour_at(opened, "#selected .picture", 0.9, 0.5, tmp_path).min() == 255
    opened.press("r")
    assert opened.ask(VALUES) == "level 128, width 256"
    assert abs(colour_at(opened, "#selected .picture", 0.9, 0.5, tmp_path) - ground).max() <= 1
    assert opened.ask("document.querySelector('#invert').ariaPressed") == "false"
    opened.click("#windows")
    opened.drag("#selected .picture", 0, -100)
    assert opened.ask(VALUES) == "level 78, width 256", "with the tool, without a key too"
    assert opened.ask(ZOOM)[0] == [1, 0, 0]


def test_outline_of_a_mask_leaves_its_inside_free(opened, tmp_path):
    opened.press("m")
    opened.wait("document.querySelector('#selected .mask') !== null")
    tints = [np.ptp(c) for c in row_of_colours(opened, "#selected .picture", 0.33, tmp_path)]
    edges = [i / len(tints) for i, tint in enumerate(tints) if tint > 100]
    assert min(edges) == pytest.approx(20 / 60, abs=0.02)
    assert max(edges) == pytest.approx(40 / 60, abs=0.02)
    assert len(edges) < 0.06 * len(tints), "an outline, no fill"
    opened.press("o")
    left = [np.ptp(c) for c in row_of_colours(opened, "#selected .picture", 0.33, tmp_path)]
    assert max(left) < 8


BOXES = """[...document.querySelectorAll('#selected .picture:not(.plain) img')].map(
    ({offsetWidth, offsetHeight}) => [offsetWidth, offsetHeight])"""


def legend_folder(root: pathlib.Path, style: str = "overlay", width: int = 240) -> pathlib.Path:
    """Three images of 320 rows whose pictures have the strip with the legend below them; the
    original of the last has another shape, and that of the second is lost."""
    scored = scored_folder.write(root, 3, style, cam_legend=True)
    described = legend.Legend(1.0, legend.UNIT, "Grad-CAM", "0" * 16, 4, 4, 64, style)
    cam = np.zeros((4, 4), np.float32)
    cam[1, 2] = 1.0
    grey = np.full((320, width), 40, np.uint8)
    grey[:, width // 3 : width // 2] = 200
    drawn = legend.add(overlay.draw(grey, cam, 64, 1.0, style), described)
    for number in range(3):
        (scored / "cams" / f"{number}.jpg").write_bytes(overlay.encode(drawn, "jpeg"))
    cv2.imwrite(str(root / "in" / "image0.png"), grey)
    (root / "in" / "image1.png").unlink()
    cv2.imwrite(str(root / "in" / scored_folder.HOSTILE), np.ascontiguousarray(grey.T))
    gallery_page.write(gallery_page.GalleryOptions(str(scored)))
    return scored


@pytest.mark.parametrize("width", [240, 200, 160])
def test_a_strip_with_the_legend_is_cut_off_where_the_original_stands_below(page, tmp_path, width):
    """A picture that is narrower than 200 has a margin beside it too."""
    read(page, legend_folder(tmp_path, width=width))
    page.press("End")
    page.wait(FADES)
    page.press("b")
    shape = "(b => b.clientWidth / b.clientHeight)(document.querySelector('#selected .picture'))"
    assert page.ask(shape) == pytest.approx(width / 320, rel=0.01), "that of the radiograph"
    (wide, high), (over_wide, over_high) = page.ask(BOXES)
    assert over_high > 1.2 * high, "the strip lies below the pane"
    assert over_wide == pytest.approx(wide * max(200, width) / width, rel=0.01)
    thumb = "document.querySelector('.thumb img')"
    assert page.ask(f"{thumb}.clientHeight / {thumb}.parentElement.clientHeight") > 1.2
    for keys in ("", "+++"):
        page.press(*keys)
        both = [
            row_of_colours(page, f"#selected .picture{kind}", 0.9, tmp_path).mean(axis=1)
            for kind in (":not(.plain)", ".plain")
        ]
        assert np.abs(both[0] - both[1]).mean() < 8, "the bar lies on that of the original"
        assert np.ptp(both[1]) > 140
    page.drag("#selected .plain", -20, -2000)
    bottom = row_of_colours(page, "#selected .picture", 0.99, tmp_path)
    assert np.abs(bottom - row_of_colours(page, "#selected .plain", 0.99, tmp_path)).mean() < 8
    assert page.ask(ZOOM)[0] == page.ask(ZOOM)[1]
    for name in ("image1.png", scored_folder.HOSTILE_SHOWN):  # no original fits
        page.press("k")
        page.wait(f"{NAME} === {json.dumps(name)} && {shape} < 0.6")
        page.wait("!document.querySelector('#note').hidden")
        assert not page.ask(FADES)
    assert not [error for error in page.errors if "ERR_FILE_NOT_FOUND" not in error]


def test_both_halves_with_a_legend_are_shown_as_they_were_drawn(page, tmp_path):
    read(page, legend_folder(tmp_path, "side_by_side"))
    page.wait(f"{BOXES}.length === 1 && {BOXES}[0][1] > 9")
    wide, high = page.ask(BOXES)[0]
    assert wide / high == pytest.approx(480 / (320 + 112), rel=0.1), "whole, with the strip"
    assert page.ask("document.querySelector('#note').hidden") and not page.errors


def confuse(threshold: float) -> dict[str, int]:
    counts = dict.fromkeys(("tp", "fp", "fn", "tn"), 0)
    for i in range(200):
        if (truth := label_of(i)["truth"]) == "":
            continue
        called = (i + 1) / 201 >= threshold
        counts[("tn", "fp", "fn", "tp")[2 * int(truth) + called]] += 1
    return counts


def test_the_threshold_moves_confusion_rates_and_filters(opened):
    def cells() -> dict[str, int]:
        return {
            name: int(opened.ask(f"document.querySelector('#{name} b').textContent"))
            for name in ("tp", "fp", "fn", "tn")
        }

    assert cells() == confuse(0.5)
    x, y = opened.find("#threshold")
    width = opened.ask("document.querySelector('#threshold').clientWidth")
    opened.mouse("mousePressed", x + width / 4, y, button="left", buttons=1, clickCount=1)
    opened.mouse("mouseReleased", x + width / 4, y, button="left", clickCount=1)
    opened.wait("document.querySelector('#threshold').value > 0.7")
    threshold = float(opened.ask("document.querySelector('#threshold').value"))
    opened.wait(f"document.querySelector('#threshold-value').textContent === '{threshold:.3f}'")
    counts = cells()
    assert counts == confuse(threshold)
    for name, of, hits in (
        ("Sensitivity", counts["tp"] + counts["fn"], counts["tp"]),
        ("specificity", counts["tn"] + counts["fp"], counts["tn"]),
    ):
        low, high = binomtest(hits, of).proportion_ci(method="wilson")
        said = f"{name} {hits / of:.3f} ({low:.3f} to {high:.3f})"
        assert said in opened.ask("document.querySelector('#rates').textContent")
    assert "20 have none" in opened.ask("document.querySelector('#counted').textContent")
    opened.click("#fn")
    assert opened.ask(COUNT) == f"{counts['fn']} of 200 images"
    assert "false negative" in opened.ask("document.querySelector('#selected .facts').innerText")
    opened.click("#reset-threshold")
    opened.wait(f"{COUNT} === '{confuse(0.5)['fn']} of 200 images'")


def test_a_part_shows_no_rates_and_no_truth_of_studies_of_which_it_omits_images(page, tmp_path):
    """Of six images the lower three are negative: the second study has one of them."""
    folder = scored_folder.write(tmp_path, 6, further=label_of)
    rates, counted = (
        f"document.querySelector('#{name}').textContent" for name in ("rates", "counted")
    )
    studies = "document.querySelector('[data-view=studies]').click()"
    gallery_page.write(gallery_page.GalleryOptions(str(folder)))
    read(page, folder)
    assert "Sensitivity 0.500" in page.ask(rates)
    page.choose("#label", "negative")
    assert page.ask(rates).startswith("No rates are shown: the list is filtered by label")
    page.ask(studies)
    page.choose("#label", "")
    assert "Sensitivity 0.500" in page.ask(rates) and "Of 3 studies" in page.ask(counted)
    gallery_page.write(gallery_page.GalleryOptions(str(folder), label="negative", overwrite=True))
    read(page, folder)
    assert page.ask(rates).startswith("No rates are shown: this page was selected by label")
    page.ask(studies)
    assert page.ask(counted) == (
        "Of 1 studies with a label; 1 have none, or images that this page omits."
    )
    gallery_page.write(gallery_page.GalleryOptions(str(folder), uri="*[0-2].png", overwrite=True))
    read(page, folder)
    assert "Sensitivity" in page.ask(rates)


def test_a_link_opens_the_same_case(opened, folder):
    opened.choose("#order", "low")
    opened.click("#fp")
    opened.choose("#threshold", "0.25")
    opened.press("j", "j")
    opened.wait("location.hash.includes('case=')")
    opened.ask("new Promise(done => setTimeout(done, 300))")
    name, count = opened.ask(NAME), opened.ask(COUNT)
    address = opened.ask("location.hash")
    read(opened, folder)
    assert opened.ask(NAME) != name
    read(opened, folder, address)
    assert (opened.ask(NAME), opened.ask(COUNT)) == (name, count)
    assert opened.ask("document.querySelector('#threshold-value').textContent") == "0.250"
    read(opened, folder, "#view=nothing&outcome=never&threshold=x&case=absent")
    assert opened.ask(COUNT) == "200 images" and not opened.errors


def test_a_hostile_name_is_a_case_too(page, folder):
    read(page, folder)
    page.ask("new Promise(done => setTimeout(done, 300))")
    address = page.ask("location.hash")
    read(page, folder, address)
    assert page.ask(NAME) == scored_folder.HOSTILE_SHOWN and not page.errors


def test_the_path_is_a_link_and_can_be_copied(opened, folder):
    link = "document.querySelector('#selected .origin a')"
    path = opened.ask(f"{link}.textContent")
    assert opened.ask(f"{link}.href") == pathlib.Path(path).as_uri()
    opened.ask(
        "addEventListener('copy', () => { window.copied = String(getSelection()) || "
        "document.activeElement.value; })"
    )
    opened.click("#selected .origin span:last-child button")
    assert opened.ask("window.copied") == path
    assert opened.ask("document.querySelector('.origin span:last-child button').textContent") == (
        "Copied"
    )


def test_tags_and_notes_are_kept_found_and_exported(opened, folder, tmp_path):
    opened.press("n")
    assert opened.ask("document.activeElement.id") == "note-text"
    opened.call("Input.insertText", text='plate, see "AP"')
    opened.type("#tags", "hardware")
    opened.ask("document.activeElement.blur()")
    opened.press("a", "k")
    assert opened.ask("document.querySelector('#tags').value") == "hardware"
    read(opened, folder)
    opened.type("#text", "hardware")
    opened.wait(f"{COUNT} === '1 of 200 images'")
    assert opened.ask("document.querySelector('#note-text').value") == 'plate, see "AP"'
    opened.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    opened.click("#export-json")
    file = tmp_path / "marks.json"
    for _ in range(100):
        opened.ask("new Promise(done => setTimeout(done, 30))")
        if file.exists() and file.stat().st_size:
            break
    (entry,) = json.loads(file.read_text())
    assert (entry["mark"], entry["tags"], entry["note"]) == (
        "agree",
        "hardware",
        'plate, see "AP"',
    )
    assert entry["uri"].endswith("/image198.png") and entry["model"] == scored_folder.MODEL


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", browser.SIZES)
def test_it_has_no_barriers_in_any_window_and_scheme(page, folder, scheme, size):
    page.emulate(scheme)
    width, height = browser.SIZES[size]
    read(page, folder, width=width, height=height)
    page.press("w", "j")
    page.wait(FADES)
    seen = page.ask("document.querySelector('#selected .picture').clientHeight")
    assert seen >= height / 2, "the window is for the picture"
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert not page.list_barriers()
    dark = page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(16, 19, 22)"
    assert dark == (scheme == "dark")
    if size == "phone":
        small = page.ask(
            """[...document.querySelectorAll('button, select, input, summary')]
            .filter(e => e.checkVisibility() && Math.min(e.offsetHeight, e.offsetWidth) < 44)
            .map(e => e.id || e.textContent)"""
        )
        assert not small
    page.press("s", "?")
    page.wait("document.querySelectorAll('#selected figure').length === 2")
    assert not page.list_barriers() and not page.errors


COMPUTED = ("RG1_UNCI.dcm", "RG1_J2KI.dcm", "RG3_UNCI.dcm", "RG3_J2KI.dcm")
"""Files of computed radiography of pydicom-data: two radiographs, plain and compressed."""


def test_radiographs_that_no_browser_shows_have_a_copy(page, model, tmp_path):
    """Computed radiography files of pydicom-data, and a picture of 16 bits."""
    source = tmp_path / "in"
    source.mkdir()
    for name in COMPUTED:
        (source / name).symlink_to(pydicom.data.get_testdata_file(name))
    deep = np.tile(np.arange(60, dtype=np.uint16) * 60, (80, 1))
    cv2.imwrite(str(source / "deep.png"), deep)
    cv2.imwrite(str(source / "plain.png"), (deep // 16).astype(np.uint8))
    output = tmp_path / "out"
    pipeline.run(pipeline.Options(str(source), str(model), str(output), format=("jsonl",)))
    copies = {path.name.partition("~")[0] for path in (output / "originals").iterdir()}
    assert copies == {"deep.png.jpg", *COMPUTED}
    grey = cv2.imread(str(output / "originals" / "deep.png.jpg"), cv2.IMREAD_UNCHANGED)
    assert grey.ndim == 2 and grey.max() > 200
    for file in (output / "originals").iterdir():
        with Image.open(file) as copy:
            assert copy.mode == "L" and not copy.getexif() and not copy.info.get("comment")
    read(page, output)
    for _ in range(len(COMPUTED) + 2):
        page.wait(FADES)
        page.wheel("#selected .picture", -300)
        page.wait(f"{ZOOM}[0][0] > 1.2")
        page.drag("#selected .picture", -60, 0, shift=True)
        assert page.ask(VALUES) == "level 128, width 196"
        page.press("r", "j")
    assert not page.errors
    removed = next((output / "originals").glob("RG1_UNCI*"))
    (source / "RG1_UNCI.dcm").unlink()
    pipeline.run(
        pipeline.Options(str(source), str(model), str(output), format=("jsonl",), resume=True)
    )
    assert not removed.exists(), "it goes with its picture"


def test_a_fuller_page_is_replaced_only_when_asked(tmp_path):
    folder = scored_folder.write(tmp_path, 6)
    options = {"scored": str(folder), "label": "positive"}
    assert gallery_page.write(gallery_page.GalleryOptions(str(folder))).images == 6
    with pytest.raises(ConfigError, match=r"shows 9 rows and this selection has 3.*--page="):
        gallery_page.write(gallery_page.GalleryOptions(**options))
    with pytest.raises(ConfigError, match="cannot be the name of a page"):
        gallery_page.write(gallery_page.GalleryOptions(**options, page="../other.html"))
    part = gallery_page.write(gallery_page.GalleryOptions(**options, page="positives.html"))
    assert part.images == 3 and part.page.endswith("/positives.html")
    assert 'src="positives_rows/' in pathlib.Path(part.page).read_text()
    assert (folder / "gallery_rows").is_dir()
    assert gallery_page.write(gallery_page.GalleryOptions(**options, overwrite=True)).images == 3
