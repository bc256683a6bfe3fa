"""A synchronised batch norm over shares of a batch is a batch norm over the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ops.mish import Mish
from ops.norm_act import fusion, norm_act
from ops.sync_norm import SyncBatchNorm, synchronise
from tests.support.norms_together import ACTS, norm_of
from tests.support.processes import output_of, run_together

CHANNELS = 5


def case(sizes: tuple[int, ...], act: str = "mish", *, fused: bool = True, last: bool = False, **options: Any) -> dict:
    generator = torch.Generator().manual_seed(sum(sizes))
    shape = (sum(sizes), CHANNELS, 4, 6)
    # A mean far from 0: E[x^2] - E[x]^2 would lose all its digits.
    x = torch.randn(shape, generator=generator) * 0.1 + torch.arange(CHANNELS).view(1, -1, 1, 1) * 100
    norm = nn.BatchNorm2d(CHANNELS, **options)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.uniform_(0.5, 1.5, generator=generator)
    grad = torch.randn(shape, generator=generator)
    return {
        "x": x, "grad": grad, "state": dict(norm.state_dict()), "options": options,
        "act": act, "fused": fused, "last": last, "sizes": list(sizes),
    }  # fmt: skip


CASES = [
    case((3, 3)),
    case((4, 1), "leaky_relu", last=True),
    case((5, 0), "relu"),
    case((3, 2), "mish", fused=False),
    case((2, 0), "tanh", momentum=None),
    case((2, 3), "mish", affine=False),
]


def expected(given: dict[str, Any]) -> dict[str, Any]:
    """Of PyTorch's batch norm and activation over the whole batch, in float64."""
    norm, act = norm_of(given, nn.BatchNorm2d).double(), ACTS[given["act"]]().double()
    act = nn.Mish() if isinstance(act, Mish) else act
    x = given["x"].double().requires_grad_()
    y = act(norm(x))
    y.backward(given["grad"].double())
    parameters = [each.grad for each in norm.parameters()]
    return {"parts": [y.detach(), x.grad], "parameters": parameters, "state": dict(norm.state_dict())}


def assert_close(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Up to the rounding of values near 400 in fp32, of 3e-5, in units of their standard deviation of 0.1."""
    for one, other in zip(found["parts"] + found["parameters"], wanted["parts"] + wanted["parameters"], strict=True):
        scale = max(1.0, float(other.abs().max()))
        assert float((one.double() - other).abs().max()) <= 1e-3 * scale
    for name, value in wanted["state"].items():
        assert torch.allclose(found["state"][name].double(), value.double(), rtol=1e-5, atol=1e-6), name


@pytest.mark.slow
def test_shares_have_the_statistics_of_the_whole_batch(warm_python: str, tmp_path: Path) -> None:
    torch.save(CASES, tmp_path / "in.pt")
    words = ("-m", "tests.support.norms_together", tmp_path / "in.pt", tmp_path / "out.pt")
    codes = run_together(2, warm_python, *words, folder=tmp_path)
    assert codes == [0, 0], output_of(0, tmp_path)
    for found, given in zip(torch.load(tmp_path / "out.pt", weights_only=True), CASES, strict=True):
        assert_close(found, expected(given))


@pytest.mark.parametrize("fused", [True, False])
def test_a_process_alone_computes_what_an_ordinary_norm_does(fused: bool) -> None:
    given = case((6,), fused=fused)
    norm, act = norm_of(given, SyncBatchNorm), Mish()
    x = given["x"].clone().requires_grad_()
    y = norm_act(x, norm, act) if fused else act(norm(x))
    y.backward(given["grad"])
    parameters = [each.grad for each in norm.parameters()]
    found = {"parts": [y.detach(), x.grad], "parameters": parameters, "state": dict(norm.state_dict())}
    assert_close(found, expected(given))


@pytest.mark.parametrize("act", [Mish(), nn.Tanh()])
def test_in_evaluation_it_is_the_ordinary_norm(act: nn.Module) -> None:
    given = case((2, 2))
    norms = [norm_of(given, kind).eval() for kind in (SyncBatchNorm, nn.BatchNorm2d)]
    outputs = [norm_act(given["x"], norm, act) for norm in norms]
    assert torch.equal(*outputs)
    assert fusion(norms[0], act, "cpu", torch.float32) == fusion(norms[1], act, "cpu", torch.float32)


def test_a_single_value_has_no_statistics() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        SyncBatchNorm(2)(torch.ones(1, 2, 1, 1))


def test_norms_are_replaced_and_keep_their_tensors() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4, eps=0.1, momentum=0.3), nn.ReLU()))
    before, norm = model.state_dict(keep_vars=True), model[1][0]
    synchronise(model)
    new = model.get_submodule("1.0")
    assert isinstance(new, SyncBatchNorm) and (new.eps, new.momentum, new.training) == (0.1, 0.3, True)
    assert all(value is before[name] for name, value in model.state_dict(keep_vars=True).items())
    assert norm.weight is new.weight
