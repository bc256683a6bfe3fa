"""The loss against plain loops in float64, and its gradients where they could go wrong."""

import pytest
import torch

from models.assign import assign
from models.decode import anchor_points, decode_boxes, flatten_levels
from models.loss import box_losses, class_loss, detection_loss, distribution_focal_loss
from tests.models import oracle
from tests.models.scenes import STRIDES, scene

SETTINGS = {"topk": 10, "alpha": 0.5, "beta": 6.0}
GAINS = {"box": 7.5, "cls": 0.5, "dfl": 1.5}


def loss_of(maps, targets, classes=3, **changes):
    return detection_loss(
        maps, targets, strides=STRIDES, num_classes=classes, **{"gains": GAINS, **SETTINGS, **changes}
    )


@pytest.mark.parametrize(
    "counts, classes, bins",
    [([3, 0, 8], 3, 16), ([14, 20], 1, 16), ([1], 20, 16), ([5, 2], 3, 8), ([0, 0], 3, 16)],
    ids=["few and none", "one class", "many classes", "fewer bins", "no boxes"],
)
def test_agrees_with_the_oracle(counts, classes, bins):
    maps, targets = scene(counts, classes=classes, bins=bins, seed=sum(counts) + classes, smallest=9.0)
    total, items = loss_of(maps, targets, classes)
    rows = torch.cat([each.double().permute(0, 2, 3, 1).flatten(1, 2) for each in maps], dim=1).tolist()
    box, cls, dfl, weight = oracle.losses(
        rows,
        [targets.boxes[image, :count].double().tolist() for image, count in enumerate(counts)],
        [targets.labels[image, :count].tolist() for image, count in enumerate(counts)],
        [each.shape[-2:] for each in maps],
        STRIDES,
        classes,
        **SETTINGS,
    )
    weight = max(weight, 1.0)
    expected = {"box": 7.5 * box / weight, "cls": 0.5 * cls / weight, "dfl": 1.5 * dfl / weight}
    assert {name: each.item() for name, each in items.items()} == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert total.item() == pytest.approx(sum(expected.values()), rel=1e-5)


def test_gradients_agree_with_finite_differences_once_the_assignment_stands():
    maps, targets = scene([4, 2], side=64, bins=4, seed=11, smallest=9.0)
    flat = flatten_levels(maps).double()
    shapes = [each.shape[-2:] for each in maps]
    points, sizes = (each.double() for each in anchor_points(shapes, STRIDES, flat.device))
    distributions, logits = flat.split((16, 3), dim=-1)
    boxes = decode_boxes(distributions, points, sizes)
    fixed = assign(logits.float(), boxes.float(), targets, shapes=shapes, strides=STRIDES)
    fixed.scores = fixed.scores.double()
    targets.boxes = targets.boxes.double()
    logits, distributions = (each.clone().requires_grad_() for each in (logits, distributions))
    check = {"fast_mode": True, "raise_exception": True}
    assert torch.autograd.gradcheck(lambda x: class_loss(x, targets, fixed), (logits,), **check)
    assert torch.autograd.gradcheck(
        lambda x: box_losses(x, points, sizes, targets, fixed)["dfl"], (distributions,), **check
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bit_maps_under_autocast(dtype):
    maps, targets = scene([5, 0, 3], seed=6)
    maps = [each.to(dtype).requires_grad_() for each in maps]
    with torch.autocast("cpu", dtype=torch.bfloat16 if dtype == torch.float32 else dtype):
        total, items = loss_of(maps, targets)
    assert total.dtype == torch.float32 and all(each.dtype == torch.float32 for each in items.values())
    exact, _ = loss_of([each.detach().float() for each in maps], targets)
    assert total.item() == exact.item()
    total.backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in maps)


@pytest.mark.parametrize(
    "counts, scale", [([300, 280], 1.0), ([0, 0], 1.0), ([4, 4], 60.0)], ids=["300 boxes", "no boxes", "huge logits"]
)
def test_gradients_stay_finite(counts, scale):
    maps, targets = scene(counts, seed=3, side=160)
    maps = [(each * scale).requires_grad_() for each in maps]
    total, items = loss_of(maps, targets)
    total.backward()
    assert total.isfinite() and all(each.grad.isfinite().all() for each in maps)
    if not sum(counts):
        assert items["box"] == 0 and items["dfl"] == 0 and items["cls"] > 0


def test_boxes_without_area_keep_gradients_finite():
    maps, targets = scene([3], seed=5)
    targets.boxes[0] = torch.tensor([[20.0, 20, 20, 20], [30, 5, 30, 60], [96, 96, 96, 96]])
    maps = [each.requires_grad_() for each in maps]
    loss_of(maps, targets)[0].backward()
    assert all(each.grad.isfinite().all() for each in maps)


def test_the_loss_does_not_grow_with_the_batch():
    maps, targets = scene([4], seed=8, smallest=9.0)
    one, _ = loss_of(maps, targets)
    doubled = type(targets)(*(torch.cat((each, each)) for each in (targets.boxes, targets.labels, targets.mask)))
    two, _ = loss_of([torch.cat((each, each)) for each in maps], doubled)
    assert two.item() == pytest.approx(one.item(), rel=1e-5)


def test_distribution_focal_loss_by_hand():
    logits = torch.zeros(4, 16)
    logits[0, 3] = 50.0  # certain and right
    logits[1, 5] = logits[1, 6] = 50.0  # evenly between, and it is
    distances = torch.tensor([3.0, 5.5, 2.25, 99.0])  # the last beyond the bins
    found = distribution_focal_loss(logits.flatten(), distances)
    expected = (0 + torch.log(torch.tensor(2.0)) + 2 * torch.log(torch.tensor(16.0))) / 4
    torch.testing.assert_close(found, expected)
