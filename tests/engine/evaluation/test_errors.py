"""Error kinds of detections against hotcoco's own counts, and cases made by hand."""

from collections import Counter

import numpy as np
import pytest

from engine.evaluation.coco import hotcoco_run
from engine.evaluation.errors import KINDS, Errors, find_errors
from engine.evaluation.ground_truth import GroundTruth

IDS = [3, 1, 7]  # categories, not in order


def truth_of(images: int, rows: np.ndarray, crowd: np.ndarray | None = None) -> GroundTruth:
    """Objects from rows of image key, label, left, top, width, height."""
    return GroundTruth(
        image_ids=list(range(images)),
        category_ids=IDS,
        names=["a", "b", "c"],
        image_key=rows[:, 0].astype(np.int64),
        labels=rows[:, 1].astype(np.int64),
        boxes=rows[:, 2:],
        area=rows[:, 4] * rows[:, 5],
        crowd=np.zeros(len(rows), bool) if crowd is None else crowd,
        key_of={key: key for key in range(images)},
    )


def detections(*rows: tuple[int, int, float, float, float, float, float]) -> np.ndarray:
    """Predictions from rows of image key, label, left, top, width, height, score."""
    table = np.array(rows, np.float64).reshape(-1, 7)
    return np.column_stack([table[:, [0, 2, 3, 4, 5, 6]], [IDS[int(label)] for label in table[:, 1]]])


def total(errors: Errors) -> Counter[str]:
    return sum((image.counts for image in errors.images), Counter())


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_those_of_hotcoco(seed: int) -> None:
    random = np.random.default_rng(seed)
    objects = np.column_stack(
        [
            np.sort(random.integers(0, 12, 40)),
            random.integers(0, 3, 40),
            random.uniform(0, 60, (40, 2)),
            random.uniform(10, 40, (40, 2)),
        ]
    )
    near = objects[random.integers(0, 40, 150)]
    boxes = near[:, 2:] + random.normal(0, 6, (150, 4))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 2)
    labels = np.where(random.random(150) < 0.7, near[:, 1], random.integers(0, 3, 150))
    scores = random.permutation(150) / 150
    found = detections(*np.column_stack([near[:, 0], labels, boxes, scores]).tolist())
    truth = truth_of(12, objects)
    for confidence in (0.0, 0.4):
        errors = find_errors(truth, found, confidence=confidence)
        kept = found[found[:, 5] >= confidence]
        expected = hotcoco_run(truth, kept).tide_errors()["counts"]
        counts = total(errors)
        assert {short: counts[kind] for kind, short in KINDS.items() if kind != "missed"} == {
            short: count for short, count in expected.items() if short != "Miss"
        }
        assert counts["right"] + counts["missed"] == 40
        assert all(expected[short] for short in ("Cls", "Loc", "Both", "Dupe", "Bkg"))
        assert counts["right"] + sum(expected[short] for short in list(KINDS.values())[1:]) == len(kept)
        assert errors.gains["missed"] == pytest.approx(hotcoco_run(truth, found).tide_errors()["delta_ap"]["Miss"])


def test_each_kind_by_hand() -> None:
    objects = np.array([[0, 0, 0, 0, 10, 10], [0, 1, 50, 0, 10, 10], [1, 2, 0, 0, 10, 10]], float)
    found = detections(
        (0, 0, 0, 0, 10, 9, 0.9),  # right
        (0, 0, 0, 1, 10, 9, 0.8),  # duplicate
        (0, 2, 50, 0, 10, 10, 0.7),  # class
        (0, 1, 50, 6, 10, 10, 0.6),  # location: IoU 0.25
        (0, 0, 50, 6, 10, 10, 0.5),  # both
        (0, 1, 90, 90, 10, 10, 0.4),  # background
        (1, 2, 0, 0, 10, 10, 0.05),  # below the confidence
    )
    errors = find_errors(truth_of(3, objects), found, confidence=0.1)
    assert [image.index for image in errors.images] == [1, 0, 2]  # F1 0, 2 / 8, 1
    missing, first, empty = errors.images
    assert list(first.kinds) == ["right", "duplicate", "class", "location", "both", "background"]
    assert first.found.tolist() == [True, False] and first.f1 == pytest.approx(2 / 8)
    assert first.detections[3].tolist() == [50, 6, 60, 16] and first.labels.tolist() == [0, 0, 2, 1, 0, 1]
    assert missing.counts == Counter(missed=1) and missing.f1 == 0
    assert empty.f1 == 1 and empty.errors == 0
    (wrong, *_) = errors.suspects
    assert (wrong.kind, wrong.label, wrong.detected, wrong.score) == ("wrong_label", "b", "c", 0.7)


def test_a_crowd_is_neither_an_error_nor_missed() -> None:
    objects = np.array([[0, 0, 0, 0, 40, 40], [0, 0, 60, 60, 10, 10]], float)
    found = detections((0, 0, 5, 5, 10, 10, 0.9), (0, 0, 60, 60, 10, 10, 0.8))
    (image,) = find_errors(truth_of(1, objects, np.array([True, False])), found, confidence=0.0).images
    assert list(image.kinds) == ["ignored", "right"] and image.errors == 0 and len(image.objects) == 1


def test_nothing_at_all() -> None:
    nothing = find_errors(truth_of(2, np.zeros((0, 6))), np.zeros((0, 7)), confidence=0.5)
    assert [image.f1 for image in nothing.images] == [1, 1] and nothing.suspects == []
