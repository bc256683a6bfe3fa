"""What COCO's `segmentation` says: polygons, and the box and the area of a polygon or of a run-length encoded mask."""

from __future__ import annotations

from collections.abc import Sequence

import hotcoco
import msgspec
import numpy as np

from data.limits import MAX_LISTED_SIZE

Polygons = list[list[float]]  # flat x1, y1, x2, y2, ...


class RunLengths(msgspec.Struct, gc=False):
    """A mask: run lengths, or COCO's compression of them as text; `size` is height, width."""

    counts: list[int] | str
    size: tuple[int, int]


_nested = msgspec.json.Decoder(Polygons, strict=False)  # not strict: numbers may be written as text
_flat = msgspec.json.Decoder(list[float], strict=False)
_mask = msgspec.json.Decoder(RunLengths, strict=False)


def read_polygons(segmentation: msgspec.Raw) -> Polygons:
    """The polygons of a segmentation; none of a mask or of anything that cannot be read."""
    try:
        polygons = _nested.decode(segmentation)
    except (msgspec.DecodeError, RecursionError):
        try:
            polygons = [_flat.decode(segmentation)]
        except (msgspec.DecodeError, RecursionError):
            return []
    if len(polygons) >= 3 and all(len(each) == 2 for each in polygons):
        return [[value for point in polygons for value in point]]  # one polygon written as a list of points
    return polygons


def box_of(segmentation: msgspec.Raw) -> list[float] | None:
    """The box (left, top, width, height) that a segmentation spans; None if it spans none."""
    polygons = [each for each in read_polygons(segmentation) if len(each) >= 6]
    if not polygons:
        mask = _read_mask(segmentation)
        return hotcoco.mask.to_bbox(mask).tolist() if mask is not None else None
    x = [value for polygon in polygons for value in polygon[: len(polygon) // 2 * 2 : 2]]
    y = [value for polygon in polygons for value in polygon[1::2]]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def area_of(segmentation: msgspec.Raw) -> float:
    """The area of a segmentation in pixels, as COCO computes it: the sum over its polygons; 0 if it has none."""
    polygons = [each for each in read_polygons(segmentation) if len(each) >= 6]
    if polygons:
        return sum(map(_shoelace, polygons))
    mask = _read_mask(segmentation)
    return float(hotcoco.mask.area(mask)) if mask is not None else 0.0


def _shoelace(polygon: Sequence[float]) -> float:
    x, y = np.array(polygon[: len(polygon) // 2 * 2], np.float64).reshape(-1, 2).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _read_mask(segmentation: msgspec.Raw) -> dict[str, object] | None:
    """A mask as hotcoco takes it, which checks that the runs fill the size; None if it is none."""
    try:
        runs = _mask.decode(segmentation)
        height, width = runs.size
        if not (0 < height <= MAX_LISTED_SIZE and 0 < width <= MAX_LISTED_SIZE):
            return None
        if isinstance(runs.counts, str):
            mask: dict[str, object] = {"size": [height, width], "counts": runs.counts}
        else:
            mask = hotcoco.mask.fr_py_objects({"size": [height, width], "counts": runs.counts}, height, width)
        hotcoco.mask.to_bbox(mask)
    except (msgspec.DecodeError, RecursionError, ValueError, TypeError, OverflowError):
        return None
    return mask
