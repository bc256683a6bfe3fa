"""The simulation: its folders are read back unchanged, and it detects invalid methods."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import simulate, simulated_runs
from benchmarks.simulate import Tally
from benchmarks.simulated_runs import SIGMA, Design
from comparison import statistics
from comparison.plan import read_plan
from comparison.power import minimal_detectable, power
from comparison.runs import read_run
from comparison.summary import Outcome, Verdict

pytestmark = pytest.mark.slow

MAX_ERROR = 8.8  # %: 5 % plus three standard errors of 300 sets


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Forget plans of other tests, which may use an invalid method."""
    simulated_runs.plan_of.cache_clear()


def error(design: Design, sets: int = 300) -> float:
    tally = simulate.simulate(design, sets=sets, seed=1)
    assert tally.sets == sets
    return tally.percent(tally.any_significant)


def numbers(outcome: Outcome) -> list[float]:
    compared = [metric.comparison for metric in outcome.metrics.values() if metric.comparison]
    differences = [each for comparison in compared for each in comparison.differences.values()]
    intervals = [(each.interval or (), each.equivalence_interval or ()) for each in differences]
    return [each.estimate for each in differences] + [end for pair in intervals for each in pair for end in each]


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_folders_are_read_back_unchanged(tmp_path: Path, missing: float) -> None:
    design = Design(acts=3, seeds=4, missing=missing, effect=2.0)
    written = simulated_runs.through_folders(design, np.random.default_rng(2), folder=tmp_path / "set")
    plain = simulated_runs.in_memory(design, np.random.default_rng(2))
    assert written.verdicts == plain.verdicts and written.time_verdicts == plain.time_verdicts
    failures = sum(each.failed for each in written.failed.values())
    assert written.failed == plain.failed and (failures > 0) == (missing > 0)
    assert numbers(written) == pytest.approx(numbers(plain), rel=1e-12)
    assert written.exploratory == ()


def test_folders_look_like_those_of_compare(tmp_path: Path) -> None:
    design = Design(acts=2, seeds=2)
    simulated_runs.through_folders(design, np.random.default_rng(0), folder=tmp_path / "set")
    assert {path.name for path in (tmp_path / "set").iterdir()} == {
        "plan.json", "relu-s0", "relu-s1", "leaky_relu-s0", "leaky_relu-s1",
    }  # fmt: skip
    plan = read_plan(tmp_path / "set")
    assert plan is not None and {run.name for run in plan.runs} == {
        path.name for path in (tmp_path / "set").iterdir() if path.is_dir()
    }
    run = read_run(tmp_path / "set/leaky_relu-s1")
    assert (run.act, run.seed, run.status, len(run.rows)) == ("leaky_relu", 1, "finished", 3)


@pytest.mark.parametrize(
    "design",
    [
        Design(acts=2, seeds=3),
        Design(acts=4, seeds=5),
        Design(acts=4, seeds=5, noise="t3"),
        Design(acts=4, seeds=5, missing=0.1),
        Design(acts=3, seeds=3, noise="fall"),
        Design(acts=5, seeds=5, noise="candidate x4"),
    ],
    ids=str,
)
def test_family_wise_error_rate(design: Design) -> None:
    assert error(design) <= MAX_ERROR


def test_a_method_without_multiplicity_correction_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Student's value for each of three candidates, in place of Dunnett's for all."""
    monkeypatch.setattr(statistics, "critical_value", lambda _, degrees, *, alpha: stats.t.isf(alpha / 2, degrees))
    monkeypatch.setattr(statistics, "_conservative_sd", lambda squares, degrees, _: math.sqrt(squares / degrees))
    assert error(Design(acts=4, seeds=5)) > MAX_ERROR


def test_a_method_with_normal_quantiles_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "critical_value", lambda _, degrees, *, alpha: stats.norm.isf(alpha / 2))
    assert error(Design(acts=2, seeds=3)) > MAX_ERROR


def test_coverage_power_and_the_detectable_difference() -> None:
    design = Design(acts=3, seeds=5, effect=2.0)
    tally = simulate.simulate(design, sets=500, seed=3)
    assert 93 <= tally.percent(tally.covered) <= 98.5  # three standard errors above 95.7
    assert tally.power == pytest.approx(60, abs=5)
    assert tally.detectable() == pytest.approx(
        minimal_detectable(sigma=1, candidates=2, seeds=5, conservative=True), rel=0.1
    )
    assert power(2, sigma=1, candidates=2, seeds=5) * 100 > 66  # without the guard


def test_the_detectable_difference_is_detected() -> None:
    """What is read off the intervals of one set of comparisons is found in 80 % of others that differ by it."""
    base = simulate.simulate(Design(acts=3, seeds=5), sets=400, seed=4)
    tally = simulate.simulate(Design(acts=3, seeds=5, effect=base.detectable()), sets=400, seed=5)
    assert tally.power == pytest.approx(80, abs=5)


@pytest.mark.parametrize("noise", simulated_runs.NOISES)
def test_variance_of_the_residuals(noise: str) -> None:
    generator = np.random.default_rng(7)
    table = simulated_runs.residuals(Design(acts=100, seeds=1000, noise=noise), generator)
    others = {"fall": 1 + 100 * 0.03 * 0.97}.get(noise, 1.0)
    assert float(table[1:-1].var()) == pytest.approx(SIGMA**2 * others, rel=0.15 if noise == "t3" else 0.03)
    last = {"candidate x2": 4, "candidate x4": 16, "candidate x10": 100}.get(noise, others)
    assert float(table[-1].var()) == pytest.approx(SIGMA**2 * last, rel=0.35)
    assert float(table[0].var()) == pytest.approx(SIGMA**2 * (3 if noise == "baseline" else others), rel=0.35)


def test_sets_without_a_baseline_do_not_count() -> None:
    tally = Tally(Design(acts=2, seeds=2, missing=1.0))
    tally.add(simulated_runs.in_memory(tally.design, np.random.default_rng(0)))
    assert (tally.sets, tally.without, tally.any_significant, tally.covered) == (1, 1, 0, 0)


def test_the_command_prints_its_tables(capsys: pytest.CaptureFixture[str]) -> None:
    code = simulate.main(["--sets", "30", "--acts", "3", "--seeds", "3", "--table", "error", "detectable"])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| 3 | 3 ")]
    assert len(rows) == 10 and all(len(row) in (11, 7) for row in rows)
    assert code == any(row[-1] == "NO |" for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--acts", "3"], "must be given together"),
        (["--acts", "1", "--seeds", "5"], "expected 2 to 8"),
        (["--acts", "3", "--seeds", "1"], "expected 2 to 8, and 2 or more"),
        (["--sets", "0"], "expected 1 or more"),
        (["--sets", "many"], "invalid int value"),
    ],
)
def test_invalid_flags(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        simulate.main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and message in error and error.count("\n") == 1


def test_the_command_reports_the_same_verdicts(
    tmp_path: Path, warm_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", warm_python)
    tally = simulate.simulate(Design(acts=2, seeds=2), sets=1, seed=0, folder=tmp_path, through=1)
    assert tally.sets == 1
    outcome = simulated_runs.through_folders(Design(acts=2, seeds=2), np.random.default_rng(0), folder=tmp_path / "set")
    other = replace(outcome, verdicts={"leaky_relu": Verdict(kind="higher", text="")})
    with pytest.raises(RuntimeError, match="verdicts"):
        simulated_runs.check_command(tmp_path / "set", other)
