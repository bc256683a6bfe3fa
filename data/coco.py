"""COCO JSON into compact arrays: `read_coco(json, images)` returns Annotations.

What cannot be used is listed in `issues`, and what was derived, as it was missing or impossible, in `notes`.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.files import path_exists
from core.limits import MAX_CLASSES
from core.progress import progress_bar
from data.annotation_cache import read_annotations, write_annotations
from data.annotations import Annotations
from data.cache_dir import cache_folder, content_hash
from data.coco_records import AnnotationRecord, CocoFile, ImageRecord, decode, meaning, unpadded
from data.file_names import find_images
from data.issues import Issue, refuse
from data.limits import ID_LIMIT, MAX_ANNOTATION_BYTES, MAX_LISTED_SIZE
from data.polygons import pack_polygons, starts_of
from data.record_checks import Fault, are_sound, box_fault, is_encodable
from data.segments import Polygons, area_of, box_of, read_polygons
from data.text_column import TextColumn

FORMAT = 6  # raise it when the arrays or the checks change: caches of another format are ignored
MIN_CACHED_BYTES = 2 << 20  # smaller files are read faster than a cache is looked up
LONG_WORK = 200_000  # annotations from which progress is shown
MAX_AREA = 1e10  # square pixels; COCO's evaluation ignores larger objects
AREA_TOLERANCE = 1.02  # of a segmentation, relative to its box

Identity = int | str


def read_coco(
    json_path: str | Path,
    image_folder: str | Path,
    *,
    source: str | Path | None = None,
    polygons: bool = True,
    strict: bool = False,
    progress: bool = True,
) -> Annotations:
    """Read a COCO annotation file; issues are listed in the result, or raised if `strict`.

    `source`: what the file was converted from, named in its place.
    FileNotFoundError for a missing file, ValueError for one without COCO detection annotations or images.
    """
    path, source = Path(json_path), Path(source or json_path)
    if not path_exists(path, folder=False):
        raise FileNotFoundError(f"{path}: no such file, expected COCO annotations (JSON)")
    size = path.stat().st_size
    if size > MAX_ANNOTATION_BYTES:
        raise ValueError(f"{path}: {size} bytes, expected at most {MAX_ANNOTATION_BYTES}")
    sha256 = content_hash(path, progress=progress)
    cache = None
    if size >= MIN_CACHED_BYTES:
        cache = cache_folder(path) / f"coco-{FORMAT}-{'polygons' if polygons else 'boxes'}-{sha256[:32]}.npz"
        cached = read_annotations(cache, source=str(source), image_folder=str(image_folder))
        if cached is not None:
            return _with_files(cached, strict)
    issues: list[Issue] = []
    content, listed = decode(path, issues)
    builder = _Builder(source, Path(image_folder), content, issues, progress=progress)
    annotations = builder.build(sha256, listed, polygons=polygons)
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


class _Table(NamedTuple):
    """The usable annotations, sorted by image."""

    positions: np.ndarray  # (A,) in the file
    images: np.ndarray  # (A,) positions of their images
    labels: np.ndarray  # (A,)
    boxes: np.ndarray  # (A, 4) left, top, width, height


class _Builder:
    """Checks records and packs the valid ones into arrays."""

    def __init__(self, path: Path, folder: Path, content: CocoFile, issues: list[Issue], *, progress: bool):
        self.path, self.folder, self.content, self.issues, self.progress = path, folder, content, issues, progress
        self.notes: list[str] = []

    def build(self, sha256: str, listed: tuple[int, int], *, polygons: bool) -> Annotations:
        classes, category_ids, label_of = self._categories()
        images, position_of = self._images()
        sizes = np.array([_size(image) for image in images], np.int32).reshape(-1, 2)
        table = self._annotations(images, sizes, position_of, label_of)
        records = [self.content.annotations[position] for position in table.positions.tolist()]
        areas = self._areas(records, table.boxes)
        self._note_ids(records)
        show = self.progress and len(records) >= LONG_WORK
        decoded = _decode_polygons(records, show=show) if polygons else iter(())
        packed = pack_polygons(decoded, table.boxes)
        ids = [image.id for image in images]
        numeric = all(isinstance(identity, int) for identity in ids)
        return Annotations(
            source=str(self.path),
            sha256=sha256,
            image_folder=str(self.folder),
            classes=classes,
            category_ids=category_ids,
            file_names=TextColumn.of([image.file_name for image in images]),
            image_id_numbers=np.array(ids if numeric else [], np.int64),
            image_id_texts=TextColumn.of([] if numeric else [str(identity) for identity in ids]),
            sizes=sizes,
            starts=starts_of(np.bincount(table.images, minlength=len(images))),
            boxes=table.boxes,
            labels=table.labels,
            areas=areas,
            crowd=np.array([bool(record.iscrowd) for record in records], bool),
            **packed._asdict(),
            issues=self.issues,
            notes=self.notes,
            listed=listed,
        )

    def _skip(self, file: str, kind: str, what: str, where: str) -> None:
        self.issues.append(Issue(file, kind, what, f"{self.path.name}, {where}"))

    def _none(self, key: str) -> ValueError:
        """The error if no record of `key` can be used."""
        first = next((f"; the first: {issue}" for issue in self.issues if f", {key}[" in issue.where), "")
        return ValueError(f"{self.path}: lists no usable entry in {key}, expected at least one{first}")

    def _categories(self) -> tuple[list[str], list[int], dict[Identity, int]]:
        """Names and ids of the classes, ordered by id, and the label of each id as `meaning` gives it."""
        names: dict[Identity, str] = {}
        for position, category in enumerate(self.content.categories):
            fault, identity = None, meaning(category.id)
            if identity in names:
                fault = f"duplicate category id {category.id}"
            elif not is_encodable(category.name) or not is_encodable(str(category.id)):
                fault = "a name with a lone surrogate, not valid Unicode"
            elif isinstance(identity, int) and not -ID_LIMIT <= identity < ID_LIMIT:
                fault = "category id beyond 64 bits"
            if fault is None:
                names[identity] = category.name
            else:
                self._skip(self.path.name, "bad-record", fault, f"categories[{position}]")
        if not names:
            raise self._none("categories")
        if len(names) > MAX_CLASSES:
            raise ValueError(f"{self.path}: lists {len(names)} categories, expected at most {MAX_CLASSES}")
        numbers = sorted(identity for identity in names if isinstance(identity, int))
        order: list[Identity] = [*numbers, *sorted(identity for identity in names if isinstance(identity, str))]
        if len(numbers) < len(names):
            numbers = list(range(1, len(names) + 1))
            self.notes.append("category ids are text; categories are numbered from 1 in the order of their ids")
        return [names[i] for i in order], numbers, {identity: label for label, identity in enumerate(order)}

    def _images(self) -> tuple[list[ImageRecord], dict[Identity, int]]:
        """The usable images, and the position of each id as `meaning` gives it."""
        images: list[ImageRecord] = []
        position_of: dict[Identity, int] = {}
        for position, image in enumerate(self.content.images):
            where, identity = f"images[{position}]", meaning(image.id)
            if not is_encodable(image.file_name) or not is_encodable(str(image.id)):
                self._skip(
                    ascii(image.file_name)[1:-1], "bad-record", "a text with a lone surrogate, not valid Unicode", where
                )
            elif identity in position_of:
                self._skip(image.file_name, "duplicate-image", f"image id {image.id!r} occurred before", where)
            elif isinstance(identity, int) and not -ID_LIMIT <= identity < ID_LIMIT:
                self._skip(image.file_name, "bad-record", "image id beyond 64 bits", where)
            else:
                position_of[identity] = len(images)
                images.append(image)
        if not images:
            raise self._none("images")
        return images, position_of

    def _annotations(
        self,
        images: list[ImageRecord],
        sizes: np.ndarray,
        position_of: dict[Identity, int],
        label_of: dict[Identity, int],
    ) -> _Table:
        """The usable annotations, sorted by image; a missing box is that of the segmentation.

        Sound records, which nearly all are, are checked together, the others one by one. `sizes`: those of `_size`.
        """
        records = self.content.annotations
        # A text that means a number, such as "7", is not among the keys (see `meaning`) and is looked up below.
        image = np.array([position_of.get(record.image_id, -1) for record in records], np.int64)
        label = np.array([label_of.get(record.category_id, -1) for record in records], np.int64)
        nothing = [math.nan] * 4
        given = [record.bbox if record.bbox is not None and len(record.bbox) == 4 else nothing for record in records]
        boxes = np.array(given, np.float64).reshape(-1, 4)
        sound = (image >= 0) & (label >= 0) & are_sound(boxes, sizes[image])
        made = 0
        padded: dict[int | None, int] | None = None
        for position in np.flatnonzero(~sound).tolist():
            record = records[position]
            where = position_of.get(meaning(record.image_id))
            if where is None:
                padded = _padded_ids(images) if padded is None else padded
                where = padded.get(unpadded(record.image_id))
            without_box = not record.bbox or not any(record.bbox)
            if without_box:
                record.bbox = box_of(record.segmentation)
            fault = _fault(record, None if where is None else images[where], label_of)
            if fault is None and where is not None:
                sound[position], image[position], boxes[position] = True, where, record.bbox
                label[position] = label_of[meaning(record.category_id)]
                made += without_box
            elif fault is not None:
                file = self.path.name if where is None else images[where].file_name
                self._skip(file, *fault, f"annotations[{position}], id {record.id}")
        if made:
            self.notes.append(f"{made} of {len(records)} annotations have no bbox; that of their segmentation is used")
        kept = np.flatnonzero(sound)
        kept = kept[np.argsort(image[kept], kind="stable")]  # keeps the file's order within an image
        return _Table(kept, image[kept], label[kept], boxes[kept])

    def _areas(self, records: Sequence[AnnotationRecord], boxes: np.ndarray) -> np.ndarray:
        """Areas (A,): as given, or of the segmentation, or of the box if the given one is impossible or missing."""
        given = np.array([math.nan if record.area is None else record.area for record in records], np.float64)
        possible = (given > 0) & (given <= MAX_AREA)
        areas = np.where(possible, given, boxes[:, 2] * boxes[:, 3])
        impossible = 0
        for row in np.flatnonzero(~possible).tolist():
            impossible += records[row].area is not None
            measured = area_of(records[row].segmentation)
            if 0 < measured <= AREA_TOLERANCE * areas[row]:
                areas[row] = measured
        if impossible:
            self.notes.append(
                f"{impossible} of {len(records)} annotations have an area that is not above 0 (or above {MAX_AREA:g}); "
                "that of their segmentation or box is used instead"
            )
        return areas

    def _note_ids(self, records: Sequence[AnnotationRecord]) -> None:
        """Annotation ids are not used: pycocotools drops objects of equal ids, and reads the id 0 as 'not matched'."""
        ids = [record.id for record in records if record.id is not None]
        repeated, zero = len(ids) - len(set(ids)), ids.count(0)
        if repeated or zero:
            found = f"{repeated} repeated ids" if repeated else "the id 0"
            self.notes.append(
                f"annotations have {found}; they are numbered from 1, as pycocotools would drop such objects"
            )


def _fault(record: AnnotationRecord, image: ImageRecord | None, label_of: dict[Identity, int]) -> Fault | None:
    if image is None:
        return "orphan", f"annotation of image id {record.image_id!r}, which is not listed"
    if meaning(record.category_id) not in label_of:
        return "unknown-category", f"annotation of category id {record.category_id!r}, which is not listed"
    if record.bbox is None:
        return "bad-box", "no bbox, and no segmentation that spans one"
    return box_fault(record.bbox, _size(image))


def _padded_ids(images: Sequence[ImageRecord]) -> dict[int | None, int]:
    """Positions by the number of an id that may be padded with zeros; none for numbers that occur twice."""
    numbers = [unpadded(image.id) for image in images]
    counts = Counter(numbers)
    return {n: position for position, n in enumerate(numbers) if n is not None and counts[n] == 1}


def _size(image: ImageRecord) -> tuple[int, int]:
    """(width, height), or zeros if the file gives no possible values."""
    given = (image.width, image.height)
    width, height = (int(n) if n is not None and 0 < n <= MAX_LISTED_SIZE and n == int(n) else 0 for n in given)
    return (width, height) if width and height else (0, 0)


def _decode_polygons(records: Sequence[AnnotationRecord], *, show: bool) -> Iterator[Polygons]:
    """The polygons of each record; none for crowds, whose masks are run-length encoded."""
    for record in progress_bar(records, "reading polygons", unit="box", show=show):
        yield [] if record.iscrowd else read_polygons(record.segmentation)
