"""Geometric augmentation: one image, or a mosaic of four, warped onto the canvas by matrices, with their boxes.

The mosaic is that of YOLOv4 (Bochkovskiy et al. 2020, section 3.3): four images meet at a random point of a canvas
twice as large as the output, which is then scaled, moved and cropped. Here each image is warped directly to its place
in the output, so the large canvas is never built and flips, rotation and scaling cost nothing extra. Matrices use
pixel-edge coordinates: a box is (left, top, right, bottom), and an image spans (0, 0) to (width, height).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from core.geometry import PADDING_GREY

MIN_SIDE = 2.0  # pixels; smaller clipped boxes are dropped
MIN_VISIBLE = 0.15  # boxes with a smaller fraction of their area inside the canvas are dropped


@dataclass(frozen=True)
class Tile:
    """One image with its training boxes in its pixels."""

    image: np.ndarray  # (H, W, 3) uint8
    boxes: np.ndarray  # (n, 4) float32 xyxy
    labels: np.ndarray  # (n,) int64
    polygons: Callable[[int], list[np.ndarray]] | None = None  # box position -> polygons (k, 2), possibly none


def move(x: float, y: float) -> np.ndarray:
    """Matrix (3, 3) of a translation."""
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def random_pose(
    size: int,
    rng: np.random.Generator,
    *,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    perspective: float = 0.0,
    flip_lr: float = 0.0,
    flip_ud: float = 0.0,
) -> np.ndarray:
    """Matrix (3, 3) from coordinates relative to the centre of the scene to the output of `size`.

    The number of random values drawn does not depend on the ranges, so changing one leaves the others unchanged.
    """
    rotate, zoom, shear_x, shear_y, tilt_x, tilt_y, shift_x, shift_y = rng.uniform(-1, 1, 8)
    mirror_x, mirror_y = rng.random(2)
    angle, factor = math.radians(degrees * rotate), 1 + scale * zoom
    rotation = factor * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    skew = np.array([[1, math.tan(math.radians(shear * shear_x))], [math.tan(math.radians(shear * shear_y)), 1]])
    pose = np.eye(3)
    pose[:2, :2] = skew @ rotation
    tilt = np.eye(3)
    tilt[2, :2] = perspective * tilt_x, perspective * tilt_y
    mirror = np.diag([-1.0 if mirror_x < flip_lr else 1.0, -1.0 if mirror_y < flip_ud else 1.0, 1.0])
    return move(size * (0.5 + translate * shift_x), size * (0.5 + translate * shift_y)) @ mirror @ pose @ tilt


def mosaic_places(tiles: Sequence[Tile], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Matrices that move four images to a common corner, a random point within half a `size` of the scene's centre."""
    x, y = rng.uniform(-size / 2, size / 2, 2)
    places = []
    for (right, below), tile in zip(((0, 0), (1, 0), (0, 1), (1, 1)), tiles, strict=True):
        height, width = tile.image.shape[:2]
        places.append(move(x - (1 - right) * width, y - (1 - below) * height))
    return places


def centre_place(tile: Tile) -> np.ndarray:
    """Matrix that centres one image in the scene, aligned to whole pixels as in letterboxing."""
    height, width = tile.image.shape[:2]
    return move(-math.ceil(width / 2), -math.ceil(height / 2))


def lay_out(
    tiles: Sequence[Tile], matrices: Sequence[np.ndarray], size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Canvas (size, size, 3), boxes (n, 4) float32 xyxy in it and labels (n,) of images warped by their matrices."""
    canvas = np.full((size, size, 3), PADDING_GREY, np.uint8)
    boxes, labels = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
    for tile, matrix in zip(tiles, matrices, strict=True):
        paint(canvas, tile.image, matrix)
        moved, kept = move_boxes(tile.boxes, tile.polygons, matrix, size)
        boxes.append(moved[kept])
        labels.append(tile.labels[kept])
    return canvas, np.concatenate(boxes), np.concatenate(labels)


def keeps_axes(matrix: np.ndarray) -> bool:
    """Whether a matrix only scales, mirrors and translates."""
    return not (matrix[0, 1] or matrix[1, 0] or matrix[2, 0] or matrix[2, 1])


def paint(canvas: np.ndarray, image: np.ndarray, matrix: np.ndarray) -> None:
    """Warp an image onto the part of the canvas that it covers."""
    height, width = image.shape[:2]
    corners = project(np.array([[0, 0], [width, 0], [width, height], [0, height]], float), matrix)
    straight = keeps_axes(matrix)
    low = np.round(corners.min(0)) if straight else np.floor(corners.min(0))
    high = np.round(corners.max(0)) if straight else np.ceil(corners.max(0))
    limits = [canvas.shape[1], canvas.shape[0]]
    (left, top), (right, bottom) = np.clip(low, 0, limits).astype(int), np.clip(high, 0, limits).astype(int)
    if right <= left or bottom <= top:
        return
    # OpenCV uses coordinates of pixel centres, half a pixel from the edges.
    centred = move(-left - 0.5, -top - 0.5) @ matrix @ move(0.5, 0.5)
    part = canvas[top:bottom, left:right]
    # An axis-aligned tile fills its rectangle completely; a rotated one leaves the canvas around it unchanged.
    border = cv2.BORDER_REPLICATE if straight else cv2.BORDER_TRANSPARENT
    options = {"flags": cv2.INTER_LINEAR, "borderMode": border}
    if straight or not (matrix[2, 0] or matrix[2, 1]):
        cv2.warpAffine(image, centred[:2], (right - left, bottom - top), dst=part, **options)
    else:
        cv2.warpPerspective(image, centred, (right - left, bottom - top), dst=part, **options)


def project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (..., 2) transformed by a matrix (3, 3)."""
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    if matrix[2, 0] or matrix[2, 1]:
        moved = moved / np.maximum(points @ matrix[2, :2] + matrix[2, 2], 1e-6)[..., None]
    return moved


def move_boxes(
    boxes: np.ndarray, polygons: Callable[[int], list[np.ndarray]] | None, matrix: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) xyxy transformed and clipped to the canvas, and a mask (n,) of those with enough area left.

    A rotated or clipped box with polygons becomes the bounding box of the visible polygons: the bounding box of a
    rotated box, or a clipped box, is larger than the object.
    """
    if not len(boxes):
        return np.zeros((0, 4), np.float32), np.zeros(0, bool)
    corners = project(boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].astype(np.float64), matrix)  # (n, 4, 2)
    whole = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    clipped = np.clip(whole, 0, size)
    loose = ~np.isclose(clipped, whole).all(1) if keeps_axes(matrix) else np.ones(len(boxes), bool)
    loose &= (clipped[:, 2:] - clipped[:, :2] >= MIN_SIDE).all(1)  # others are dropped below
    for row in np.flatnonzero(loose).tolist():
        shapes = [project(polygon, matrix) for polygon in polygons(row)] if polygons is not None else []
        if shapes:
            points = np.concatenate(shapes)
            whole[row] = _meet(whole[row], np.concatenate([points.min(0), points.max(0)]))
            inside = [clip for clip in (clip_polygon(shape, size) for shape in shapes) if len(clip)]
            if not inside:
                clipped[row] = 0
                continue
            points = np.concatenate(inside)
            clipped[row] = _meet(clipped[row], np.concatenate([points.min(0), points.max(0)]))
    sides = np.maximum(clipped[:, 2:] - clipped[:, :2], 0)
    full = np.maximum((whole[:, 2:] - whole[:, :2]).prod(1), 1e-9)
    kept = (sides >= MIN_SIDE).all(1) & (sides.prod(1) / full >= MIN_VISIBLE)
    return clipped.astype(np.float32), kept


def _meet(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The intersection of two boxes."""
    return np.concatenate([np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])])


def clip_polygon(points: np.ndarray, size: int) -> np.ndarray:
    """A polygon (n, 2) clipped to the square 0..size by Sutherland and Hodgman (1974); (0, 2) if outside."""
    for axis, bound, sign in ((0, 0.0, 1.0), (0, float(size), -1.0), (1, 0.0, 1.0), (1, float(size), -1.0)):
        distance = (points[:, axis] - bound) * sign
        if distance.min() >= 0:
            continue
        if distance.max() < 0:
            return points[:0]
        inside = distance >= 0
        after = np.concatenate([np.arange(1, len(points)), [0]])
        crosses = inside != inside[after]
        drop = distance - distance[after]
        fraction = distance / np.where(crosses, drop, 1)  # drop is not 0 where an edge crosses the bound
        # Each inside vertex, then the crossing of its edge, if any: keeps the order along the polygon.
        both = np.empty((2 * len(points), 2))
        both[0::2], both[1::2] = points, points + fraction[:, None] * (points[after] - points)
        kept = np.empty(2 * len(points), bool)
        kept[0::2], kept[1::2] = inside, crosses
        points = both[kept]
    return points
