"""Overlaps of boxes, against plain floats and torchvision."""

import math

import pytest
import torch
from torchvision.ops import box_iou, complete_box_iou

from core.boxes import pair_ciou, pair_iou


def boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 50
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 40 + 0.5
    return torch.cat((corner, corner + size), dim=-1)


def test_pairs_agree_with_torchvision_and_broadcast():
    first, second = boxes(40, 0), boxes(30, 1)
    torch.testing.assert_close(pair_iou(first[:, None], second[None]), box_iou(first, second))
    found = pair_ciou(first[:, None], second[None])
    torch.testing.assert_close(found, complete_box_iou(first, second), rtol=1e-6, atol=1e-7)


def test_ciou_by_hand():
    # IoU 4 / 28, centres (2, 2) apart, enclosed by 6 x 6, of equal aspect.
    assert pair_ciou(torch.tensor([0.0, 0, 4, 4]), torch.tensor([2.0, 2, 6, 6])) == pytest.approx(4 / 28 - 8 / 72)
    # One centre, 4 x 2 in 4 x 4: only the aspect differs.
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    found = pair_ciou(torch.tensor([0.0, 1, 4, 3]), torch.tensor([0.0, 0, 4, 4]))
    assert found == pytest.approx(0.5 - v / (0.5 + v) * v, abs=1e-6)


def test_empty_boxes_have_finite_overlaps_and_gradients():
    empty = torch.tensor([[3.0, 3, 3, 3], [3, 3, 3, 9], [3, 3, 9, 3]]).requires_grad_()
    for other in (torch.zeros(4), torch.tensor([3.0, 3, 3, 3]), torch.tensor([0.0, 0, 9, 9])):
        for overlap in (pair_iou, pair_ciou):
            value = overlap(empty, other)
            (gradient,) = torch.autograd.grad(value.sum(), empty)
            assert value.isfinite().all() and gradient.isfinite().all()
    assert pair_iou(torch.zeros(4), torch.zeros(4)) == 0


def test_the_gradient_of_ciou_holds_the_trade_off_constant():
    first, second = boxes(12, 2).requires_grad_(), boxes(12, 3)
    (gradient,) = torch.autograd.grad(pair_ciou(first, second).sum(), first)

    def aspect(box: torch.Tensor) -> torch.Tensor:
        return torch.atan((box[:, 2] - box[:, 0]) / (box[:, 3] - box[:, 1]))

    def by_definition(box: torch.Tensor, alpha: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        v = 4 / math.pi**2 * (aspect(second) - aspect(box)) ** 2
        iou = box_iou(box, second).diagonal()
        alpha = v / (1 - iou + v) if alpha is None else alpha
        distance = (box[:, :2] + box[:, 2:] - second[:, :2] - second[:, 2:]).pow(2).sum(-1) / 4
        enclosing = torch.maximum(box[:, 2:], second[:, 2:]) - torch.minimum(box[:, :2], second[:, :2])
        return iou - distance / enclosing.pow(2).sum(-1) - alpha * v, alpha

    here = first.detach()
    alpha = by_definition(here)[1]
    for side in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[side] = 1e-6
        slope = (by_definition(here + step, alpha)[0] - by_definition(here - step, alpha)[0]) / 2e-6
        torch.testing.assert_close(gradient[:, side], slope, rtol=1e-5, atol=1e-7)
