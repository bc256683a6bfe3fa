"""Data sets with YOLO labels, Pascal VOC or CVAT XML, read as COCO: converted once, kept in the cache of the data set.

The converted files are made again when an image, a label or the data YAML changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from core.files import write_text
from core.text import say_once
from data.annotations import Annotations
from data.cache_dir import cache_folder
from data.coco import read_coco
from data.converted import Converted, Section, Sections, source_of
from data.issues import Issue, refuse
from data.xml_labels import convert_cvat, convert_voc, voc_files, voc_names
from data.yolo_data import convert_yolo, find_images_of
from data.yolo_labels import find_labels

VERSION = 2  # raise it when the conversion changes: what was converted before is converted again
RECORD = "conversion.json"
NAMES = {"yolo": "YOLO labels", "voc": "Pascal VOC", "cvat": "CVAT"}

# By the `format` of a split: the sections of all splits -> COCO content by split, and the class names of them all.
CONVERTERS: dict[str, Callable[..., tuple[dict[str, Converted], list[str]]]] = {
    "yolo": convert_yolo,
    "voc": convert_voc,
    "cvat": convert_cvat,
}


def read_converted(sections: Sections, split: str, *, strict: bool = False, progress: bool = True) -> Annotations:
    """The annotations of a split; `sections` are all splits of the same format, which share their classes.

    FileNotFoundError and ValueError as from `read_coco`. A line on stderr says that they were converted, and where to.
    """
    kind, source = sections[split].format, Path(sections[split].annotations)
    with _folder_of(sections) as folder:
        key = _key(sections)
        record = _read_record(folder, key) or _convert(sections, folder, key, progress=progress)
        say_once(f"{source_of(sections)}: {NAMES[kind]} of {', '.join(sections)} converted to COCO in {folder}")
        for note in record["notes"]:
            say_once(note)
        part = record["splits"][split]
        annotations = read_coco(folder / f"{split}.json", part["images"], source=source, progress=progress)
    issues = [*(Issue(**issue) for issue in part["issues"]), *annotations.issues]
    if strict:
        refuse(issues)
    listed = annotations.listed[0] + part["lost"][0], annotations.listed[1] + part["lost"][1]
    return replace(annotations, issues=issues, listed=listed)


@contextlib.contextmanager
def _folder_of(sections: Sections) -> Iterator[Path]:
    """The folder of the converted files, by where the splits are; a temporary one where none can be written."""
    where = json.dumps([(split, _places(section)) for split, section in sections.items()])
    first = next(iter(sections.values()))
    beside = Path(first.annotations)
    folder = cache_folder(beside / "x" if first.annotations == first.images else beside)  # not outside the data set
    folder /= f"{first.format}-{hashlib.sha256(where.encode()).hexdigest()[:16]}"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    yield folder


def _places(section: Section) -> list[str]:
    return [section.images, section.annotations, *section.parts]


def _read_record(folder: Path, key: str) -> dict[str, Any] | None:
    """What was converted before, None if anything is missing or has changed."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("key") != key or not isinstance(record.get("splits"), dict):
        return None
    sizes = {split: part.get("bytes") for split, part in record["splits"].items() if isinstance(part, dict)}
    try:
        same = all((folder / f"{split}.json").stat().st_size == sizes.get(split) for split in record["splits"])
    except OSError:
        return None
    return record if same else None


def _convert(sections: Sections, folder: Path, key: str, *, progress: bool) -> dict[str, Any]:
    """Write the converted splits, and last what they were made from; returns the latter."""
    (folder / RECORD).unlink(missing_ok=True)
    record: dict[str, Any] = {"key": key, "notes": [], "splits": {}}
    for split, each in convert_splits(sections, progress=progress).items():
        content = json.dumps(each.content)  # ASCII, so that its length is that of the file
        write_text(folder / f"{split}.json", content)
        record["notes"] += each.notes
        record["splits"][split] = {
            "images": str(each.folder),
            "issues": [asdict(issue) for issue in each.issues],
            "lost": (each.lost_images, each.lost_annotations),
            "bytes": len(content),
        }
    write_text(folder / RECORD, json.dumps(record))
    return record


def convert_splits(
    sections: Sections, *, names: Sequence[str] | None = None, progress: bool = True
) -> dict[str, Converted]:
    """The splits of a data set, all of one format; `names` replaces the class names of YOLO labels."""
    kind = next(iter(sections.values())).format
    if names and kind != "yolo":
        raise ValueError(f"names: {NAMES[kind]} has class names, expected none but for YOLO labels")
    converted, found = CONVERTERS[kind](sections, progress=progress, **({"names": names} if names else {}))
    if not found:
        lost = next((f"; the first issue: {each.issues[0]}" for each in converted.values() if each.issues), "")
        raise ValueError(f"{source_of(sections)}: no objects and no class names, expected at least one object{lost}")
    for each in converted.values():
        each.categories = [{"id": label, "name": name} for label, name in enumerate(found)]
    return converted


def _key(sections: Sections) -> str:
    """A hash of the paths, sizes and times of everything that the conversion reads."""
    digest = hashlib.sha256(f"{VERSION}".encode())
    for split, section in sections.items():
        digest.update(f"\0{split}\0{section.format}".encode())
        for path in _inputs(section):
            try:
                status = os.stat(path)
                state = f"{status.st_size} {status.st_mtime_ns}"
            except OSError:
                state = "absent"
            digest.update(f"\0{path}\0{state}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _inputs(section: Section) -> Iterator[Path]:
    yield from map(Path, _places(section))
    if section.format == "voc":
        yield voc_names(Path(section.annotations))
        yield from voc_files(Path(section.annotations), section.parts)
    elif section.format == "yolo":
        for image in find_images_of(section.images, section.parts).paths:
            yield image
            label = find_labels(image)
            if label is not None:
                yield label
