"""COCO's JSON read natively into compact arrays: `read_coco(json, images)` gives Annotations.

The usual file goes through msgspec's typed decoder, 118,000 images in seconds. A file that this refuses (NaN is no
JSON; a record may lack a field) is read leniently record by record, and what is wrong lands in the ledger.
"""

from __future__ import annotations

import array
import contextlib
import json
import mmap
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import msgspec
import numpy as np

from core.files import replacing
from core.progress import progress_bar
from data.annotations import Annotations, TextColumn
from data.cache_dir import cache_folder, content_hash, is_there
from data.issues import Problem, refuse

FORMAT = 2  # raise it when the arrays or the checks change: caches of another format are not read
SMALLEST_CACHED = 2 << 20  # bytes; smaller files are read faster than a cache is looked up
MOST_BYTES = 8 << 30
MOST_CLASSES = 10_000  # each is a part of the network's output, and of every table and picture
INT64 = 2**63

T = TypeVar("T")


class ImageRecord(msgspec.Struct, gc=False):
    """What is read of an entry of `images`."""

    id: int | str
    file_name: str
    width: int | float | None = None
    height: int | float | None = None


class AnnotationRecord(msgspec.Struct, gc=False):
    """What is read of an entry of `annotations`; `segmentation` stays undecoded."""

    image_id: int | str
    category_id: int
    bbox: list[float]
    id: int | str | None = None
    area: float | None = None
    iscrowd: int | bool | None = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class CategoryRecord(msgspec.Struct, gc=False):
    """What is read of an entry of `categories`."""

    id: int
    name: str


class CocoFile(msgspec.Struct, gc=False):
    """The whole file; annotations may be absent where no image has any."""

    images: list[ImageRecord]
    categories: list[CategoryRecord]
    annotations: list[AnnotationRecord] = []


def read_coco(
    json_path: str | Path,
    image_folder: str | Path,
    *,
    polygons: bool = True,
    strict: bool = False,
    progress: bool = True,
) -> Annotations:
    """Read a COCO annotation file; problems are listed in the result's ledger, or raised where `strict`.

    FileNotFoundError for a missing file, ValueError for one that is not COCO detection annotations or has no images.
    """
    path = Path(json_path)
    if not is_there(path, folder=False):
        raise FileNotFoundError(f"{path}: no such file, expected COCO annotations (JSON)")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, expected at most {MOST_BYTES}")
    cached = None
    if path.stat().st_size >= SMALLEST_CACHED:
        kind = "polygons" if polygons else "boxes"
        cached = cache_folder(path) / f"coco-{FORMAT}-{kind}-{content_hash(path, progress=progress)[:32]}.npz"
        found = _read_cache(cached, str(path), str(image_folder))
        if found is not None:
            if strict:
                refuse(found.ledger)
            return found
    problems: list[Problem] = []
    content = _decode(path, problems)
    annotations = _Builder(path, Path(image_folder), content, problems, progress).build(polygons)
    if strict:
        refuse(problems)
    if cached is not None:
        with contextlib.suppress(OSError):  # a full or read-only disk costs the next start some seconds, no more
            _write_cache(cached, annotations)
    return annotations


def _decode(path: Path, problems: list[Problem]) -> CocoFile:
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: is empty, expected COCO annotations (JSON)")
    with open(path, "rb") as file:
        # Never closed by hand: the undecoded polygons are views into it, and it goes when the last of them goes.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return msgspec.json.Decoder(CocoFile).decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _decode_leniently(path, data[:], problems)


def _decode_leniently(path: Path, data: bytes, problems: list[Problem]) -> CocoFile:
    """Read record by record with Python's own JSON, which accepts NaN; records that do not fit go to the ledger."""
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
    listed = content.get("annotations", [])
    if not isinstance(listed, list):
        raise ValueError(f"{path}: annotations is a {type(listed).__name__}, expected a list")
    names = {_text(each.get("id")): each.get("file_name") for each in content["images"] if isinstance(each, dict)}

    def fitting(key: str, records: list[Any], kind: type[T]) -> list[T]:
        kept = []
        for position, record in enumerate(records):
            try:
                if isinstance(record, dict) and isinstance(record.get("segmentation"), (list, dict)):
                    record = {**record, "segmentation": msgspec.Raw(_encode(record["segmentation"]))}
                elif isinstance(record, dict):
                    record = {name: value for name, value in record.items() if name != "segmentation"}
                kept.append(msgspec.convert(record, kind, str_keys=True))
            except (msgspec.ValidationError, OverflowError, UnicodeEncodeError) as error:
                own = record if isinstance(record, dict) else {}
                name = own.get("file_name") if key == "images" else names.get(_text(own.get("image_id")))
                file = name if isinstance(name, str) else path.name
                box = key == "annotations" and "bbox" in str(error)
                problems.append(
                    Problem(file, "bad-box" if box else "bad-record", str(error), f"{path.name}, {key}[{position}]")
                )
        return kept

    return CocoFile(
        images=fitting("images", content["images"], ImageRecord),
        categories=fitting("categories", content["categories"], CategoryRecord),
        annotations=fitting("annotations", listed, AnnotationRecord),
    )


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, (int, str)) else ""


def _encode(segmentation: Any) -> bytes:
    try:
        return msgspec.json.encode(segmentation)
    except (TypeError, ValueError, RecursionError, OverflowError):
        return b"null"


class _Builder:
    """Checks records one by one and packs those that hold."""

    def __init__(self, path: Path, folder: Path, content: CocoFile, problems: list[Problem], progress: bool):
        self.path, self.folder, self.content, self.problems, self.progress = path, folder, content, problems, progress

    def build(self, polygons: bool) -> Annotations:
        classes, label_of = self._categories()
        images, position_of = self._images()
        kept = self._annotations(images, position_of, label_of)
        kept.sort(key=lambda pair: pair[0])  # stable: the file's order within an image
        records = [record for _, record in kept]
        starts = np.zeros(len(images) + 1, np.int64)
        np.cumsum(np.bincount([position for position, _ in kept], minlength=len(images)), out=starts[1:])
        boxes = np.array([record.bbox for record in records], np.float64).reshape(-1, 4)
        areas = boxes[:, 2] * boxes[:, 3]
        for row, record in enumerate(records):
            if record.area is not None and 0 <= record.area < float("inf"):
                areas[row] = record.area
        numeric = all(isinstance(image.id, int) for image in images)
        ids = [record.id for record in records]
        return Annotations(
            json_path=str(self.path),
            image_folder=str(self.folder),
            classes=classes,
            category_ids=sorted(label_of),
            file_names=TextColumn.of([image.file_name for image in images]),
            image_id_numbers=np.array([image.id for image in images] if numeric else [], np.int64),
            image_id_texts=TextColumn.of([] if numeric else [str(image.id) for image in images]),
            sizes=np.array([_size(image) for image in images], np.int32).reshape(-1, 2),
            starts=starts,
            boxes=boxes,
            labels=np.array([label_of[record.category_id] for record in records], np.int64),
            areas=areas,
            crowd=np.array([bool(record.iscrowd) for record in records], bool),
            **_pack_polygons(records if polygons else [], boxes, self.progress),
            ledger=self.problems,
            annotation_ids=np.array(ids if all(isinstance(each, int) for each in ids) else [], np.int64),
        )

    def _skip(self, file: str, kind: str, what: str, where: str) -> None:
        self.problems.append(Problem(file, kind, what, f"{self.path.name}, {where}"))

    def _categories(self) -> tuple[list[str], dict[int, int]]:
        names: dict[int, str] = {}
        for position, category in enumerate(self.content.categories):
            if category.id in names:
                self._skip(self.path.name, "bad-record", f"category id {category.id} twice", f"categories[{position}]")
            elif not _is_text(category.name):
                self._skip(self.path.name, "bad-record", "a name with half a character", f"categories[{position}]")
            elif not -INT64 <= category.id < INT64:
                self._skip(self.path.name, "bad-record", "category id beyond 64 bits", f"categories[{position}]")
            else:
                names[category.id] = category.name
        if not names:
            raise ValueError(f"{self.path}: lists no categories, expected at least one")
        if len(names) > MOST_CLASSES:
            raise ValueError(f"{self.path}: lists {len(names)} categories, expected at most {MOST_CLASSES}")
        ids = sorted(names)
        return [names[identity] for identity in ids], {identity: label for label, identity in enumerate(ids)}

    def _images(self) -> tuple[list[ImageRecord], dict[int | str, int]]:
        images: list[ImageRecord] = []
        position_of: dict[int | str, int] = {}
        # Where one id is a text, all are taken as texts later on: then 7 and "7" are the same.
        numeric = all(isinstance(image.id, int) for image in self.content.images)
        seen: set[int | str] = set()
        for position, image in enumerate(self.content.images):
            where = f"images[{position}]"
            if not _is_text(image.file_name) or not _is_text(str(image.id)):
                self._skip(ascii(image.file_name)[1:-1], "bad-record", "a text with half a character", where)
            elif (image.id if numeric else str(image.id)) in seen:
                self._skip(image.file_name, "duplicate-image", f"image id {image.id!r} occurred before", where)
            elif isinstance(image.id, int) and not -INT64 <= image.id < INT64:
                self._skip(image.file_name, "bad-record", "image id beyond 64 bits", where)
            elif not _stays_inside(image.file_name):
                self._skip(image.file_name, "unsafe-path", "the file name leads out of the folder of images", where)
            else:
                seen.add(image.id if numeric else str(image.id))
                position_of[image.id] = len(images)
                images.append(image)
        if not images:
            raise ValueError(f"{self.path}: lists no usable image, expected at least one in images")
        return images, position_of

    def _annotations(
        self, images: list[ImageRecord], position_of: dict[int | str, int], label_of: dict[int, int]
    ) -> list[tuple[int, AnnotationRecord]]:
        seen: set[int | str] = set()
        kept = []
        records = self.content.annotations
        show = self.progress and len(records) >= 200_000
        for position, record in enumerate(progress_bar(records, f"checking {self.path.name}", unit="box", show=show)):
            image = position_of.get(record.image_id)
            fault = self._fault(record, None if image is None else images[image], label_of, seen)
            if fault is None and image is not None:
                kept.append((image, record))
                if record.id is not None:
                    seen.add(record.id)
            elif fault is not None:
                file = self.path.name if image is None else images[image].file_name
                self._skip(file, *fault, f"annotations[{position}], id {record.id}")
        return kept

    def _fault(
        self, record: AnnotationRecord, image: ImageRecord | None, label_of: dict[int, int], seen: set[int | str]
    ) -> tuple[str, str] | None:
        if image is None:
            return "orphan", f"annotation of image id {record.image_id!r}, which is not listed"
        if record.category_id not in label_of:
            return "unknown-category", f"annotation of category id {record.category_id}, which is not listed"
        if isinstance(record.id, int) and not -INT64 <= record.id < INT64:
            return "bad-record", "annotation id beyond 64 bits"
        if record.id in seen:
            return "duplicate-annotation", f"annotation id {record.id!r} occurred before"
        if len(record.bbox) != 4:
            return "bad-box", f"a box of {len(record.bbox)} numbers, expected left, top, width, height"
        left, top, width, height = record.bbox
        # Written so that NaN and infinity fail; 1e7 pixels is more than any image that is accepted has.
        if not (abs(left) <= 1e7 and abs(top) <= 1e7 and 0 < width <= 1e7 and 0 < height <= 1e7):
            return "bad-box", f"box {record.bbox}, expected finite numbers with width and height above 0"
        across, down = _size(image)
        if (across and (left >= across or left + width <= 0)) or (down and (top >= down or top + height <= 0)):
            return "outside", f"box {record.bbox} does not touch its image of {across} x {down} pixels"
        return None


def _size(image: ImageRecord) -> tuple[int, int]:
    """(width, height), 0 where the file gives none that can be."""
    sides = (image.width, image.height)
    width, height = (int(s) if s is not None and 0 < s <= 1_000_000 and s == int(s) else 0 for s in sides)
    return (width, height) if width and height else (0, 0)


def _is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8; JSON can hold halves of characters (lone surrogates) that cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stays_inside(name: str) -> bool:
    """Whether a file name is relative and never climbs, by the rules of any system."""
    if not PurePosixPath(name).parts or "\0" in name:
        return False
    windows = PureWindowsPath(name)
    if windows.drive or windows.root or PurePosixPath(name).is_absolute():
        return False
    return ".." not in PurePosixPath(name).parts and ".." not in windows.parts


def _pack_polygons(records: Iterable[AnnotationRecord], boxes: np.ndarray, progress: bool) -> dict[str, np.ndarray]:
    """Outlines of all annotations in three flat arrays. Those that disagree with their box are left out: it is the box
    that is evaluated, and an outline may only tighten it."""
    numbers = array.array("f")
    point_counts, polygon_counts = array.array("q"), np.zeros(len(boxes), np.int64)
    decode: Callable[[Any], list[list[float]]] = msgspec.json.Decoder(list[list[float]]).decode
    records = list(records)
    show = progress and len(records) >= 200_000
    for row, record in enumerate(progress_bar(records, "reading polygons", unit="box", show=show)):
        if record.iscrowd:  # its mask is run-length coded
            continue
        try:
            outlines = [outline for outline in decode(record.segmentation) if len(outline) >= 6]
        except (msgspec.DecodeError, RecursionError):
            continue
        outlines = [outline[: len(outline) // 2 * 2] for outline in outlines]
        if outlines and _fits(outlines, boxes[row]):
            polygon_counts[row] = len(outlines)
            for outline in outlines:
                numbers.extend(outline)
                point_counts.append(len(outline) // 2)
    counts = np.frombuffer(point_counts, np.int64) if len(point_counts) else np.zeros(0, np.int64)
    points = np.frombuffer(numbers, np.float32).reshape(-1, 2) if len(numbers) else np.zeros((0, 2), np.float32)
    return {
        "polygon_starts": np.concatenate([[0], np.cumsum(polygon_counts)]),
        "point_starts": np.concatenate([[0], np.cumsum(counts)]),
        "points": points,
    }


def _fits(outlines: list[list[float]], box: np.ndarray) -> bool:
    """Whether outlines span their box to within 2 pixels and 2 %."""
    across = [x for outline in outlines for x in outline[0::2]]
    down = [y for outline in outlines for y in outline[1::2]]
    spanned = np.array([min(across), min(down), max(across), max(down)])
    wanted = np.array([box[0], box[1], box[0] + box[2], box[1] + box[3]])
    slack = 2 + 0.02 * np.array([box[2], box[3], box[2], box[3]])
    return bool((np.abs(spanned - wanted) <= slack).all())


def _write_cache(path: Path, annotations: Annotations) -> None:
    arrays: dict[str, np.ndarray] = {}
    for each in fields(Annotations):
        value = getattr(annotations, each.name)
        if isinstance(value, TextColumn):
            arrays[f"{each.name}.buffer"], arrays[f"{each.name}.starts"] = value.buffer, value.starts
        elif isinstance(value, np.ndarray):
            arrays[each.name] = value
    plain = {
        "classes": annotations.classes,
        "category_ids": annotations.category_ids,
        "ledger": [asdict(problem) for problem in annotations.ledger],
    }
    arrays["plain"] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    with replacing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read_cache(path: Path, json_path: str, image_folder: str) -> Annotations | None:
    """The annotations in a cache file, or None where there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            plain = json.loads(arrays["plain"].tobytes())
            values: dict[str, Any] = {"json_path": json_path, "image_folder": image_folder}
            values["classes"], values["category_ids"] = plain["classes"], plain["category_ids"]
            values["ledger"] = [Problem(**entry) for entry in plain["ledger"]]
            for each in fields(Annotations):
                if f"{each.name}.buffer" in arrays:
                    values[each.name] = TextColumn(arrays[f"{each.name}.buffer"], arrays[f"{each.name}.starts"])
                elif each.name in arrays:
                    values[each.name] = arrays[each.name]
            return Annotations(**values)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
