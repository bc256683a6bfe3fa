"""YOLO text labels: `class cx cy w h` in fractions of the image size, polygons, and boxes with keypoints.

A line of a pose data set is a box and then k keypoints of 2 or 3 values: `kpt_shape: [k, 2]` in its data YAML says so.
Without it, labels are those of poses if all lines have the same number of values and every box holds its points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from core.limits import MAX_CLASSES
from data.converted import Record

MANY_POSES = 20  # lines that all could be poses, which outlines never are
AMBIGUOUS = (6, 8)  # values of a triangle, and of a box of four corners (OBB), which are polygons
PADDING = "\0\x1a \t"  # after a loss of power, and by DOS
SLACK = 0.01  # of the image size, by which a keypoint may lie outside its box


def label_path(image: Path) -> Path:
    """The label file of an image by YOLO's convention: the last folder `images` becomes `labels`, the suffix .txt."""
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def find_labels(image: Path) -> Path | None:
    """The label file of an image, or of the file that it links to; else beside the image; None if there is none."""
    for path in (label_path(image), image.with_suffix(".txt"), label_path(image.resolve())):
        if path.is_file():
            return path
    return None


def parse_labels(
    text: str, width: int, height: int, *, keypoints: int = 0
) -> tuple[list[Record], list[tuple[int, str]]]:
    """COCO fields of each line of a label file, and (line number, fault) of invalid lines.

    `keypoints`: number of values of the keypoints that follow a box; 0 if there are none, and lines with more values
    than a box are polygons.
    """
    good, bad = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip(PADDING).split()
        if not words or words[0].startswith("#"):
            continue
        try:
            label, values = int(float(words[0])), [float(word) for word in words[1:]]
        except (ValueError, OverflowError):
            bad.append((number, f"{line[:60]!r} contains values that are not numbers"))
            continue
        is_pose = keypoints > 0 and len(values) == 4 + keypoints
        is_polygon = not keypoints and len(values) >= 6 and len(values) % 2 == 0
        shape = values[:4] if is_pose else values  # the third value of a keypoint is no fraction
        if label < 0 or float(words[0]) != label or not (len(shape) == 4 or is_polygon):
            expected = f"a box and {keypoints} values of keypoints" if keypoints else "class and at least three points"
            bad.append((number, f"{line[:60]!r} is neither class cx cy w h nor {expected}"))
        elif label >= MAX_CLASSES:
            bad.append((number, f"{line[:60]!r} has a class number above the limit of {MAX_CLASSES} classes"))
        elif not all(math.isfinite(value) and -1 <= value <= 2 for value in shape):
            bad.append((number, f"{line[:60]!r} has values far outside 0 to 1; expected fractions of the image size"))
        else:
            good.append({"category_id": label, **_shape(shape, is_polygon, width, height)})
    return good, bad


def _shape(values: Sequence[float], is_polygon: bool, width: int, height: int) -> Record:
    if is_polygon:
        points = [value * (width if position % 2 == 0 else height) for position, value in enumerate(values)]
        left, right = min(points[0::2]), max(points[0::2])
        top, bottom = min(points[1::2]), max(points[1::2])
        polygons = [[round(value, 3) for value in points]]
    else:
        cx, cy, across, down = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        left, top, right, bottom = cx - across / 2, cy - down / 2, cx + across / 2, cy + down / 2
        polygons = []
    # YOLO's rounding lets boxes extend slightly beyond the image, which COCO does not allow.
    left, right = (min(max(value, 0.0), width) for value in (left, right))
    top, bottom = (min(max(value, 0.0), height) for value in (top, bottom))
    box = [round(value, 3) for value in (left, top, right - left, bottom - top)]
    return {"bbox": box, "area": round(box[2] * box[3], 3), "segmentation": polygons, "iscrowd": 0}


def guess_keypoints(texts: Iterable[str]) -> int:
    """Number of values of the keypoints in the lines of label files, 0 if they are boxes and polygons."""
    count, lines, clear = 0, 0, 0
    for text in texts:
        for line in text.splitlines():
            try:
                values = [float(word) for word in line.split()[1:]]
            except ValueError:
                continue
            if len(values) <= 4:
                continue
            count = count or len(values) - 4
            points = _held_points(values)
            if len(values) - 4 != count or not points:
                return 0
            lines += 1
            clear += len(points[0]) == 3 or _is_far(values[2:4], points)
    return count if lines >= MANY_POSES or 2 * clear > lines else 0


def _held_points(values: Sequence[float]) -> list[list[float]]:
    """The keypoints after a box that lies in the image and holds them, those at (0, 0) left out; none for others."""
    cx, cy, width, height = values[:4]
    if not all(side > 0 and side / 2 - SLACK <= at <= 1 - side / 2 + SLACK for at, side in ((cx, width), (cy, height))):
        return []
    for size in (3, 2):
        points = [list(values[start : start + size]) for start in range(4, len(values), size)]
        if (len(values) - 4) % size or (size == 2 and len(values) in AMBIGUOUS):
            continue
        if size == 3 and any(point[2] not in (0, 1, 2) for point in points):
            continue
        seen = [point for point in points if point[0] or point[1]]
        if all(abs(p[0] - cx) <= width / 2 + SLACK and abs(p[1] - cy) <= height / 2 + SLACK for p in seen):
            return seen
    return []


def _is_far(point: Sequence[float], points: Sequence[Sequence[float]]) -> bool:
    """Whether a point is so far from others that it is no vertex of the same outline."""
    for axis in (0, 1):
        values = [other[axis] for other in points]
        low, high = min(values), max(values)
        if not 2 * low - high <= point[axis] <= 2 * high - low:
            return True
    return False
