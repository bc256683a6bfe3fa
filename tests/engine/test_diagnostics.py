"""Diagnostics of a trained network, and energy counters."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from configs.schema import load
from core.types import Batch, Targets
from engine.diagnostics import TIMED, WARM_UP, diagnose, latency_ms
from engine.energy import EnergyMeter
from models import build_model
from models.blocks import ConvNormAct


def batch_of(images: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, 3, 64, 64), dtype=torch.uint8, generator=generator)
    boxes = torch.tensor([[[4.0, 4, 30, 40], [20, 10, 60, 60]]]).repeat(images, 1, 1)
    targets = Targets(boxes, torch.zeros(images, 2, dtype=torch.int64), torch.ones(images, 2, dtype=torch.bool))
    return Batch(pixels, targets, torch.arange(images), list(range(images)), [], [])


@pytest.mark.slow
@pytest.mark.parametrize("act", ["relu", "mish"])
def test_dead_channels_are_counted_and_nothing_is_changed(act: str) -> None:
    model = build_model(load("yolo-mish.yaml", {"model.act": act}).model, names=["a", "b"], seed=0).eval()
    block = next(
        each for path, each in model.named_modules() if path.startswith("backbone.P3") and isinstance(each, ConvNormAct)
    )
    before = diagnose(model, batch_of(2))
    with torch.no_grad():  # three channels whose norm gives -8 everywhere: 0 after ReLU, -0.0027 after Mish
        block.norm.weight[:3] = 0
        block.norm.bias[:3] = -8
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    after = diagnose(model, batch_of(2))
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert after.images == 2 and after.units == before.units and sum(after.units.values()) > 1000
    assert after.dead["backbone.P3"] >= 3
    if act == "mish":  # with ReLU, some units of an untrained network are dead, and dead units kill others
        assert sum(before.dead.values()) == 0 and sum(after.dead.values()) == 3
    assert diagnose(model, batch_of(9)).images == 8


def test_the_gradient_norm_is_that_of_the_loss() -> None:
    """Against autograd on the model itself."""
    model = build_model(load("yolo-mish.yaml").model, names=["a", "b"], seed=0).eval()
    batch = batch_of(2)
    found = diagnose(model, batch)
    loss, _ = model.loss(model(batch.images.float() / 255), batch.targets)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    for stage, norm in found.gradient_norm.items():
        mine = [
            g.flatten()
            for name, g in zip(parameters, gradients, strict=True)
            if name.startswith(f"{stage}.") and g is not None
        ]
        assert norm == pytest.approx(float(torch.cat(mine).norm()), rel=1e-4) and norm > 0
    assert {"backbone", "neck", "head"} == {stage.split(".")[0] for stage in found.gradient_norm}


def write_counter(folder: Path, package: int, microjoules: int) -> None:
    place = folder / f"intel-rapl:{package}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text("10000000\n")


def test_rapl_packages_are_added_and_may_wrap(tmp_path: Path) -> None:
    for package, start in enumerate((1_000_000, 9_000_000)):
        write_counter(tmp_path, package, start)
    write_counter(tmp_path, 0, 1_000_000)
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of package 0, which holds it already
    meter = EnergyMeter(torch.device("cpu"), powercap=tmp_path)
    write_counter(tmp_path, 0, 4_000_000)
    write_counter(tmp_path, 1, 500_000)
    assert meter.source == "RAPL" and meter.joules() == pytest.approx(3.0 + 1.5) and meter.joules() == 0


def test_without_counters_nothing_is_measured(tmp_path: Path) -> None:
    meter = EnergyMeter(torch.device("cpu"), powercap=tmp_path)
    assert meter.source == "not measured" and meter.joules() is None
    assert EnergyMeter(torch.device("cuda:0"), powercap=tmp_path).joules() is None  # no GPU here, or no pynvml


def test_nvml_counts_millijoules_of_the_gpu_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = iter([0, 5000, 12000])
    asked = []
    fake = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid) or "handle",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counter),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-34"))
    meter = EnergyMeter(torch.device("cuda:0"))
    assert meter.source == "NVML" and asked == ["GPU-12-34"] and meter.joules() == 7.0


@pytest.mark.slow
def test_the_latency_is_that_of_single_images() -> None:
    model = build_model(load("yolo-mish.yaml").model, names=["a", "b"], seed=0).train()
    sizes: list[tuple[int, ...]] = []
    with model.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape))):
        assert latency_ms(model, batch_of(2)) > 0
    assert sizes == [(1, 3, 64, 64)] * (WARM_UP + TIMED) and model.training
