"""The ground truth of an evaluation in arrays, as COCO's libraries need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from data.annotations import Annotations
from data.coco_records import meaning
from data.issues import Issue
from engine.evaluation.matching import COCO_LIMIT, BoxTable

RECALLS = np.linspace(0.0, 1.0, 101)  # at which COCO averages precision


@dataclass(frozen=True)
class GroundTruth:
    """N images, A objects (crowds included) and C classes.

    COCO's libraries need integer image ids, so text ids are replaced by their rank, as numbers if they are
    numbers: ``key_of`` maps an id to its key. Objects are numbered from 1, whatever their ids in the file.
    """

    image_ids: list[int] | list[str]  # (N,)
    category_ids: list[int]  # (C,)
    names: list[str]  # (C,)
    image_key: np.ndarray  # (A,) int64
    labels: np.ndarray  # (A,) int64, positions in `names`
    boxes: np.ndarray  # (A, 4) float64, left, top, width, height
    area: np.ndarray  # (A,) float64
    crowd: np.ndarray  # (A,) bool
    key_of: dict[int | str, int]
    notes: list[str] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)  # what was skipped when the data were read
    skipped: str = ""  # the share of what was skipped, if it is notable
    path_of: Callable[[int], str] = str  # the file of an image, by its position; without files, the position

    @staticmethod
    def from_annotations(annotations: Annotations) -> GroundTruth:
        """The ground truth of a loaded data set: exactly the images and objects that were not skipped."""
        image_ids = annotations.image_ids
        numbers = annotations.image_id_numbers.tolist()
        texts = sorted(annotations.image_id_texts, key=_order)
        key_of: dict[int | str, int] = dict(zip(numbers, numbers, strict=True))
        key_of |= {identity: rank for rank, identity in enumerate(texts)}  # one of the two is empty
        keys = np.array([key_of[identity] for identity in image_ids], np.int64)
        return GroundTruth(
            image_ids=image_ids,
            category_ids=[int(identity) for identity in annotations.category_ids],
            names=[str(name) for name in annotations.classes],
            image_key=np.repeat(keys, np.diff(annotations.starts)),
            labels=annotations.labels,
            boxes=annotations.boxes,
            area=annotations.areas,
            crowd=annotations.crowd,
            key_of=key_of,
            notes=annotations.notices,
            issues=list(annotations.issues),
            skipped=annotations.skipped,
            path_of=annotations.path,
        )

    def reachable_map(self) -> float:
        """The largest mAP that COCO's limit of detections leaves to a detector that finds every object; -1 if none."""
        _, label, count = self._objects_by_image()
        objects, counted = (
            np.bincount(label, number, len(self.names)) for number in (count, np.minimum(count, COCO_LIMIT))
        )
        recall = counted[objects > 0] / objects[objects > 0]
        return float(np.mean(np.searchsorted(RECALLS, recall, side="right") / len(RECALLS))) if len(recall) else -1.0

    def limit_notes(self, max_det: int | None = None) -> list[str]:
        """How limits of detections cap the numbers: COCO's per image and class, and `max_det` per image."""
        image, _, count = self._objects_by_image()
        notes = []
        images = len(np.unique(image[count > COCO_LIMIT]))
        if images:
            notes.append(
                f"{_have(images)} more than {COCO_LIMIT} objects of a class (up to {count.max()}), and COCO counts "
                f"{COCO_LIMIT} detections per image and class: mAP can reach {self.reachable_map():.4f} at most"
            )
        objects = np.bincount(image, count)
        if max_det is not None and (objects > max_det).any():
            over, most = int((objects > max_det).sum()), int(objects.max())
            notes.append(f"{_have(over)} more objects than max_det {max_det} (up to {most}): a larger one finds more")
        return notes

    def _objects_by_image(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Position of an image, position of a class, and number of its objects there, crowds excluded."""
        single = ~self.crowd
        _, image = np.unique(self.image_key[single], return_inverse=True)
        pairs, count = np.unique(image * len(self.names) + self.labels[single], return_counts=True)
        return pairs // len(self.names), pairs % len(self.names), count

    @property
    def id_of(self) -> dict[int, int | str]:
        """Image ids by their keys."""
        return {key: identity for identity, key in self.key_of.items()}

    @property
    def annotation_id(self) -> np.ndarray:
        """(A,) ids of the objects, from 1: files may repeat ids, and pycocotools reads the id 0 as 'not matched'."""
        return np.arange(1, len(self.boxes) + 1)

    @property
    def categories(self) -> list[dict[str, object]]:
        """COCO's `categories`."""
        return [{"id": i, "name": name} for i, name in zip(self.category_ids, self.names, strict=True)]

    @property
    def category_id(self) -> np.ndarray:
        """(A,) category id of each object."""
        return np.array(self.category_ids, np.int64)[self.labels]

    def labels_of(self, category_ids: np.ndarray) -> np.ndarray:
        """Positions of category ids in `names`; -1 for an unknown category."""
        known = np.array(self.category_ids, np.int64)
        order = np.argsort(known)
        place = np.searchsorted(known, category_ids, sorter=order)
        place = order[np.minimum(place, len(known) - 1)]
        return np.where(known[place] == category_ids, place, -1)

    def table(self) -> BoxTable:
        """The objects as a table with class positions."""
        return BoxTable(self.image_key, self.boxes, self.labels)

    def as_coco(self) -> dict[str, object]:
        """A COCO dictionary with what box evaluation reads."""
        columns = zip(
            self.annotation_id.tolist(),
            self.image_key.tolist(),
            self.category_id.tolist(),
            self.boxes.tolist(),
            self.area.tolist(),
            self.crowd.tolist(),
            strict=True,
        )
        return {
            "images": [{"id": key} for key in self.key_of.values()],
            "categories": self.categories,
            "annotations": [
                {"id": i, "image_id": k, "category_id": c, "bbox": b, "area": a, "iscrowd": int(w)}
                for i, k, c, b, a, w in columns
            ],
        }


def _order(identity: str) -> tuple[int, int | str]:
    """Ids that are numbers in the order of numbers, as equal scores are ranked in the order of images."""
    number = meaning(identity)
    return (0, number) if isinstance(number, int) else (1, identity)


def _have(images: int) -> str:
    return "1 image has" if images == 1 else f"{images} images have"
