"""Decoding and suppression."""

import pytest
import torch
from torchvision.ops import box_iou

from models.decode import anchor_points, decode, nms
from tests.models import oracle
from tests.models.scenes import STRIDES, scene


def test_anchor_points_are_centres_level_by_level_row_by_row():
    points, sizes = anchor_points([(4, 6), (2, 3)], (8, 16), torch.device("cpu"))
    expected = oracle.anchors([(4, 6), (2, 3)], (8, 16))
    assert torch.cat((points, sizes), dim=-1).tolist() == [list(map(float, each)) for each in expected]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_decode_agrees_with_the_oracle(dtype):
    maps, _ = scene([1, 1], side=64)
    maps = [each.to(dtype) for each in maps]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        boxes, scores = decode(maps, strides=STRIDES, num_classes=3)
    assert boxes.dtype == scores.dtype == torch.float32
    cells = oracle.anchors([each.shape[-2:] for each in maps], STRIDES)
    rows = torch.cat([each.double().permute(0, 2, 3, 1).flatten(1, 2) for each in maps], dim=1)
    for image in range(2):
        expected = [oracle.decode(row[:64], cell) for row, cell in zip(rows[image].tolist(), cells, strict=True)]
        torch.testing.assert_close(
            boxes[image].double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-4
        )
    torch.testing.assert_close(scores.double(), rows[..., 64:].sigmoid(), rtol=1e-5, atol=1e-6)


def candidates(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, 80, 2, generator=generator) * 60
    boxes = torch.cat((corner, corner + 10 + torch.rand(2, 80, 2, generator=generator) * 30), dim=-1)
    return boxes, torch.rand(2, 80, 3, generator=generator)


def greedy(boxes: torch.Tensor, scores: torch.Tensor, conf: float, iou: float) -> list[tuple[float, int, int]]:
    """(score, label, row) kept, by the definition: best first, dropping what overlaps a kept one of its class more."""
    overlaps = box_iou(boxes, boxes)
    kept: list[tuple[float, int, int]] = []
    pairs = [(float(scores[row, label]), label, row) for row, label in (scores > conf).nonzero().tolist()]
    for pair in sorted(pairs, reverse=True):
        if all(pair[1] != other[1] or overlaps[pair[2], other[2]] <= iou for other in kept):
            kept.append(pair)
    return kept


def test_suppression_by_its_definition():
    boxes, scores = candidates()
    for image, found in enumerate(nms(boxes, scores, conf=0.3, iou=0.5, max_det=1000)):
        expected = greedy(boxes[image], scores[image], 0.3, 0.5)
        assert found.scores.tolist() == [score for score, _, _ in expected]
        assert found.labels.tolist() == [label for _, label, _ in expected]
        assert torch.equal(found.boxes, boxes[image][[row for _, _, row in expected]])
        assert found.labels.dtype == torch.int64


def test_single_label_max_det_and_classes():
    boxes, scores = candidates(1)
    best = scores * (scores == scores.amax(-1, keepdim=True))
    for image, found in enumerate(nms(boxes, scores, conf=0.3, iou=0.5, max_det=7, multi_label=False)):
        expected = greedy(boxes[image], best[image], 0.3, 0.5)[:7]
        assert found.scores.tolist() == [score for score, _, _ in expected]
    for found in nms(boxes, scores, conf=0.3, iou=0.5, max_det=300, classes=[2]):
        assert set(found.labels.tolist()) == {2}
    for found in nms(boxes, scores, conf=0.3, iou=0.5, max_det=300, multi_label=False, classes=[0, 1]):
        assert set(found.labels.tolist()) == {0, 1}


def test_nothing_above_the_threshold_and_images_apart():
    boxes, scores = candidates(2)
    scores[0] = 0
    nothing, something = nms(boxes, scores, conf=0.1, iou=0.5, max_det=300)
    assert nothing.boxes.shape == (0, 4) and nothing.scores.shape == nothing.labels.shape == (0,)
    (alone,) = nms(boxes[1:], scores[1:], conf=0.1, iou=0.5, max_det=300)
    assert torch.equal(alone.boxes, something.boxes) and torch.equal(alone.scores, something.scores)
