"""What looks wrong with a split as a whole: how much was skipped, nothing to train on, boxes of another convention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from data.annotations import Annotations
from data.issues import USED, Issue

NOTABLE, MOST = 0.03, 0.5  # shares of skipped images or annotations: told from the first, refused above the second
BEYOND, FEW = 0.2, 3  # share and number of boxes beyond their images from which another convention is looked for
SIDE_TOLERANCE = 0.02  # of a side of an image, for coordinates beyond it
PERCENT = 100.5  # boxes in percent end at 100, but for rounding
MIN_PERCENT_BOXES, MIN_PERCENT_SIDE = 20, 200  # fewer boxes, or smaller images, may lie in one corner by chance

# Other conventions as (left, top, right, bottom), from the four numbers of each box.
CONVENTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "left, top, right, bottom": lambda boxes: boxes,
    "top, left, bottom, right": lambda boxes: boxes[:, [1, 0, 3, 2]],
    "centre, width, height": lambda boxes: np.concatenate(
        [boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1
    ),
    "top, left, height, width": lambda boxes: np.concatenate(
        [boxes[:, 1::-1], boxes[:, 1::-1] + boxes[:, :1:-1]], axis=1
    ),
}


def examine(annotations: Annotations, *, allow_skipped: bool = False) -> Annotations:
    """The annotations with notes on what looks wrong. ValueError if more than half was skipped and may not be."""
    refusal = mostly_skipped(annotations)
    if refusal and not allow_skipped:
        raise ValueError(refusal)
    notes = [note for note in (convention_note(annotations), crowd_note(annotations)) if note]
    return replace(annotations, notes=[*annotations.notes, *notes], skipped=_skipped_note(annotations) or "")


# ------------------------------------------------------------------------------------------------------------ skipped


def _lost(annotations: Annotations) -> list[Issue]:
    """The issues for which something was skipped."""
    return [issue for issue in annotations.issues if issue.kind not in USED]


def mostly_skipped(annotations: Annotations) -> str | None:
    """Why a split of which more than half was skipped is refused; None if less was."""
    what, share = _largest_share(annotations)
    if share <= MOST:
        return None
    rest = ", --allow-skipped uses the rest" if len(annotations.boxes) else ""
    return (
        f"{annotations.source}: {what} cannot be used, expected at most half; the first: {_example(annotations)}; "
        f"data.check lists all{rest}"
    )


def _skipped_note(annotations: Annotations) -> str | None:
    what, share = _largest_share(annotations)
    return f"{annotations.source}: {what} skipped, the first: {_example(annotations)}" if share > NOTABLE else None


def _example(annotations: Annotations) -> Issue:
    """The first issue of a category, for which all of its annotations are lost, else of the commonest kind."""
    lost = _lost(annotations)
    return next((issue for issue in lost if ", categories[" in issue.where), None) or _commonest(lost)[0]


def _commonest(issues: list[Issue]) -> tuple[Issue, int]:
    """The first issue of the commonest kind, and how many are of that kind."""
    [(kind, count)] = Counter(issue.kind for issue in issues).most_common(1)
    return next(issue for issue in issues if issue.kind == kind), count


def _largest_share(annotations: Annotations) -> tuple[str, float]:
    """Which of images and annotations lost the larger share, as text, and that share; annotations go with an image."""
    left, found = (len(annotations), len(annotations.boxes)), ("no images", 0.0)
    for noun, listed, kept in zip(("images", "annotations"), annotations.listed, left, strict=True):
        gone = listed - kept
        if _lost(annotations) and listed and gone / listed > found[1]:
            found = f"{gone} of {listed} {noun} ({gone / listed:.0%})", gone / listed
    return found


# --------------------------------------------------------------------------------------------------- nothing to train


def nothing_to_train_on(annotations: Annotations) -> str | None:
    """Why a split has no object to train on, with the commonest reason; None if it has some."""
    if (~annotations.crowd).any():
        return None
    crowds, listed = len(annotations.crowd), annotations.listed[1]
    start = f"{annotations.source}: no box to train on"
    if crowds:
        return (
            f"{start}: all {crowds} usable annotations have iscrowd 1, which marks regions to ignore; "
            "expected iscrowd 0 for single objects, masks (RLE) included"
        )
    lost = _lost(annotations)
    if not listed or not lost:
        return f"{start}: its {len(annotations)} images have no annotations"
    first, count = _commonest(lost)
    return f"{start}: none of {listed} annotations can be used, most often {first.kind} ({count}), as {first}"


def crowd_note(annotations: Annotations) -> str | None:
    """A note if most objects are crowds, which are ignored."""
    crowds, total = int(annotations.crowd.sum()), len(annotations.crowd)
    if crowds <= total / 2:
        return None
    return f"{crowds} of {total} annotations have iscrowd 1: such regions are ignored in training and evaluation"


# --------------------------------------------------------------------------------------------------- box conventions


def convention_note(annotations: Annotations) -> str | None:
    """A note if the boxes look like fractions, percent, corners or centres instead of left, top, width, height."""
    image = annotations.image_of
    known = annotations.sizes[image, 0] > 0
    boxes, limits = annotations.boxes[known], np.tile(annotations.sizes[image[known]].astype(np.float64), 2)
    if not len(boxes):
        return None
    expected = "COCO has left, top, width, height in pixels"
    if boxes.max() <= 1 and boxes.min() >= 0:
        return f"all values of bbox are from 0 to 1, as fractions of the image; {expected}"
    if _are_percent(boxes, limits):
        return f"all boxes lie within 0 to 100, as percent of the image; {expected}"
    beyond = ~_fits(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), limits)
    count = int(beyond.sum())
    if count < FEW or count < BEYOND * len(boxes):
        return None
    found = f"{count} of {len(boxes)} boxes reach beyond their images"
    for name, corners in CONVENTIONS.items():
        if _fits(corners(boxes), limits).all():
            return f"{found}, but none would if bbox were {name}; {expected}"
    return f"{found}: bbox may be of images of another size; {expected}" if count > MOST * len(boxes) else None


def _fits(corners: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Whether boxes (n, 4) xyxy have a size and lie in their images; `limits` (n, 4) width, height, width, height."""
    slack = 1 + SIDE_TOLERANCE * limits
    inside = (corners >= -slack) & (corners <= limits + slack)
    return np.asarray(np.concatenate([inside, corners[:, 2:] > corners[:, :2]], axis=1).all(axis=1))


def _are_percent(boxes: np.ndarray, limits: np.ndarray) -> bool:
    """Whether all boxes end at 100 at most, some close to it, in images that are much larger."""
    ends = boxes[:, :2] + boxes[:, 2:]
    fills = 90 <= ends.max() <= PERCENT and boxes.min() >= 0
    return fills and len(boxes) >= MIN_PERCENT_BOXES and limits.min() >= MIN_PERCENT_SIDE
