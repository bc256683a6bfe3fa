"""Drawing of the embedded data set: scenes of figures on textured backgrounds, reproducible from a seed.

Six classes differ in shape, four of them also in a two-coloured pattern; colour, size, rotation, stretch and fill do
not depend on the class. Figures overlap, extend beyond the image, and are mixed with blobs, polygons and strokes that
are not objects. Boxes enclose the *visible* pixels, as in COCO; a figure is only placed where enough of it and of each
figure below remains visible. Image i of a split is determined by (seed, split, i).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

CLASSES = ("circle", "ring", "triangle", "square", "cross", "star")
# Parts in a second colour, in unit coordinates: a ring, stripes, a chequerboard, a central dot.
PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda u, v: np.abs(np.hypot(u, v) - 0.5) < 0.17,
    "triangle": lambda u, v: np.floor(u / 0.3) % 2 == 0,
    "square": lambda u, v: u * v > 0,
    "star": lambda u, v: np.hypot(u, v) < 0.28,
}
SPLITS = ("train", "val", "test")

# Difficulty of the set: each of these changes mAP by several points; docs/benchmarks.md explains the choice.
EMPTY_FRACTION = 0.05
MIN_FIGURES, MAX_FIGURES = 2, 10
MAX_DISTRACTORS = 1
MIN_DIAMETER, MAX_DIAMETER = 0.16, 0.45  # diameter of a figure as a fraction of the long side of its image
MIN_VISIBLE = 0.55  # fraction of a figure that must remain visible
MIN_CONTRAST = 95.0  # Euclidean RGB distance between a figure and what is behind it
MAX_ROTATION = 30.0  # degrees, in either direction
STRETCH = 0.18  # maximum logarithm of the stretch along an axis
TEXTURE = 0.4  # strength of noise and stripes
SUBPIXEL = 4  # OpenCV draws on a grid of 1/16 pixel


@dataclass(frozen=True)
class Figure:
    """One drawn object: its class and its mask of visible pixels (H, W) bool."""

    label: int
    mask: np.ndarray
    full_area: float  # pixels of the whole figure, including parts outside the image


def class_contours(name: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Contours (n, 2) of a class in unit coordinates with slightly varying proportions; a second contour is a hole."""
    angle = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if name == "circle":
        return [circle]
    if name == "ring":
        return [circle, circle * rng.uniform(0.45, 0.65)]
    if name == "triangle":
        return [_star_points(3, 1.0)[::2]]
    if name == "square":
        return [_star_points(4, 1.0)[::2]]
    if name == "cross":
        return [_cross(rng.uniform(0.24, 0.36))]
    if name == "star":
        return [_star_points(5, rng.uniform(0.40, 0.52))]
    raise ValueError(f"unknown figure {name!r}, expected one of {', '.join(CLASSES)}")


def _star_points(points: int, inner: float) -> np.ndarray:
    angle = math.pi * np.arange(2 * points) / points
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _cross(half: float) -> np.ndarray:
    arm = np.array([[half, half], [half, 1.0], [-half, 1.0]])
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.concatenate([arm @ np.linalg.matrix_power(quarter, turns).T for turns in range(4)])


def draw_image(side: int, seed: int, split: str, index: int) -> tuple[np.ndarray, list[Figure]]:
    """Image (H, W, 3) uint8 RGB and its figures, fixed by (seed, split, index); the long side is 1 to 1.4 `side`."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    long_side = int(round(side * rng.uniform(1.0, 1.4)))
    short_side = int(round(long_side * rng.uniform(0.66, 1.0)))
    width, height = (long_side, short_side) if rng.random() < 0.5 else (short_side, long_side)
    image = _background(width, height, rng)
    for _ in range(rng.integers(0, MAX_DISTRACTORS + 1)):
        _draw_distractor(image, rng)
    figures: list[Figure] = []
    if rng.random() >= EMPTY_FRACTION:
        for _ in range(rng.integers(MIN_FIGURES, MAX_FIGURES + 1)):
            _place_figure(image, figures, rng)
    for _ in range(rng.integers(0, 3)):
        _draw_stroke(image, rng)
    return _photograph(image, rng), figures


def _background(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A textured background (H, W, 3) float32: a gradient, noise at three scales, and often stripes or checks."""
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    direction = rng.uniform(0, 2 * math.pi)
    along = (xx * math.cos(direction) + yy * math.sin(direction)) / max(width, height)
    first, second = rng.uniform(30, 225, (2, 3))
    background = first + (second - first) * rng.uniform(0.2, 1.0) * (along[..., None] - along.min())
    for cells, strength in ((4, 28), (12, 18), (40, 12)):
        noise = rng.normal(0, TEXTURE * strength * rng.uniform(0.3, 1.0), (cells, cells, 3)).astype(np.float32)
        background += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    kind = rng.integers(4)
    period, angle = rng.uniform(6, 40), rng.uniform(0, math.pi)
    wave = np.sin((xx * math.cos(angle) + yy * math.sin(angle)) * (2 * math.pi / period))
    if kind == 1:
        background += (wave * TEXTURE * rng.uniform(8, 26))[..., None]
    elif kind == 2:
        across = np.sin((yy * math.cos(angle) - xx * math.sin(angle)) * (2 * math.pi / period))
        background += (np.sign(wave * across) * TEXTURE * rng.uniform(6, 18))[..., None]
    return np.ascontiguousarray(background, dtype=np.float32)


def _paint(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Fill a mask (H, W) float 0..1 with a colour that contrasts with what is below: plain, shaded or striped."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    crop = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image, mask = image[crop], mask[crop]
    inside = mask >= min(0.5, mask.max())
    below = image[inside].mean(axis=0)
    colour = rng.uniform(10, 245, 3)
    for _ in range(50):
        if np.linalg.norm(colour - below) >= MIN_CONTRAST:
            break
        colour = rng.uniform(10, 245, 3)
    height, width = mask.shape
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    along = xx * math.cos(angle) + yy * math.sin(angle)
    fill = np.broadcast_to(colour.astype(np.float32), image.shape)
    style = rng.random()
    if style < 0.35:
        shade = (along - along[inside].mean()) / (np.ptp(along[inside]) + 1)
        fill = fill + (shade * rng.uniform(20, 70))[..., None]
    elif style < 0.6:
        fill = fill + (np.sign(np.sin(along * (2 * math.pi / rng.uniform(4, 12)))) * rng.uniform(8, 28))[..., None]
    fill = fill + rng.normal(0, rng.uniform(0, 8), (height, width, 1)).astype(np.float32)
    image += mask[..., None] * (np.clip(fill, 0, 255) - image)


def _fill_mask(contours: list[np.ndarray], width: int, height: int) -> np.ndarray:
    """Antialiased mask (H, W) float32 0..1 of contours in pixel-edge coordinates; overlapping contours are holes."""
    mask = np.zeros((height, width), dtype=np.uint8)
    # OpenCV's integer coordinates are pixel centres, ours pixel edges: half a pixel apart.
    grid = [np.round((contour - 0.5) * (1 << SUBPIXEL)).astype(np.int32) for contour in contours]
    cv2.fillPoly(mask, grid, 255, cv2.LINE_AA, SUBPIXEL)
    return mask.astype(np.float32) / 255


def _posed(
    contours: list[np.ndarray], width: int, height: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Contours with random size (log-uniform), stretch, rotation and position, in pixels; their matrix and centre."""
    radius = 0.5 * max(width, height) * math.exp(rng.uniform(math.log(MIN_DIAMETER), math.log(MAX_DIAMETER)))
    stretch = math.exp(rng.uniform(-STRETCH, STRETCH))
    lean, angle = rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
    angle = math.pi + (angle - math.pi) * MAX_ROTATION / 180
    pose = _rotation(angle - lean) @ np.diag([stretch, 1 / stretch]) @ _rotation(lean) * radius
    margin = min(0.7 * radius, 0.4 * min(width, height))  # some extend beyond the border, few of them far
    centre = rng.uniform([margin, margin], [width - margin, height - margin])
    return [contour @ pose.T + centre for contour in contours], pose, centre


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _place_figure(image: np.ndarray, figures: list[Figure], rng: np.random.Generator) -> None:
    """Draw one figure on top, at the first of eight random positions that leaves it and all others visible enough."""
    height, width = image.shape[:2]
    label = int(rng.integers(len(CLASSES)))
    contours = class_contours(CLASSES[label], rng)
    for _ in range(8):
        placed, pose, centre = _posed(contours, width, height, rng)
        area = abs(_area(placed[0])) - sum(abs(_area(hole)) for hole in placed[1:])
        alpha = _fill_mask(placed, width, height)
        mask = alpha > 0.5
        if mask.sum() < max(MIN_VISIBLE * area, 12):
            continue
        rest = [Figure(other.label, other.mask & ~mask, other.full_area) for other in figures]
        if all(other.mask.sum() >= max(MIN_VISIBLE * other.full_area, 12) for other in rest):
            _paint(image, alpha, rng)
            _paint(image, alpha * _pattern(CLASSES[label], width, height, pose, centre), rng)
            figures[:] = [*rest, Figure(label, mask, area)]
            return


def _area(contour: np.ndarray) -> float:
    x, y = contour[:, 0], contour[:, 1]
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def _pattern(name: str, width: int, height: int, pose: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Mask (H, W) bool of the parts of a figure in its second colour; empty for classes without a pattern."""
    if name not in PATTERNS:
        return np.zeros((height, width), dtype=bool)
    yy, xx = np.mgrid[0:height, 0:width] + 0.5
    u, v = np.tensordot(np.linalg.inv(pose), np.stack([xx - centre[0], yy - centre[1]]), axes=1)
    return PATTERNS[name](u, v)


def _draw_distractor(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a shape that is not an object, below the figures: a smooth blob or an irregular polygon."""
    height, width = image.shape[:2]
    if rng.random() < 0.5:
        angle = np.linspace(0, 2 * math.pi, 40, endpoint=False)
        waves = np.sum(
            [rng.uniform(-0.22, 0.22) * np.cos(k * angle + rng.uniform(0, 6.28)) for k in (2, 3, 4, 5)], axis=0
        )
        contour = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1 + waves)[:, None]
    else:
        corners = int(rng.integers(6, 9))  # with fewer it would often resemble a triangle or a square
        angle = (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) * (2 * math.pi / corners)
        contour = np.stack([np.cos(angle), np.sin(angle)], axis=1) * rng.uniform(0.35, 1.0, (corners, 1))
    placed, _, _ = _posed([contour], width, height, rng)
    _paint(image, _fill_mask(placed, width, height), rng)


def _draw_stroke(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a thin curve across the image, also over figures, too thin to hide them."""
    height, width = image.shape[:2]
    ends = rng.uniform(0, 1, (3, 2)) * [width, height]
    t = np.linspace(0, 1, 24)[:, None]
    curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]
    mask = np.zeros((height, width), dtype=np.uint8)
    points = np.round(curve * (1 << SUBPIXEL)).astype(np.int32)
    cv2.polylines(mask, [points], False, 255, int(rng.integers(1, 3)), cv2.LINE_AA, SUBPIXEL)
    image += (mask.astype(np.float32) / 255 * rng.uniform(0.5, 1.0))[..., None] * (rng.uniform(0, 255, 3) - image)


def _photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the artefacts of a camera: slight blur, then sensor noise."""
    blurred = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9))
    return np.clip(blurred + rng.normal(0, rng.uniform(1, 7), image.shape), 0, 255).astype(np.uint8)


def annotation_fields(figure: Figure) -> dict[str, object]:
    """COCO category, bbox, area and segmentation of the visible pixels."""
    rows, columns = np.flatnonzero(figure.mask.any(1)), np.flatnonzero(figure.mask.any(0))
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    # Contours pass through pixel centres: on a grid four times as fine they are within 1/8 pixel of the true edge.
    crop = np.pad(figure.mask[top:bottom, left:right].astype(np.uint8), 1).repeat(4, 0).repeat(4, 1)
    contours, _ = cv2.findContours(crop, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in contours:
        simple = cv2.approxPolyDP(contour, 2.0, True).reshape(-1, 2)
        if len(simple) >= 3:
            points = (simple + 0.5) / 4 - 1 + [left, top]
            polygons.append([round(float(value), 2) for value in points.ravel()])
    return {
        "category_id": figure.label + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": int(figure.mask.sum()),
        "segmentation": polygons,
        "iscrowd": 0,
    }
