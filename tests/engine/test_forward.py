"""The forward pass of training: compiled and captured passes give what the eager one gives, and say what they are."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from configs.schema import load
from core.device import DeviceConfig, place
from engine import forward as forward_module
from engine.forward import FixedShape, capture, training_forward
from models import build_model, census
from models.activations import parse_activation
from models.blocks import ConvNormAct
from tests.support.checkpoints import write_data
from tests.support.training import start

SHAPE = (4, 3, 64, 64)
SMALL = str(Path(__file__).parents[1] / "support" / "small.yaml")


@pytest.fixture
def device() -> DeviceConfig:
    return place("cpu", amp="off")


@pytest.fixture
def model(device: DeviceConfig) -> nn.Module:
    network = build_model(load(SMALL, {}).model, num_classes=3, seed=0)
    device.move(network)
    return network


def buffers(model: nn.Module) -> list[torch.Tensor]:
    return [buffer.clone() for buffer in model.buffers()]


def as_graphs(monkeypatch: pytest.MonkeyPatch, *, factor: float = 1.0, error: str = "") -> list[tuple[int, ...]]:
    """Instead of CUDA graphs: three eager passes to warm up, then the eager pass times ``factor``."""
    captured = []

    def make(network: nn.Module, samples: tuple[torch.Tensor]) -> object:
        assert not torch.is_autocast_cache_enabled() and network.training
        for _ in range(3):
            network(*samples)
        if error:
            raise RuntimeError(error)
        captured.append(tuple(samples[0].shape))
        torch.rand(1)
        return lambda images: [factor * output for output in network(images)]

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make)
    monkeypatch.setattr(forward_module, "_no_graphs", lambda device, **_: "")
    return captured


def test_the_default_on_a_cpu_is_the_model_itself(model, device):
    assert training_forward(model, device, shape=SHAPE) == (model, "")


def test_a_capture_leaves_running_statistics_and_random_numbers_alone(model, device, monkeypatch):
    captured, before, state = as_graphs(monkeypatch), buffers(model), torch.get_rng_state()
    forward, name = training_forward(model, device, shape=SHAPE)
    assert name == "CUDA graph" and captured == [SHAPE] and isinstance(forward, FixedShape)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one, two) for one, two in zip(before, buffers(model), strict=True))


def test_a_graph_that_computes_something_else_is_not_used(model, device, monkeypatch):
    as_graphs(monkeypatch, factor=1.1)
    with pytest.raises(RuntimeError, match=r"differs from the eager pass by 0\."):
        capture(model, model.train(), device, torch.rand(SHAPE))
    forward, name = training_forward(model, device, shape=SHAPE)
    assert forward is model and name.startswith("no CUDA graph (a replay differs")


def test_a_failed_capture_is_named_or_an_error_if_it_was_requested(model, device, monkeypatch):
    as_graphs(monkeypatch, error="operation not permitted\nwhen stream is capturing")
    before = buffers(model)
    forward, name = training_forward(model, device, shape=SHAPE)
    assert forward is model and name == "no CUDA graph (operation not permitted when stream is capturing)"
    with pytest.raises(ValueError, match=r"train\.graphs=on: operation not permitted"):
        training_forward(model, device, shape=SHAPE, graphs="on")
    assert all(torch.equal(one, two) for one, two in zip(before, buffers(model), strict=True))


def test_graphs_are_off_when_requested_and_beside_compile(model, device, monkeypatch):
    captured = as_graphs(monkeypatch)
    assert training_forward(model, device, shape=SHAPE, graphs="off") == (model, "")
    assert captured == []


def test_batches_of_another_shape_run_eagerly():
    forward = FixedShape(fast=lambda x: [x + 1], eager=lambda x: [x], shape=(2, 3, 4, 4))
    assert forward(torch.zeros(2, 3, 4, 4))[0].sum() == 96 and forward(torch.zeros(1, 3, 4, 4))[0].sum() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"graphs": "on"}, "train.graphs=on: CUDA graphs need a GPU, the device is cpu"),
        ({"graphs": "on", "multi_scale": 0.5}, "train.graphs=on: train.multi_scale changes the shape"),
        ({"compiled": True, "multi_scale": 0.5}, "train.compile: train.multi_scale changes the shape"),
    ],
)
def test_what_is_impossible_is_refused(model, device, options, words):
    with pytest.raises(ValueError, match=words):
        training_forward(model, device, shape=SHAPE, **options)


def test_accumulated_gradients_need_eager_passes():
    gpu = DeviceConfig(torch.device("cuda", 0), None, torch.channels_last, {})
    assert "accumulated" in forward_module._no_graphs(gpu, accumulate=2, multi_scale=0)
    assert forward_module._no_graphs(gpu, accumulate=1, multi_scale=0) == ""


def test_the_census_of_a_compiled_network(model, device):
    assert {row.implementation.partition(" (")[0] for row in census(model, compiled=True)} == {"algebraic formula"}
    relu = build_model(load(SMALL, {"model.act": "relu"}).model, num_classes=3, seed=0)
    assert all(row.implementation.startswith("torch.compile of ") for row in census(relu, compiled=True))


class Blocks(nn.Module):
    """Two blocks and a convolution: little to compile."""

    def __init__(self) -> None:
        super().__init__()
        act = parse_activation("mish")
        self.blocks = nn.Sequential(
            ConvNormAct(3, 8, kernel=3, act=act, fuse=True), ConvNormAct(8, 8, kernel=3, act=act), nn.Conv2d(8, 4, 1)
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [self.blocks(images)]


@pytest.mark.slow
def test_a_compiled_pass_gives_what_the_eager_one_gives(device: DeviceConfig) -> None:
    """Outputs, gradients and running statistics within rounding, also of a smaller batch; nothing changes before."""
    torch.manual_seed(0)
    model = Blocks()
    device.move(model)
    before, state, eager = buffers(model), torch.get_rng_state(), copy.deepcopy(model).train()
    forward, name = training_forward(model, device, shape=SHAPE, compiled=True)
    assert name == "torch.compile" and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one, two) for one, two in zip(before, buffers(model), strict=True))
    images = torch.rand(SHAPE).to(memory_format=torch.channels_last)
    for each in (images, images[:3]):
        results = []
        for network, call in ((model, forward), (eager, eager)):
            (output,) = call(each)
            output.square().mean().backward()
            results.append([output, *(parameter.grad for parameter in network.parameters())])
        for one, two in zip(*results, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5 + 1e-4 * float(two.detach().abs().max()))
    for one, two in zip(buffers(model), buffers(eager), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_a_compiled_run_says_so(
    tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)  # which takes a minute
    assert start(write_data(tmp_path), "--compile", "--epochs", 1) == 0
    assert "; torch.compile" in capsys.readouterr().out
    record = json.loads((here / "runs/train/exp/run.json").read_text())
    assert record["device"].endswith("; torch.compile")
    assert {row["implementation"].partition(" (")[0] for row in record["census"]} == {"algebraic formula"}
    assert record["operator"]["implementation"] == "algebraic formula"


def test_a_compiler_that_fails_is_named(
    model: nn.Module, device: DeviceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: torch.Tensor) -> list[torch.Tensor]:
        raise RuntimeError("no C++ compiler\nfound")

    monkeypatch.setattr(torch, "compile", lambda _: fail)
    with pytest.raises(ValueError, match=r"train\.compile: no C\+\+ compiler found"):
        training_forward(model, device, shape=SHAPE, compiled=True)
