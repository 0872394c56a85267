"""These tests check where a map colours its radiograph, and that a colour has one meaning."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from trainer import radiograph
from trainer.drawing import overlay


def find_centre(levels: np.ndarray) -> tuple[float, float]:
    """Return the centre of gravity (y, x) of the coloured pixels."""
    weights = levels.astype(float)
    y, x = np.mgrid[: levels.shape[0], : levels.shape[1]] + 0.5
    return (weights * y).sum() / weights.sum(), (weights * x).sum() / weights.sum()


def test_a_cell_lands_where_the_letterbox_put_its_pixels():
    # 300 x 600 px fill 160 rows of a square of 320 px, from row 80 on, at a scale of 600 / 320.
    # A cell is 40 px of the square.
    cam = np.zeros((8, 8), np.float32)
    cam[3, 5] = 1.0
    # Centre of the cell in the square: y = 3.5 * 40 = 140, x = 5.5 * 40 = 220.
    # In the picture: y = (140 - 80) * 600 / 320 = 112.5, x = 220 * 600 / 320 = 412.5.
    drawn = overlay.levels(cam, 300, 600, 320, scale=1.0)
    assert drawn.shape == (300, 600)
    assert find_centre(drawn) == pytest.approx((112.5, 412.5), abs=0.7)
    # The maximum is at the pixel whose centre is nearest to the cell's. There the value is the
    # cell's own.
    assert drawn[112, 412] >= 254


def test_a_cell_in_the_border_does_not_reach_the_picture():
    cam = np.zeros((8, 8), np.float32)
    cam[0, :] = 1.0
    assert overlay.levels(cam, 300, 600, 320, scale=1.0).max() == 0


def test_interpolation_equals_opencv_where_the_square_is_the_picture():
    cam = np.random.default_rng(0).uniform(0.2, 0.8, (7, 7)).astype(np.float32)
    # OpenCV's kernel has a = -0.75 and differs from Keys's. On a linear ramp any cubic convolution
    # is exact inside.
    ramp = np.tile(np.linspace(0.1, 0.9, 10, dtype=np.float32), (10, 1))
    ours = overlay.levels(ramp, 200, 200, 200, scale=1.0)
    linear = cv2.resize(ramp, (200, 200), interpolation=cv2.INTER_LINEAR) * 255
    np.testing.assert_allclose(ours[:, 30:170], linear[:, 30:170], atol=1.01)
    # And a constant stays one, up to the edges.
    assert np.ptp(overlay.levels(np.full_like(cam, 0.5), 90, 70, 64, scale=1.0)) == 0


def test_the_scale_is_fixed_and_only_evidence_for_positive_is_coloured():
    flat = np.ones((4, 4), np.float32)
    by_value = {
        value: int(overlay.levels(flat * value, 32, 32, 32, scale=2.0)[16, 16])
        for value in (-5.0, 0.0, 0.5, 1.0, 2.0, 9.0)
    }
    assert by_value == {-5.0: 0, 0.0: 0, 0.5: 63, 1.0: 127, 2.0: 255, 9.0: 255}


def test_without_evidence_the_radiograph_is_unchanged():
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    drawn = overlay.draw(picture, np.full((4, 4), -1.0, np.float32), 32, 1.0, "overlay")
    np.testing.assert_array_equal(drawn, cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))


GREYS, LEVELS = (np.ascontiguousarray(grid, dtype=np.uint8) for grid in np.mgrid[:256, :256])
"""Every grey value with every level, uint8 [256, 256] each."""
DICHROMATS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""Linear RGB as it is seen without one kind of cone: Machado, Oliveira & Fernandes 2009, "A
physiologically-based model for simulation of color vision deficiency", severity 1."""


def to_linear(bgr: np.ndarray) -> np.ndarray:
    """Turn uint8 [..., 3] of sRGB into linear RGB in [0, 1], by IEC 61966-2-1."""
    rgb = bgr[..., ::-1] / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def to_lab(linear: np.ndarray) -> np.ndarray:
    """Turn linear RGB of sRGB into CIELAB, float [..., 3], by CIE 15 with the white of D65."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.moveaxis(linear @ np.array(to_xyz).T / (0.9505, 1.0, 1.089), -1, 0)
    f = [np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29) for t in (x, y, z)]
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])], -1)


@pytest.mark.parametrize("colours", list(overlay.COLOURS))
def test_the_tint_keeps_the_luminance_of_every_grey(colours):
    lab = to_lab(to_linear(overlay.tint(GREYS, LEVELS, colours)))
    grey = to_lab(to_linear(np.repeat(GREYS[..., None], 3, -1)))
    # Colours are rounded to 8 bits, which near black is a step of a quarter in lightness.
    assert np.abs(lab - grey)[..., 0].max() < 0.75
    assert np.abs(lab - grey)[..., 0].mean() < 0.15


def test_the_tint_has_less_than_half_of_the_chroma_of_the_full_colour():
    assert overlay.OPACITY < 0.5
    chroma = np.hypot(
        *np.moveaxis(to_lab(to_linear(overlay.tint(GREYS, LEVELS, "viridis"))), -1, 0)[1:]
    )
    full = to_lab(to_linear(overlay.colour_table("viridis")[255]))[0]
    assert chroma.max() <= 0.5 * np.hypot(*full[1:])
    assert chroma[160, 255] > 0.4 * np.hypot(*full[1:]), "on bone it is a colour"


@pytest.mark.parametrize("vision", [None, *DICHROMATS])
def test_more_evidence_is_further_from_grey_for_every_kind_of_colour_vision(vision):
    linear = to_linear(overlay.tint(GREYS, LEVELS, "viridis"))
    if vision:
        linear = np.clip(linear @ np.array(DICHROMATS[vision]).T, 0, 1)
    lab = to_lab(linear)[48:240]
    distance = np.linalg.norm(lab[:, ::32] - lab[:, :1], axis=-1)
    # From the grey of soft tissue to that of bone; in the dark a screen has few colours.
    assert (np.diff(distance) > -0.8).all()
    assert (distance[64:, -1] > distance[64:, 3]).all() and (distance[64:, 3] > 0.5).all()


@pytest.mark.parametrize("vision", [None, *DICHROMATS])
def test_lines_of_more_evidence_are_lighter_for_every_kind_of_colour_vision(vision):
    table = overlay.colour_table("viridis")[[round(255 * share) for share in overlay.SHARES], 0]
    seen = to_linear(table) @ np.array(DICHROMATS[vision] if vision else np.eye(3)).T
    assert (np.diff(to_lab(np.clip(seen, 0, 1))[:, 0]) > 10).all()


@pytest.mark.parametrize("width", [256, 640])
def test_lines_lie_at_their_shares_of_the_scale_and_nowhere_else(width):
    """On a ramp from left to right, in the middle of which each column has one value."""
    picture = np.full((120, width), 90, np.uint8)
    ramp = np.tile(np.linspace(0, 2.0, 64, dtype=np.float32), (64, 1))
    drawn = overlay.draw(picture, ramp, width, 2.0, "overlay").astype(int)
    level = overlay.levels(ramp, 120, width, width, 2.0)
    tinted = overlay.tint(picture, level, "viridis").astype(int)
    changed = np.abs(drawn - tinted).max(-1) > 8
    assert (changed[2:-2] == changed[60]).all()
    assert max(changed[0].sum(), changed[-1].sum()) <= changed[60].sum(), "no line along an edge"
    columns = np.flatnonzero(changed[60])
    expected = [share * (width - 1) for share in overlay.SHARES]
    nearest = np.array([[abs(x - place) for place in expected] for x in columns]).min(1)
    assert nearest.max() <= 0.012 * width + 2 and len(columns) <= 12
    for place in expected:
        assert np.abs(columns - place).min() <= 0.012 * width + 2


def test_a_region_that_leaves_the_picture_is_open_there():
    picture = np.full((200, 200), 90, np.uint8)
    cam = np.zeros((8, 8), np.float32)
    cam[:, :4] = 1.0
    drawn = overlay.draw(picture, cam, 200, 1.0, "overlay").astype(int)
    tinted = overlay.tint(picture, overlay.levels(cam, 200, 200, 200, 1.0), "viridis").astype(int)
    assert not np.abs(drawn - tinted)[:, :80].any()


def test_styles():
    picture = np.full((40, 30), 128, np.uint8)
    cam = np.eye(4, dtype=np.float32)
    both = overlay.draw(picture, cam, 32, 1.0, "side_by_side")
    assert both.shape == (40, 60, 3)
    np.testing.assert_array_equal(both[:, :30], 128)
    np.testing.assert_array_equal(both[:, 30:], overlay.draw(picture, cam, 32, 1.0, "overlay"))
    heat = overlay.draw(picture, cam, 32, 1.0, "heatmap")
    np.testing.assert_array_equal(heat, overlay.draw(picture // 2, cam, 32, 1.0, "heatmap"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2880, 2304), (1024, 819)),
        ((1024, 10), (1024, 10)),
        ((20000, 3), (1024, 1)),
        ((5, 7), (5, 7)),
    ],
)
def test_large_pictures_are_shrunk(shape, expected):
    assert overlay.shrink(np.zeros(shape, np.uint8)).shape == expected


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 700), (700, 1), (1024, 819)])
def test_any_shape_is_drawn(height, width):
    drawn = overlay.draw(
        np.zeros((height, width), np.uint8), np.ones((7, 7), np.float32), 224, 1.0, "overlay"
    )
    assert drawn.shape == (height, width, 3)


@pytest.mark.parametrize(
    ("file_format", "name", "tolerance"),
    [("png", "PNG", 0), ("jpeg", "JPEG", 12), ("webp", "WEBP", 25)],
)
def test_encoded_pictures_are_read_by_another_library(file_format, name, tolerance):
    y, x = np.mgrid[:48, :64]
    picture = np.stack([x * 3, y * 4, x + y], axis=-1).astype(np.uint8)
    decoded = Image.open(io.BytesIO(overlay.encode(picture, file_format)))
    assert decoded.format == name
    difference = np.asarray(decoded.convert("RGB")).astype(int) - picture[..., ::-1]
    assert np.abs(difference).mean() <= tolerance


def test_real_radiographs_keep_their_grey_outside_of_the_map(shared):
    path = sorted((shared / "data" / "fracatlas_shoulder" / "images" / "positive").iterdir())[0]
    picture = overlay.shrink(radiograph.read(path.read_bytes()).pixels)
    cam = np.zeros((10, 10), np.float32)
    cam[4:6, 4:6] = 1.0
    drawn = overlay.draw(picture, cam, 320, 1.0, "overlay")
    height, width = picture.shape
    np.testing.assert_array_equal(drawn[: height // 5, :, 0], picture[: height // 5])
    assert np.ptp(drawn[height // 2, width // 2].astype(int)) > 20


def test_jet_on_demand_goes_from_blue_to_red():
    """The map alone is cold at the left and hot at the right; the channels are BGR."""
    ramp = np.linspace(0.01, 1, 8, dtype=np.float32)[None].repeat(8, 0)
    drawn = overlay.draw(np.full((64, 64), 90, np.uint8), ramp, 64, 1.0, "heatmap", "jet").astype(
        int
    )
    cold, hot = drawn[32, 1], drawn[32, -2]
    assert cold[0] > 120 and cold[2] == 0 and hot[2] > 120 and hot[0] == 0


@pytest.mark.parametrize("shape", [(512, 411), (1024, 700), (200, 512), (511, 389)])
def test_a_large_picture_is_interpolated_on_a_coarser_grid_without_visible_change(shape):
    cam = np.random.default_rng(0).normal(0, 1, (7, 7)).astype(np.float32)
    coarse = overlay.levels(cam, *shape, 224, 1.5).astype(int)
    exact = overlay.levels(cam, *shape, 224, 1.5, points=10**6).astype(int)
    assert coarse.shape == shape and np.abs(coarse - exact).max() <= 8
    assert np.abs(coarse - exact).mean() < 0.8
