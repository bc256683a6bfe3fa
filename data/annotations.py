"""The annotations of a data set in compact arrays, so that any number of workers share one copy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from data.issues import Problem


class TextColumn(Sequence):
    """Strings in one buffer: unlike a list of str, reading it in a forked worker copies no page."""

    def __init__(self, buffer: np.ndarray, starts: np.ndarray):
        """`buffer` uint8 UTF-8, `starts` (n + 1,) int64 offsets into it."""
        self.buffer, self.starts = buffer, starts

    @staticmethod
    def of(texts: Sequence[str]) -> TextColumn:
        """Pack strings."""
        coded = [text.encode("utf-8", "surrogatepass") for text in texts]
        starts = np.zeros(len(coded) + 1, np.int64)
        np.cumsum([len(each) for each in coded], out=starts[1:])
        return TextColumn(np.frombuffer(b"".join(coded), np.uint8), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index = index % len(self)
        return self.buffer[self.starts[index] : self.starts[index + 1]].tobytes().decode("utf-8", "surrogatepass")


@dataclass
class Annotations:
    """A split of a data set: N images, A annotations sorted by image, C classes.

    `boxes` are COCO's own (left, top, width, height), unclipped, in float64: evaluation needs every digit. Training
    takes them through `training_boxes`. Class labels are positions in `classes`, which follow the sorted category ids.
    """

    json_path: str
    image_folder: str
    classes: list[str]
    category_ids: list[int]
    file_names: TextColumn
    image_id_numbers: np.ndarray  # (N,) int64; empty where ids are text
    image_id_texts: TextColumn  # of N, or none where ids are numbers
    sizes: np.ndarray  # (N, 2) int32 width, height; 0 where not known yet
    starts: np.ndarray  # (N + 1,) int64: annotations of image i are starts[i]:starts[i + 1]
    boxes: np.ndarray  # (A, 4) float64
    labels: np.ndarray  # (A,) int64
    areas: np.ndarray  # (A,) float64
    crowd: np.ndarray  # (A,) bool
    polygon_starts: np.ndarray  # (A + 1,) int64: polygons of annotation a are polygon_starts[a]:polygon_starts[a + 1]
    point_starts: np.ndarray  # (P + 1,) int64: points of polygon p are point_starts[p]:point_starts[p + 1]
    points: np.ndarray  # (Q, 2) float32
    ledger: list[Problem] = field(default_factory=list)
    annotation_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (A,), or empty if not all int

    def __len__(self) -> int:
        return len(self.file_names)

    @property
    def image_ids(self) -> list[int] | list[str]:
        """Ids of the images as the JSON gives them."""
        return self.image_id_numbers.tolist() if len(self.image_id_numbers) else list(self.image_id_texts)

    def image_id(self, index: int) -> int | str:
        """Id of one image."""
        return int(self.image_id_numbers[index]) if len(self.image_id_numbers) else self.image_id_texts[index]

    def path(self, index: int) -> str:
        """Path of one image file."""
        return os.path.join(self.image_folder, self.file_names[index])

    @property
    def paths(self) -> list[str]:
        """Paths of all image files."""
        return [self.path(index) for index in range(len(self))]

    def rows(self, index: int) -> np.ndarray:
        """Rows of the annotations of an image that training uses: no crowds."""
        rows = np.arange(self.starts[index], self.starts[index + 1])
        return rows[~self.crowd[rows]]

    def training_boxes(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n, 4) float32 xyxy in image pixels clipped to the image, labels (n,), and their rows; no crowds."""
        rows = self.rows(index)
        boxes = self.boxes[rows]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        width, height = self.sizes[index]
        if width and height:
            corners = np.clip(corners, 0, [width, height, width, height])
        kept = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
        return corners[kept].astype(np.float32), self.labels[rows[kept]], rows[kept]

    def polygons(self, row: int) -> list[np.ndarray]:
        """Outlines (n, 2) float32 of one annotation in image pixels; none where the JSON has none that fit its box."""
        span = range(self.polygon_starts[row], self.polygon_starts[row + 1])
        return [self.points[self.point_starts[p] : self.point_starts[p + 1]] for p in span]

    def class_counts(self) -> np.ndarray:
        """Annotations of each class, (C,), crowds not counted."""
        return np.bincount(self.labels[~self.crowd], minlength=len(self.classes))

    def without(self, images: Sequence[int] | np.ndarray) -> Annotations:
        """The same data without some images (positions)."""
        keep = np.ones(len(self), bool)
        keep[np.asarray(images, np.int64)] = False
        return self._taking(np.flatnonzero(keep), np.flatnonzero(np.repeat(keep, np.diff(self.starts))))

    def without_boxes(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        """The same data without some annotations (rows of `boxes`)."""
        keep = np.ones(len(self.boxes), bool)
        keep[np.asarray(rows, np.int64)] = False
        return self._taking(np.arange(len(self)), np.flatnonzero(keep))

    def _taking(self, kept: np.ndarray, rows: np.ndarray) -> Annotations:
        """Some images (positions) and some of their annotations (rows)."""
        counts = np.bincount(np.repeat(np.arange(len(self)), np.diff(self.starts))[rows], minlength=len(self))
        polygons = _span_rows(self.polygon_starts, rows)
        points = _span_rows(self.point_starts, polygons)
        return replace(
            self,
            file_names=TextColumn.of([self.file_names[i] for i in kept]),
            image_id_numbers=self.image_id_numbers[kept] if len(self.image_id_numbers) else self.image_id_numbers,
            image_id_texts=TextColumn.of([self.image_id_texts[i] for i in kept] if len(self.image_id_texts) else []),
            sizes=self.sizes[kept],
            starts=_starts(counts[kept]),
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            areas=self.areas[rows],
            crowd=self.crowd[rows],
            annotation_ids=self.annotation_ids[rows] if len(self.annotation_ids) else self.annotation_ids,
            polygon_starts=_starts(np.diff(self.polygon_starts)[rows]),
            point_starts=_starts(np.diff(self.point_starts)[polygons]),
            points=self.points[points],
        )

    def as_single_class(self) -> Annotations:
        """All annotations as one class, named `object` where there were several."""
        if len(self.classes) == 1:
            return self
        return replace(self, classes=["object"], category_ids=[self.category_ids[0]], labels=np.zeros_like(self.labels))

    def relabelled(self, classes: Sequence[str], category_ids: Sequence[int]) -> Annotations:
        """The same data with the classes of another split; ValueError if it has a class that the other lacks."""
        if list(classes) == self.classes and list(category_ids) == self.category_ids:
            return self
        keys = zip(map(int, category_ids), classes, strict=True)
        place = {key: label for label, key in enumerate(keys)}
        table = np.zeros(len(self.classes), np.int64)
        for label, key in enumerate(zip(self.category_ids, self.classes, strict=True)):
            if key not in place:
                raise ValueError(
                    f"{self.json_path}: category {key[0]} {key[1]!r} is not among the {len(classes)} categories of the "
                    "training annotations; expected the same ids and names in all splits"
                )
            table[label] = place[key]
        return replace(self, classes=list(classes), category_ids=list(category_ids), labels=table[self.labels])

    def coco_dict(self) -> dict[str, Any]:
        """The annotations that were kept, as a COCO dictionary numbered anew; the form pycocotools takes."""
        ids = self.image_ids
        image_of = np.repeat(np.arange(len(self)), np.diff(self.starts))
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

    def __getstate__(self) -> dict[str, Any]:
        """Pickled for a spawned worker, arrays travel as shared memory: a handle, no copy of the data a worker."""
        return {each.name: _shared(getattr(self, each.name)) for each in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: _unshared(value) for name, value in state.items()})


def _shared(value: Any) -> Any:
    if isinstance(value, TextColumn):
        return ("text", _shared(value.buffer), _shared(value.starts))
    if isinstance(value, np.ndarray):
        return ("array", torch.from_numpy(value.copy()).share_memory_())
    return value


def _unshared(value: Any) -> Any:
    if isinstance(value, tuple) and value and value[0] == "text":
        return TextColumn(_unshared(value[1]), _unshared(value[2]))
    if isinstance(value, tuple) and value and value[0] == "array":
        return value[1].numpy()
    return value


def _starts(counts: np.ndarray) -> np.ndarray:
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def _span_rows(starts: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Positions of the elements that the kept spans hold."""
    counts = np.diff(starts)[kept]
    ends = np.cumsum(counts)
    return np.repeat(starts[:-1][kept] - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
