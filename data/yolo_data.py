"""Data sets with YOLO labels as COCO content: the images of folders and lists, class names, and conversion."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from core.limits import MAX_CLASSES
from core.progress import map_in_threads
from core.text import one_line, printable, say_once
from core.text_files import read_text_file
from core.yaml_text import ABSENT, parse_text_yaml
from data.converted import MANY_IMAGES, Converted, Sections, source_of
from data.file_names import FileFinder
from data.image import ImageError, Verified
from data.image_files import list_images, passed_over
from data.image_structure import inspect_image
from data.issues import Issue
from data.limits import MAX_LABEL_BYTES, MAX_LIST_BYTES, MAX_YAML_BYTES
from data.names import read_names
from data.yolo_labels import find_labels, guess_keypoints, label_path, parse_labels

MAX_SAMPLED = 2000  # label files in which keypoints are looked for
YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Images:
    """The image files of a split, below a folder, issues of listed ones without a file, and lines for the user."""

    folder: Path
    paths: list[Path]
    missing: list[Issue]
    notes: list[str]


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
        if not name or (name.startswith("#") and not any((folder / name).is_file() for folder in (root, file.parent))):
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
        raise ValueError(f"{file}: not YAML: {one_line(error)}") from error
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
    if value in ABSENT:
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
    if shape in ABSENT:
        return 0
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, str) and n.isdecimal() for n in shape):
        count, size = int(shape[0]), int(shape[1])
        if 1 <= count <= 1000 and size in (2, 3):
            return count * size
    raise ValueError(f"{file}: kpt_shape is {str(shape)[:60]}, expected [number of keypoints, 2 or 3]")


# --------------------------------------------------------------------------------------------------------- conversion


def convert_yolo(
    sections: Sections, *, names: Sequence[str] | None = None, progress: bool = True
) -> tuple[dict[str, Converted], list[str]]:
    """The splits of a data set as COCO content, and the class names, by default those of the source.

    ValueError if a class number has no name, or no image of the training split has labels.
    """
    listed, keypoints = read_classes(Path(source_of(sections)))
    images = {split: find_images_of(section.images, section.parts) for split, section in sections.items()}
    labels = {split: [find_labels(path) for path in found.paths] for split, found in images.items()}
    if "train" in labels and not any(labels["train"]):
        expected = label_path(images["train"].paths[0])
        raise ValueError(
            f"{source_of(sections)}: none of the {len(labels['train'])} training images has a label file, expected for "
            f"instance {expected}"
        )
    posed = keypoints or guess_keypoints(_sample(labels))
    converted = {
        split: _convert_split(found, labels[split], posed, title=f"converting {split}", show=progress)
        for split, found in images.items()
    }
    found_classes = {a["category_id"]: (split, a) for split, each in converted.items() for a in each.annotations}
    highest = max(found_classes, default=-1)
    names = list(names or listed or [f"class {label}" for label in range(highest + 1)])
    if highest >= len(names):
        split, example = found_classes[highest]
        image = converted[split].images[example["image_id"] - 1]["file_name"]
        shown = printable(", ".join(names[:8]))
        raise ValueError(
            f"{source_of(sections)}: labels contain class {highest}, as those of {image}, but there are only "
            f"{len(names)} names, for classes from 0: {shown}"
        )
    for split, files in labels.items():
        if split != "train" and not any(files):
            expected = label_path(images[split].paths[0])
            converted[split].notes.append(
                f"{source_of(sections)}: none of the {len(files)} images of {split} has a label file, expected for "
                f"instance {expected}"
            )
    if posed:
        next(iter(converted.values())).notes.append(
            f"{source_of(sections)}: pose labels, boxes with {posed} values of keypoints; the boxes are used"
        )
    return converted, names


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
    result = Converted(
        found.folder, issues=list(found.missing), notes=list(found.notes), lost_images=len(found.missing)
    )

    def examine(index: int) -> Verified | ImageError:
        try:
            return inspect_image(found.paths[index])
        except ImageError as error:
            return error

    show = show and len(found.paths) >= MANY_IMAGES
    for index, image in enumerate(map_in_threads(examine, len(found.paths), title, show=show)):
        name, file = found.paths[index].relative_to(found.folder).as_posix(), labels[index]
        if isinstance(image, ImageError):
            result.lose_image(Issue(name, image.kind, image.what, str(found.folder)))
            continue
        try:  # an image without a label file has no objects
            text = "" if file is None else read_text_file(file, limit=MAX_LABEL_BYTES, what="labels")
        except (ValueError, OSError) as error:
            result.lose_image(Issue(name, "bad-record", str(error), str(file)))
            continue
        width, height, _ = image  # a fault is listed when the converted data set is read
        number = len(result.images) + 1
        result.images.append({"id": number, "file_name": name, "width": width, "height": height})
        good, bad = parse_labels(text, width, height, keypoints=keypoints)
        result.lose_annotations(*(Issue(name, "bad-record", what, f"{file}, line {line}") for line, what in bad))
        for fields in good:
            if min(fields["bbox"][2:]) <= 0:
                what = f"box {fields['bbox']} has zero width or height"
                result.lose_annotations(Issue(name, "bad-box", what, str(file)))
            else:
                result.annotations.append({"id": len(result.annotations) + 1, "image_id": number, **fields})
    return result
