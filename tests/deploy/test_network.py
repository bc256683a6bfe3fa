"""The forms in which activations are exported, against their definition in float64 and against the trained network."""

import mpmath
import pytest
import torch
from torch import nn

from deploy.network import Exportable, MishFormula, MishOperator
from models.activations import make_activation, parse_activation
from models.blocks import ConvAct


class OneLayer(nn.Module):
    """A network of a convolution and an activation, with the interface of a detector."""

    stride = 1

    def __init__(self, act: str):
        super().__init__()
        self.layer = ConvAct(nn.Conv2d(3, 3, 1), make_activation(parse_activation(act)))

    def forward(self, images):
        return self.layer(images)

    def fused(self):
        return self

    def decode(self, outputs):
        return outputs, outputs


def mish(x: float) -> float:
    """From the definition, in 60 digits."""
    with mpmath.workdps(60):
        return float(mpmath.mpf(x) * mpmath.tanh(mpmath.log1p(mpmath.exp(mpmath.mpf(x)))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_mish_is_right_from_minus_100_to_100(dtype: torch.dtype) -> None:
    x = torch.cat((torch.linspace(-100, 100, 801), torch.tensor([5.6, 10.4, 11.1, 17.4, 88.8, 0.0, -0.0]))).to(dtype)
    y = MishFormula()(x)
    exact = torch.tensor([mish(value) for value in x.tolist()], dtype=torch.float64)
    assert y.dtype == dtype and bool(torch.isfinite(y).all())
    # Six roundings; below the normal range of fp16 numbers have a fixed spacing of 6e-8, here multiplied by x.
    subnormal = 2.0**-23 * x.double().abs() if dtype == torch.float16 else 1e-30
    assert bool(((y.double() - exact).abs() <= 6 * torch.finfo(dtype).eps * exact.abs() + subnormal).all())
    assert bool((y[x > 20] == x[x > 20]).all())


def test_a_form_with_the_exponential_overflows_in_fp16() -> None:
    """Why it is not the form of ops.mish.formula, which widens to fp32."""
    e = torch.tensor(11.5, dtype=torch.float16).exp()
    n = e * (e + 2)
    assert bool(torch.isnan(n / (n + 2)))


@pytest.mark.parametrize("name", ["mish", "mish_torch", "mish_eager"])
@pytest.mark.parametrize(("form", "kind"), [("formula", MishFormula), ("op", MishOperator)])
def test_every_implementation_of_mish_gets_the_requested_form(name: str, form, kind: type) -> None:
    model = OneLayer(name)
    network = Exportable(model, mish=form, dtype=torch.float32)
    assert type(network.model.layer.act) is kind
    x = torch.linspace(-20, 20, 48).view(1, 3, 4, 4)
    torch.testing.assert_close(network(x)[0], model(x))


def test_rrelu_goes_out_as_what_it_computes_in_inference() -> None:
    model = OneLayer("rrelu").eval()
    network = Exportable(model, mish="formula", dtype=torch.float32)
    assert type(network.model.layer.act) is nn.LeakyReLU
    x = torch.linspace(-5, 5, 48).view(1, 3, 4, 4)
    torch.testing.assert_close(network(x)[0], model(x))
