"""Which runs carry the verdict, which times are evidence, and what is counted: runs made by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from comparison.analysis import Analysis, Metric, analyse, curve, void_reason
from comparison.plan import Plan, make_plan
from comparison.runs import Run

ACTS = ("relu", "mish", "silu")
GAIN = {"relu": 0.0, "mish": 0.02, "silu": 0.001}
NOISE = (0.001, -0.002, 0.0005, 0.0015, -0.001, 0.0, 0.0012)
SLOW = {"relu": 1.0, "mish": 1.25, "silu": 1.1}


def made(act: str, seed: int, **change: Any) -> Run:
    """A run of four epochs whose mAP grows to 0.40 + 0.01 seed + the activation's gain + a bit of noise."""
    last = 0.40 + 0.01 * seed + GAIN[act] + NOISE[(seed + 3 * ACTS.index(act)) % len(NOISE)]
    rows = tuple(
        {
            "epoch": epoch,
            "metrics/mAP50-95": last * share,
            "metrics/mAP50": 1.4 * last * share,
            "metrics/AP_small": None,
            "time_train_s": 10.0 * SLOW[act] * (1 + 0.001 * seed),
            "time_data_s": 0.2,
            "images_per_s": 80.0 / SLOW[act],
            "peak_memory_mib": 400.0 + epoch,
            "other_cores": 0.01,
        }
        for epoch, share in enumerate((0.5, 0.8, 1.05, 1.0), 1)
    )
    record = {"latency": {"ms_per_image": 4.0}}
    run = Run(folder=Path(f"{act}-s{seed}"), act=act, seed=seed, status="finished", record=record, rows=rows)
    return replace(run, **change)


def runs_of(seeds: int, acts: tuple[str, ...] = ACTS) -> list[Run]:
    return [made(act, seed) for seed in range(seeds) for act in acts]


def plan_of(seeds: int, **fields: Any) -> Plan:
    chosen = {"acts": ACTS, "baseline": "relu", "seeds": tuple(range(seeds)), "cfg": "yolo.yaml"}
    chosen |= {"specs": {act: {} for act in ACTS}, "epochs": dict.fromkeys(ACTS, 4)}
    return make_plan(**chosen | fields)


def cells_of(metric: Metric, act: str) -> dict[int, float]:
    return dict(next(cells.values for cells in metric.cells if cells.act == act))


def seeds_of(analysis: Analysis) -> tuple[int, ...]:
    assert analysis.primary.comparison is not None
    return analysis.primary.comparison.seeds


def test_the_planned_runs_carry_the_verdict() -> None:
    found = analyse(runs_of(5), plan_of(5))
    assert (found.baseline, found.acts, found.seeds, found.alpha) == ("relu", ACTS, tuple(range(5)), 0.05)
    assert found.margin == pytest.approx(0.5) and found.exploratory == () and found.larger is None
    assert found.verdicts["mish"].startswith("mish is higher than relu by ")
    mish = found.primary.comparison.differences[0]
    points = {act: [100 * made(act, seed).rows[-1]["metrics/mAP50-95"] for seed in range(5)] for act in ACTS}
    assert mish.estimate == pytest.approx(sum(a - b for a, b in zip(points["mish"], points["relu"], strict=True)) / 5)
    cells = found.primary.cells[1]
    assert (cells.act, cells.mean, cells.sd) == (
        "mish",
        pytest.approx(sum(points["mish"]) / 5),
        pytest.approx(stats.tstd(points["mish"])),
    )
    assert found.headline.startswith("largest observed mAP50-95, last epoch: mish, +")
    assert "best" not in found.headline


def test_other_figures_are_described() -> None:
    found = analyse(runs_of(3), plan_of(3))
    by_key = {metric.key: metric for metric in (*found.secondary, *found.costs)}
    assert cells_of(by_key["best"], "relu")[0] == pytest.approx(105 * made("relu", 0).rows[-1]["metrics/mAP50-95"])
    assert "chosen on the set" in by_key["best"].note
    assert cells_of(by_key["metrics/mAP50"], "silu")[1] == pytest.approx(
        140 * made("silu", 1).rows[-1]["metrics/mAP50-95"]
    )
    assert by_key["metrics/AP_small"].comparison is None and by_key["metrics/AP_small"].note == "no run has this figure"
    assert by_key["metrics/AP_small"].cells[0].mean is None
    assert cells_of(by_key["memory"], "mish") == {0: 404.0, 1: 404.0, 2: 404.0} and by_key["memory"].comparison is None
    assert cells_of(by_key["images_per_s"], "mish")[0] == pytest.approx(64.0)
    assert cells_of(by_key["latency"], "mish")[2] == 4.0


def test_time_is_a_ratio() -> None:
    runs = [
        replace(
            run,
            rows=tuple(row | {"time_train_s": row["time_train_s"] * (1 + 0.004 * ((7 * i) % 5))} for row in run.rows),
        )
        for i, run in enumerate(runs_of(5))
    ]
    found = analyse(runs, plan_of(5))
    mish = found.time.comparison.differences[0]
    assert mish.estimate == pytest.approx(1.25, rel=0.02) and mish.interval[0] > 1
    assert found.time_verdicts["mish"].startswith("mish takes 1.2")
    assert cells_of(found.time, "relu")[0] == pytest.approx(sum(row["time_train_s"] for row in runs[0].rows))


def test_equal_wall_clock_is_read_at_the_earliest_finish_of_a_seed() -> None:
    found = analyse(runs_of(3), plan_of(3))
    assert found.until_seconds == pytest.approx({seed: 40 * (1 + 0.001 * seed) for seed in range(3)})
    for seed in range(3):  # mish's epochs end at 12.5, 25, 37.5, 50: at 40 it is a fifth of the way from 1.05 to 1
        last = 100 * made("mish", seed).rows[-1]["metrics/mAP50-95"]
        assert cells_of(found.until, "mish")[seed] == pytest.approx(last * (1.05 - 0.2 * 0.05))
        assert cells_of(found.until, "relu")[seed] == pytest.approx(cells_of(found.primary, "relu")[seed])
    assert found.until.note == "unfinished schedule"


def test_an_epoch_of_warm_up_alone_does_not_break_the_curve() -> None:
    run = made("relu", 0)
    rows = tuple(row | {"time_train_s": 0.0} if row["epoch"] < 3 else row for row in run.rows)
    times, points = curve(replace(run, rows=rows))
    assert times == [0.0, 10.0, 20.0] and points[0] == pytest.approx(100 * rows[1]["metrics/mAP50-95"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"time_data_s": 0.51}, "waited for data 5 % of its step time"),
        ({"time_data_s": 0.49}, ""),
        ({"other_cores": 0.11}, "other processes used 0.11 of a core"),
        ({"other_cores": 0.10}, ""),
        ({"other_cores": None}, ""),
    ],
)
def test_times_that_are_no_evidence(change: dict[str, float | None], reason: str) -> None:
    run = made("relu", 0)
    assert void_reason(replace(run, rows=tuple({**row, **change} for row in run.rows))) == reason


def test_a_voided_time_is_left_out_and_named_and_its_map_stays() -> None:
    runs = runs_of(3)
    runs[1] = replace(runs[1], rows=tuple(row | {"other_cores": 0.5} for row in runs[1].rows))
    found = analyse(runs, plan_of(3))
    assert [(each.act, each.seed, each.folder) for each in found.voided] == [("mish", 0, "mish-s0")]
    assert set(cells_of(found.time, "mish")) == {1, 2} == set(cells_of(found.until, "mish"))
    assert set(cells_of(found.primary, "mish")) == {0, 1, 2}
    every = [replace(run, rows=tuple(row | {"other_cores": 0.5} for row in run.rows)) for run in runs]
    found = analyse(every, plan_of(3))
    assert found.time.comparison is None and "no verdict" in found.time_verdicts["mish"]
    assert found.verdicts["mish"].startswith("mish is higher")


def test_a_failure_is_an_outcome() -> None:
    runs = runs_of(4)
    runs[1] = replace(runs[1], status="failed", rows=(), reason="loss is not finite")
    found = analyse(runs, plan_of(4))
    assert found.exploratory == () and found.failed == {"relu": (0, 4), "mish": (1, 4), "silu": (0, 4)}
    assert found.verdicts["mish"].startswith("1 of 4 runs of mish failed; among completed runs")
    assert set(cells_of(found.primary, "mish")) == {1, 2, 3}


def test_nothing_but_failures_of_an_activation() -> None:
    def without(act: str) -> Analysis:
        runs = [replace(run, status="failed", rows=()) if run.act == act else run for run in runs_of(3)]
        return analyse(runs, plan_of(3))

    found = without("mish")
    assert found.verdicts["mish"].startswith("3 of 3 runs of mish failed; ") and "no verdict" in found.verdicts["mish"]
    assert "no verdict" not in found.verdicts["silu"] and found.primary.comparison.missing == ("mish",)
    found = without("relu")
    assert found.primary.comparison is None and "baseline relu" in found.primary.note
    assert all(words.startswith("3 of 3 runs of relu failed") for words in found.verdicts.values())
    assert found.headline.startswith("no comparison")


def test_without_a_plan_all_is_exploratory() -> None:
    found = analyse(runs_of(5), None)
    assert found.baseline == "relu" and found.exploratory == ("no plan was written before the runs",)
    assert all(words.startswith("exploratory, no verdict") for words in found.verdicts.values())
    assert analyse(runs_of(5), None, baseline="silu").acts == ("silu", "relu", "mish")


def test_seeds_beyond_the_plan_leave_the_planned_verdict() -> None:
    planned = analyse(runs_of(3), plan_of(3))
    found = analyse(runs_of(5), plan_of(3))
    assert found.verdicts == planned.verdicts and seeds_of(found) == (0, 1, 2) and found.exploratory == ()
    assert found.larger is not None and seeds_of(found.larger) == (0, 1, 2, 3, 4)
    assert found.larger.exploratory == ("runs beyond the 3 seeds of the plan's look: relu 3, 4; mish 3, 4; silu 3, 4",)
    assert all("exploratory" in words for words in found.larger.verdicts.values())


def test_an_activation_beyond_the_plan() -> None:
    found = analyse(runs_of(3), plan_of(3, acts=("relu", "mish")))
    assert found.acts == ("relu", "mish") and list(found.verdicts) == ["mish"]
    assert found.larger is not None and found.larger.acts == ACTS
    assert "2 candidates" not in found.verdicts["mish"] and "2 candidates" in found.larger.verdicts["mish"]


@pytest.mark.parametrize("left_out", [0, 2])
def test_dropped_seeds_are_no_smaller_plan(left_out: int) -> None:
    found = analyse([run for run in runs_of(3) if run.seed != left_out], plan_of(3))
    assert f"{left_out} of the 3 planned seeds are done" in found.exploratory[0]
    assert found.verdicts["mish"].startswith("exploratory")


@pytest.mark.parametrize(("done", "look", "alpha"), [(2, None, 0.05), (3, 3, 0.01), (4, 3, 0.01), (5, 5, 0.04)])
def test_declared_looks(done: int, look: int | None, alpha: float) -> None:
    found = analyse(runs_of(done), plan_of(5, looks=(3, 5)))
    assert bool(found.exploratory) == (look is None) and found.alpha == pytest.approx(alpha)
    if look:
        assert seeds_of(found) == tuple(range(look))
        assert f"({100 * (1 - alpha):g} % simultaneous" in found.verdicts["mish"]
        assert (found.larger is not None) == (done > look)


def test_unfinished_runs_are_named_and_not_counted() -> None:
    runs = [*runs_of(3), made("mish", 3, status="unfinished")]
    found = analyse(runs, plan_of(4, looks=(3, 4)))
    assert found.unfinished == ("mish, seed 3",) and found.larger is None and seeds_of(found) == (0, 1, 2)
    runs[4] = replace(runs[4], status="unfinished")
    found = analyse(runs[:9], plan_of(3))
    assert found.unfinished == ("mish, seed 1",) and "1 of the 3 planned seeds" in found.exploratory[0]
    assert set(cells_of(found.primary, "mish")) == {0, 2}


def test_another_baseline_than_the_plans_is_exploratory() -> None:
    found = analyse(runs_of(3), plan_of(3), baseline="silu")
    assert found.exploratory == ("the baseline is silu, the plan's is relu",)


def test_one_seed_has_no_verdict() -> None:
    found = analyse(runs_of(1), plan_of(1))
    assert found.primary.comparison.differences[0].interval is None
    assert "one seed, no verdict" in found.verdicts["mish"] and "no interval" in found.time_verdicts["mish"]


def test_what_cannot_be_analysed_is_refused() -> None:
    with pytest.raises(ValueError, match="both mish with seed 0"):
        analyse([*runs_of(2), made("mish", 0, folder=Path("again"))], None)
    with pytest.raises(ValueError, match="found runs of relu; expected the baseline relu and others"):
        analyse(runs_of(3, ("relu",)), None)
    with pytest.raises(ValueError, match="found runs of mish, silu; expected the baseline relu"):
        analyse(runs_of(3, ("mish", "silu")), plan_of(3))
    with pytest.raises(ValueError, match="found runs of nothing"):
        analyse([], None)
