"""The loss of Darknet networks against plain loops in float64, and its gradients where they could go wrong."""

import numpy as np
import pytest
import torch

from core.boxes import pair_iou
from core.types import Targets
from models import build_model
from models.darknet.graph import plan_network
from models.darknet.loss import COMPARED, LossRule, best_overlap, darknet_loss, match
from models.darknet.network import _box_head
from tests.models.darknet import oracle as oracle
from tests.models.darknet.test_network import CFGS, section
from tests.support.shared import shared

SIDE = 64
GAINS = {"box": 50.0, "obj": 1.0, "cls": 1.0}
ANCHORS = "6,8, 10,20, 18,12, 24,26, 30,60, 58,44"
USUAL = "ignore_thresh=.4\niou_loss=ciou\niou_thresh=0.213\nscale_x_y=1.1\n"
OPTIONS = {
    "several anchors": USUAL,
    "the best anchor": "ignore_thresh=.3\nscale_x_y=1.0\n",
    "no options": "",
    "smooth classes": USUAL + "label_smooth_eps=0.1\n",
    "normalizers": USUAL + "iou_normalizer=0.05\ncls_normalizer=0.5\nobj_normalizer=0.4\n",
    "new coordinates": USUAL.replace("1.1", "2.0") + "new_coords=1\n",
    "smooth objectness": USUAL.replace("1.1", "2.0") + "new_coords=1\nobjectness_smooth=1\n",
}


def cfg(options: str, classes: int = 3) -> str:
    """Two heads of three anchors, at strides 16 and 8."""
    act = "logistic" if "new_coords" in options else "linear"
    yolo = f"classes={classes}\nnum=6\nanchors={ANCHORS}\n{options}"
    conv = f"[convolutional]\nsize=1\nfilters={3 * (5 + classes)}\nactivation={act}\n"
    return (
        f"[net]\nwidth={SIDE}\nheight={SIDE}\nchannels=3\n"
        "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=8\nstride=8\nactivation=mish\n"
        "[convolutional]\nbatch_normalize=1\nfilters=4\nsize=2\nstride=2\nactivation=mish\n"
        f"{conv}[yolo]\nmask=3,4,5\n{yolo}[route]\nlayers=0\n{conv}[yolo]\nmask=0,1,2\n{yolo}"
    )


def scene(counts: list[int], text: str, *, seed: int = 0) -> tuple[list[torch.Tensor], Targets]:
    """Raw maps, and boxes of which some share a cell and some lie partly outside."""
    generator = torch.Generator().manual_seed(seed)
    batch, most, classes = len(counts), max(counts), plan_network(text, file="x").classes
    maps = [torch.randn(batch, 3 * (5 + classes), each, each, generator=generator) * 0.8 for each in (4, 8)]
    maps = [each.sigmoid() if "new_coords" in text else each for each in maps]
    centre = torch.rand(batch, most, 2, generator=generator) * SIDE
    half = (torch.rand(batch, most, 2, generator=generator) * 40 + 5) / 2
    mask = torch.arange(most) < torch.tensor(counts).unsqueeze(-1)
    boxes = torch.cat((centre - half, centre + half), dim=-1) * mask.unsqueeze(-1)
    return maps, Targets(boxes, torch.randint(0, classes, (batch, most), generator=generator) * mask, mask)


def loss_of(maps: list[torch.Tensor], targets: Targets, text: str, **smoothing: float) -> tuple:
    heads = plan_network(text, file="x").heads
    rules = [LossRule.of(head.section, label_smoothing=smoothing.get("label_smoothing")) for head in heads]
    return darknet_loss(maps, targets, heads=[_box_head(head) for head in heads], rules=rules, gains=GAINS)


def expected_of(maps: list[torch.Tensor], targets: Targets, text: str) -> tuple[dict[str, float], int, int]:
    counts = targets.mask.sum(1).tolist()
    sums, positives, alone = oracle.losses(
        text,
        [each.double().numpy() for each in maps],
        [targets.boxes[image, :count].double().tolist() for image, count in enumerate(counts)],
        [targets.labels[image, :count].tolist() for image, count in enumerate(counts)],
    )
    return {name: GAINS[name] * value / max(positives, 1) for name, value in sums.items()}, positives, alone


@pytest.mark.parametrize("counts", [[3, 0, 9], [1], [0, 0], [80, 5]], ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_agrees_with_the_oracle(options: str, counts: list[int]) -> None:
    text = cfg(options)
    maps, targets = scene(counts, text, seed=sum(counts))
    total, items = loss_of(maps, targets, text)
    expected, positives, alone = expected_of(maps, targets, text)
    assert {name: each.item() for name, each in items.items()} == pytest.approx(expected, rel=2e-5, abs=1e-6)
    assert total.item() == pytest.approx(sum(expected.values()), rel=2e-5)
    if sum(counts) > 20:
        assert alone > 0 or "objectness_smooth" in options
        assert (positives > 1.5 * sum(counts)) == ("iou_thresh" in options) and positives >= sum(counts)


def test_one_box_by_hand() -> None:
    """A box of 24 x 26 about (20, 30): exactly anchor 3, in column 1 and row 1 of stride 16; its overlap with anchor
    4 is 24 * 26 / (30 * 60) = 0.35, with anchor 1 200 / 624 = 0.32, with anchor 2 216 / 624 = 0.35, with anchor 5 0.24
    and with anchor 0 0.08."""
    text = cfg("iou_thresh=0.3\n")
    target = Targets(torch.tensor([[[8.0, 17, 32, 43]]]), torch.tensor([[2]]), torch.ones(1, 1, dtype=torch.bool))
    heads = plan_network(text, file="x").heads
    rules = [LossRule.of(head.section, label_smoothing=None) for head in heads]
    coarse = match(target, _box_head(heads[0]), rules[0], (4, 4))
    fine = match(target, _box_head(heads[1]), rules[1], (8, 8))
    assert coarse[0].tolist() == [[[15, 16, 17]]] and coarse[1].tolist() == [[[True, True, False]]]
    # (20, 30) / 8 = (2.5, 3.75): (3 * 8 + 2) * 3.
    assert fine[0].tolist() == [[[78, 79, 80]]] and fine[1].tolist() == [[[False, True, True]]]
    maps = [torch.full((1, 24, side, side), -30.0) for side in (4, 8)]  # no object anywhere
    for head, row, column, places in ((0, 1, 1, (0, 1)), (1, 3, 2, (1, 2))):
        for place in places:
            maps[head][0, 8 * place : 8 * place + 8, row, column] = torch.tensor([0.0, 0, 0, 0, 30, -30, -30, 30])
    _, items = loss_of(maps, target, text)
    assert items["obj"] < 1e-6 and items["cls"] < 1e-6 and items["box"] > 0
    maps[0][0, 4, 1, 1] = 0.0  # one of the four positives is undecided
    assert loss_of(maps, target, text)[1]["obj"].item() == pytest.approx(np.log(2) / 4, rel=1e-5)


def test_the_config_may_smooth_the_classes() -> None:
    text, other = cfg(USUAL), cfg(USUAL + "label_smooth_eps=0.2\n")
    maps, targets = scene([6], text, seed=3)
    found = loss_of(maps, targets, text, label_smoothing=0.2)[1]["cls"]
    assert found == loss_of(maps, targets, other)[1]["cls"] != loss_of(maps, targets, text)[1]["cls"]
    assert loss_of(maps, targets, other, label_smoothing=0.0)[1]["cls"] == loss_of(maps, targets, text)[1]["cls"]


def test_gradients_are_those_of_the_loss() -> None:
    """Against differences of the oracle, where no threshold is crossed: objectness and classes of both heads."""
    text = cfg(USUAL)
    maps, targets = scene([5, 2], text, seed=4)
    leaves = [each.clone().requires_grad_() for each in maps]
    loss_of(leaves, targets, text)[0].backward()
    step = 1e-4
    generator = np.random.default_rng(0)
    for _ in range(12):
        head = int(generator.integers(2))
        place = (int(generator.integers(2)), int(generator.integers(3)) * 8 + int(generator.integers(4, 8)),
                 *generator.integers(maps[head].shape[2], size=2).tolist())  # fmt: skip
        totals = []
        for sign in (1, -1):
            moved = [each.double() for each in maps]
            moved[head] = moved[head].clone()
            moved[head][place] += sign * step
            totals.append(sum(expected_of(moved, targets, text)[0].values()))
        wanted = (totals[0] - totals[1]) / (2 * step)
        assert leaves[head].grad[place].item() == pytest.approx(wanted, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("options", [USUAL, OPTIONS["smooth objectness"]], ids=["logits", "probabilities"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bit_maps_under_autocast(dtype: torch.dtype, options: str) -> None:
    text = cfg(options)
    maps, targets = scene([5, 0, 3], text, seed=6)
    maps = [each.to(dtype).requires_grad_() for each in maps]
    with torch.autocast("cpu", dtype=torch.bfloat16 if dtype == torch.float32 else dtype):
        total, items = loss_of(maps, targets, text)
    assert total.dtype == torch.float32 and all(each.dtype == torch.float32 for each in items.values())
    assert total.item() == loss_of([each.detach().float() for each in maps], targets, text)[0].item()
    total.backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in maps)


@pytest.mark.parametrize(
    ("counts", "scale"), [([300, 280], 1.0), ([0, 0], 1.0), ([4, 4], 60.0)], ids=["300 boxes", "no boxes", "huge"]
)
@pytest.mark.parametrize("options", [USUAL, OPTIONS["new coordinates"]], ids=["logits", "probabilities"])
def test_gradients_stay_finite(options: str, counts: list[int], scale: float) -> None:
    text = cfg(options)
    maps, targets = scene(counts, text, seed=3)
    if "new_coords" in options and scale > 1:
        maps = [each.round() for each in maps]  # exactly 0 and 1
    maps = [(each * (1 if "new_coords" in options else scale)).requires_grad_() for each in maps]
    total, items = loss_of(maps, targets, text)
    total.backward()
    assert total.isfinite() and all(each.grad.isfinite().all() for each in maps)
    if not sum(counts):
        assert items["box"] == 0 and items["cls"] == 0 and items["obj"] > 0


def test_boxes_without_area_or_outside_keep_gradients_finite() -> None:
    text = cfg(USUAL)
    maps, targets = scene([4], text, seed=5)
    targets.boxes[0] = torch.tensor([[20.0, 20, 20, 20], [30, 5, 30, 60], [64, 64, 64, 64], [-9, 70, -3, 90]])
    maps = [each.requires_grad_() for each in maps]
    loss_of(maps, targets, text)[0].backward()
    assert all(each.grad.isfinite().all() for each in maps)


def test_the_loss_does_not_grow_with_the_batch_and_padding_changes_nothing() -> None:
    text = cfg(USUAL)
    maps, targets = scene([4], text, seed=8)
    one, _ = loss_of(maps, targets, text)
    parts = (targets.boxes, targets.labels, targets.mask)
    doubled = Targets(*(torch.cat((each, each)) for each in parts))
    two, _ = loss_of([torch.cat((each, each)) for each in maps], doubled, text)
    assert two.item() == pytest.approx(one.item(), rel=1e-5)
    padded = Targets(*(torch.cat((each, torch.zeros_like(each)), 1) for each in parts))
    assert loss_of(maps, padded, text)[0].item() == one.item()


def test_overlaps_are_found_however_many_boxes_there_are() -> None:
    _, targets = scene([3 * COMPARED + 5, 2], cfg(""), seed=9)
    boxes = scene([40, 40], cfg(""), seed=10)[1].boxes
    wanted = pair_iou(boxes.unsqueeze(2), targets.boxes.unsqueeze(1)).masked_fill(~targets.mask.unsqueeze(1), 0)
    assert torch.equal(best_overlap(boxes, targets), wanted.amax(-1))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CFGS if "omega" not in name])
def test_every_published_detector_learns(name: str) -> None:
    """Forward and backward with the loss at a small size; a step against the gradient makes the loss smaller."""
    text = shared(f"darknet/{name}.cfg").read_text()
    torch.manual_seed(0)
    model = build_model(section(text), seed=0).train()
    images = torch.rand(2, 3, 64, 64)
    targets = Targets(
        torch.tensor([[[4.0, 6, 40, 50], [30, 30, 60, 44]], [[10, 10, 20, 24], [0, 0, 0, 0]]]),
        torch.tensor([[3, 7], [79, 0]]),
        torch.tensor([[True, True], [True, False]]),
    )
    total, items = model.loss(model(images), targets)
    total.backward()
    assert all(each.isfinite() for each in items.values()) and items["box"] > 0 and items["cls"] > 0
    gradients = [each.grad for each in model.parameters()]
    assert all(each is not None and each.isfinite().all() for each in gradients)
    if model.plan.values > 10_000_000:
        return  # a second time through the larger ones takes seconds each
    with torch.no_grad():
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter -= 1e-4 * gradient / (gradient.norm() + 1e-9) * parameter.norm()
        assert model.loss(model(images), targets)[0] < total
