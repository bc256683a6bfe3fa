"""Every row of the table against its published formula and derivative, both written here for single floats."""

import math
from math import erf, exp, log1p, pi, sqrt
from math import tanh as th
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models.activations import TABLE, activation_parameters, check_activation, make_activation


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

# specification, value, derivative
ROWS = [
    ("relu", lambda x: max(x, 0), lambda x: float(x > 0)),
    ("leaky_relu", lambda x: x if x > 0 else 0.01 * x, lambda x: 1 if x > 0 else 0.01),
    ({"name": "leaky_relu", "negative_slope": 0.1}, lambda x: x if x > 0 else x / 10, lambda x: 1 if x > 0 else 0.1),
    ("prelu", lambda x: x if x > 0 else x / 4, lambda x: 1 if x > 0 else 0.25),
    ("rrelu", lambda x: x if x > 0 else x * 11 / 48, lambda x: 1 if x > 0 else 11 / 48),
    ("elu", lambda x: x if x > 0 else exp(x) - 1, lambda x: 1 if x > 0 else exp(x)),
    (
        {"name": "celu", "alpha": 2.0},
        lambda x: x if x > 0 else 2 * (exp(x / 2) - 1),
        lambda x: 1 if x > 0 else exp(x / 2),
    ),
    (
        "selu",
        lambda x: SELU_L * (x if x > 0 else SELU_A * (exp(x) - 1)),
        lambda x: SELU_L * (1 if x > 0 else SELU_A * exp(x)),
    ),
    ("gelu", lambda x: x * cdf(x), lambda x: cdf(x) + x * exp(-x * x / 2) / sqrt(2 * pi)),
    ({"name": "gelu", "approximate": "tanh"}, gelu_tanh, gelu_tanh_slope),
    ({"name": "softplus", "beta": 2.0}, lambda x: log1p(exp(2 * x)) / 2, lambda x: sig(2 * x)),
    ("tanh", th, lambda x: 1 - th(x) ** 2),
    ("sigmoid", sig, lambda x: sig(x) * (1 - sig(x))),
    ("swish", lambda x: swish(x, 1), lambda x: swish_slope(x, 1)),
    ({"name": "swish", "beta": 1.7}, lambda x: swish(x, 1.7), lambda x: swish_slope(x, 1.7)),
    ({"name": "swish", "beta": 0.5, "learnable": True}, lambda x: swish(x, 0.5), lambda x: swish_slope(x, 0.5)),
    ("e_swish", lambda x: 1.75 * swish(x, 1), lambda x: 1.75 * swish_slope(x, 1)),
    ("silu", lambda x: swish(x, 1), lambda x: swish_slope(x, 1)),
    (
        "elish",
        lambda x: swish(x, 1) if x >= 0 else (exp(x) - 1) * sig(x),
        lambda x: swish_slope(x, 1) if x >= 0 else exp(x) * sig(x) + (exp(x) - 1) * sig(x) * (1 - sig(x)),
    ),
    (
        {"name": "srelu", **SRELU},
        lambda x: 1.1 + 0.6 * (x - 1.1) if x >= 1.1 else -0.7 + 0.3 * (x + 0.7) if x <= -0.7 else x,
        lambda x: 0.6 if x >= 1.1 else 0.3 if x <= -0.7 else 1,
    ),
    ({"name": "isru", "alpha": 3}, lambda x: x / sqrt(1 + 3 * x * x), lambda x: (1 + 3 * x * x) ** -1.5),
    (
        "hardswish",
        lambda x: 0 if x <= -3 else x if x >= 3 else x * (x + 3) / 6,
        lambda x: 0 if x <= -3 else 1 if x >= 3 else (2 * x + 3) / 6,
    ),
    (
        "hard_mish",
        lambda x: 0 if x <= -2 else x if x >= 0 else x * (x + 2) / 2,
        lambda x: 0 if x <= -2 else 1 if x >= 0 else x + 1,
    ),
    ("mish", mish, mish_slope),
    ("mish_torch", mish, mish_slope),
    ("mish_eager", mish, mish_slope),
    ("identity", lambda x: x, lambda x: 1),
]
POINTS = [-12.3, -5.1, -3.01, -2.4, -1.9, -1.15, -0.69, -0.2, -0.013, 0.017, 0.4, 0.95, 1.3, 2.2, 3.3, 7.7, 19.0, 31.0]


def named(spec):
    return spec if isinstance(spec, str) else f"{spec['name']}-{'-'.join(map(str, list(spec.values())[1:]))}"


@pytest.mark.parametrize("spec, value, slope", ROWS, ids=[named(row[0]) for row in ROWS])
def test_value_and_derivative(spec, value, slope):
    module = make_activation(spec).double().eval()
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    y = module(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    exact = {"dtype": torch.float64}
    torch.testing.assert_close(y, torch.tensor([value(p) for p in POINTS], **exact), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(gradient, torch.tensor([slope(p) for p in POINTS], **exact), rtol=1e-7, atol=1e-9)


def test_every_row_of_the_table_is_tested_here():
    assert {spec if isinstance(spec, str) else spec["name"] for spec, _, _ in ROWS} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_fresh_instance_never_in_place_drawing_no_random_numbers(name):
    state = torch.get_rng_state()
    first, second = make_activation(name), make_activation({"name": name})
    assert first is not second and type(first) is type(second)
    assert torch.equal(state, torch.get_rng_state())
    assert not getattr(first, "inplace", False)
    x = torch.randn(2, 3, 5, 5)
    before = x.clone()
    first(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_under_autocast_keep_the_type_and_finite_gradients(name, dtype):
    if name == "rrelu" and dtype == torch.float16:
        pytest.skip("PyTorch has no RReLU for fp16 on the CPU")
    module = make_activation(name)
    x = torch.tensor([-300.0, -20.0, -1.0, 0.0, 1.0, 20.0, 300.0], dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        y = module(x)
    assert y.dtype == dtype and y.isfinite().all()
    y.float().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_rrelu_draws_its_slope_between_its_bounds_in_training():
    x = -torch.ones(1000)
    y = make_activation({"name": "rrelu", "lower": 0.2, "upper": 0.4}).train()(x)
    assert y.unique().numel() > 100 and (y >= -0.4).all() and (y <= -0.2).all()


def test_learnable_parameters_are_found_and_get_their_derivatives():
    model = nn.Sequential(
        nn.Conv2d(1, 1, 1), make_activation({"name": "swish", "learnable": True}), make_activation("srelu"),
        make_activation("prelu"), make_activation("swish"),
    )  # fmt: skip
    names = [name for name, _ in activation_parameters(model)]
    assert names == ["1.beta", "2.t_left", "2.a_left", "2.t_right", "2.a_right", "3.weight"]
    beta = make_activation({"name": "swish", "beta": 0.8, "learnable": True}).double()
    beta(torch.tensor(1.5, dtype=torch.float64)).backward()
    assert beta.beta.grad.item() == pytest.approx(1.5**2 * sig(1.2) * (1 - sig(1.2)))
    srelu = make_activation({"name": "srelu", **SRELU}).double()
    srelu(torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64)).sum().backward()
    slopes = [parameter.grad.item() for parameter in srelu.parameters()]
    assert slopes == pytest.approx([1 - 0.3, -2 + 0.7, 1 - 0.6, 3 - 1.1])


def test_objects_with_a_name_are_accepted_and_defaults_filled_in():
    assert check_activation(SimpleNamespace(name="swish", beta=2.0)) == {
        "name": "swish",
        "beta": 2.0,
        "learnable": False,
    }
    assert check_activation("relu") == {"name": "relu"}


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
        check_activation(spec)
    assert all(word in str(refusal.value) for word in words)
