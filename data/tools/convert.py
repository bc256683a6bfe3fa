"""Convert YOLO text labels to COCO JSON; images are left in place.

    python -m data.convert my-data/data.yaml
    python -m data.convert my-data --names cat,dog

The source is a YOLO data YAML (path, train, val, test, names) or a folder with images/ and labels/, with or without a
subfolder per split. Writes annotations/SPLIT.json for each split and a data YAML for them.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from core.files import path_exists, replacing
from core.limits import MAX_CLASSES
from core.progress import progress_bar
from core.text import printable
from data.image import ImageError, list_images, passed_over, verify_image
from data.issues import Issue, refuse, summary
from data.limits import MAX_LABEL_BYTES, MAX_YAML_BYTES
from data.record_checks import is_encodable

Record = dict[str, Any]  # of a JSON file

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Source:
    """A data set with YOLO labels: its root, the image files of each split, and the class names, if known."""

    root: Path
    images: dict[str, list[Path]]
    names: list[str] | None


def find_source(source: str | Path) -> Source:
    """Find the images of a data YAML or a folder; FileNotFoundError or ValueError names what is missing."""
    path = Path(source)
    if not path_exists(path, folder=True) and not path_exists(path, folder=False):
        raise FileNotFoundError(f"{path}: no such file or folder, expected a YOLO data YAML or a folder with images/")
    if path.is_file():
        return _from_yaml(path)
    for name in ("data.yaml", "dataset.yaml", "data.yml"):
        if (path / name).is_file():
            return _from_yaml(path / name)
    return _from_folder(path)


def _read_text(path: Path, limit: int) -> str:
    if path.stat().st_size > limit:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, expected at most {limit}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error


def _is_path(value: object) -> bool:
    """Whether a value is text without zero bytes and lone surrogates, which YAML escapes can produce."""
    return isinstance(value, str) and "\0" not in value and is_encodable(value)


def _from_yaml(path: Path) -> Source:
    text = _read_text(path, MAX_YAML_BYTES)
    try:
        tree = yaml.safe_load(text)
    # All but the first are raised by PyYAML for invalid dates, numbers or characters.
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: holds a {type(tree).__name__}, expected the keys train, val and names")
    folder = tree.get("path") or "."
    if not _is_path(folder):
        raise ValueError(f"{path}: path is a {type(folder).__name__}, expected the name of a folder")
    root = path.parent / folder
    if not path_exists(root, folder=True):
        root = path.parent  # many data YAMLs still contain a path of the machine they were created on
    images = {}
    for split, key in (("train", "train"), ("val", "val"), ("val", "valid"), ("test", "test")):
        if tree.get(key):
            listed = tree[key] if isinstance(tree[key], list) else [tree[key]]
            # Other types are not converted to text: a few lines of YAML aliases can expand to gigabytes.
            if not all(map(_is_path, listed)):
                raise ValueError(
                    f"{path}: {key} contains values that are not text, expected image folders or list files"
                )
            images[split] = [image for entry in listed for image in _entry(root, path.parent, entry, f"{path}: {key}")]
    if not images:
        raise ValueError(f"{path}: lists no images, expected train, val or test")
    return Source(root.resolve(), images, _names(tree.get("names"), path))


def _entry(root: Path, folder: Path, entry: str, where: str) -> list[Path]:
    """The images of a folder or list file; exporters write paths relative to the YAML or to its root."""
    # One well-known exporter writes "../train/images" for "train/images" next to the YAML.
    candidates = [root / entry, folder / entry, folder / entry.removeprefix("../")]
    for candidate in candidates:
        if path_exists(candidate, folder=True):
            _require_inside(candidate, root.resolve())
            return _images_in(candidate)
        if path_exists(candidate, folder=False) and candidate.suffix == ".txt":
            lines = _read_text(candidate, MAX_LABEL_BYTES).replace("\0", "?").split("\n")
            return [
                (candidate.parent if line.startswith("./") else root) / line.strip() for line in lines if line.strip()
            ]
    raise FileNotFoundError(
        f"{where}: {candidates[0]} does not exist, expected a folder of images or a list file (.txt)"
    )


def _require_inside(path: Path, root: Path) -> None:
    if not path.resolve().is_relative_to(root):
        raise ValueError(f"{path}: is outside {root}, expected all images below the root of the data set")


def _names(value: object, path: Path) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, list):
        value = dict(enumerate(value))
    if (
        isinstance(value, dict)
        and all(isinstance(key, int) and 0 <= key < MAX_CLASSES for key in value)
        and all(isinstance(name, str | int | float) for name in value.values())
    ):
        return [str(value.get(label, f"class {label}")) for label in range(max(value, default=-1) + 1)]
    raise ValueError(
        f"{path}: names is a {type(value).__name__}, expected a list of at most {MAX_CLASSES} names or a mapping from "
        "0, 1, ... to names"
    )


def _from_folder(path: Path) -> Source:
    layouts = {
        split: found
        for split in SPLITS
        for name in ((split, "valid") if split == "val" else (split,))
        for found in (path / "images" / name, path / name / "images")
        if found.is_dir()
    }
    if not layouts and (path / "images").is_dir():
        layouts = {"train": path / "images"}
    if not layouts:
        raise ValueError(f"{path}: has neither a data.yaml nor a folder images/, expected one of them")
    classes = next(
        (path / name for name in ("classes.txt", "obj.names", "labels/classes.txt") if (path / name).is_file()), None
    )
    lines = None if classes is None else _read_text(classes, MAX_YAML_BYTES).splitlines()
    names = None if lines is None else [line.strip() for line in lines if line.strip()]
    return Source(path.resolve(), {split: _images_in(folder) for split, folder in layouts.items()}, names)


def _images_in(folder: Path) -> list[Path]:
    images, others = list_images(folder)
    if others:
        print(f"{printable(folder)}: {passed_over(others)}", file=sys.stderr)
    return images


def label_path(image: Path) -> Path:
    """The label file of an image by YOLO's convention: the last folder `images` becomes `labels`, the suffix .txt."""
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def parse_labels(text: str, width: int, height: int) -> tuple[list[Record], list[tuple[int, str]]]:
    """COCO fields of each line of a label file, and (line number, fault) of invalid lines.

    A line is `class cx cy w h`, or `class x1 y1 x2 y2 x3 y3 ...` for a polygon, as fractions of the image size.
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
        is_polygon = len(values) >= 6 and len(values) % 2 == 0
        if label < 0 or float(words[0]) != label or not (len(values) == 4 or is_polygon):
            bad.append((number, f"{line[:60]!r} is neither class cx cy w h nor class and at least three points"))
        elif label >= MAX_CLASSES:
            bad.append((number, f"{line[:60]!r} has a class number above the limit of {MAX_CLASSES} classes"))
        elif not all(math.isfinite(value) and -1 <= value <= 2 for value in values):
            bad.append((number, f"{line[:60]!r} has values far outside 0 to 1; expected fractions of the image size"))
        else:
            good.append({"category_id": label, **_shape(values, is_polygon, width, height)})
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


def convert_split(source: Source, split: str, *, progress: bool = True) -> tuple[Record, list[Issue]]:
    """COCO content of one split, without categories, and the issues."""
    images: list[Record] = []
    annotations: list[Record] = []
    issues: list[Issue] = []
    for path in progress_bar(source.images[split], f"converting {split}", show=progress):
        _require_inside(path, source.root)
        name = path.resolve().relative_to(source.root).as_posix()
        try:
            width, height, fault = verify_image(path)
        except ImageError as error:
            issues.append(Issue(name, error.kind, error.what, split))
            continue
        if fault:
            issues.append(Issue(name, "truncated", fault, split))
        images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
        labels = label_path(path)
        if not labels.is_file():
            continue  # an image without objects
        if labels.stat().st_size > MAX_LABEL_BYTES:
            raise ValueError(f"{labels}: {labels.stat().st_size} bytes, expected labels of at most {MAX_LABEL_BYTES}")
        good, bad = parse_labels(labels.read_text(encoding="utf-8", errors="replace"), width, height)
        issues += [Issue(name, "bad-record", what, f"{labels}, line {line}") for line, what in bad]
        for fields in good:
            if min(fields["bbox"][2:]) <= 0:
                issues.append(Issue(name, "bad-box", f"box {fields['bbox']} has zero width or height", str(labels)))
            else:
                annotations.append({"id": len(annotations) + 1, "image_id": len(images), **fields})
    return {"images": images, "annotations": annotations}, issues


def convert(
    source: str | Path,
    out: str | Path | None = None,
    *,
    names: Sequence[str] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> tuple[Path, list[Issue]]:
    """Write the COCO annotations of a YOLO data set to `out` (default: its root).

    Returns the path of the data YAML written next to them, and the issues.
    """
    dataset = find_source(source)
    target = Path(out) if out is not None else dataset.root
    contents, issues = {}, []
    for split in dataset.images:
        contents[split], skipped = convert_split(dataset, split, progress=progress)
        issues += skipped
    if strict:
        refuse(issues)
    highest = max((a["category_id"] for content in contents.values() for a in content["annotations"]), default=-1)
    listed = list(names or dataset.names or [f"class {label}" for label in range(highest + 1)])
    if highest >= len(listed):
        raise ValueError(
            f"{source}: labels contain class {highest}, but there are only {len(listed)} names: {', '.join(listed[:8])}"
        )
    entries: Record = {"root": str(dataset.root)}
    for split, content in contents.items():
        content["categories"] = [{"id": label, "name": name} for label, name in enumerate(listed)]
        path = (target / "annotations" / f"{split}.json").resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(json.dumps(content).encode())
        entries[split] = {"images": str(dataset.root), "annotations": str(path)}
    data_yaml = target / "coco.yaml"
    with replacing(data_yaml) as file:
        file.write(yaml.safe_dump(entries, sort_keys=False, allow_unicode=True).encode())
    return data_yaml, issues


class _Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"data.tools.convert: error: {' '.join(message.split())}\n")


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = _Parser(prog="python -m data.convert", description="Convert YOLO text labels to COCO JSON.")
    parser.add_argument("source", help="YOLO data YAML, or a folder with images/ and labels/")
    parser.add_argument("--out", help="folder for annotations/ and coco.yaml (default: the root of the data set)")
    parser.add_argument("--names", help="class names, separated by commas, if the source has none")
    parser.add_argument("--strict", action="store_true", help="stop at the first issue instead of skipping it")
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.names.split(",")] if options.names else None
    try:
        data_yaml, issues = convert(options.source, options.out, names=names, strict=options.strict)
    except (ValueError, OSError) as error:
        text = " ".join(str(error).split())[:1000] or type(error).__name__
        print(f"data.convert: error: {printable(text)}", file=sys.stderr)
        return 2
    for issue in issues[:20]:
        print(issue)
    print(f"{summary(issues)}; train with: python train.py --data {data_yaml}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
