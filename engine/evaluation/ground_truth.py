"""The ground truth of an evaluation in arrays, as COCO's libraries need it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from data.annotations import Annotations
from data.issues import Issue
from engine.evaluation.matching import BoxTable

ID_ZERO = (
    "an annotation of the ground truth has the id 0, which pycocotools reads as 'not matched': that object counts as "
    "missed in the official numbers; number annotations from 1"
)


@dataclass(frozen=True)
class GroundTruth:
    """N images, A objects (crowds included) and C classes.

    COCO's libraries need integer image ids, so text ids are replaced by their rank: ``key_of`` maps an id to its key.
    """

    image_ids: list[int] | list[str]  # (N,)
    category_ids: list[int]  # (C,)
    names: list[str]  # (C,)
    image_key: np.ndarray  # (A,) int64
    labels: np.ndarray  # (A,) int64, positions in `names`
    boxes: np.ndarray  # (A, 4) float64, left, top, width, height
    area: np.ndarray  # (A,) float64
    crowd: np.ndarray  # (A,) bool
    annotation_id: np.ndarray  # (A,) int64
    key_of: dict[int | str, int]
    notes: list[str] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)  # what was skipped when the data were read

    @staticmethod
    def from_annotations(annotations: Annotations) -> GroundTruth:
        """The ground truth of a loaded data set: exactly the images and objects that were not skipped."""
        image_ids = annotations.image_ids
        numbers, texts = annotations.image_id_numbers.tolist(), sorted(annotations.image_id_texts)
        key_of: dict[int | str, int] = dict(zip(numbers, numbers, strict=True))
        key_of |= {identity: rank for rank, identity in enumerate(texts)}  # one of the two is empty
        keys = np.array([key_of[identity] for identity in image_ids], np.int64)
        # The file's own ids, unless it differs from what is evaluated: then pycocotools' treatment of the id 0, which
        # would be that of the file, has no meaning.
        whole = not annotations.issues and len(annotations.annotation_ids) and len(annotations.image_id_numbers)
        ids = annotations.annotation_ids if whole else np.arange(1, len(annotations.boxes) + 1)
        return GroundTruth(
            image_ids=image_ids,
            category_ids=[int(identity) for identity in annotations.category_ids],
            names=[str(name) for name in annotations.classes],
            image_key=np.repeat(keys, np.diff(annotations.starts)),
            labels=annotations.labels,
            boxes=annotations.boxes,
            area=annotations.areas,
            crowd=annotations.crowd,
            annotation_id=ids,
            key_of=key_of,
            notes=[ID_ZERO] if (ids == 0).any() else [],
            issues=list(annotations.issues),
        )

    @property
    def id_of(self) -> dict[int, int | str]:
        """Image ids by their keys."""
        return {key: identity for identity, key in self.key_of.items()}

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
