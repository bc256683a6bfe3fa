"""The detector as a whole: sizes, shapes, beginnings, folding."""

import numpy as np
import pytest
import torch
from torch import nn

from core.types import Targets
from models import build_model, flops
from models.activations import ACTIVATION_NAMES, activation_parameters
from tests.models.model_configs import model_config, part
from tests.models.test_blocks import settle

# Parameters in millions and GFLOPs at 640 pixels, 80 classes, as YOLOv8's published table has them.
PUBLISHED = {"n": (3.2, 8.7), "s": (11.2, 28.6), "m": (25.9, 78.9), "l": (43.7, 165.2), "x": (68.2, 257.8)}


@pytest.mark.slow
@pytest.mark.parametrize("size", PUBLISHED)
def test_sizes_are_those_of_the_field(size):
    with torch.device("meta"):
        model = build_model(model_config(size=size), seed=0)
    parameters, gflops = PUBLISHED[size]
    assert sum(each.numel() for each in model.parameters()) / 1e6 == pytest.approx(parameters, rel=0.05)
    assert flops(model, 640) == pytest.approx(gflops, rel=0.05)
    maps = model(torch.empty(2, 3, 64, 96, device="meta"))
    assert [tuple(each.shape) for each in maps] == [(2, 144, 8, 12), (2, 144, 4, 6), (2, 144, 2, 3)]


def test_multiples_of_width_and_depth_in_place_of_those_of_the_size():
    def shapes(**changes):
        with torch.device("meta"):
            model = build_model(model_config(**changes), num_classes=3, seed=0)
        return {name: tuple(each.shape) for name, each in model.named_parameters()}

    assert shapes(size="n", width_multiple=0.5) == shapes(size="s")
    assert shapes(size="x", width_multiple=1.0) == shapes(size="l") == shapes(size="l", depth_multiple=1.0)
    narrow, deep = shapes(width_multiple=0.125), shapes(depth_multiple=2 / 3)
    assert narrow.keys() == shapes().keys() and narrow["backbone.P4.0.conv.weight"][0] == 64
    assert len(deep) > len(shapes())
    for key, wrong in (("width_multiple", 0), ("depth_multiple", -1), ("width_multiple", float("nan"))):
        with pytest.raises(ValueError, match=key):
            model_config(**{key: wrong})


@pytest.mark.slow
def test_counting_flops_leaves_the_model_alone():
    model = build_model(model_config(), num_classes=3, seed=0).train()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    assert flops(model, 64) * 100 == pytest.approx(flops(model, 640))
    after = model.state_dict()
    assert model.training and all(torch.equal(each, after[name]) for name, each in before.items())


@pytest.mark.parametrize("classes", [1, 3, 365])
def test_any_number_of_classes_and_any_divisible_side(classes):
    model = build_model(model_config(), num_classes=classes, seed=0).eval()
    with torch.no_grad():
        boxes, scores = model.decode(model(torch.rand(1, 3, 32, 160)))
    cells = 4 * 20 + 2 * 10 + 1 * 5
    assert boxes.shape == (1, cells, 4) and scores.shape == (1, cells, classes)
    assert (scores >= 0).all() and (scores < 0.1).all()  # objects are rare until something is learned


def test_names_and_their_number_must_agree():
    assert build_model(model_config(), names=["cat", "dog"], seed=0).num_classes == 2
    with pytest.raises(ValueError, match="3.*2"):
        build_model(model_config(), num_classes=3, names=["cat", "dog"])


def convolutions(model: nn.Module) -> dict[str, torch.Tensor]:
    learned = {name for name, _ in activation_parameters(model)}
    return {name: each for name, each in model.named_parameters() if name not in learned}


@pytest.mark.slow
def test_weights_are_the_same_whatever_the_activation():
    expected = convolutions(build_model(model_config("silu"), num_classes=4, seed=5))
    for name in ACTIVATION_NAMES:
        torch.rand(7)  # the global state must not matter
        found = convolutions(build_model(model_config(name), num_classes=4, seed=5))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), name


def test_seeds_differ_layers_differ_and_the_global_state_is_left_alone():
    state = torch.get_rng_state()
    first = build_model(model_config(), num_classes=4, seed=0)
    assert torch.equal(state, torch.get_rng_state())
    second = build_model(model_config(), num_classes=4, seed=1)
    assert not torch.equal(first.backbone.P1[0].conv.weight, second.backbone.P1[0].conv.weight)
    pair = first.head.P3.box[0].conv.weight, first.head.P3.classes[0].conv.weight
    assert pair[0].shape == pair[1].shape and not torch.equal(*pair)
    weight = first.backbone.P4[0].conv.weight
    assert weight.std().item() == pytest.approx((3 * weight[0].numel()) ** -0.5, rel=0.02)


def test_learnable_activation_parameters_are_listed_once_a_site():
    config = model_config("silu", neck=part({"name": "swish", "learnable": True}, N3="srelu"))
    names = [name for name, _ in activation_parameters(build_model(config, num_classes=4, seed=0))]
    assert len(names) == len(set(names)) == 14 + 4 * 4
    assert {".".join(name.split(".")[:2]) for name in names} == {"neck.T4", "neck.N3", "neck.N4", "neck.N5"}


@pytest.mark.parametrize("act", ["mish", {"name": "swish", "learnable": True}])
def test_the_fused_copy_computes_the_same(act):
    model = settle(build_model(model_config(act), num_classes=4, seed=0))
    fused = model.fused()
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        for mine, other in zip(model(images), fused(images), strict=True):
            torch.testing.assert_close(other, mine, rtol=1e-4, atol=1e-4)
    assert any(isinstance(each, nn.BatchNorm2d) for each in model.modules())
    assert not any(isinstance(each, nn.BatchNorm2d) for each in fused.modules())
    assert not any(each.requires_grad for each in fused.parameters())


def test_channels_last_computes_the_same_and_stays_so():
    model = build_model(model_config("mish"), num_classes=4, seed=0).eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        plain = model(images)
        model = model.to(memory_format=torch.channels_last)
        last = model(images.to(memory_format=torch.channels_last))
    for mine, other in zip(plain, last, strict=True):
        torch.testing.assert_close(other, mine, rtol=1e-4, atol=1e-5)
        assert other.is_contiguous(memory_format=torch.channels_last)


def test_preprocess_letterboxes():
    model = build_model(model_config(), num_classes=1, seed=0)
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    square, geometry = model.preprocess(image, 320)
    assert square.shape == (320, 320, 3) and geometry.pad_y == 80 and geometry.width == 200
    assert model.preprocess(image, 320, rect=True)[0].shape == (160, 320, 3)


@pytest.mark.slow
@pytest.mark.parametrize("act", ["mish", "relu"])
def test_a_few_steps_fit_one_image(act):
    torch.manual_seed(0)
    model = build_model(model_config(act), num_classes=3, seed=0).train()
    images = torch.rand(1, 3, 64, 64)
    targets = Targets(
        torch.tensor([[[4.0, 6, 30, 40], [33, 20, 60, 58]]]), torch.tensor([[0, 2]]), torch.ones(1, 2, dtype=torch.bool)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        loss, items = model.loss(model(images), targets)
        assert loss.dtype == torch.float32 and set(items) == {"box", "cls", "dfl"}
        assert loss.item() == pytest.approx(sum(each.item() for each in items.values()), rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.6 * losses[0]
