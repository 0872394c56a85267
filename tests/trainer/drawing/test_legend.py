"""The strip below an overlay: it says what the colours mean, and leaves the picture as it is."""

import dataclasses

import cv2
import numpy as np
import pytest

from trainer.drawing import legend, overlay

GIVEN = legend.Legend(0.4327, legend.UNIT, "Grad-CAM", "0f" * 8, 7, 7, 224)


def drawn(height: int, width: int, style: str = "overlay") -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    return overlay.draw(picture, np.eye(7, dtype=np.float32), 224, 1.0, style)


@pytest.mark.parametrize("shape", [(600, 480), (300, 60), (40, 900), (1, 1)])
def test_the_picture_is_unchanged_above_the_strip(shape):
    before = drawn(*shape)
    after = legend.add(before, GIVEN)
    assert after.dtype == np.uint8 and after.shape[1] == max(shape[1], legend.MIN_WIDTH)
    np.testing.assert_array_equal(after[: shape[0], : shape[1]], before)
    assert not after[: shape[0], shape[1] :].any()
    strip = after[shape[0] :]
    assert legend.LOWEST < len(strip) < legend.HIGHEST and strip.max() > 200, "there is text on it"
    margins = np.concatenate([strip[:, :4], strip[:, -2:]], axis=1)
    assert np.ptp(margins) == 0, "no text is cut"


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({}, False),
        ({"scale": 0.43274}, False),  # the same in three digits
        ({"scale": 0.45}, True),
        ({"unit": "logits"}, True),
        ({"method": "LayerCAM"}, True),
        ({"model": "0e" * 8}, True),
        ({"rows": 10, "columns": 10}, True),
        ({"colours": "jet"}, True),
        ({"style": "heatmap"}, True),
    ],
)
def test_the_strip_shows_each_of_its_facts(change, differs):
    one, other = (
        legend.add(drawn(400, 500), given)
        for given in (GIVEN, dataclasses.replace(GIVEN, **change))
    )
    assert (one.shape != other.shape or (one != other).any()) == differs


def measure_ruler(strip: np.ndarray) -> int:
    """Return the length of the longest horizontal line in the colour of the text."""
    rows = ("".join("x" if is_text else " " for is_text in row) for row in (strip == 224).all(-1))
    return max(len(run) for row in rows for run in row.split())


@pytest.mark.parametrize("style", ["overlay", "side_by_side"])
def test_the_ruler_is_as_long_as_a_cell(style):
    # A cell is 224 / 7 = 32 pixels of the square; the picture of 400 rows is 400 / 224 of it.
    strip = legend.add(drawn(400, 300, style), dataclasses.replace(GIVEN, style=style))[400:]
    assert measure_ruler(strip) == round(32 * 400 / 224) == 57


@pytest.mark.parametrize(
    ("cell", "said"), [(0, "less than a pixel"), (1, "1 pixel"), (9, "9 pixels")]
)
def test_the_strip_says_how_long_a_cell_is(monkeypatch, cell, said):
    texts, wrap = [], legend._wrap
    monkeypatch.setattr(
        legend, "_wrap", lambda text, *size: texts.append(text) or wrap(text, *size)
    )
    legend.draw_strip.cache_clear()
    legend.draw_strip(300, cell, GIVEN)
    assert f"one of 7 x 7 cells: {said} of this picture" in texts


def test_the_bar_has_the_colours_of_the_overlay_on_the_same_grey():
    bar = legend.draw_bar(256, "overlay", "viridis")
    grey = int(bar[0, 0, 0])
    ramp = np.arange(256, dtype=np.uint8)[None]
    tinted = overlay.tint(np.full_like(ramp, grey), ramp, "viridis")
    between = [i for i in range(256) if not any(abs(i - 255 * s) < 3 for s in overlay.SHARES)]
    np.testing.assert_array_equal(bar[0, between], tinted[0, between])
    for share in overlay.SHARES:
        level = round(share * 255)
        assert (bar[0, level] == overlay.colour_table("viridis")[level, 0]).all()
    heat = legend.draw_bar(256, "heatmap", "jet")
    np.testing.assert_array_equal(heat[:1], cv2.applyColorMap(ramp, overlay.colour_table("jet")))
