"""The records of a COCO file and what their values mean: `decode(path, issues)` returns CocoFile.

A well-formed file is read by msgspec's typed decoder. Any other is read record by record: numbers written as text, as
1.0 or as true are numbers, and a record that cannot be read becomes an issue.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from core.text_files import decode_text
from data.issues import Issue

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.0+)?")
_ZERO_PADDED = re.compile(r"[0-9]{1,18}")
_FLAGS = {"true": True, "false": False, "": False, "none": False, "null": False}

T = TypeVar("T")
Record = dict[str, object]


class ImageRecord(msgspec.Struct, gc=False):
    """The fields of an entry of `images` that are read."""

    id: int | str
    file_name: str
    width: int | float | None = None
    height: int | float | None = None


class AnnotationRecord(msgspec.Struct, gc=False):
    """The fields of an entry of `annotations` that are read; `segmentation` stays undecoded."""

    image_id: int | str
    category_id: int | str
    bbox: list[float] | None = None
    id: int | str | None = None
    area: float | None = None
    iscrowd: int | bool | None = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class CategoryRecord(msgspec.Struct, gc=False):
    """The fields of an entry of `categories` that are read."""

    id: int | str
    name: str


class CocoFile(msgspec.Struct, gc=False):
    """The whole file; `annotations` may be absent if no image has any."""

    images: list[ImageRecord]
    categories: list[CategoryRecord]
    annotations: list[AnnotationRecord] = []


def decode(path: Path, issues: list[Issue]) -> tuple[CocoFile, tuple[int, int]]:
    """The records of a file, and how many images and annotations it lists; issues are added to `issues`.

    ValueError if it is not a COCO file.
    """
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: empty file, expected COCO annotations (JSON)")
    with open(path, "rb") as file:
        # Not closed explicitly: the undecoded polygons are views into it and keep it open until they are released.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    decoder = msgspec.json.Decoder(CocoFile)
    faults = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
    with contextlib.suppress(*faults):
        return _counted(decoder.decode(data))
    try:
        text = decode_text(data[:], name=str(path))
    except ValueError as error:
        raise ValueError(f"{error}; expected COCO annotations (JSON)") from error
    with contextlib.suppress(*faults, UnicodeEncodeError):
        return _counted(decoder.decode(text))
    return _decode_leniently(path, text, issues)


def _counted(content: CocoFile) -> tuple[CocoFile, tuple[int, int]]:
    return content, (len(content.images), len(content.annotations))


def _decode_leniently(path: Path, data: str, issues: list[Issue]) -> tuple[CocoFile, tuple[int, int]]:
    """Read record by record with Python's json, which accepts NaN; invalid records become issues."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}; expected COCO annotations") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected a COCO object with images and categories")
    for key in ("images", "categories"):
        if not isinstance(content.get(key), list):
            found = ", ".join(sorted(map(str, content))[:8]) or "nothing"
            raise ValueError(f"{path}: has no list {key!r}, found {found}; expected COCO detection annotations")
    listed = content.get("annotations") if content.get("annotations") is not None else []
    if not isinstance(listed, list):
        raise ValueError(f"{path}: annotations is a {type(listed).__name__}, expected a list")
    names = {_key(each.get("id")): each.get("file_name") for each in content["images"] if isinstance(each, dict)}

    def convert(key: str, records: list[object], kind: type[T], meant: Callable[[Record], Record]) -> list[T]:
        kept = []
        for position, record in enumerate(records):
            values = record if isinstance(record, dict) else {}
            try:
                kept.append(msgspec.convert(meant(values) if values else record, kind, str_keys=True))
            except (msgspec.ValidationError, OverflowError, UnicodeEncodeError) as error:
                name = values.get("file_name") if key == "images" else names.get(_key(values.get("image_id")))
                file = name if isinstance(name, str) else path.name
                fault = "bad-box" if key == "annotations" and "bbox" in str(error) else "bad-record"
                issues.append(Issue(file, fault, str(error), f"{path.name}, {key}[{position}]"))
        return kept

    readable = CocoFile(
        images=convert("images", content["images"], ImageRecord, _image),
        categories=convert("categories", content["categories"], CategoryRecord, _category),
        annotations=convert("annotations", listed, AnnotationRecord, _annotation),
    )
    return readable, (len(content["images"]), len(listed))


# ------------------------------------------------------------------------------------------------ what values mean


def meaning(identity: int | str) -> int | str:
    """What an id means: 7 for 7, "7" and "7.0"; any other text is the id itself."""
    if isinstance(identity, str) and _WHOLE.fullmatch(identity.strip()):
        return int(identity.strip().partition(".")[0])
    return identity


def unpadded(identity: int | str) -> int | None:
    """The number of an id that may be padded with zeros, as in "000042"; None for any other text."""
    if isinstance(identity, int):
        return identity
    return int(identity) if _ZERO_PADDED.fullmatch(identity) else None


def _key(identity: object) -> str:
    return str(meaning(identity)) if isinstance(identity, (int, str)) else ""


def _id(value: object) -> object:
    """An id as an integer if it is a number; text stays as it is, see `meaning`."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def _number(value: object) -> object:
    """A number that is written as text or as true; anything else stays as it is and is refused later."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and "_" not in value:
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _number_or_none(value: object) -> object:
    """A number, or None for what can be derived instead."""
    number = _number(value)
    return number if isinstance(number, (int, float)) and abs(number) < float("inf") else None


def _flag(value: object) -> object:
    """Whether iscrowd is set; NaN, as pandas writes for missing values, is not."""
    if isinstance(value, str) and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    number = _number(value)
    return bool(number) and number == number if isinstance(number, (int, float)) else value


def _box(value: object) -> object:
    """A box as a list of numbers; None if missing: "" and NaN, as pandas writes it, and lists of nothing else."""
    if isinstance(value, str) and value.strip():
        value = re.split(r"[\s,;]+", value.strip("[]() \t\n"))
    if isinstance(value, list):
        return None if all(map(_is_missing, value)) else [_number(each) for each in value]
    return None if _is_missing(value) else value


def _is_missing(value: object) -> bool:
    return value is None or value == "" or value != value or (isinstance(value, str) and not value.strip())


def _apply(record: Record, **meant: Callable[[object], object]) -> Record:
    return record | {key: read(record[key]) for key, read in meant.items() if key in record}


def _image(record: Record) -> Record:
    return _apply(record, id=_id, width=_number_or_none, height=_number_or_none)


def _category(record: Record) -> Record:
    return _apply(record, id=_id, name=lambda name: str(name) if isinstance(name, (int, float)) else name)


def _annotation(record: Record) -> Record:
    """The record with its segmentation, if any, encoded again, as msgspec.Raw."""
    record = _apply(
        record, image_id=_id, category_id=_id, bbox=_box, area=_number_or_none, iscrowd=_flag, id=_annotation_id
    )
    segmentation = record.pop("segmentation", None)
    if isinstance(segmentation, (list, dict)):
        with contextlib.suppress(TypeError, ValueError, RecursionError, OverflowError):
            record["segmentation"] = msgspec.Raw(msgspec.json.encode(segmentation))
    return record


def _annotation_id(value: object) -> object:
    value = _id(value)
    return value if isinstance(value, (int, str)) else None  # nothing refers to it
