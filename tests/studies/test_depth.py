"""The study of depth: its network, its figures, and its findings from made-up rows."""

import json
import math

import pytest
import torch
from torch import nn

from studies import depth
from studies.__main__ import run
from studies.depth import measure
from studies.depth_network import dead_percent, network
from studies.networks import initialise
from studies.rows import ahead


@pytest.mark.parametrize("layers", [15, 25])
def test_the_network_has_the_layers_of_the_papers(layers):
    model = network(layers, "mish")
    dense = [layer for layer in model if isinstance(layer, nn.Linear)]
    assert len([layer for layer in model if isinstance(layer, nn.Conv2d)]) == 2 and len(dense) == layers - 2
    assert [layer.out_features for layer in dense] == [500] * (layers - 3) + [10]
    assert len([layer for layer in model if isinstance(layer, nn.BatchNorm1d)]) == layers - 3
    assert model.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_dead_units_are_counted():
    model = network(5, "mish").eval()  # whose units are not dead by chance
    initialise(model, "he", 0)
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    assert dead_percent(model, images) == 0
    norm = next(layer for layer in model if isinstance(layer, nn.BatchNorm1d))
    with torch.no_grad():
        norm.weight[:250] = 0  # half of the units of the first of two blocks
    assert dead_percent(model, images) == 25
    with torch.no_grad():
        norm.weight[:] = 0
    assert dead_percent(model, images) == 100  # without information, the second block is dead too


def test_networks_of_one_seed_start_alike():
    first = [network(6, name) for name in ("relu", "mish")]
    for model in first:
        initialise(model, "glorot", 3)
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in first), strict=True))


@pytest.mark.slow
def test_a_cell_does_not_depend_on_what_ran_before():
    cells = [{**cell, "steps": 2} for cell in depth.cells(quick=True)[:2]]
    alone = measure(cells[1])
    assert measure(cells[0]) != alone
    torch.manual_seed(17)
    assert measure(cells[1]) == alone and all(math.isfinite(value) for value in alone.values())
    assert alone["gap"] == alone["test_loss"] - alone["train_loss"]
    assert alone["gradient_ratio"] == alone["gradient_first"] / alone["gradient_last"]


@pytest.mark.slow
def test_gradients_of_all_layers_are_those_of_the_first_step_of_a_training():
    training = depth.cells(quick=True)[0]
    cell = {"part": "gradients", **{key: training[key] for key in ("initialisation", "depth", "activation", "seed")}}
    norms = [float(word) for word in measure(cell)["gradient_norms"].split()]
    assert len(norms) == training["depth"]  # as many as layers with weights
    found = measure(training)
    expected = [found["gradient_first"], found["gradient_middle"], found["gradient_last"]]
    dense = norms[2:-1]
    assert [dense[0], dense[len(dense) // 2], dense[-1]] == pytest.approx(expected, rel=1e-5)


def rows():
    """Made-up figures: Mish is better by 2 points by all depths, and its gap is half of swish's where all trained."""
    found = []
    for cell in depth.cells(quick=False):
        if "rate" not in cell:  # the gradient is twice as large a layer nearer to the input, with swish three times
            factor = {"swish": 3, "mish": 2, "relu": 1}[cell["activation"]]
            norms = [factor ** float(layer) for layer in range(cell["depth"] - 1, -1, -1)]
            found.append({**cell, "gradient_norms": " ".join(map(str, norms))})
            continue
        deep, mish, seed = cell["depth"] > 20, cell["activation"] == "mish", cell["seed"]
        accuracy = (40.0 if deep else 90.0) + 2 * mish + 0.1 * seed + 0.01 * seed * mish
        accuracy += {0.03: 0, 0.1: 1, 0.3: 2 if mish else -1}.get(cell["rate"], -30)
        losses = {"train_loss": 1.0, "test_loss": 1.2 - 0.1 * mish + 0.001 * seed}
        figures = {
            **losses,
            "gap": 9.0 if deep else losses["test_loss"] - losses["train_loss"],
            "test_accuracy": accuracy,
            "held_out_accuracy": accuracy,
            "trained": accuracy > 50,
            "gradient_ratio": 3.0,
            "dead_percent": 5.0,
        }
        found.append({**cell, **figures})
    return found


def test_findings_by_hand():
    swish, relu, gap, others = depth.conclude(rows())
    assert swish.judged.estimate == pytest.approx(2.02) and swish.verdict == "supported"  # of seeds 0 to 4
    assert relu.judged is None and relu.verdict == "supported"
    assert depth.trained_depths(depth.arms(rows())["paper"]) == [15, 20]
    assert gap.judged.estimate == pytest.approx(100 * 0.1 / 0.202) and gap.verdict == "supported"
    assert depth.tuned_rates(rows()) == {"relu": 0.1, "swish": 0.1, "mish": 0.3}
    assert "All runs with Mish passed 50 % up to 20 layers, and none from 25 on." in swish.found
    accuracies, growth = swish.tables
    by_depth = {row[0]: row for row in accuracies.rows}
    assert list(by_depth) == ["15", "20", "25", "30", "40"]
    assert by_depth["20"][1:5] == ("91.2", "91.2", "93.2", "5, 5, 5")  # ReLU, Swish, Mish; how many trained
    assert by_depth["20"][5].startswith("+2.02 [") and by_depth["20"][7] == "48.0, 96.2, 97.5"
    assert [cell.split(" ")[0] for cell in growth.rows[0]] == ["Glorot", "1.000", "3.000", "2.000"]
    assert others.judged is None and others.tables[0].rows[2][0] == "tuned rates: ReLU 0.1, Swish 0.1, Mish 0.3"
    assert "not the largest tried" in others.found
    assert [row[0] for row in others.tables[1].rows] == ["0.03", "0.1", "0.3", "1", "3"]
    assert len(gap.tables[0].rows) == 3 * 5 and gap.tables[0].rows[2][:5] == (
        *("15", "Mish", "1.000 [1.000, 1.000]"),
        *("1.102 [1.100, 1.104]", "0.102 [0.100, 0.104]"),
    )
    tuned = depth.arms(rows())["tuned"]
    assert ahead(tuned, "test_accuracy", "mish", "swish") == pytest.approx([3, 3.01, 3.02, 3.03, 3.04])


def test_the_depth_between_is_in_no_mean_that_decides():
    """However Mish does with 30 layers."""
    other = [{**row, "test_accuracy": 0.0} if row["depth"] == 30 and "rate" in row else row for row in rows()]
    figures = [[each.judged.estimate for each in depth.conclude(made)[::2] if each.judged] for made in (rows(), other)]
    assert figures[0] == figures[1] and len(figures[0]) == 2


def test_a_largest_rate_is_named():
    best = [{**row, "held_out_accuracy": row["rate"]} if "rate" in row else row for row in rows()]
    assert "the largest tried for ReLU, Swish, Mish" in depth.conclude(best)[3].found


def test_no_depth_at_which_all_trained():
    none = [{**row, "trained": False} for row in rows()]
    assert depth.conclude(none)[2].verdict == "inconclusive" and depth.conclude(none)[2].judged is None


@pytest.mark.slow
def test_the_quick_run_writes_its_files(tmp_path, capsys):
    text = run("depth", tmp_path, quick=True, jobs=1)
    assert "quick, no verdict" in text
    assert len(json.loads((tmp_path / "findings.json").read_text())["findings"]) == 4
    assert len((tmp_path / "cells.csv").read_text().splitlines()) == 1 + len(depth.cells(quick=True))
    assert (tmp_path / "depth.png").stat().st_size > 20_000
