"""Roughness and sharpness against calculations by hand and NumPy, and that a cell depends on nothing else."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.types import Targets
from studies import landscape
from studies.__main__ import main
from studies.networks import random_network, resnet
from studies.roughness import SIDE, random_lines, roughness
from studies.rows import Row
from studies.sharpness import filter_normalised, largest_eigenvalue, loss_along, mean_rise
from studies.small_detector import chosen, drawn, make_detector, smooth_loss

# ---------------------------------------------------------------------------------------------------------- roughness


def corner(x: Tensor) -> Tensor:
    return F.relu(x[:, :1] - 5)


def test_lines_end_on_the_border() -> None:
    for points in random_lines(3, 50):
        assert bool(((points > -1e-9) & (points < SIDE + 1e-9)).all())
        distance = torch.stack([points, SIDE - points]).abs().amin(dim=(0, 2))
        assert float(distance.max()) < 1e-9


@pytest.mark.slow
def test_roughness_of_one_corner() -> None:
    """A line at an angle has the jump |cos| where it crosses x = 5, and right of it the slope |cos|."""
    starts, ends = (each[:, 0].numpy() for each in random_lines(0, 20))
    both = [each.numpy() for each in random_lines(0, 20)]
    lengths = np.hypot(*(both[1] - both[0]).T)
    cosines = np.abs(ends - starts) / lengths
    crosses = (np.minimum(starts, ends) < 5) & (np.maximum(starts, ends) > 5)
    rises = np.abs(np.maximum(ends - 5, 0) - np.maximum(starts - 5, 0))
    expected = SIDE * (cosines * crosses).sum() / rises.sum()
    assert roughness(corner, seed=0, lines=20, points=8001) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("act", ["relu", "mish"])
def test_the_scale_of_the_output_does_not_matter(act: str) -> None:
    network = random_network(act, (2, 16, 8, 1), seed=1)
    found = roughness(network, seed=2, points=1001)
    assert found > 0
    assert roughness(lambda x: 7 - 3 * network(x), seed=2, points=1001) == pytest.approx(found, rel=1e-9)


@pytest.mark.slow
def test_half_the_step_changes_roughness_by_less_than_2_percent() -> None:
    for shape in landscape.SHAPES.values():
        network = random_network("relu", shape, seed=0)  # whose slope jumps
        coarse, fine = (roughness(network, seed=0, lines=4, points=points) for points in (4001, 8001))
        assert coarse == pytest.approx(fine, rel=0.02)


# ---------------------------------------------------------------------------------------------------------- sharpness


def least_squares() -> tuple[nn.Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(7, 3, bias=False).double()
    x, y = (torch.randn(20, size, generator=generator, dtype=torch.float64) for size in (7, 3))
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 7, generator=generator, dtype=torch.float64))
    return model, x, y


def test_the_largest_eigenvalue_of_least_squares() -> None:
    model, x, y = least_squares()
    found = largest_eigenvalue(lambda: (model(x) - y).square().sum() / 2, model, seed=0, tolerance=1e-9)
    assert found == pytest.approx(float(np.linalg.eigvalsh((x.T @ x).numpy())[-1]))


def test_directions_have_the_norms_of_the_filters() -> None:
    model = resnet("mish", 0, stages=3, blocks=1, width=8).double()
    for weights, change in zip(
        model.parameters(), filter_normalised(model, torch.Generator().manual_seed(0)), strict=True
    ):
        if weights.dim() < 2:
            assert not change.any()
        else:
            assert torch.allclose(change.flatten(1).norm(dim=1), weights.flatten(1).norm(dim=1))


def test_the_rise_of_a_parabola_and_nothing_is_left_moved() -> None:
    """(w + r d)^2 - w^2 = 2 r w d + r^2 d^2, where the norm of d is that of w."""
    model, _, _ = least_squares()
    before = model.weight.detach().clone()
    loss = lambda: model.weight.square().sum()  # noqa: E731
    found = mean_rise(loss, model, (0.5,), directions=1, seed=4)[0.5]
    (direction,) = filter_normalised(model, torch.Generator().manual_seed(4))
    assert found == pytest.approx(float((before * direction).sum() + 0.25 * before.square().sum()))
    assert torch.equal(model.weight, before)
    assert loss_along(loss, model, [[before]], [1.0]) == pytest.approx(4 * float(before.square().sum()))


@pytest.mark.slow
def test_the_detectors_loss_is_the_trained_one_and_has_a_hessian() -> None:
    model = make_detector("mish", 0).eval()
    images, targets = drawn(model, 3, seed=0)
    pair: Targets = chosen(targets, torch.tensor([0, 2]))
    with torch.no_grad():  # in float64, as rounding can change an assigned box
        expected, _ = model.loss(model.double()(images[[0, 2]].double()), pair)
    loss = smooth_loss(model, images[[0, 2]], pair)
    assert float(loss().detach()) == pytest.approx(float(expected), rel=1e-5)
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(loss(), parameters, create_graph=True)
    generator = torch.Generator().manual_seed(0)
    u, v = ([torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters] for _ in range(2))
    uv, vu = (
        sum(
            float((a * b).sum())
            for a, b in zip(torch.autograd.grad(gradient, parameters, one, retain_graph=True), other, strict=True)
        )
        for one, other in ((u, v), (v, u))
    )
    assert uv == pytest.approx(vu, rel=1e-6)
    trained, _ = model.loss(model(images[[0, 2]].double()), pair)
    for mine, other in zip(gradient, torch.autograd.grad(trained, parameters), strict=True):
        assert torch.allclose(mine, other, rtol=1e-3, atol=1e-5 * float(mine.detach().abs().max()) + 1e-8)


# -------------------------------------------------------------------------------------------------------- conclusions


def made_rows(ratios: list[float]) -> list[Row]:
    rows: list[Row] = []
    for kind, column in (("outputs", "roughness"), ("digits", "eigenvalue")):
        for seed, ratio in enumerate(ratios):
            for act, value in (("relu", 2.0), ("mish", 2 * ratio)):
                more = {f"rise {radius:g}": 0.1 * value for radius in landscape.RADII} | {"loss": 0.01}
                row: Row = {"kind": kind, "act": act, "seed": seed, column: value, "shape": "shallow", **more}
                rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [([0.5, 0.6, 0.55], "supported"), ([0.9, 0.92, 0.91], "contradicted"), ([0.4, 1.6, 0.7], "inconclusive")],
)
def test_verdicts_on_ratios_to_relu(ratios: list[float], verdict: str) -> None:
    findings = landscape.conclude(made_rows(ratios))
    for finding in findings:
        assert finding.verdict == verdict and finding.judged is not None
        assert finding.judged.estimate == pytest.approx(-np.log(ratios).mean())
        assert finding.judged.margin == pytest.approx(math.log(1 / 0.8))
        (numbers,) = finding.tables
        (mish,) = [row for row in numbers.rows if "Mish" in row]
        assert any(cell.startswith(f"{math.exp(np.log(ratios).mean()):.2f} [") for cell in mish)


def test_all_activations_have_all_seeds() -> None:
    cells = landscape.cells(quick=False)
    assert len(cells) == len({json.dumps(cell) for cell in cells}) == 2 * 100 * 6 + 2 * 5 * 3


@pytest.mark.slow
def test_a_cell_does_not_depend_on_those_before() -> None:
    outputs, digits = (
        [cell for cell in landscape.cells(quick=True) if cell["kind"] == kind] for kind in ("outputs", "digits")
    )
    for cells in (outputs, digits):
        alone = landscape.measure(cells[1])
        torch.manual_seed(99)
        torch.rand(7)
        landscape.measure(cells[0])
        assert landscape.measure(cells[1]) == alone


@pytest.mark.slow
def test_the_quick_study(tmp_path: Path) -> None:
    assert main(["landscape", "--quick", "--jobs", "1", "--project", str(tmp_path)]) == 0
    folder = tmp_path / "landscape-quick"
    assert len(json.loads((folder / "findings.json").read_text())["findings"]) == 2
    assert len((folder / "cells.csv").read_text().splitlines()) == 1 + len(landscape.cells(quick=True))
    assert (folder / "landscape.png").stat().st_size > 20_000
