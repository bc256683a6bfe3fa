"""COCO JSON into compact arrays: `read_coco(json, images)` returns Annotations.

A valid file is read by msgspec's typed decoder: 118,000 images in seconds. A file that it rejects (NaN is not valid
JSON; a record may lack a field) is read record by record, and what cannot be used is listed in `issues`.
"""

from __future__ import annotations

import contextlib
import json
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from core.files import path_exists
from core.limits import MAX_CLASSES
from core.progress import progress_bar
from data.annotation_cache import read_annotations, write_annotations
from data.annotations import Annotations, TextColumn
from data.cache_dir import cache_folder, content_hash
from data.file_names import find_images
from data.issues import Issue, refuse
from data.limits import ID_LIMIT, MAX_ANNOTATION_BYTES, MAX_LISTED_SIZE
from data.polygons import pack_polygons, starts_of
from data.record_checks import Fault, box_fault, is_encodable

FORMAT = 4  # raise it when the arrays or the checks change: caches of another format are ignored
MIN_CACHED_BYTES = 2 << 20  # smaller files are read faster than a cache is looked up
LONG_WORK = 200_000  # annotations from which progress is shown

T = TypeVar("T")


class ImageRecord(msgspec.Struct, gc=False):
    """The fields of an entry of `images` that are read."""

    id: int | str
    file_name: str
    width: int | float | None = None
    height: int | float | None = None


class AnnotationRecord(msgspec.Struct, gc=False):
    """The fields of an entry of `annotations` that are read; `segmentation` stays undecoded."""

    image_id: int | str
    category_id: int
    bbox: list[float]
    id: int | str | None = None
    area: float | None = None
    iscrowd: int | bool | None = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class CategoryRecord(msgspec.Struct, gc=False):
    """The fields of an entry of `categories` that are read."""

    id: int
    name: str


class CocoFile(msgspec.Struct, gc=False):
    """The whole file; `annotations` may be absent if no image has any."""

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
    """Read a COCO annotation file; issues are listed in the result, or raised if `strict`.

    FileNotFoundError for a missing file, ValueError for one without COCO detection annotations or images.
    """
    path = Path(json_path)
    if not path_exists(path, folder=False):
        raise FileNotFoundError(f"{path}: no such file, expected COCO annotations (JSON)")
    size = path.stat().st_size
    if size > MAX_ANNOTATION_BYTES:
        raise ValueError(f"{path}: {size} bytes, expected at most {MAX_ANNOTATION_BYTES}")
    sha256 = content_hash(path, progress=progress)
    cache = None
    if size >= MIN_CACHED_BYTES:
        cache = cache_folder(path) / f"coco-{FORMAT}-{'polygons' if polygons else 'boxes'}-{sha256[:32]}.npz"
        cached = read_annotations(cache, source=str(path), image_folder=str(image_folder))
        if cached is not None:
            return _with_files(cached, strict)
    issues: list[Issue] = []
    content = _decode(path, issues)
    annotations = _Builder(path, Path(image_folder), content, issues, progress=progress).build(sha256, polygons)
    if cache is not None:
        with contextlib.suppress(OSError):  # on a full or read-only disk the next start takes a few seconds longer
            write_annotations(cache, annotations)
    return _with_files(annotations, strict)


def _with_files(annotations: Annotations, strict: bool) -> Annotations:
    """The annotations with their image files looked up, which depends on more than the annotation file."""
    annotations = find_images(annotations)
    if strict:
        refuse(annotations.issues)
    return annotations


def _decode(path: Path, issues: list[Issue]) -> CocoFile:
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: empty file, expected COCO annotations (JSON)")
    with open(path, "rb") as file:
        # Not closed explicitly: the undecoded polygons are views into it and keep it open until they are released.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return msgspec.json.Decoder(CocoFile).decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _decode_leniently(path, data[:], issues)


def _decode_leniently(path: Path, data: bytes, issues: list[Issue]) -> CocoFile:
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
    listed = content.get("annotations", [])
    if not isinstance(listed, list):
        raise ValueError(f"{path}: annotations is a {type(listed).__name__}, expected a list")
    names = {_key(each.get("id")): each.get("file_name") for each in content["images"] if isinstance(each, dict)}

    def convert(key: str, records: list[object], kind: type[T]) -> list[T]:
        kept = []
        for position, record in enumerate(records):
            values = record if isinstance(record, dict) else {}
            try:
                kept.append(msgspec.convert(_undecoded(values) if values else record, kind, str_keys=True))
            except (msgspec.ValidationError, OverflowError, UnicodeEncodeError) as error:
                name = values.get("file_name") if key == "images" else names.get(_key(values.get("image_id")))
                file = name if isinstance(name, str) else path.name
                fault = "bad-box" if key == "annotations" and "bbox" in str(error) else "bad-record"
                issues.append(Issue(file, fault, str(error), f"{path.name}, {key}[{position}]"))
        return kept

    return CocoFile(
        images=convert("images", content["images"], ImageRecord),
        categories=convert("categories", content["categories"], CategoryRecord),
        annotations=convert("annotations", listed, AnnotationRecord),
    )


def _key(identity: object) -> str:
    return repr(identity) if isinstance(identity, (int, str)) else ""


def _undecoded(record: dict[str, object]) -> dict[str, object]:
    """The record with its segmentation, if any, encoded again, as msgspec.Raw."""
    record = dict(record)
    segmentation = record.pop("segmentation", None)
    if isinstance(segmentation, (list, dict)):
        with contextlib.suppress(TypeError, ValueError, RecursionError, OverflowError):
            record["segmentation"] = msgspec.Raw(msgspec.json.encode(segmentation))
    return record


class _Builder:
    """Checks records one by one and packs the valid ones into arrays."""

    def __init__(self, path: Path, folder: Path, content: CocoFile, issues: list[Issue], *, progress: bool):
        self.path, self.folder, self.content, self.issues, self.progress = path, folder, content, issues, progress

    def build(self, sha256: str, polygons: bool) -> Annotations:
        classes, label_of = self._categories()
        images, position_of = self._images()
        kept = self._annotations(images, position_of, label_of)
        kept.sort(key=lambda pair: pair[0])  # stable: keeps the file's order within an image
        records = [record for _, record in kept]
        boxes = np.array([record.bbox for record in records], np.float64).reshape(-1, 4)
        areas = boxes[:, 2] * boxes[:, 3]
        for row, record in enumerate(records):
            if record.area is not None and 0 <= record.area < float("inf"):
                areas[row] = record.area
        show = self.progress and len(records) >= LONG_WORK
        decoded = _decode_polygons(records, show=show) if polygons else iter(())
        polygon_starts, point_starts, points = pack_polygons(decoded, boxes)
        ids = [record.id for record in records]
        numbered = all(type(identity) is int for identity in ids)
        numeric = all(isinstance(image.id, int) for image in images)
        ids = [record.id for record in records]
        return Annotations(
            source=str(self.path),
            sha256=sha256,
            image_folder=str(self.folder),
            classes=classes,
            category_ids=sorted(label_of),
            file_names=TextColumn.of([image.file_name for image in images]),
            image_id_numbers=np.array([image.id for image in images] if numeric else [], np.int64),
            image_id_texts=TextColumn.of([] if numeric else [str(image.id) for image in images]),
            sizes=np.array([_size(image) for image in images], np.int32).reshape(-1, 2),
            starts=starts_of(np.bincount([position for position, _ in kept], minlength=len(images))),
            boxes=boxes,
            labels=np.array([label_of[record.category_id] for record in records], np.int64),
            annotation_ids=np.array(ids if numbered else range(1, len(ids) + 1), np.int64),
            areas=areas,
            crowd=np.array([bool(record.iscrowd) for record in records], bool),
            polygon_starts=polygon_starts,
            point_starts=point_starts,
            points=points,
            issues=self.issues,
        )

    def _skip(self, file: str, kind: str, what: str, where: str) -> None:
        self.issues.append(Issue(file, kind, what, f"{self.path.name}, {where}"))

    def _categories(self) -> tuple[list[str], dict[int, int]]:
        names: dict[int, str] = {}
        for position, category in enumerate(self.content.categories):
            fault = None
            if category.id in names:
                fault = f"duplicate category id {category.id}"
            elif not is_encodable(category.name):
                fault = "a name with a lone surrogate, not valid Unicode"
            elif not -ID_LIMIT <= category.id < ID_LIMIT:
                fault = "category id beyond 64 bits"
            if fault is None:
                names[category.id] = category.name
            else:
                self._skip(self.path.name, "bad-record", fault, f"categories[{position}]")
        if not names:
            raise ValueError(f"{self.path}: lists no categories, expected at least one")
        if len(names) > MAX_CLASSES:
            raise ValueError(f"{self.path}: lists {len(names)} categories, expected at most {MAX_CLASSES}")
        ids = sorted(names)
        return [names[identity] for identity in ids], {identity: label for label, identity in enumerate(ids)}

    def _images(self) -> tuple[list[ImageRecord], dict[int | str, int]]:
        images: list[ImageRecord] = []
        position_of: dict[int | str, int] = {}
        # If any id is text, all are treated as text later: 7 and "7" are then duplicates.
        numeric = all(isinstance(image.id, int) for image in self.content.images)
        seen: set[int | str] = set()
        for position, image in enumerate(self.content.images):
            where = f"images[{position}]"
            if not is_encodable(image.file_name) or not is_encodable(str(image.id)):
                self._skip(
                    ascii(image.file_name)[1:-1], "bad-record", "a text with a lone surrogate, not valid Unicode", where
                )
            elif (image.id if numeric else str(image.id)) in seen:
                self._skip(image.file_name, "duplicate-image", f"image id {image.id!r} occurred before", where)
            elif isinstance(image.id, int) and not -ID_LIMIT <= image.id < ID_LIMIT:
                self._skip(image.file_name, "bad-record", "image id beyond 64 bits", where)
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
        show = self.progress and len(records) >= LONG_WORK
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
    ) -> Fault | None:
        if image is None:
            return "orphan", f"annotation of image id {record.image_id!r}, which is not listed"
        if record.category_id not in label_of:
            return "unknown-category", f"annotation of category id {record.category_id}, which is not listed"
        if isinstance(record.id, int) and not -ID_LIMIT <= record.id < ID_LIMIT:
            return "bad-record", "annotation id beyond 64 bits"
        if record.id in seen:
            return "duplicate-annotation", f"annotation id {record.id!r} occurred before"
        return box_fault(record.bbox, _size(image))


def _size(image: ImageRecord) -> tuple[int, int]:
    """(width, height), or zeros if the file gives no possible values."""
    given = (image.width, image.height)
    width, height = (int(n) if n is not None and 0 < n <= MAX_LISTED_SIZE and n == int(n) else 0 for n in given)
    return (width, height) if width and height else (0, 0)


def _decode_polygons(records: Sequence[AnnotationRecord], *, show: bool) -> Iterator[list[list[float]]]:
    """The polygons of each record; none for crowds, whose masks are run-length encoded."""
    decoder = msgspec.json.Decoder(list[list[float]])
    for record in progress_bar(records, "reading polygons", unit="box", show=show):
        try:
            yield [] if record.iscrowd else decoder.decode(record.segmentation)
        except (msgspec.DecodeError, RecursionError):
            yield []
