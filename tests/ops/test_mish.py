"""Mish against its definition in float64, eager and traced, in all types."""

import pytest
import torch

from ops.mish import Mish, formula, mish, plan, reference


def points(dtype: torch.dtype) -> torch.Tensor:
    return torch.cat([torch.linspace(-30, 30, 2001), torch.tensor([-1e4, -100.0, -88.0, 0.0, 20.0, 20.5, 1e4])]).to(
        dtype
    )


@pytest.mark.parametrize("function", [mish, formula], ids=["eager", "formula"])
@pytest.mark.parametrize(
    "dtype, tolerance",
    [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)],
    ids=str,
)
def test_value(function, dtype, tolerance):
    x = points(dtype)
    y = function(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), reference(x), rtol=tolerance, atol=tolerance * 1e-1)


@pytest.mark.parametrize("function", [mish, formula], ids=["eager", "formula"])
def test_derivative(function):
    x = points(torch.float64)
    x = x[(x.abs() < 80)].requires_grad_()
    (found,) = torch.autograd.grad(function(x).sum(), x)
    softplus = torch.log1p(x.exp())
    expected = torch.tanh(softplus) + x * (1 - torch.tanh(softplus) ** 2) * torch.sigmoid(x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_formula_is_finite_everywhere_and_passes_nan_on():
    x = torch.tensor([-torch.inf, -200.0, 88.0, 1e30, torch.inf, torch.nan])
    y = formula(x)
    assert y[0].abs() < 1e-30 and y[4] == torch.inf and y[5].isnan() and y[:4].isfinite().all()
    x = torch.linspace(-300, 300, 1001, requires_grad=True)
    assert torch.autograd.grad(formula(x).sum(), x)[0].isfinite().all()


def test_export_traces_the_formula_and_eager_does_not():
    program = torch.export.export(Mish(), (torch.randn(3, 4),))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert any("exp" in name for name in names) and not any("mish" in name for name in names)
    x = torch.randn(3, 4)
    torch.testing.assert_close(program.module()(x), mish(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_keeps_the_type(dtype):
    x = torch.randn(8, dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        assert mish(x).dtype == dtype


def test_plan_says_what_and_why():
    eager, compiled = plan("cpu", torch.float32), plan("cpu", torch.float32, compiled=True)
    assert eager.implementation == "torch.nn.functional.mish" and eager.reason
    assert compiled.implementation != eager.implementation and compiled.reason
