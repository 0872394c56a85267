"""Turn attenuation into a displayed picture: scatter, noise, contrast and marker."""

import cv2
import numpy as np

from trainer.phantom import anatomy, geometry, plan, tissue
from trainer.phantom.geometry import Array


def transmit(attenuation: Array) -> Array:
    """Return the share of the photons that pass (Beer-Lambert law).

    `attenuation` is the sum of coefficient times path length.
    """
    return np.exp(-attenuation)


def expose(
    film: geometry.Film, pose: plan.Pose, rng: np.random.Generator, noise: np.random.Generator
) -> Array:
    """Return the negative log exposure, float32 [height, width].

    It includes beam profile, scatter, detector blur and quantum noise.
    """
    image = transmit(np.minimum(np.maximum(film.total, 0), 9))
    small = cv2.resize(image, None, fx=1 / 12, fy=1 / 12, interpolation=cv2.INTER_AREA)
    scatter = cv2.GaussianBlur(
        np.minimum(small, 0.5), (0, 0), rng.uniform(5, 8), borderType=cv2.BORDER_REPLICATE
    )
    sharp = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 1.1))
    size = (pose.width, pose.height)
    haze = rng.uniform(0.10, 0.35) * cv2.resize(scatter, size, interpolation=cv2.INTER_CUBIC)
    image = np.add(cv2.resize(sharp, size, interpolation=cv2.INTER_AREA), haze)
    heel, direction = rng.uniform(0, 0.25), rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, pose.width, dtype=np.float32) * np.float32(np.cos(direction) * heel)
    y = np.linspace(-1, 1, pose.height, dtype=np.float32)[:, None] * np.float32(
        np.sin(direction) * heel
    )
    image *= 1 + x + y
    photons = rng.uniform(4000, 16000)
    grains = noise.standard_normal((pose.height, pose.width), dtype=np.float32)
    grains = cv2.GaussianBlur(grains, (0, 0), 0.55) * 1.6
    image = np.maximum(image, 1e-4)
    image += np.sqrt(image / photons).astype(np.float32) * grains
    return -np.log(np.maximum(image, 2e-4))


def develop(log: Array, build: anatomy.Build, rng: np.random.Generator) -> Array:
    """Return the picture as a reading station shows it, float32 [h, w], 0 to 255.

    Local contrast, window and gamma depend on the body, not on the content of the image.
    """
    small = cv2.resize(log, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    wide = cv2.GaussianBlur(small, (0, 0), 5)
    wide = cv2.resize(wide, log.shape[::-1], interpolation=cv2.INTER_LINEAR)
    level = tissue.MUSCLE * 2 * 0.95 * build.muscle
    boost = rng.uniform(0.25, 0.5)
    value = log + boost * (log - wide) - 0.25 * np.maximum(wide - level - 0.6, 0)
    low = rng.uniform(-0.15, 0.45) * level
    high = level + rng.uniform(1.15, 2.3)
    value = np.clip((value - low) / (high - low), 0, 1.25)
    value = value / (1 + np.maximum(value - 0.8, 0) * 0.55)
    value = np.minimum(value, 1) ** rng.uniform(0.8, 1.5)
    return rng.uniform(2, 26) * (1 - value) + rng.uniform(190, 255) * value


def frame_and_mark(picture: Array, rng: np.random.Generator) -> Array:
    """Draw the side marker and the collimator edges, each in 60 % of the pictures."""
    height, width = picture.shape
    if rng.random() < 0.6:
        draw_marker(picture, rng)
    if rng.random() < 0.6:
        inset = rng.uniform(0, 0.11, 4) * (rng.random(4) < 0.65)
        corners = np.array(
            [
                (inset[0], inset[1]),
                (1 - inset[2], inset[1]),
                (1 - inset[2], 1 - inset[3]),
                (inset[0], 1 - inset[3]),
            ]
        )
        corners = corners * (width, height) - (width / 2, height / 2)
        angle = np.radians(rng.normal(0, 2.5))
        c, s = np.cos(angle), np.sin(angle)
        grown = corners * (1 + 0.05 * (inset == 0).mean())
        points = grown @ np.array([[c, s], [-s, c]]) + (width / 2, height / 2)
        mask = np.zeros(picture.shape, np.uint8)
        cv2.fillPoly(mask, [np.round(points * 256).astype(np.int32)], 255, cv2.LINE_AA, 8)
        open_field = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.7, 1.6)).astype(np.float32) / 255
        picture = picture * open_field + rng.uniform(0, 14) * (1 - open_field)
    return picture


def draw_marker(picture: Array, rng: np.random.Generator) -> None:
    """Draw a lead letter; some are mirrored or tilted, some carry the technician's initials."""
    height, width = picture.shape
    size = rng.uniform(0.6, 1.15) * max(height, width) / 512
    text = str(rng.choice(["L", "R"])) + str(rng.choice(["", "", "", " AB", " JM", " 2"]))
    (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 2)
    tile = np.zeros((2 * max(w, h) + 8,) * 2, np.uint8)
    middle = tile.shape[0] // 2
    thick = int(rng.integers(1, 4))
    cv2.putText(
        tile,
        text,
        (middle - w // 2, middle + h // 2),
        cv2.FONT_HERSHEY_SIMPLEX,
        size,
        255,
        thick,
        cv2.LINE_AA,
    )
    angle = rng.normal(0, 6) + rng.choice([0, 0, 0, 90, -90])
    turned = cv2.warpAffine(
        tile, cv2.getRotationMatrix2D((middle, middle), angle, 1.0), tile.shape[::-1]
    )
    side = min(tile.shape[0], height, width)
    cut = (tile.shape[0] - side) // 2
    lead = turned[cut : cut + side, cut : cut + side].astype(np.float32) / 255
    if rng.random() < 0.15:
        lead = lead[:, ::-1]
    margin = 0.02
    x = int((margin if rng.random() < 0.5 else 1 - margin) * (width - side))
    y = int(rng.uniform(0.03, 0.97) * (height - side))
    patch = picture[y : y + side, x : x + side]
    patch += lead * rng.uniform(0.8, 1.0) * (250 - patch)
