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

    image: np.ndarray  # (H, W, 3) uint8, or (H, W, 4), of which the fourth channel means nothing
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
    rotate, zoom, shear_x, shear_y, tilt_x, tilt_y, shift_x, shift_y = rng.uniform(-1, 1, 8).tolist()
    mirror_x, mirror_y = rng.random(2).tolist()
    # Numbers instead of small arrays, of which each product would take as long as all of this.
    angle, factor = math.radians(degrees * rotate), 1 + scale * zoom
    cos, sin = factor * math.cos(angle), factor * math.sin(angle)
    skew_x, skew_y = math.tan(math.radians(shear * shear_x)), math.tan(math.radians(shear * shear_y))
    sign_x, sign_y = -1.0 if mirror_x < flip_lr else 1.0, -1.0 if mirror_y < flip_ud else 1.0
    pose = np.array(
        [
            [sign_x * (cos + skew_x * sin), sign_x * (-sin + skew_x * cos), size * (0.5 + translate * shift_x)],
            [sign_y * (skew_y * cos + sin), sign_y * (cos - skew_y * sin), size * (0.5 + translate * shift_y)],
            [0.0, 0.0, 1.0],
        ]
    )
    if perspective:
        tilt = np.eye(3)
        tilt[2, :2] = perspective * tilt_x, perspective * tilt_y
        pose = pose @ tilt
    return pose


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
    """Canvas (size, size, 4), boxes (n, 4) float32 xyxy in it and labels (n,) of images warped by their matrices.

    The canvas' fourth channel means nothing: OpenCV warps four channels three times as fast as three.
    """
    canvas = np.full((size, size, 4), PADDING_GREY, np.uint8)
    for tile, matrix in zip(tiles, matrices, strict=True):
        paint(canvas, tile.image, matrix)
    counts = [len(tile.boxes) for tile in tiles]
    boxes = np.concatenate([tile.boxes for tile in tiles])
    of_boxes = np.repeat(np.stack(matrices), counts, axis=0)
    moved, kept = move_boxes(boxes, _polygons_of(tiles, counts), of_boxes, size)
    labels = np.concatenate([tile.labels for tile in tiles])
    return canvas, moved[kept], labels[kept]


def _polygons_of(tiles: Sequence[Tile], counts: Sequence[int]) -> Callable[[int], list[np.ndarray]] | None:
    """The polygons by position among the boxes of all tiles; None if no tile has any."""
    if all(tile.polygons is None for tile in tiles):
        return None
    places = [(tile.polygons, position) for tile, count in zip(tiles, counts, strict=True) for position in range(count)]

    def polygons(row: int) -> list[np.ndarray]:
        of_tile, position = places[row]
        return of_tile(position) if of_tile is not None else []

    return polygons


def paint(canvas: np.ndarray, image: np.ndarray, matrix: np.ndarray) -> None:
    """Warp an image onto the part of the canvas that it covers; a fourth channel is added if the canvas has one."""
    height, width = image.shape[:2]
    (a, b, x), (c, d, y), (tilt_x, tilt_y, _) = matrix.tolist()
    straight = not (b or c or tilt_x or tilt_y)
    if straight:  # whole pixels, so that tiles meet
        across, down = (round(x), round(width * a + x)), (round(y), round(height * d + y))
    else:
        corners = project(np.array([[0, 0], [width, 0], [width, height], [0, height]], float), matrix)
        (low_x, low_y), (high_x, high_y) = np.floor(corners.min(0)).tolist(), np.ceil(corners.max(0)).tolist()
        across, down = (int(low_x), int(high_x)), (int(low_y), int(high_y))
    left, right = max(min(across), 0), min(max(across), canvas.shape[1])
    top, bottom = max(min(down), 0), min(max(down), canvas.shape[0])
    if right <= left or bottom <= top:
        return
    if canvas.shape[2] > image.shape[2]:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    part = canvas[top:bottom, left:right]
    # An axis-aligned tile fills its rectangle completely; a rotated one leaves the canvas around it unchanged.
    border = cv2.BORDER_REPLICATE if straight else cv2.BORDER_TRANSPARENT
    options = {"flags": cv2.INTER_LINEAR, "borderMode": border}
    # OpenCV uses coordinates of pixel centres, half a pixel from the edges.
    if tilt_x or tilt_y:
        centred = move(-left - 0.5, -top - 0.5) @ matrix @ move(0.5, 0.5)
        cv2.warpPerspective(image, centred, (right - left, bottom - top), dst=part, **options)
    else:
        from_centre = (a + b) * 0.5 + (x - left - 0.5), (c + d) * 0.5 + (y - top - 0.5)
        centred = np.array([[a, b, from_centre[0]], [c, d, from_centre[1]]])
        cv2.warpAffine(image, centred, (right - left, bottom - top), dst=part, **options)


def project(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (..., 2) transformed by a matrix (3, 3)."""
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    if matrix[2, 0] or matrix[2, 1]:
        moved = moved / np.maximum(points @ matrix[2, :2] + matrix[2, 2], 1e-6)[..., None]
    return moved


def move_boxes(
    boxes: np.ndarray, polygons: Callable[[int], list[np.ndarray]] | None, matrices: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) xyxy transformed and clipped to the canvas, and a mask (n,) of those with enough area left.

    `matrices`: (3, 3) for all boxes, or (n, 3, 3). A rotated or clipped box with polygons becomes the bounding box of
    the visible polygons: the bounding box of a rotated box, or a clipped box, is larger than the object.
    """
    if not len(boxes):
        return np.zeros((0, 4), np.float32), np.zeros(0, bool)
    whole = _bounds(boxes.astype(np.float64), matrices)
    clipped = np.minimum(np.maximum(whole, 0), size)
    if polygons is not None:
        of_boxes = np.broadcast_to(matrices, (len(boxes), 3, 3))
        _tighten(whole, clipped, polygons, of_boxes, size)
    sides = np.maximum(clipped[:, 2:] - clipped[:, :2], 0)
    full = np.maximum((whole[:, 2:] - whole[:, :2]).prod(1), 1e-9)
    kept = (sides >= MIN_SIDE).all(1) & (sides.prod(1) / full >= MIN_VISIBLE)
    return clipped.astype(np.float32), kept


def _bounds(boxes: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """The bounding boxes (n, 4) of boxes (n, 4) transformed by one matrix or by n."""
    x, y = boxes[:, [0, 2, 2, 0]], boxes[:, [1, 1, 3, 3]]  # (n, 4) corners
    # As vectors (n, 1) or numbers; sums in the order of a product of matrices.
    (a, b, c), (d, e, f), (g, h, i) = np.moveaxis(matrices[..., None], (-3, -2), (0, 1))
    moved_x, moved_y = x * a + y * b + c, x * d + y * e + f
    if g.any() or h.any():
        depth = np.maximum(x * g + y * h + i, 1e-6)
        moved_x, moved_y = moved_x / depth, moved_y / depth
    return np.stack([moved_x.min(1), moved_y.min(1), moved_x.max(1), moved_y.max(1)], axis=1)


def _tighten(
    whole: np.ndarray,
    clipped: np.ndarray,
    polygons: Callable[[int], list[np.ndarray]],
    matrices: np.ndarray,
    size: int,
) -> None:
    """Reduce the bounds of rotated and clipped boxes, before and after clipping, to those of their polygons."""
    turned = matrices[:, [0, 1, 2, 2], [1, 0, 0, 1]].any(1)
    loose = turned | ~np.isclose(clipped, whole).all(1)
    loose &= (clipped[:, 2:] - clipped[:, :2] >= MIN_SIDE).all(1)  # others are dropped anyway
    for row in np.flatnonzero(loose).tolist():
        shapes = [project(polygon, matrices[row]) for polygon in polygons(row)]
        if not shapes:
            continue
        points = np.concatenate(shapes)
        whole[row] = _meet(whole[row], np.concatenate([points.min(0), points.max(0)]))
        inside = [clip for clip in (clip_polygon(shape, size) for shape in shapes) if len(clip)]
        if not inside:
            clipped[row] = 0
            continue
        points = np.concatenate(inside)
        clipped[row] = _meet(clipped[row], np.concatenate([points.min(0), points.max(0)]))


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
