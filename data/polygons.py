"""Polygons of all annotations in flat arrays, and their consistency with the boxes.

COCO gives coordinates with two decimals. Such a polygon is kept as hundredths of a pixel in uint16, which is exact and
half as large as float32; any other polygon is kept as float32, in the same array as the bits of two uint16.
"""

from __future__ import annotations

import array
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

FlatPolygon = Sequence[float]  # x1, y1, x2, y2, ...
CHUNK = 20_000  # annotations whose coordinates are held in float64 at a time


class PackedPolygons(NamedTuple):
    """The columns of Annotations that hold the polygons of A annotations, P polygons in all."""

    polygon_starts: np.ndarray  # (A + 1,) polygons of annotation a are polygon_starts[a]:polygon_starts[a + 1]
    point_starts: np.ndarray  # (P + 1,) the coordinates of polygon p are point_starts[p]:point_starts[p + 1] of points
    points: np.ndarray  # (Q,) uint16
    in_hundredths: np.ndarray  # (P,) bool: hundredths of a pixel; False: float32


def pack_polygons(polygons: Iterable[Sequence[FlatPolygon]], boxes: np.ndarray) -> PackedPolygons:
    """Polygons of each box (left, top, width, height) as arrays.

    Polygons that disagree with their box are dropped: the box is what is evaluated, a polygon may only tighten it.
    """
    listed, first = iter(polygons), 0
    counts: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    points: list[np.ndarray] = []
    exact: list[np.ndarray] = []
    while chunk := list(islice(listed, CHUNK)):
        packed = _pack_chunk(chunk, boxes[first : first + len(chunk)])
        first += len(chunk)
        for column, part in zip((counts, sizes, points, exact), packed, strict=True):
            column.append(part)
    counts.append(np.zeros(len(boxes) - first, np.int64))  # nothing was listed for them
    return PackedPolygons(
        starts_of(np.concatenate(counts)),
        starts_of(np.concatenate(sizes) if sizes else np.zeros(0, np.int64)),
        np.concatenate(points) if points else np.zeros(0, np.uint16),
        np.concatenate(exact) if exact else np.zeros(0, bool),
    )


def _pack_chunk(
    listed: Sequence[Sequence[FlatPolygon]], boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For some annotations: number of polygons of each, size of each polygon in `points`, `points`, `in_hundredths`."""
    numbers, lengths, counts = array.array("d"), array.array("q"), np.zeros(len(listed), np.int64)
    for row, polygons in enumerate(listed):
        for polygon in polygons:
            if len(polygon) >= 6:
                numbers.extend(polygon[:-1] if len(polygon) % 2 else polygon)
                lengths.append(len(polygon) // 2)
                counts[row] += 1
    if not lengths:
        return counts, np.zeros(0, np.int64), np.zeros(0, np.uint16), np.zeros(0, bool)
    points, sizes = np.frombuffer(numbers, np.float64).reshape(-1, 2), np.frombuffer(lengths, np.int64)
    has = counts > 0
    fitting = _fit(points, np.add.reduceat(sizes, _firsts(counts[has])), boxes[has])
    kept = np.repeat(fitting, counts[has])  # polygons
    counts[np.flatnonzero(has)[~fitting]] = 0
    packed, exact = _as_uint16(points[np.repeat(kept, sizes)], sizes[kept])
    return counts, np.where(exact, 2, 4) * sizes[kept], packed, exact


def _fit(points: np.ndarray, sizes: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n,) whether n groups of points, of these sizes, span their boxes (n, 4) to within 2 pixels plus 2 %."""
    firsts = _firsts(sizes)
    spanned = np.concatenate([np.minimum.reduceat(points, firsts), np.maximum.reduceat(points, firsts)], axis=1)
    expected = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    tolerance = 2 + 0.02 * np.tile(boxes[:, 2:], 2)
    with np.errstate(invalid="ignore"):  # infinite coordinates
        return (np.abs(spanned - expected) <= tolerance).all(axis=1)


def _as_uint16(points: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygons of these sizes, float64 points (Q, 2), as `points` and `in_hundredths`."""
    if not len(sizes):
        return np.zeros(0, np.uint16), np.zeros(0, bool)
    floats, hundredths = points.astype(np.float32), np.rint(points * 100)
    within = (hundredths >= 0) & (hundredths <= np.iinfo(np.uint16).max)
    same = (within & (_from_hundredths(hundredths) == floats)).all(axis=1)
    exact = np.logical_and.reduceat(same, _firsts(sizes))
    of_point = np.repeat(exact, sizes)
    packed = np.empty(int((np.where(exact, 2, 4) * sizes).sum()), np.uint16)
    of_slot = np.repeat(exact, np.where(exact, 2, 4) * sizes)
    packed[of_slot] = hundredths[of_point].astype(np.uint16).ravel()
    packed[~of_slot] = floats[~of_point].view(np.uint16).ravel()
    return packed, exact


def unpacked(points: np.ndarray, *, in_hundredths: bool) -> np.ndarray:
    """A polygon (n, 2) float32 from its part of PackedPolygons.points."""
    return (_from_hundredths(points) if in_hundredths else points.view(np.float32)).reshape(-1, 2)


def _from_hundredths(values: np.ndarray) -> np.ndarray:
    # Divided in float64, which gives the number nearest to the two decimals of the file, as a parser does.
    return (values / np.float64(100)).astype(np.float32)


def starts_of(counts: np.ndarray) -> np.ndarray:
    """Offsets (n + 1,) of consecutive spans of these lengths (n,), int32 where they fit."""
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts.astype(np.int32) if starts[-1] <= np.iinfo(np.int32).max else starts


def _firsts(sizes: np.ndarray) -> np.ndarray:
    return np.cumsum(sizes) - sizes
