"""YOLO text labels: `class cx cy w h` in fractions of the image size, polygons, and boxes with keypoints.

A line of a pose data set is a box and then k keypoints of 2 or 3 values: `kpt_shape: [k, 2]` in its data YAML says so.
Without it, labels are those of poses if all lines have the same number of values and every box holds its points.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from core.limits import MAX_CLASSES
from core.progress import map_in_threads
from core.text import printable, say_once
from core.text_files import read_text_file
from core.yaml_text import ABSENT, parse_text_yaml
from data.file_names import FileFinder
from data.image import ImageError, list_images, passed_over, verify_image
from data.issues import Issue
from data.limits import MAX_LABEL_BYTES, MAX_LIST_BYTES, MAX_YAML_BYTES
from data.names import read_names

Record = dict[str, Any]  # of a COCO file
MAX_SAMPLED = 2000  # label files in which keypoints are looked for
MANY_POSES = 20  # lines that all could be poses, which outlines never are
AMBIGUOUS = (6, 8)  # values of a triangle, and of a box of four corners (OBB), which are polygons
SLACK = 0.01  # of the image size, by which a keypoint may lie outside its box
YAML_SUFFIXES = (".yaml", ".yml")


@dataclass
class Converted:
    """A split as COCO content, still without categories, and what was skipped."""

    folder: Path  # file names are relative to it
    images: list[Record] = field(default_factory=list)
    annotations: list[Record] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # lines for the user


@dataclass(frozen=True)
class Images:
    """The image files of a split, below a folder, issues of listed ones without a file, and lines for the user."""

    folder: Path
    paths: list[Path]
    missing: list[Issue]
    notes: list[str]


# ------------------------------------------------------------------------------------------------------------- images


def find_images_of(images: str, parts: Sequence[str]) -> Images:
    """The images of folders and list files; FileNotFoundError or ValueError if there are none."""
    base = Path(images) if Path(images).is_dir() else Path(images).parent
    found: list[Path] = []
    missing: list[Issue] = []
    notes: list[str] = []
    for part in map(Path, parts or [images]):
        if part.is_dir():
            inside, others = list_images(part)
            found += inside
            notes += [f"{part}: {passed_over(others)}"] if others else []
        elif part.is_file():
            listed, absent = _listed_images(part, base)
            found += listed
            missing += absent
        else:
            raise FileNotFoundError(f"{part}: no such file or folder, expected images or a list of them (.txt)")
    if not found:
        raise ValueError(
            f"{', '.join(parts or [images])}: no image" + (f"; the first: {missing[0]}" if missing else "")
        )
    found = list(dict.fromkeys(found))
    if not all(path.is_relative_to(base) for path in found):
        base = Path(os.path.commonpath([path.parent for path in found]))
    return Images(base, found, missing, notes)


def _listed_images(file: Path, root: Path) -> tuple[list[Path], list[Issue]]:
    """The images in a list file, one path per line, relative to it or to the root of the data set."""
    text = read_text_file(file, limit=MAX_LIST_BYTES, what="a list of images")
    finders = [FileFinder(folder) for folder in dict.fromkeys((file.parent, root))]
    found, issues = [], []
    for number, line in enumerate(text.split("\n"), 1):
        name = line.strip()
        if not name:
            continue
        path = Path(name.replace("\0", "?"))
        if path.is_absolute() and path.is_file():
            found.append(path)
            continue
        order = finders if name.startswith("./") else finders[::-1]
        places = [(finder, finder.find(name)) for finder in order]
        place = next(((finder, each) for finder, each in places if each.path is not None), None)
        if place is not None:
            found.append(Path(os.path.normpath(os.path.join(place[0].folder, place[1].path or ""))))
        else:
            issues.append(
                Issue(printable(name), "missing", f"no such file below {root}", f"{file.name}, line {number}")
            )
    return found, issues


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


# ------------------------------------------------------------------------------------------------------------- labels


def parse_labels(
    text: str, width: int, height: int, *, keypoints: int = 0
) -> tuple[list[Record], list[tuple[int, str]]]:
    """COCO fields of each line of a label file, and (line number, fault) of invalid lines.

    `keypoints`: number of values of the keypoints that follow a box; 0 if there are none, and lines with more values
    than a box are polygons.
    """
    good, bad = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
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


# ---------------------------------------------------------------------------------------------------- names, keypoints


def read_classes(file: Path) -> tuple[list[str] | None, int]:
    """The class names of a data set, None if it has none, and the number of values of its keypoints.

    `file`: a data YAML, a file with one name per line, or a folder, which has none.
    """
    if file.suffix.lower() not in YAML_SUFFIXES:
        return (read_names(file) if file.is_file() and file.suffix != ".data" else None), 0
    try:
        tree = parse_text_yaml(read_text_file(file, limit=MAX_YAML_BYTES, what="a data YAML"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, Mapping):
        raise ValueError(f"{file}: holds a {type(tree).__name__}, expected the keys train, val and names")
    names, count = _names(tree.get("names"), file), tree.get("nc")
    if isinstance(count, str) and count.isdecimal() and count.isascii() and int(count) <= MAX_CLASSES:
        if names is None:
            names = [f"class {label}" for label in range(int(count))]
        elif len(names) != int(count):
            say_once(f"{file}: nc is {count}, names lists {len(names)} classes, which count")
    return names, _keypoint_values(tree.get("kpt_shape"), file)


def _names(value: object, file: Path) -> list[str] | None:
    if value is None or (isinstance(value, str) and value in ABSENT):
        return None
    if isinstance(value, list):
        value = {str(label): name for label, name in enumerate(value)}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value.values()):
        keys = [int(key) if isinstance(key, str) and key.isascii() and key.isdecimal() else -1 for key in value]
        if all(0 <= key < MAX_CLASSES for key in keys):
            named = dict(zip(keys, value.values(), strict=True))
            return [named.get(label) or f"class {label}" for label in range(max(keys, default=-1) + 1)]
    raise ValueError(
        f"{file}: names is a {type(value).__name__}, expected a list of at most {MAX_CLASSES} names or a mapping from "
        "0, 1, ... to names"
    )


def _keypoint_values(shape: object, file: Path) -> int:
    if shape is None or (isinstance(shape, str) and shape in ABSENT):
        return 0
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, str) and n.isdecimal() for n in shape):
        count, size = int(shape[0]), int(shape[1])
        if 1 <= count <= 1000 and size in (2, 3):
            return count * size
    raise ValueError(f"{file}: kpt_shape is {str(shape)[:60]}, expected [number of keypoints, 2 or 3]")


# --------------------------------------------------------------------------------------------------------- conversion


def convert_yolo(
    sections: Mapping[str, Any], *, names: Sequence[str] | None = None, progress: bool = True
) -> tuple[dict[str, Converted], list[str]]:
    """The splits of a data set as COCO content, and the class names, by default those of the source.

    ValueError if a class number has no name, or no image of the training split has labels.
    """
    listed, keypoints = read_classes(Path(_source(sections)))
    images = {split: find_images_of(section.images, section.parts) for split, section in sections.items()}
    labels = {split: [find_labels(path) for path in found.paths] for split, found in images.items()}
    if "train" in labels and not any(labels["train"]):
        expected = label_path(images["train"].paths[0])
        raise ValueError(
            f"{_source(sections)}: none of the {len(labels['train'])} training images has a label file, expected for "
            f"instance {expected}"
        )
    posed = keypoints or guess_keypoints(_sample(labels))
    converted = {
        split: _convert_split(found, labels[split], posed, title=f"converting {split}", show=progress)
        for split, found in images.items()
    }
    highest = max((a["category_id"] for split in converted.values() for a in split.annotations), default=-1)
    names = list(names or listed or [f"class {label}" for label in range(highest + 1)])
    if highest >= len(names):
        shown = printable(", ".join(names[:8]))
        raise ValueError(
            f"{_source(sections)}: labels contain class {highest}, but there are only {len(names)} names: {shown}"
        )
    if posed:
        next(iter(converted.values())).notes.append(
            f"{_source(sections)}: pose labels, boxes with {posed} values of keypoints; the boxes are used"
        )
    return converted, names


def _source(sections: Mapping[str, Any]) -> str:
    return str(next(iter(sections.values())).annotations)


def _sample(labels: Mapping[str, Sequence[Path | None]]) -> Iterator[str]:
    """Texts of the first label files of each split; unreadable ones are reported later."""
    for files in labels.values():
        for file in [file for file in files if file is not None][:MAX_SAMPLED]:
            try:
                yield read_text_file(file, limit=MAX_LABEL_BYTES, what="labels", any_encoding=True)
            except (ValueError, OSError):
                continue


def _convert_split(
    found: Images, labels: Sequence[Path | None], keypoints: int, *, title: str, show: bool
) -> Converted:
    result = Converted(found.folder, issues=list(found.missing), notes=list(found.notes))

    def examine(index: int) -> tuple[int, int] | ImageError:
        try:
            return verify_image(found.paths[index])
        except ImageError as error:
            return error

    for index, size in enumerate(map_in_threads(examine, len(found.paths), title, show=show)):
        name, file = found.paths[index].relative_to(found.folder).as_posix(), labels[index]
        if isinstance(size, ImageError):
            result.issues.append(Issue(name, size.kind, size.what, str(found.folder)))
            continue
        number = len(result.images) + 1
        result.images.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        if file is None:
            continue  # an image without objects
        try:
            text = read_text_file(file, limit=MAX_LABEL_BYTES, what="labels")
        except (ValueError, OSError) as error:
            result.issues.append(Issue(name, "bad-record", str(error), str(file)))
            continue
        good, bad = parse_labels(text, *size, keypoints=keypoints)
        result.issues += [Issue(name, "bad-record", what, f"{file}, line {line}") for line, what in bad]
        for fields in good:
            if min(fields["bbox"][2:]) <= 0:
                what = f"box {fields['bbox']} has zero width or height"
                result.issues.append(Issue(name, "bad-box", what, str(file)))
            else:
                result.annotations.append({"id": len(result.annotations) + 1, "image_id": number, **fields})
    return result
