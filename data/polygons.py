"""Polygons of all annotations in three flat arrays, and their consistency with the boxes."""

from __future__ import annotations

import array
from collections.abc import Iterable, Sequence

import numpy as np

FlatPolygon = Sequence[float]  # x1, y1, x2, y2, ...


def pack_polygons(
    polygons: Iterable[Sequence[FlatPolygon]], boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arrays `polygon_starts`, `point_starts` and `points` of Annotations, from the polygons of each box.

    Polygons that disagree with their box are dropped: the box is what is evaluated, a polygon may only tighten it.
    """
    numbers = array.array("f")
    point_counts, polygon_counts = array.array("q"), np.zeros(len(boxes), np.int64)
    for row, listed in enumerate(polygons):
        usable = [polygon[: len(polygon) // 2 * 2] for polygon in listed if len(polygon) >= 6]
        if usable and _fits(usable, boxes[row]):
            polygon_counts[row] = len(usable)
            for polygon in usable:
                numbers.extend(polygon)
                point_counts.append(len(polygon) // 2)
    counts = np.frombuffer(point_counts, np.int64) if len(point_counts) else np.zeros(0, np.int64)
    points = np.frombuffer(numbers, np.float32).reshape(-1, 2) if len(numbers) else np.zeros((0, 2), np.float32)
    return starts_of(polygon_counts), starts_of(counts), points


def starts_of(counts: np.ndarray) -> np.ndarray:
    """Offsets (n + 1,) int64 of consecutive spans of these lengths (n,)."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def span_rows(starts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Positions of all elements of the chosen spans."""
    counts = np.diff(starts)[chosen]
    ends = np.cumsum(counts)
    return np.repeat(starts[:-1][chosen] - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)


def _fits(polygons: Sequence[FlatPolygon], box: np.ndarray) -> bool:
    """Whether polygons span their box (left, top, width, height) to within 2 pixels plus 2 %."""
    x = [value for polygon in polygons for value in polygon[0::2]]
    y = [value for polygon in polygons for value in polygon[1::2]]
    spanned = np.array([min(x), min(y), max(x), max(y)])
    expected = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])
    tolerance = 2 + 0.02 * np.array([box[2], box[3], box[2], box[3]])
    return bool((np.abs(spanned - expected) <= tolerance).all())
