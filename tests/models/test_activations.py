"""Every activation of the table against its published formula and derivative, written here for single floats."""

import math
import re
from collections.abc import Callable
from math import erf, exp, log1p, pi, sqrt
from math import tanh as th
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from models.activations import ACTIVATION_NAMES, activation_parameters, make_activation, parse_activation

README = Path(__file__).parents[2] / "README.md"


def make(spec: str | dict) -> nn.Module:
    return make_activation(parse_activation(spec))


def sig(x):
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))


def swish(x, b):
    return x * sig(b * x)


def swish_slope(x, b):
    return sig(b * x) + b * x * sig(b * x) * (1 - sig(b * x))


def mish(x):
    return x * th(log1p(exp(x)))


def mish_slope(x):
    t = th(log1p(exp(x)))
    return t + x * (1 - t * t) * sig(x)


def cdf(x):
    return 0.5 * (1 + erf(x / sqrt(2)))


def gelu_tanh(x):
    return 0.5 * x * (1 + th(sqrt(2 / pi) * (x + 0.044715 * x**3)))


def gelu_tanh_slope(x):
    t = th(sqrt(2 / pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x)


SELU_A, SELU_L = 1.6732632423543772, 1.0507009873554805
SRELU = {"t_left": -0.7, "a_left": 0.3, "t_right": 1.1, "a_right": 0.6}


class Row(NamedTuple):
    """An activation with what is known about it independently of the implementation.

    The first row of an activation also lists the operators that one layer executes: all of the forward pass, and those
    of the backward pass that only this activation can cause.
    """

    spec: str | dict
    value: Callable[[float], float]
    slope: Callable[[float], float]
    forward: dict[str, int] | None = None
    backward: dict[str, int] | None = None

    @property
    def name(self) -> str:
        return self.spec if isinstance(self.spec, str) else self.spec["name"]


ROWS = [
    Row("relu", lambda x: max(x, 0), lambda x: float(x > 0), {"relu": 1}, {"threshold_backward": 1}),
    Row(
        "leaky_relu",
        lambda x: x if x > 0 else 0.01 * x,
        lambda x: 1 if x > 0 else 0.01,
        {"leaky_relu": 1},
        {"leaky_relu_backward": 1},
    ),
    Row({"name": "leaky_relu", "negative_slope": 0.1}, lambda x: x if x > 0 else x / 10, lambda x: 1 if x > 0 else 0.1),
    Row(
        "prelu",
        lambda x: x if x > 0 else x / 4,
        lambda x: 1 if x > 0 else 0.25,
        {"_prelu_kernel": 1},
        {"_prelu_kernel_backward": 1},
    ),
    Row(
        "rrelu",
        lambda x: x if x > 0 else x * 11 / 48,
        lambda x: 1 if x > 0 else 11 / 48,
        {"rrelu_with_noise": 1},
        {"rrelu_with_noise_backward": 1},
    ),
    Row("elu", lambda x: x if x > 0 else exp(x) - 1, lambda x: 1 if x > 0 else exp(x), {"elu": 1}, {"elu_backward": 1}),
    Row(
        {"name": "celu", "alpha": 2.0},
        lambda x: x if x > 0 else 2 * (exp(x / 2) - 1),
        lambda x: 1 if x > 0 else exp(x / 2),
        {"celu": 1},
        {"elu_backward": 1},
    ),
    Row(
        "selu",
        lambda x: SELU_L * (x if x > 0 else SELU_A * (exp(x) - 1)),
        lambda x: SELU_L * (1 if x > 0 else SELU_A * exp(x)),
        {"elu": 1},
        {"elu_backward": 1},
    ),
    Row(
        "gelu",
        lambda x: x * cdf(x),
        lambda x: cdf(x) + x * exp(-x * x / 2) / sqrt(2 * pi),
        {"gelu": 1},
        {"gelu_backward": 1},
    ),
    Row({"name": "gelu", "approximate": "tanh"}, gelu_tanh, gelu_tanh_slope),
    Row(
        {"name": "softplus", "beta": 2.0},
        lambda x: log1p(exp(2 * x)) / 2,
        lambda x: sig(2 * x),
        {"softplus": 1},
        {"softplus_backward": 1},
    ),
    Row("tanh", th, lambda x: 1 - th(x) ** 2, {"tanh": 1}, {"tanh_backward": 1}),
    Row("sigmoid", sig, lambda x: sig(x) * (1 - sig(x)), {"sigmoid": 1}, {"sigmoid_backward": 1}),
    Row("swish", lambda x: swish(x, 1), lambda x: swish_slope(x, 1), {"mul": 2, "sigmoid": 1}, {"sigmoid_backward": 1}),
    Row({"name": "swish", "beta": 1.7}, lambda x: swish(x, 1.7), lambda x: swish_slope(x, 1.7)),
    Row({"name": "swish", "beta": 0.5, "learnable": True}, lambda x: swish(x, 0.5), lambda x: swish_slope(x, 0.5)),
    Row(
        "e_swish",
        lambda x: 1.75 * swish(x, 1),
        lambda x: 1.75 * swish_slope(x, 1),
        {"silu": 1, "mul": 1},
        {"silu_backward": 1},
    ),
    Row("silu", lambda x: swish(x, 1), lambda x: swish_slope(x, 1), {"silu": 1}, {"silu_backward": 1}),
    Row(
        "elish",
        lambda x: swish(x, 1) if x >= 0 else (exp(x) - 1) * sig(x),
        lambda x: swish_slope(x, 1) if x >= 0 else exp(x) * sig(x) + (exp(x) - 1) * sig(x) * (1 - sig(x)),
        {"clamp": 1, "expm1": 1, "ge": 1, "where": 1, "sigmoid": 1, "mul": 1},
        {"sigmoid_backward": 1},
    ),
    Row(
        {"name": "srelu", **SRELU},
        lambda x: 1.1 + 0.6 * (x - 1.1) if x >= 1.1 else -0.7 + 0.3 * (x + 0.7) if x <= -0.7 else x,
        lambda x: 0.6 if x >= 1.1 else 0.3 if x <= -0.7 else 1,
        {"sub": 2, "mul": 2, "add": 2, "ge": 1, "le": 1, "where": 2},
        {"where": 4},
    ),
    Row(
        {"name": "isru", "alpha": 3},
        lambda x: x / sqrt(1 + 3 * x * x),
        lambda x: (1 + 3 * x * x) ** -1.5,
        {"mul": 3, "add": 1, "rsqrt": 1},
        {"pow": 1},
    ),
    Row(
        "hardswish",
        lambda x: 0 if x <= -3 else x if x >= 3 else x * (x + 3) / 6,
        lambda x: 0 if x <= -3 else 1 if x >= 3 else (2 * x + 3) / 6,
        {"hardswish": 1},
        {"hardswish_backward": 1},
    ),
    Row(
        "hard_mish",
        lambda x: 0 if x <= -2 else x if x >= 0 else x * (x + 2) / 2,
        lambda x: 0 if x <= -2 else 1 if x >= 0 else x + 1,
        {"mul": 2, "add": 1, "clamp": 1},
        {"where": 1},
    ),
    Row("mish", mish, mish_slope, {"mish": 1}, {"mish_backward": 1}),
    Row("mish_torch", mish, mish_slope, {"mish": 1}, {"mish_backward": 1}),
    Row(
        "mish_eager",
        mish,
        mish_slope,
        {"softplus": 1, "tanh": 1, "mul": 1},
        {"softplus_backward": 1, "tanh_backward": 1},
    ),
    Row("identity", lambda x: x, lambda x: 1, {}, {}),
]
POINTS = [-12.3, -5.1, -3.01, -2.4, -1.9, -1.15, -0.69, -0.2, -0.013, 0.017, 0.4, 0.95, 1.3, 2.2, 3.3, 7.7, 19.0, 31.0]


def named(spec):
    return spec if isinstance(spec, str) else f"{spec['name']}-{'-'.join(map(str, list(spec.values())[1:]))}"


@pytest.mark.parametrize("row", ROWS, ids=[named(row.spec) for row in ROWS])
def test_value_and_derivative(row):
    module = make(row.spec).double().eval()
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    y = module(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    exact = {"dtype": torch.float64}
    torch.testing.assert_close(y, torch.tensor([row.value(p) for p in POINTS], **exact), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(gradient, torch.tensor([row.slope(p) for p in POINTS], **exact), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_every_activation_has_a_row(name):
    rows = [row for row in ROWS if row.name == name]
    assert rows, f"add a row for {name} to ROWS"
    assert rows[0].forward is not None and rows[0].backward is not None, (
        f"the first row of {name} lacks the operators that it executes"
    )


def test_the_readme_lists_the_activations_of_the_table():
    text = README.read_text(encoding="utf-8")
    lists = [found for found in re.findall(r"(?:`?\w+`?,\s+){5,}(?:and\s+)?`?\w+`?", text) if "mish_torch" in found]
    assert lists, "README.md has no comma-separated list of the activations"
    assert set(re.findall(r"\w+", max(lists, key=len))) - {"and"} == set(ACTIVATION_NAMES)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_a_fresh_instance_never_in_place_drawing_no_random_numbers(name):
    state = torch.get_rng_state()
    first, second = make(name), make({"name": name})
    assert first is not second and type(first) is type(second)
    assert torch.equal(state, torch.get_rng_state())
    assert not getattr(first, "inplace", False)
    x = torch.randn(2, 3, 5, 5)
    before = x.clone()
    first(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_under_autocast_keep_the_type_and_finite_gradients(name, dtype):
    if name == "rrelu" and dtype == torch.float16:
        pytest.skip("PyTorch has no RReLU for fp16 on the CPU")
    module = make(name)
    x = torch.tensor([-300.0, -20.0, -1.0, 0.0, 1.0, 20.0, 300.0], dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        y = module(x)
    assert y.dtype == dtype and y.isfinite().all()
    y.float().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_rrelu_draws_its_slope_between_its_bounds_in_training():
    x = -torch.ones(1000)
    y = make({"name": "rrelu", "lower": 0.2, "upper": 0.4}).train()(x)
    assert y.unique().numel() > 100 and (y >= -0.4).all() and (y <= -0.2).all()


def test_learnable_parameters_are_found_and_get_their_derivatives():
    model = nn.Sequential(
        nn.Conv2d(1, 1, 1), make({"name": "swish", "learnable": True}), make("srelu"),
        make("prelu"), make("swish"),
    )  # fmt: skip
    names = [name for name, _ in activation_parameters(model)]
    assert names == ["1.beta", "2.t_left", "2.a_left", "2.t_right", "2.a_right", "3.weight"]
    beta = make({"name": "swish", "beta": 0.8, "learnable": True}).double()
    beta(torch.tensor(1.5, dtype=torch.float64)).backward()
    assert beta.beta.grad.item() == pytest.approx(1.5**2 * sig(1.2) * (1 - sig(1.2)))
    srelu = make({"name": "srelu", **SRELU}).double()
    srelu(torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)).sum().backward()
    slopes = [parameter.grad.item() for parameter in srelu.parameters()]
    assert slopes == pytest.approx([1 - 0.3, -2 + 0.7, 1 - 0.6, 3 - 1.1])


def test_a_specification_holds_all_parameters_and_is_hashable():
    spec = parse_activation({"name": "swish", "beta": 2.0})
    assert spec.parameters == {"beta": 2.0, "learnable": False} and str(spec) == "swish(beta=2.0, learnable=False)"
    assert spec == parse_activation({"learnable": False, "beta": 2.0, "name": "swish"}) != parse_activation("swish")
    assert len({spec, parse_activation("relu"), parse_activation({"name": "relu"})}) == 2
    assert str(parse_activation("relu")) == "relu"


@pytest.mark.parametrize(
    "spec, words",
    [
        ("mich", ["mich", "'mish'"]),
        ("LeakyReLU", ["leaky_relu"]),
        ({"name": "leaky_relu", "slope": 0.1}, ["'slope'", "negative_slope"]),
        ({"name": "relu", "alpha": 1}, ["relu", "alpha", "none"]),
        ({"name": "swish", "beta": "1"}, ["swish", "beta", "number"]),
        ({"name": "swish", "beta": True}, ["swish", "beta", "number"]),
        ({"name": "swish", "beta": math.nan}, ["swish", "beta", "number"]),
        ({"name": "swish", "learnable": 1}, ["swish", "learnable", "true or false"]),
        ({"name": "gelu", "approximate": "exact"}, ["gelu", "approximate", "tanh"]),
        ({"name": "rrelu", "lower": 0.5}, ["rrelu", "lower", "upper"]),
        ({"name": "isru", "alpha": -1}, ["isru", "alpha"]),
        ({"beta": 1.0}, ["name"]),
        (7, ["7"]),
    ],
)
def test_wrong_specifications_are_refused_by_name(spec, words):
    with pytest.raises(ValueError) as refusal:
        parse_activation(spec)
    assert all(word in str(refusal.value) for word in words)
