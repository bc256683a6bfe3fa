"""The curves of the activations, Mish's against numbers by hand."""

import pytest
import torch

from models.activations import TABLE
from studies.curves import curves, main


def test_derivatives_are_those_of_the_values():
    for name in TABLE:
        x, (value, first, second) = curves(name)
        assert len(x) == len(value) == len(first) == len(second)
        step = x[1] - x[0]
        smooth = (first.roll(1) - first.roll(-1)).abs() < 0.1  # away from corners
        rise = (value.roll(-1) - value.roll(1)) / (2 * step)
        assert torch.allclose(rise[2:-2][smooth[2:-2]], first[2:-2][smooth[2:-2]], atol=0.02), name


def test_mish_at_zero_and_its_least_value():
    x, (value, first, second) = curves("mish")
    middle = len(x) // 2
    for y, expected in ((value, 0.0), (first, 0.6), (second, 0.64)):
        assert abs(y[middle].item() - expected) < 1e-12
    assert abs(x[value.argmin()].item() + 1.19) < 0.01 and abs(value.min().item() + 0.30884) < 1e-5


@pytest.mark.slow
def test_the_picture(tmp_path):
    assert main(["--output", str(tmp_path / "curves.png")]) == 0
    assert (tmp_path / "curves.png").stat().st_size > 20_000
