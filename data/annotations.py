"""The annotations of a data set in compact arrays, so that any number of workers share one copy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from core.limits import MAX_CLASSES
from data.issues import Issue
from data.polygons import FlatPolygon, pack_polygons, starts_of, unpacked
from data.record_checks import box_fault, is_encodable, stays_inside
from data.text_column import TextColumn


class _Object(NamedTuple):
    """One annotation on its way from lists into arrays."""

    image: int
    box: list[float]  # left, top, width, height
    label: int
    crowd: bool
    polygons: Sequence[FlatPolygon]


@dataclass
class Annotations:
    """A split of a data set: N images, A annotations sorted by image, C classes.

    `boxes` are (left, top, width, height) as in the file, unclipped, in float64: evaluation needs every digit. Training
    uses `training_boxes`. Labels are positions in `classes`; readers order the classes by category id.
    """

    source: str  # the annotation file (or folder): named in messages, and caches are kept next to it
    sha256: str  # of what was read; recorded with each run and part of the names of caches
    image_folder: str
    classes: list[str]
    category_ids: list[int]
    file_names: TextColumn
    image_id_numbers: np.ndarray  # (N,) int64; empty if ids are text
    image_id_texts: TextColumn  # N texts; empty if ids are numbers
    sizes: np.ndarray  # (N, 2) int32 width, height; 0 if not known yet
    starts: np.ndarray  # (N + 1,): annotations of image i are starts[i]:starts[i + 1]
    boxes: np.ndarray  # (A, 4) float64
    labels: np.ndarray  # (A,) int64
    areas: np.ndarray  # (A,) float64
    crowd: np.ndarray  # (A,) bool
    polygon_starts: np.ndarray  # this and the next three: see data.polygons.PackedPolygons
    point_starts: np.ndarray
    points: np.ndarray
    in_hundredths: np.ndarray
    issues: list[Issue] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # to tell once: what was derived, what looks wrong as a whole
    listed: tuple[int, int] = (0, 0)  # images and annotations in the file, with those that were skipped
    skipped: str = ""  # the share of what was skipped, if it is notable

    @staticmethod
    def from_lists(
        source: str | os.PathLike[str],
        image_folder: str | os.PathLike[str],
        *,
        classes: Sequence[str],
        file_names: Sequence[str],
        boxes: Sequence[Sequence[Sequence[float]]],
        labels: Sequence[Sequence[int]],
        box_format: Literal["xyxy", "xywh"] = "xyxy",
        sizes: Sequence[tuple[int, int]] | None = None,
        crowd: Sequence[Sequence[bool]] | None = None,
        polygons: Sequence[Sequence[Sequence[FlatPolygon]]] | None = None,
        sha256: str | None = None,
        issues: Iterable[Issue] = (),
    ) -> Annotations:
        """Annotations from plain lists with one entry per image, as a reader of another format collects them.

        `boxes[i]` are the boxes of image i in pixels, `labels[i]` their positions in `classes`; `crowd` and `polygons`
        (flat x1, y1, x2, y2, ...) have the same structure. `sizes` are (width, height), by default those of the image
        files (data.verify). Image, annotation and category ids are numbered from 1. `sha256` identifies the content
        and is by default computed from the lists. What cannot be used is skipped and added to `issues`.
        Raises ValueError for lists of different lengths and if no usable image remains.
        """
        source = os.fspath(source)
        columns = {"boxes": boxes, "labels": labels, "sizes": sizes, "crowd": crowd, "polygons": polygons}
        for name, column in columns.items():
            if column is not None and len(column) != len(file_names):
                raise ValueError(f"{source}: {name} of {len(column)} images, expected {len(file_names)} as file names")
        if not 1 <= len(classes) <= MAX_CLASSES:
            raise ValueError(f"{source}: {len(classes)} classes, expected 1 to {MAX_CLASSES}")
        skipped = list(issues)
        images: list[tuple[str, int, int]] = []
        objects: list[_Object] = []
        for i, file in enumerate(file_names):
            where = f"{Path(source).name}, image {i}"
            if not is_encodable(file) or not stays_inside(file):
                what = "the file name is not a path inside the image folder"
                skipped.append(Issue(ascii(file)[1:-1], "unsafe-path", what, where))
                continue
            size = (0, 0) if sizes is None else sizes[i]
            flags = [False] * len(boxes[i]) if crowd is None else crowd[i]
            shapes = [()] * len(boxes[i]) if polygons is None else polygons[i]
            if not len(boxes[i]) == len(labels[i]) == len(flags) == len(shapes):
                raise ValueError(f"{source}: {file}: expected as many labels, crowd flags and polygons as boxes")
            for j, (given, label, flag, shape) in enumerate(zip(boxes[i], labels[i], flags, shapes, strict=True)):
                box = [float(value) for value in given]
                if box_format == "xyxy" and len(box) == 4:
                    box = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                fault = box_fault(box, size)
                if fault is None and not 0 <= label < len(classes):
                    fault = "unknown-category", f"label {label}, expected 0 to {len(classes) - 1}"
                if fault is None:
                    objects.append(_Object(len(images), box, label, bool(flag), shape))
                else:
                    skipped.append(Issue(file, *fault, f"{where}, object {j}"))
            images.append((file, size[0], size[1]))
        if not images:
            raise ValueError(f"{source}: lists no usable image, expected at least one")
        if sha256 is None:
            sha256 = hashlib.sha256(repr((list(classes), images, objects)).encode()).hexdigest()
        listed = len(file_names), sum(map(len, boxes))
        packed = _pack(source, sha256, os.fspath(image_folder), list(classes), images, objects)
        return replace(packed, issues=skipped, listed=listed)

    def __len__(self) -> int:
        return len(self.file_names)

    @property
    def notices(self) -> list[str]:
        """The notes, each with the file it is about."""
        return [f"{self.source}: {note}" for note in self.notes]

    @property
    def image_of(self) -> np.ndarray:
        """(A,) position of the image of each annotation."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    @property
    def image_ids(self) -> list[int] | list[str]:
        """Ids of all images, as in the annotation file."""
        return self.image_id_numbers.tolist() if len(self.image_id_numbers) else list(self.image_id_texts)

    def image_id(self, index: int) -> int | str:
        """Id of one image."""
        return int(self.image_id_numbers[index]) if len(self.image_id_numbers) else self.image_id_texts[index]

    def record(self, index: int) -> str:
        """Where an image is listed, as issues name it."""
        return f"{os.path.basename(self.source)}, image id {self.image_id(index)!r}"

    def path(self, index: int) -> str:
        """Path of one image file."""
        return os.path.join(self.image_folder, self.file_names[index])

    @property
    def paths(self) -> list[str]:
        """Paths of all image files."""
        return [self.path(index) for index in range(len(self))]

    def rows(self, index: int) -> np.ndarray:
        """Rows of the annotations of an image that are used in training: all but crowds."""
        start, stop = self.starts[index], self.starts[index + 1]
        rows, crowd = np.arange(start, stop), self.crowd[start:stop]
        return rows[~crowd] if crowd.any() else rows

    def training_boxes(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4) float32 xyxy in image pixels clipped to the image, labels (n,), and their rows; no crowds."""
        rows = self.rows(index)
        corners = self.boxes[rows]
        corners[:, 2:] += corners[:, :2]
        width, height = self.sizes[index].tolist()
        if width and height:
            np.maximum(corners, 0, out=corners)
            np.minimum(corners, (width, height, width, height), out=corners)
        kept = (corners[:, 2:] > corners[:, :2]).all(1)
        if not kept.all():
            corners, rows = corners[kept], rows[kept]
        return corners.astype(np.float32), self.labels[rows], rows

    def has_polygons(self, index: int) -> bool:
        """Whether any annotation of an image has polygons."""
        return bool(self.polygon_starts[self.starts[index]] < self.polygon_starts[self.starts[index + 1]])

    def polygons(self, row: int) -> list[np.ndarray]:
        """Polygons (n, 2) float32 of one annotation in image pixels; empty if it has none that fit its box."""
        span = range(self.polygon_starts[row], self.polygon_starts[row + 1])
        starts, exact = self.point_starts, self.in_hundredths
        return [unpacked(self.points[starts[p] : starts[p + 1]], in_hundredths=exact[p]) for p in span]

    def class_counts(self) -> np.ndarray:
        """Number of annotations of each class (C,), without crowds."""
        return np.bincount(self.labels[~self.crowd], minlength=len(self.classes))

    def without(self, images: Sequence[int] | np.ndarray) -> Annotations:
        """A copy without some images (positions)."""
        keep = np.ones(len(self), bool)
        keep[np.asarray(images, np.int64)] = False
        return self._select(keep, np.repeat(keep, np.diff(self.starts)))

    def without_boxes(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        """A copy without some annotations (rows of `boxes`)."""
        keep = np.ones(len(self.boxes), bool)
        keep[np.asarray(rows, np.int64)] = False
        return self._select(np.ones(len(self), bool), keep)

    def _select(self, kept: np.ndarray, rows: np.ndarray) -> Annotations:
        """A copy with some images and some of their annotations, given as masks (N,) and (A,)."""
        counts = np.bincount(self.image_of[rows], minlength=len(self))
        polygons = np.repeat(rows, np.diff(self.polygon_starts))
        images = np.flatnonzero(kept).tolist()
        return replace(
            self,
            file_names=TextColumn.of([self.file_names[i] for i in images]),
            image_id_numbers=self.image_id_numbers[kept] if len(self.image_id_numbers) else self.image_id_numbers,
            image_id_texts=TextColumn.of([self.image_id_texts[i] for i in images] if len(self.image_id_texts) else []),
            sizes=self.sizes[kept],
            starts=starts_of(counts[kept]),
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            areas=self.areas[rows],
            crowd=self.crowd[rows],
            polygon_starts=starts_of(np.diff(self.polygon_starts)[rows]),
            point_starts=starts_of(np.diff(self.point_starts)[polygons]),
            points=self.points[np.repeat(polygons, np.diff(self.point_starts))],
            in_hundredths=self.in_hundredths[polygons],
        )

    def as_single_class(self) -> Annotations:
        """All annotations as one class, named `object` if there were several."""
        if len(self.classes) == 1:
            return self
        return replace(self, classes=["object"], category_ids=[self.category_ids[0]], labels=np.zeros_like(self.labels))

    def relabelled(self, classes: Sequence[str], category_ids: Sequence[int]) -> Annotations:
        """A copy with the classes of another split; ValueError if a class is missing there."""
        if list(classes) == self.classes and list(category_ids) == self.category_ids:
            return self
        label_of = {key: label for label, key in enumerate(zip(map(int, category_ids), classes, strict=True))}
        table = np.zeros(len(self.classes), np.int64)
        for label, key in enumerate(zip(self.category_ids, self.classes, strict=True)):
            if key not in label_of:
                raise ValueError(
                    f"{self.source}: category {key[0]} {key[1]!r} is not among the {len(classes)} categories of the "
                    "training annotations; expected the same ids and names in all splits"
                )
            table[label] = label_of[key]
        return replace(self, classes=list(classes), category_ids=list(category_ids), labels=table[self.labels])

    def coco_dict(self) -> dict[str, list[dict[str, object]]]:
        """The annotations as a COCO dictionary, annotation ids renumbered from 1, as pycocotools takes it."""
        ids, image_of = self.image_ids, self.image_of
        return {
            "images": [
                {"id": ids[i], "file_name": self.file_names[i], "width": int(w), "height": int(h)}
                for i, (w, h) in enumerate(self.sizes)
            ],
            "annotations": [
                {
                    "id": row + 1,
                    "image_id": ids[image_of[row]],
                    "category_id": self.category_ids[self.labels[row]],
                    "bbox": self.boxes[row].tolist(),
                    "area": float(self.areas[row]),
                    "iscrowd": int(self.crowd[row]),
                }
                for row in range(len(self.boxes))
            ],
            "categories": [{"id": i, "name": n} for i, n in zip(self.category_ids, self.classes, strict=True)],
        }

    def __getstate__(self) -> dict[str, object]:
        """Pickled for a spawned worker, arrays are passed as handles to shared memory instead of copies."""
        return {column.name: _shared(getattr(self, column.name)) for column in fields(self)}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update({name: _unshared(value) for name, value in state.items()})


def _pack(
    source: str,
    sha256: str,
    image_folder: str,
    classes: list[str],
    images: Sequence[tuple[str, int, int]],
    objects: Sequence[_Object],
) -> Annotations:
    """Images (file name, width, height) and objects in the order of their images as arrays, numbered from 1."""
    boxes = np.array([each.box for each in objects], np.float64).reshape(-1, 4)
    packed = pack_polygons([each.polygons for each in objects], boxes)
    owners = np.array([each.image for each in objects], np.int64)
    return Annotations(
        source=source,
        sha256=sha256,
        image_folder=image_folder,
        classes=classes,
        category_ids=list(range(1, len(classes) + 1)),
        file_names=TextColumn.of([image[0] for image in images]),
        image_id_numbers=np.arange(1, len(images) + 1),
        image_id_texts=TextColumn.of([]),
        sizes=np.array([image[1:] for image in images], np.int32).reshape(-1, 2),
        starts=starts_of(np.bincount(owners, minlength=len(images))),
        boxes=boxes,
        labels=np.array([each.label for each in objects], np.int64),
        areas=boxes[:, 2] * boxes[:, 3],
        crowd=np.array([each.crowd for each in objects], bool),
        **packed._asdict(),
    )


def _shared(value: object) -> object:
    if isinstance(value, TextColumn):
        return _SharedText(_in_shared_memory(value.buffer), _in_shared_memory(value.starts))
    return _in_shared_memory(value) if isinstance(value, np.ndarray) else value


def _unshared(value: object) -> object:
    if isinstance(value, _SharedText):
        return TextColumn(value.buffer.array(), value.starts.array())
    return value.array() if isinstance(value, _SharedArray) else value


class _SharedArray(NamedTuple):
    """An array in shared memory, as its bytes: torch cannot pass on every type."""

    memory: torch.Tensor
    dtype: np.dtype

    def array(self) -> np.ndarray:
        return self.memory.numpy().view(self.dtype)


class _SharedText(NamedTuple):
    """A TextColumn in shared memory."""

    buffer: _SharedArray
    starts: _SharedArray


def _in_shared_memory(array: np.ndarray) -> _SharedArray:
    return _SharedArray(torch.from_numpy(array.copy().view(np.uint8)).share_memory_(), array.dtype)
