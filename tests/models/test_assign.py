"""Task-aligned assignment against plain loops in float64."""

import pytest
import torch

from core.types import Targets
from models.assign import Assignment, assign
from models.decode import anchor_points, decode_boxes, flatten_levels
from tests.models import oracle
from tests.models.scenes import STRIDES, scene

SETTINGS = {"topk": 10, "alpha": 0.5, "beta": 6.0}


def run(maps: list[torch.Tensor], targets: Targets, classes: int, **settings) -> tuple[Assignment, tuple]:
    flat = flatten_levels(maps)
    shapes = [each.shape[-2:] for each in maps]
    points, sizes = anchor_points(shapes, STRIDES, flat.device)
    boxes = decode_boxes(flat[..., :-classes], points, sizes)
    logits = flat[..., -classes:]
    return assign(logits, boxes, targets, shapes=shapes, strides=STRIDES, **settings), (logits, boxes, shapes)


def as_dicts(found: Assignment) -> list[dict[int, tuple[int, float]]]:
    """Each image's {anchor: (box, target score)}; that no anchor has two boxes is checked on the way."""
    images: list[dict[int, tuple[int, float]]] = []
    for anchors, positive, scores in zip(found.anchors, found.positive, found.scores, strict=True):
        owned: dict[int, tuple[int, float]] = {}
        for box, candidate in positive.nonzero().tolist():
            anchor = int(anchors[box, candidate])
            assert anchor not in owned
            owned[anchor] = (box, float(scores[box, candidate]))
        assert (scores[~positive] == 0).all()
        images.append(owned)
    return images


@pytest.mark.parametrize("dense", [False, True], ids=["pairs inside", "all pairs"])
@pytest.mark.parametrize(
    "counts, settings",
    [
        ([4, 0, 9, 1], SETTINGS),
        ([25, 12], SETTINGS),
        ([6, 6], {"topk": 3, "alpha": 1.0, "beta": 2.0}),
        ([5, 7], {"topk": 500, "alpha": 0.5, "beta": 6.0}),
        ([60], SETTINGS),
    ],
    ids=["few and none", "crowded", "other exponents", "more than there are", "very crowded"],
)
def test_the_same_masks_and_targets_as_the_oracle(counts, settings, dense):
    maps, targets = scene(counts, seed=sum(counts))
    found, (logits, boxes, shapes) = run(maps, targets, 3, dense=dense, **settings)
    cells = oracle.anchors(shapes, STRIDES)
    for image, owned in enumerate(as_dicts(found)):
        count = counts[image]
        expected = oracle.assign(
            logits[image].double().sigmoid().tolist(),
            boxes[image].double().tolist(),
            targets.boxes[image, :count].double().tolist(),
            targets.labels[image, :count].tolist(),
            cells,
            smallest=8,
            **settings,
        )
        assert {anchor: box for anchor, (box, _) in owned.items()} == {
            anchor: box for anchor, (box, _) in expected.items()
        }
        for anchor, (_, score) in owned.items():
            assert score == pytest.approx(expected[anchor][1], rel=1e-4, abs=1e-6)


def test_no_boxes_at_all():
    maps, targets = scene([0, 0])
    assert targets.boxes.shape == (2, 0, 4)
    for dense in (False, True):
        found, _ = run(maps, targets, 3, dense=dense, **SETTINGS)
        assert found.positive.sum() == 0 and found.scores.sum() == 0
    empty = Targets(torch.zeros(2, 5, 4), torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.bool))
    found, _ = run(maps, empty, 3, **SETTINGS)
    assert not found.positive.any()


def test_the_target_score_peaks_at_the_best_overlap_of_each_box():
    maps, targets = scene([6], seed=2)
    found, (_, boxes, _) = run(maps, targets, 3, **SETTINGS)
    for box in range(6):
        own = found.positive[0, box]
        if own.any():
            overlaps = [
                oracle.iou(boxes[0, a].tolist(), targets.boxes[0, box].tolist()) for a in found.anchors[0, box, own]
            ]
            assert found.scores[0, box].max().item() == pytest.approx(max(overlaps), rel=1e-4)


def test_a_box_thinner_than_a_cell_still_gets_an_anchor():
    maps, targets = scene([1])
    for x in (0.5, 3.9, 7.9, 40.0):
        targets.boxes[0, 0] = torch.tensor([x, 20.0, x + 1.0, 22.0])
        assert run(maps, targets, 3, **SETTINGS)[0].positive.any()


def test_of_two_equal_boxes_the_first_gets_the_anchors():
    maps, targets = scene([2])
    targets.boxes[0] = torch.tensor([10.0, 10, 60, 60])
    targets.labels[0] = 1
    found, _ = run(maps, targets, 3, **SETTINGS)
    assert found.positive[0, 0].sum() == 10 and found.positive[0, 1].sum() == 0


def test_padding_and_company_in_the_batch_change_nothing():
    maps, targets = scene([7, 3], seed=4)
    both = as_dicts(run(maps, targets, 3, **SETTINGS)[0])
    alone = Targets(targets.boxes[1:, :3], targets.labels[1:, :3], targets.mask[1:, :3])
    assert as_dicts(run([each[1:] for each in maps], alone, 3, **SETTINGS)[0])[0] == both[1]
