"""COCO ground truth as arrays: what detections are scored against."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluation.matching import BoxTable


class GroundTruth:
    """COCO ground truth in arrays, read from the original JSON, restricted to the images that are evaluated.

    COCO's libraries want integer image ids in arrays, so ids of other types are replaced by their rank among the ids.
    """

    def __init__(self, source: dict[str, Any] | str | os.PathLike, *, image_ids: Iterable | None = None) -> None:
        """`source`: a COCO dictionary or the path of its JSON; `image_ids`: the images to keep (default all)."""
        content = _read_coco(source)
        wanted = None if image_ids is None else set(image_ids)
        identities = dict.fromkeys(image["id"] for image in content["images"] if "id" in image)
        self.image_ids: list[Any] = [identity for identity in identities if wanted is None or identity in wanted]
        if wanted is not None and len(self.image_ids) < len(wanted):
            missing = sorted(wanted - set(self.image_ids), key=str)[:5]
            raise ValueError(f"image ids {missing} are not in the ground truth; expected ids of its 'images' list")
        plain = all(isinstance(identity, int) for identity in self.image_ids)
        ranked = sorted(self.image_ids, key=str)
        self.key_of: dict[Any, int] = {identity: int(identity) if plain else k for k, identity in enumerate(ranked)}
        self.id_of: dict[int, Any] = {key: identity for identity, key in self.key_of.items()}
        self.categories: list[dict[str, Any]] = [
            {"id": int(category["id"]), "name": str(category.get("name", category["id"]))}
            for category in content["categories"]
        ]
        self.notes: list[str] = []
        self.issues: list[Any] = []  # what the data set has skipped
        self._fill([a for a in content.get("annotations", []) if a.get("image_id") in self.key_of])

    @classmethod
    def from_annotations(cls, annotations: Any, *, single_cls: bool = False) -> GroundTruth:
        """The JSON behind a loaded data set, or what it kept of that where it skipped anything; classes in its order.

        All objects become one class with `single_cls`, or where the data set has merged its classes already.
        """
        issues = list(getattr(annotations, "issues", ()))
        # What the data set skipped is no object to find, and ids of which some are texts have all become texts: then
        # the file does not say what was loaded.
        changed = issues or any(isinstance(identity, str) for identity in annotations.image_ids[:1])
        changed = changed or not annotations.source.endswith(".json")
        truth = cls(annotations.coco_dict() if changed else annotations.source, image_ids=annotations.image_ids)
        truth.issues = issues
        listed = len(truth.categories)
        classes = zip(annotations.category_ids, annotations.classes, strict=True)
        truth.categories = [{"id": int(identity), "name": str(name)} for identity, name in classes]
        if single_cls or (len(truth.categories) == 1 < listed):
            truth.categories = truth.categories[:1]
            truth.category_id = np.full_like(truth.category_id, truth.categories[0]["id"])
        return truth

    def _fill(self, annotations: list[dict[str, Any]]) -> None:
        """Take what pycocotools can evaluate: a box of four finite numbers, an id that did not occur before."""
        kept: dict[Any, dict[str, Any]] = {}
        for position, annotation in enumerate(annotations):
            box = annotation.get("bbox")
            if isinstance(box, list) and len(box) == 4 and _finite(*box) and _finite(annotation.get("category_id")):
                kept.setdefault(annotation.get("id", ("without", position)), annotation)
        if len(kept) < len(annotations):
            self.notes.append(
                f"{len(annotations) - len(kept)} annotations with no usable box or a repeated id left out"
            )
        used = list(kept.values())
        self.image_key = np.array([self.key_of[a["image_id"]] for a in used], np.int64)
        self.category_id = np.array([a["category_id"] for a in used], np.int64)
        self.boxes = np.array([a["bbox"] for a in used], np.float64).reshape(len(used), 4)
        # pycocotools cannot read annotations without these two; COCO's meaning of their absence is plain.
        self.area = np.array(
            [a["area"] if _finite(a.get("area")) else a["bbox"][2] * a["bbox"][3] for a in used], float
        )
        self.crowd = np.array([bool(a.get("iscrowd", 0)) for a in used], bool)
        numbered = all(type(identity) is int for identity in kept)
        self.annotation_id = np.array(list(kept) if numbered else range(1, len(used) + 1), np.int64)
        if (self.annotation_id == 0).any():
            self.notes.append(
                "an annotation of the ground truth has the id 0, which pycocotools takes for 'not matched': that "
                "object counts as missed in the official numbers; number annotations from 1"
            )

    @property
    def names(self) -> list[str]:
        """Class names in the order of the categories."""
        return [category["name"] for category in self.categories]

    def labels(self, category_ids: np.ndarray) -> np.ndarray:
        """Positions of category ids in `categories`; -1 where there is no such category."""
        known = np.array([category["id"] for category in self.categories], np.int64)
        if not len(known):
            return np.full(len(category_ids), -1)
        order = np.argsort(known)
        place = np.searchsorted(known, category_ids, sorter=order)
        place = order[np.minimum(place, len(known) - 1)]
        return np.where(known[place] == category_ids, place, -1)

    def table(self) -> tuple[BoxTable, np.ndarray]:
        """The objects as a table with class positions, and which of them are crowds."""
        labels = self.labels(self.category_id)
        known = labels >= 0
        return BoxTable(self.image_key[known], self.boxes[known], labels[known]), self.crowd[known]

    def as_coco(self) -> dict[str, Any]:
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
            "images": [{"id": self.key_of[identity]} for identity in self.image_ids],
            "categories": [dict(category) for category in self.categories],
            "annotations": [
                {"id": i, "image_id": k, "category_id": c, "bbox": b, "area": a, "iscrowd": int(w)}
                for i, k, c, b, a, w in columns
            ],
        }


def _finite(*values: Any) -> bool:
    return all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)


def _read_coco(source: dict[str, Any] | str | os.PathLike) -> dict[str, Any]:
    """The dictionary itself or the content of the file, checked to be COCO detection ground truth."""
    content, where = source, "the given dictionary"
    if not isinstance(source, dict):
        where = os.fspath(source)
        if not os.path.isfile(where):
            raise FileNotFoundError(f"{where}: no such file; expected COCO ground truth (JSON)")
        try:
            content = json.loads(Path(where).read_bytes())
        except ValueError as error:
            raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(content, dict) or not {"images", "categories"} <= content.keys():
        raise ValueError(f"{where}: expected a COCO dictionary with 'images', 'annotations' and 'categories'")
    return content
