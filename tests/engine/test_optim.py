"""Groups, schedule, freezing, moving average: against hand-worked values."""

import math

import pytest
import torch
from torch import nn

from engine.ema import ModelEMA
from engine.optim import build_optimizer, freeze, hold_frozen, learning_rate, parameter_groups


class Gate(nn.Module):
    """An activation with a parameter called neither weight nor bias."""

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.beta.view(-1, 1, 1) * x)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), Gate(), nn.PReLU(), nn.Conv2d(3, 2, 1, bias=False))


def test_only_kernels_decay_and_everything_is_there_once() -> None:
    model = network()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kernels, others = parameter_groups(model, weight_decay=0.1)
    assert {names[id(p)] for p in kernels["params"]} == {"0.weight", "4.weight"}
    assert {names[id(p)] for p in others["params"]} == {"0.bias", "1.weight", "1.bias", "2.beta", "3.weight"}
    assert (kernels["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_optimizers_move_kernels_without_gradient_by_decay_only(name: str) -> None:
    model = network()
    optimizer = build_optimizer(model, name=name, lr=0.1, momentum=0.9, weight_decay=0.5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert moved == {"0.weight", "4.weight"}


def test_the_schedule_warms_up_and_ends_at_its_final_rate() -> None:
    for kind in ("cosine", "linear", "flat_cosine"):
        rate = learning_rate(kind, total_steps=110, warmup_steps=10, lr=2.0, lr_final=0.1)
        assert rate(0) == pytest.approx(2.0 / 11)
        assert rate(10) == pytest.approx(2.0)
        assert rate(110) == pytest.approx(0.2)
        assert all(rate(step) >= rate(step + 1) for step in range(10, 110))
    half = {"cosine": 0.5, "linear": 0.5, "flat_cosine": 1.0}
    for kind, factor in half.items():
        rate = learning_rate(kind, total_steps=100, warmup_steps=0, lr=1.0, lr_final=0.0)
        assert rate(50) == pytest.approx(factor)
    rate = learning_rate("cosine", total_steps=100, warmup_steps=0, lr=1.0, lr_final=0.0)
    assert rate(25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_frozen_parts_keep_weights_and_statistics() -> None:
    model = nn.ModuleDict({"backbone": network(), "head": nn.Conv2d(2, 1, 1)})
    names = freeze(model, ["backbone.0", "backbone.1"])
    assert set(names) == {"backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias"}
    model.train()
    hold_frozen(model)
    mean = model["backbone"][1].running_mean.clone()
    model["backbone"](torch.rand(2, 3, 8, 8))
    assert torch.equal(model["backbone"][1].running_mean, mean)
    with pytest.raises(ValueError, match="backbon"):
        freeze(model, ["backbon"])
    freeze(model, ["backbone", "head"])
    with pytest.raises(ValueError, match="freeze"):
        build_optimizer(model, name="sgd", lr=0.1, momentum=0.9, weight_decay=0.0)


def test_the_average_follows_the_published_recursion() -> None:
    model = network()
    ema = ModelEMA(model, span=4)
    expected = model[0].weight.detach().double().clone()
    for step in range(1, 20):
        with torch.no_grad():
            model[0].weight.add_(torch.randn_like(model[0].weight))
            model[1].num_batches_tracked += 1
        ema.update()
        decay = min(1 - 1 / 4, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model[0].weight.detach().double()
    assert torch.allclose(ema.model[0].weight.double(), expected, atol=1e-6)
    assert int(ema.model[1].num_batches_tracked) == 19
    other = ModelEMA(network(), span=4)
    other.load_state_dict(ema.state_dict())
    assert other.updates == 19 and torch.equal(other.model[0].weight, ema.model[0].weight)
