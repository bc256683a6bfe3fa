"""The limits of test_mish_cuda.py against the derivative as a GPU computes it, its two approximate instructions off by
as much as NVIDIA allows: ex2.approx by 2 units in the last place, rcp.approx by 1 (PTX ISA)."""

from itertools import product

import pytest
import torch
from torch import Tensor

from tests.ops.test_mish import derivative, every_value, ulps
from tests.ops.test_mish_cuda import DERIVATIVE_ERROR, within

LOG2E = 1.44269504
OFF = [(ex2, rcp) for ex2, rcp in product((-2, -1, 0, 1, 2), (-1, 0, 1))]


def off_by(exact: Tensor, units: int) -> Tensor:
    """A float64 value rounded to fp32 and moved by so many units in the last place."""
    value = exact.float()
    return (value.view(torch.int32) + units).view(torch.float32)


def computed(x: Tensor, ex2: int, rcp: int) -> Tensor:
    """mish' of csrc/mish_math.h in fp32, rounded to the type of x."""
    c = x.float().clamp(-88, 20)
    e = off_by(torch.exp2((c * LOG2E).double()), ex2)
    n = e * e + 2 * e
    r = off_by(1 / (n + 2).double(), rcp)
    return (r * (4 * c * ((e * e + e) * r) + n)).to(x.dtype)


@pytest.fixture(scope="module")
def halves() -> tuple[Tensor, Tensor]:
    """Every value of fp16 and the derivative there."""
    x = every_value(torch.float16)
    x = x[x > -87.3]
    return x, derivative(x)


@pytest.mark.parametrize(("ex2", "rcp"), OFF, ids=str)
def test_hardware_within_its_specification_is_accepted(halves, ex2, rcp):
    x, expected = halves
    assert within(computed(x, ex2, rcp), expected, ulp=0.52, absolute=DERIVATIVE_ERROR).all()


def test_one_rounding_alone_would_refuse_it(halves):
    x, expected = halves
    assert ulps(computed(x, 2, 1), expected).max() > 0.75


def test_an_error_of_two_units_is_refused_where_units_are_not_tiny(halves):
    x, expected = halves
    rounded = expected.half()
    wrong = (rounded.view(torch.int16) + 2).view(torch.float16)
    accepted = within(wrong, expected, ulp=0.52, absolute=DERIVATIVE_ERROR)
    assert not accepted[expected.abs() > 1e-3].any()
