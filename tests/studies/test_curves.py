"""The curves of the activations, Mish's against numbers by hand, and what is concluded of them."""

import json
from pathlib import Path

import pytest
import torch
from mpmath import exp, findroot, mp, mpf

from models.activations import TABLE
from studies import curves as study
from studies.__main__ import main as run_studies
from studies.curves import at, curves, errors, extremes, jumps, main
from studies.exact import FORMULAS, exact


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


def test_the_exact_derivative_of_mish_is_that_of_another_form() -> None:
    """e^x w / d^2 with w = 4 (x + 1) + 4 e^2x + e^3x + e^x (4x + 6), d = 2 e^x + e^2x + 2."""
    points = [-7.5, -1.25, -0.5, 0.75, 3.0]
    with mp.workdps(60):
        for x, value in zip(points, exact("mish", points)[1], strict=True):
            e = exp(mpf(x))
            w, d = 4 * (x + 1) + 4 * e**2 + e**3 + e * (4 * x + 6), 2 * e + e**2 + 2
            assert abs(e * w / d**2 - value) < mpf(10) ** -40


@pytest.mark.parametrize("name", TABLE)
def test_every_activation_has_an_exact_form(name: str) -> None:
    found = errors(name)
    assert all(float(found[f"error fp64 d{order}"] or 0) < 0.05 for order in range(2)), found  # gelu cancels at -8
    x = [-2.0625, -0.4375, 0.5625, 1.9375]
    for order, wanted in enumerate(exact(name, x)):
        assert at(name, x, order) == pytest.approx([float(y) for y in wanted], rel=1e-7, abs=1e-12)


def test_errors_of_mish_are_those_of_rounding() -> None:
    found = errors("mish")
    assert 0 < float(found["error fp64 d0"] or 0) < 1e-15 and 0 < float(found["error fp32 d0"] or 0) < 4e-7


def test_extremes_are_where_the_exact_derivative_is_zero() -> None:
    found = extremes("mish")
    with mp.workdps(30):
        lowest = findroot(lambda x: mp.diff(FORMULAS["mish"], x), -1.2)
        steepest = findroot(lambda x: mp.diff(FORMULAS["mish"], x, 2), 1.5)
        bent = findroot(lambda x: mp.diff(FORMULAS["mish"], x, 3), -0.1)
    for column, x in (("minimum x", lowest), ("slope x", steepest), ("curvature x", bent)):
        assert found[column] == pytest.approx(float(x), abs=1e-6)
    assert found["minimum"] == pytest.approx(float(FORMULAS["mish"](lowest)), rel=1e-12)
    assert found["slope"] == pytest.approx(float(mp.diff(FORMULAS["mish"], steepest)), rel=1e-12)
    relu, sigmoid = extremes("relu"), extremes("sigmoid")
    assert (relu["minimum"], relu["lower bound"], relu["slope"], relu["slope x"]) == (None, 0, 1, None)
    assert (sigmoid["lower bound"], sigmoid["upper bound"], sigmoid["slope"]) == pytest.approx((0, 1, 0.25))


@pytest.mark.parametrize(
    ("name", "at_zero", "first", "second"),
    [
        ("relu", 1, 1, 0),
        ("hardswish", 0, 0.5, 1 / 3),
        ("elu", 0, 0, 1),
        ("mish", 0, 0, 0),
        ("leaky_relu", 0.99, 0.99, 0),
    ],
)
def test_jumps_of_the_derivatives(name: str, at_zero: float, first: float, second: float) -> None:
    found = jumps(name)
    wanted = {"jump d1 at 0": at_zero, "jump d1": first, "jump d2": second}
    assert found == {key: pytest.approx(value, abs=1e-8) for key, value in wanted.items()}


@pytest.mark.slow
def test_the_quick_study(tmp_path: Path) -> None:
    assert run_studies(["curves", "--quick", "--jobs", "1", "--project", str(tmp_path)]) == 0
    folder = tmp_path / "curves-quick"
    findings = json.loads((folder / "findings.json").read_text())["findings"]
    assert [each["verdict"] for each in findings] == ["supported", "contradicted"]
    assert "At 1 the drawn derivative is 0.972 and Mish's is 1.049." in findings[1]["found"]
    assert len((folder / "cells.csv").read_text().splitlines()) == 1 + len(study.cells(quick=True))
    assert (folder / "curves.png").stat().st_size > 20_000


@pytest.mark.slow
def test_the_picture(tmp_path):
    assert main(["--output", str(tmp_path / "curves.png")]) == 0
    assert main(["mish", "relu", "--output", str(tmp_path / "two.png")]) == 0
    assert 0 < (tmp_path / "two.png").stat().st_size < (tmp_path / "curves.png").stat().st_size
    with pytest.raises(ValueError, match="mihs.*did you mean 'mish'"):
        main(["mihs", "--output", str(tmp_path / "none.png")])
    assert not (tmp_path / "none.png").exists()
    assert (tmp_path / "curves.png").stat().st_size > 20_000
