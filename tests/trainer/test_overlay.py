"""These tests check where a map colours its radiograph, and that a colour has one meaning."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from trainer import overlay, radiograph


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


def test_more_evidence_is_more_colour_and_bone_stays_visible():
    picture = np.array([[40, 220]], np.uint8).repeat(8, 0).repeat(8, 1)
    flat = np.ones((4, 4), np.float32)
    drawn = [
        overlay.draw(picture, flat * value, 32, 1.0, "overlay").astype(int)
        for value in np.linspace(0, 1, 11)
    ]
    contrast = [image[0, -1].sum() - image[0, 0].sum() for image in drawn]
    assert contrast == sorted(contrast, reverse=True), "opacity grows with the value"
    assert contrast[-1] > 0.3 * contrast[0]
    assert np.ptp(drawn[0][0, 0]) == 0 and np.ptp(drawn[-1][0, 0]) > 80


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
def test_a_large_picture_is_interpolated_on_a_coarser_grid_without_visible_change(
    shape, monkeypatch
):
    cam = np.random.default_rng(0).normal(0, 1, (7, 7)).astype(np.float32)
    coarse = overlay.levels(cam, *shape, 224, 1.5).astype(int)
    monkeypatch.setattr(overlay, "_POINTS", 10**6)
    exact = overlay.levels(cam, *shape, 224, 1.5).astype(int)
    assert coarse.shape == shape and np.abs(coarse - exact).max() <= 8
    assert np.abs(coarse - exact).mean() < 0.8
