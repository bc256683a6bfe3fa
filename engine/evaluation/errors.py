"""What a detector does wrong in each image, in the error kinds of TIDE (arXiv 2008.08115), and doubtful labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torchvision.ops import box_iou

from engine.evaluation.coco import hotcoco_run
from engine.evaluation.ground_truth import GroundTruth

MATCH, BACKGROUND = 0.5, 0.1  # IoU from which a detection is on an object, and below which it is on none
KINDS = {
    "missed": "Miss",
    "class": "Cls",
    "location": "Loc",
    "both": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
}
"""The error kinds, and their names in core.metrics.TIDE."""
RIGHT, IGNORED = "right", "ignored"  # of a detection that is no error; the latter is on a crowd
SUSPECTS = {"wrong_label": "another class", "missing_annotation": "no label there"}


@dataclass(frozen=True, kw_only=True)
class ImageErrors:
    """An image with O objects, crowds excluded, and its D detections by falling score. Boxes are xyxy in pixels."""

    index: int  # position in the ground truth's `image_ids`
    objects: np.ndarray  # (O, 4)
    object_labels: np.ndarray  # (O,)
    found: np.ndarray  # (O,) bool
    detections: np.ndarray  # (D, 4)
    labels: np.ndarray  # (D,)
    scores: np.ndarray  # (D,)
    kinds: Sequence[str]  # (D,) RIGHT, IGNORED or a key of KINDS

    @cached_property
    def counts(self) -> Counter[str]:
        """Number of errors by kind, and of right detections."""
        return Counter(self.kinds) + Counter(missed=int((~self.found).sum()))

    @property
    def errors(self) -> int:
        """Number of wrong detections and missed objects."""
        return sum(self.counts[kind] for kind in KINDS)

    @property
    def f1(self) -> float:
        """F1 of the image: 1 without errors."""
        right = self.counts[RIGHT]
        return 2 * right / (2 * right + self.errors) if right + self.errors else 1.0


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A label that a confident detection contradicts. `label` is None where nothing is labelled."""

    index: int
    kind: str  # a key of SUSPECTS
    box: np.ndarray  # (4,) xyxy of the detection
    detected: str
    score: float
    label: str | None


@dataclass(frozen=True, kw_only=True)
class Errors:
    """All errors of an evaluation. `gains`: the mAP50 that would be gained without the errors of a kind, a fraction."""

    confidence: float  # of the detections that count in `images`
    gains: Mapping[str, float]
    images: Sequence[ImageErrors]  # the lowest F1 first, then the most errors
    suspects: Sequence[Suspect]  # the highest score first


def find_errors(truth: GroundTruth, predictions: np.ndarray, *, confidence: float) -> Errors:
    """Sort the detections (n, 7) of an evaluation into right ones and errors.

    Images are judged by the detections from `confidence` on; TIDE's gains are of all, as mAP is.
    """
    gains = hotcoco_run(truth, predictions).tide_errors(pos_thr=MATCH, bg_thr=BACKGROUND)["delta_ap"]
    kept = predictions[predictions[:, 5] >= confidence]
    kept = kept[np.argsort(-kept[:, 5], kind="stable")]
    found = hotcoco_run(truth, kept).image_diagnostics(iou_thr=MATCH, score_thr=max(confidence, 0.5))
    status = np.array([found["dt_status"].get(number, "ignored") for number in range(1, len(kept) + 1)])
    matched = np.array([found["gt_status"].get(int(number)) == "matched" for number in truth.annotation_id], bool)
    position = {key: index for index, key in enumerate(truth.key_of.values())}
    labels, corners = truth.labels_of(kept[:, 6].astype(np.int64)), _corners(kept[:, 1:5])
    objects_of, detections_of = _by_image(truth.image_key), _by_image(kept[:, 0].astype(np.int64))
    nothing = np.zeros(0, np.int64)
    images = []
    for key, index in position.items():
        objects = objects_of.get(key, nothing)
        objects = objects[~truth.crowd[objects]]
        mine = detections_of.get(key, nothing)
        boxes = _corners(truth.boxes[objects])
        images.append(
            ImageErrors(
                index=index,
                objects=boxes,
                object_labels=truth.labels[objects],
                found=matched[objects],
                detections=corners[mine],
                labels=labels[mine],
                scores=kept[mine, 5],
                kinds=_kinds(status[mine], corners[mine], labels[mine], boxes, truth.labels[objects]),
            )
        )
    suspects = [
        Suspect(
            index=position[each["image_id"]],
            kind=each["type"],
            box=corners[each["dt_id"] - 1],
            detected=each["dt_category"],
            score=each["dt_score"],
            label=each["gt_category"],
        )
        for each in found["label_errors"]
    ]
    return Errors(
        confidence=confidence,
        gains={kind: float(gains[short]) for kind, short in KINDS.items()},
        images=sorted(images, key=lambda image: (image.f1, -image.errors, image.index)),
        suspects=sorted(suspects, key=lambda suspect: -suspect.score),
    )


def _by_image(keys: np.ndarray) -> dict[int, np.ndarray]:
    """Row numbers by image key, in their order."""
    order = np.argsort(keys, kind="stable")
    values, starts = np.unique(keys[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True)) if len(keys) else {}


def _corners(boxes: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) of left, top, width, height as xyxy."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _kinds(
    status: np.ndarray, boxes: np.ndarray, labels: np.ndarray, objects: np.ndarray, object_labels: np.ndarray
) -> list[str]:
    """The kind of each detection of an image; what is wrong with a false one follows from its overlaps, as in TIDE."""
    if not len(boxes):
        return []
    overlap = box_iou(torch.from_numpy(boxes), torch.from_numpy(objects)).numpy()  # (D, O)
    same = labels[:, None] == object_labels
    own = np.where(same, overlap, 0).max(axis=1, initial=0)
    other = np.where(same, 0, overlap).max(axis=1, initial=0)
    kinds = np.select(
        [
            status == "tp",
            status != "fp",
            (own >= BACKGROUND) & (own < MATCH),
            other >= MATCH,
            own >= MATCH,
            other < BACKGROUND,
        ],
        [RIGHT, IGNORED, "location", "class", "duplicate", "background"],
        "both",
    )
    return [str(kind) for kind in kinds]
