"""The study of the run time: kernels against PyTorch, ratios by hand, what a loaded machine does to the verdict."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from comparison.checks import MAX_OTHER_CORES
from ops.build import cpp_compiler
from studies import branches, runtime, study, timings
from studies.__main__ import main

needs_compiler = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")


@needs_compiler
@pytest.mark.parametrize("vectorised", [False, True])
def test_all_forms_compute_the_function(vectorised: bool) -> None:
    expected = {"relu": F.relu, "leaky_relu": lambda x: F.leaky_relu(x, 0.1), "mish": F.mish}
    for (name, form), kernel in branches.kernels(vectorised).items():
        for signs in branches.SIGNS:
            x = branches.inputs(name, signs, 1001, seed=1)
            y = torch.full_like(x, math.nan)
            kernel(x, y, 2)
            assert torch.allclose(y, expected[name](x), rtol=1e-5, atol=1e-6), (name, form, signs)


def test_inputs_lie_on_both_sides_of_the_bound() -> None:
    for name, bound in branches.FUNCTIONS.items():
        x = branches.inputs(name, "random", 1000, seed=0)
        ordered = branches.inputs(name, "sorted", 1000, seed=0)
        assert torch.equal(x.sort().values, ordered) and 400 < int((x > bound).sum()) < 600
    assert float(branches.inputs("mish", "ordinary", 1000, seed=0).max()) < 20


def test_ratios_by_hand() -> None:
    row = timings.compared([2.0, 4.0, 9.0], [1.0, 1.0, 3.0], 0.0)
    assert (row["ms"], row["base_ms"], row["ratio"]) == (4, 1, 3)
    assert runtime.logs([row]) == pytest.approx([math.log(2), math.log(4), math.log(3)], abs=1e-5)
    many = timings.compared([float(each) for each in range(1, 101)], [1.0] * 100, 0.0)
    assert (many["low"], many["high"]) == (40, 61)  # the order statistics of a table for n = 100, 95 %


def epoch_rows(data: str, curves: dict[str, list[str]]) -> list[dict[str, object]]:
    """Rows of a published comparison: by arm, the curve of each seed."""
    return [
        {"part": "epochs", "data": data, "name": name, "seed": seed, "map_by_epoch": curve}
        for name, of_seeds in curves.items()
        for seed, curve in enumerate(of_seeds)
    ]


def test_epochs_until_a_target_by_hand() -> None:
    """ReLU ends with 0.5 and 0.7, so that the target is 0.54."""
    curves = {
        "relu": ["0.1 0.2 0.5", "0.2 0.6 0.7"],
        "silu": ["0.1 0.2 0.3", "0.0 0.1 0.2"],
        "mish": ["0.54", "0.1 0.6"],
    }
    (epochs,) = runtime.conclude(epoch_rows("embedded", curves))[0].tables
    assert epochs.head[3:] == ("relu", "silu", "mish")
    assert epochs.rows == (("embedded", "3", "0.540", "2.0 (1 of 2 runs never)", "never", "1.5 [-4.9, 7.9]"),)


def test_epochs_by_implementation_by_hand() -> None:
    """ReLU ends with 0.6, so that the target is 0.54; differences from ops.mish are by seed."""
    curves = {
        "relu": ["0.1 0.5 0.6", "0.1 0.5 0.6"],
        "mish": ["0.1 0.6 0.7", "0.6 0.6 0.7"],
        "mish_torch": ["0.1 0.5 0.71", "0.1 0.6 0.73"],
        "mish_eager": ["0.1 0.2 0.3", "0.1 0.2 0.5"],
        "mish_compiled": ["0.1 0.6 0.7", "0.6 0.6 0.7"],
    }
    (epochs,) = runtime.conclude(epoch_rows("implementations", curves))[0].tables
    assert epochs.rows == (
        ("relu", "3.0 [3.0, 3.0]", "+1.5 [-4.9, +7.9]", "-10.00 [-10.00, -10.00]"),
        ("mish", "1.5 [-4.9, 7.9]", "", ""),
        ("mish_torch", "2.5 [-3.9, 8.9]", "+1.0 [+1.0, +1.0]", "+2.00 [-10.71, +14.71]"),
        ("mish_eager", "never", "", "-30.00 [-157.06, +97.06]"),
        ("mish_compiled", "1.5 [-4.9, 7.9]", "+0.0 [+0.0, +0.0]", "+0.00 [+0.00, +0.00]"),
    )


def test_steps_by_hand() -> None:
    """By the fused ReLU and by ReLU in the same form; activations cost what leaving them out saves."""

    def step(name: str, ratio: float, process: int = 0) -> dict[str, object]:
        times = timings.compared([ratio] * 30, [1.0] * 30, 0.0)
        return {"part": "step", "name": name, "process": process, **runtime.STEP, **times, "device": "CPU"}

    steps = [step("mish, fused", 1.02), step("mish, fused", 1.04, 1), step("mish, plain", 1.25)]
    steps += [step("identity, plain", 1.0), step("relu, plain", 1.0), step("mish, compiled", 1.5)]
    steps += [step("relu, compiled", 1.2)]
    memory = [{"part": "memory", "name": name, "kept_mib": 40.4} for name in (timings.BASE, "mish, fused")]
    found = runtime.conclude([*steps, *memory])[0]
    assert "the fused Mish takes 1.020 times as long as one with batch norm and no activation" in found.found
    low, high = stats.t.interval(0.95, 1, math.log(1.02 * 1.04) / 2, stats.sem([math.log(1.02), math.log(1.04)]))
    units = f"{math.sqrt(1.02 * 1.04):.3f} [{math.exp(low):.3f}, {math.exp(high):.3f}]"
    assert f"With the processes as units, which is stricter, it is {units}." in found.found
    rows = {row[:2]: row[2:] for row in found.tables[0].rows}
    assert rows["relu", "fused"] == ("1", "1.000", "", "40")
    assert rows["mish (process 1)", "fused"] == ("1.020 [1.020, 1.020]", "1.020", "", "40")
    assert rows["mish (process 2)", "fused"][1] == "1.040"
    assert rows["mish", "plain"][1:3] == ("1.250", "20 %") and rows["identity", "plain"][2] == "0 %"
    assert rows["mish", "compiled"] == ("1.500 [1.500, 1.500]", "1.250", "", "")


def test_times_beside_other_processes_are_marked() -> None:
    cell = {"part": "branch", "name": "relu", "signs": "random", "vectorised": True}
    rows = [
        {**cell, "form": form, **timings.compared([2.0] * 30, [1.0] * 30, load)}
        for form, load in (("if", 0.0), ("jump", 0.2))
    ]
    (line,) = runtime.conclude(rows)[1].tables[0].rows
    assert line == ("relu", "random", "2.000 [2.000, 2.000]", "2.000 [2.000, 2.000] *", "", "")


def test_times_beside_other_processes_are_not_judged() -> None:
    cells = [
        {"part": "step", "name": runtime.BEST, "process": 0, **runtime.STEP},
        {"part": "branch", "name": "relu", "form": "if", "signs": "random", "vectorised": True, "rounds": 30},
    ]
    rows = []
    for load in (0.0, MAX_OTHER_CORES + 0.01):
        ratio = timings.compared([1.5 + 0.001 * each for each in range(30)], [1.0] * 30, load)
        rows.append([{**cell, **ratio, "device": "CPU"} for cell in cells])
    step, branch = runtime.conclude(rows[0])
    assert step.verdict == "contradicted" and branch.verdict == "supported"
    for finding in runtime.conclude(rows[1]):
        assert finding.verdict == "inconclusive" and finding.judged is None and "nothing is judged" in finding.found


def test_without_a_compiler_there_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    branches.kernels.cache_clear()
    monkeypatch.setattr(branches, "cpp_compiler", lambda: None)
    cell = {"part": "branch", "name": "relu", "form": "if", "signs": "random", "vectorised": True, "rounds": 2}
    row = {**cell, **runtime.measure(cell)}
    branches.kernels.cache_clear()
    assert "no C++ compiler" in runtime.conclude([row])[1].found


@pytest.mark.slow
def test_what_is_kept_for_the_backward_pass() -> None:
    """The definition of Mish keeps more than the operator, which keeps more than the fused form."""
    kept = {
        name: timings.memory(name, batch=2, side=64)["kept_mib"]
        for name in ("mish_eager, plain", "mish, plain", "mish, fused")
    }
    assert list(kept) == sorted(kept, key=kept.__getitem__, reverse=True)


@pytest.mark.slow
@needs_compiler
def test_quick(tmp_path) -> None:
    assert main(["runtime", "--quick", "--project", str(tmp_path)]) == 0
    folder = tmp_path / "runtime-quick"
    assert len(json.loads((folder / "findings.json").read_text())["findings"]) == 2
    assert (folder / "cells.csv").is_file() and (folder / "runtime.png").stat().st_size > 20_000


def test_one_cell_at_a_time_whatever_the_jobs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(study, "_measured", lambda name, cells, jobs: asked.append(jobs) or (each for each in ()))
    for name in ("runtime", "published"):
        with pytest.raises(FileNotFoundError):  # as nothing was measured
            study.measure_all(name, tmp_path, quick=True, jobs=2)
    assert asked == [1, 2]


@needs_compiler
@pytest.mark.slow
def test_the_backward_pass_of_a_compiled_operator_is_timed_again_and_again() -> None:
    row = timings.operator("ReLU, compiled", elements=4096, way="backward", rounds=3)
    assert len(str(row["log_ratios"]).split()) == 3 and "note" not in row
