"""Which runs carry the verdict, which are excluded from timing, and how failures count."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from comparison.analysis import analyse as analyse_all
from comparison.plan import Plan, make_plan
from comparison.run_metrics import exclusion_reason, learning_curve
from comparison.runs import Run
from comparison.summary import Metric, Outcome

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
    chosen |= {"arms": {act: {} for act in ACTS}, "epochs": dict.fromkeys(ACTS, 4)}
    return make_plan(**chosen | fields)


def analyse(runs: list[Run], plan: Plan | None, *, baseline: str | None = None) -> Outcome:
    """The planned outcome."""
    return analyse_all(runs, plan, baseline=baseline)[0]


def values_of(metric: Metric, act: str) -> dict[int, float]:
    return dict(metric.arms[act].values)


def seeds_of(outcome: Outcome) -> tuple[int, ...]:
    assert outcome.primary.comparison is not None
    return outcome.primary.comparison.seeds


def test_planned_runs_carry_the_verdict() -> None:
    found = analyse(runs_of(5), plan_of(5))
    assert (found.baseline, found.acts, found.seeds, found.alpha) == ("relu", ACTS, tuple(range(5)), 0.05)
    assert found.margin == pytest.approx(0.5) and found.exploratory == ()
    assert found.verdicts["mish"].kind == "higher"
    mish = found.primary.comparison.differences["mish"]
    points = {act: [100 * made(act, seed).rows[-1]["metrics/mAP50-95"] for seed in range(5)] for act in ACTS}
    assert mish.estimate == pytest.approx(sum(a - b for a, b in zip(points["mish"], points["relu"], strict=True)) / 5)
    values = found.primary.arms["mish"]
    assert (values.mean, values.sd) == pytest.approx((sum(points["mish"]) / 5, stats.tstd(points["mish"])))
    assert "mish" in found.headline and "best" not in found.headline


def test_other_metrics_are_descriptive() -> None:
    found = analyse(runs_of(3), plan_of(3))
    by_key = found.metrics
    assert values_of(by_key["best"], "relu")[0] == pytest.approx(105 * made("relu", 0).rows[-1]["metrics/mAP50-95"])
    assert "val set" in by_key["best"].note
    assert values_of(by_key["metrics/mAP50"], "silu")[1] == pytest.approx(
        140 * made("silu", 1).rows[-1]["metrics/mAP50-95"]
    )
    assert by_key["metrics/AP_small"].comparison is None and by_key["metrics/AP_small"].note
    assert not by_key["metrics/AP_small"].measured
    assert values_of(by_key["memory"], "mish") == {0: 404.0, 1: 404.0, 2: 404.0} and by_key["memory"].comparison is None
    assert values_of(by_key["images_per_s"], "mish")[0] == pytest.approx(64.0)
    assert values_of(by_key["latency"], "mish")[2] == 4.0


def test_training_time_is_compared_as_a_ratio() -> None:
    runs = [
        replace(
            run,
            rows=tuple(row | {"time_train_s": row["time_train_s"] * (1 + 0.004 * ((7 * i) % 5))} for row in run.rows),
        )
        for i, run in enumerate(runs_of(5))
    ]
    found = analyse(runs, plan_of(5))
    mish = found.time.comparison.differences["mish"]
    assert mish.estimate == pytest.approx(1.25, rel=0.02) and mish.interval[0] > 1
    assert found.time_verdicts["mish"].kind == "higher" and found.time_verdicts["mish"].text.startswith("+2")
    assert values_of(found.time, "relu")[0] == pytest.approx(sum(row["time_train_s"] for row in runs[0].rows))


def test_equal_time_is_read_when_the_fastest_run_of_a_seed_ends() -> None:
    found = analyse(runs_of(3), plan_of(3))
    assert found.until_seconds == pytest.approx({seed: 40 * (1 + 0.001 * seed) for seed in range(3)})
    for seed in range(3):  # mish's epochs end at 12.5, 25, 37.5, 50: at 40 it is a fifth of the way from 1.05 to 1
        last = 100 * made("mish", seed).rows[-1]["metrics/mAP50-95"]
        assert values_of(found.metrics["until"], "mish")[seed] == pytest.approx(last * (1.05 - 0.2 * 0.05))
        assert values_of(found.metrics["until"], "relu")[seed] == pytest.approx(values_of(found.primary, "relu")[seed])
    assert found.metrics["until"].note == "unfinished schedule"


def test_epochs_of_warm_up_only_do_not_break_the_curve() -> None:
    runs = runs_of(3)
    for k, run in enumerate(runs):
        runs[k] = replace(run, rows=tuple(r | {"time_train_s": 0.0} if r["epoch"] < 3 else r for r in run.rows))
    assert learning_curve(runs[0]).seconds == (0.0, 0.0, 10.0, 20.0)
    found = analyse(runs, plan_of(3))
    assert values_of(found.metrics["until"], "relu") == pytest.approx(values_of(found.primary, "relu"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"time_data_s": 0.51}, "waited for data"),
        ({"time_data_s": 0.49}, ""),
        ({"other_cores": 0.11}, "other processes"),
        ({"other_cores": 0.10}, ""),
        ({"other_cores": None}, "the load by other processes was not recorded"),
        ({"time_train_s": 0.0, "time_data_s": 0.0}, "no training step was timed"),
    ],
)
def test_runs_excluded_from_timing(change: dict[str, float | None], reason: str) -> None:
    run = made("relu", 0)
    found = exclusion_reason(replace(run, rows=tuple({**row, **change} for row in run.rows)))
    assert found.startswith(reason) and bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("loads", "seconds", "excluded"),
    [
        ((0.0, 0.0, 0.75, 0.0), (10, 10, 10, 10), True),  # a single epoch, with a mean of 0.19
        ((0.0,) * 7 + (0.75,), (10,) * 8, True),  # a mean of 0.094, three quarters of a core in one epoch
        ((0.0, 0.0, 0.0, 0.45), (10, 10, 10, 10), True),  # a mean of 0.11
        ((0.0, 0.0, 0.0, 0.45), (10, 10, 10, 1), False),  # 0.015 by time
        ((0.12, 0.12, 0.0, 0.0), (30, 30, 1, 1), True),  # 0.06 by epochs
        ((0.0, None, 0.0, 0.0), (10, 10, 10, 10), True),
    ],
)
def test_contention_is_weighted_by_time(
    loads: tuple[float | None, ...], seconds: tuple[float, ...], excluded: bool
) -> None:
    rows = tuple(
        {"epoch": epoch, "metrics/mAP50-95": 0.4, "time_train_s": float(time), "other_cores": load}
        for epoch, (load, time) in enumerate(zip(loads, seconds, strict=True), 1)
    )
    assert bool(exclusion_reason(made("relu", 0, rows=rows))) == excluded


def test_a_zero_time_is_excluded_aloud() -> None:
    runs = runs_of(3)
    runs[1] = replace(runs[1], rows=tuple(row | {"time_train_s": 0.0, "time_data_s": 0.0} for row in runs[1].rows))
    found = analyse(runs, plan_of(3))
    assert [(each.act, each.seed) for each in found.excluded] == [("mish", 0)] and "0 s" in found.excluded[0].reason


def test_runs_excluded_from_timing_keep_their_map() -> None:
    runs = runs_of(3)
    runs[1] = replace(runs[1], rows=tuple(row | {"other_cores": 0.5} for row in runs[1].rows))
    found = analyse(runs, plan_of(3))
    assert [(each.act, each.seed, each.folder) for each in found.excluded] == [("mish", 0, "mish-s0")]
    assert set(values_of(found.time, "mish")) == {1, 2} == set(values_of(found.metrics["until"], "mish"))
    assert set(values_of(found.primary, "mish")) == {0, 1, 2}
    assert set(values_of(found.metrics["latency"], "mish")) == {1, 2}
    every = [replace(run, rows=tuple(row | {"other_cores": 0.5} for row in run.rows)) for run in runs]
    found = analyse(every, plan_of(3))
    assert found.time.comparison is None and found.time_verdicts["mish"].kind == "none"
    assert found.verdicts["mish"].kind == "higher"


def test_a_failure_is_an_outcome() -> None:
    runs = runs_of(4)
    runs[1] = replace(runs[1], status="failed", rows=(), reason="loss is not finite")
    found = analyse(runs, plan_of(4))
    assert found.exploratory == () and found.failed == {"relu": (0, 4, 0), "mish": (1, 4, 0), "silu": (0, 4, 0)}
    assert found.verdicts["mish"].text.startswith("1 of 4 mish runs failed; completed runs only")
    assert set(values_of(found.primary, "mish")) == {1, 2, 3}


def test_all_runs_of_an_activation_failed() -> None:
    def without(act: str) -> Outcome:
        runs = [replace(run, status="failed", rows=()) if run.act == act else run for run in runs_of(3)]
        return analyse(runs, plan_of(3))

    found = without("mish")
    assert found.verdicts["mish"].kind == "none" and "3 of 3 mish runs failed" in found.verdicts["mish"].text
    assert found.verdicts["silu"].kind != "none" and found.primary.comparison.missing == ("mish",)
    found = without("relu")
    assert found.primary.comparison is None and "baseline relu" in found.primary.note
    assert all("3 of 3 relu runs failed" in each.text for each in found.verdicts.values())
    assert all(each.kind == "none" for each in found.verdicts.values())


def test_without_a_plan_everything_is_exploratory() -> None:
    found = analyse(runs_of(5), None)
    assert found.baseline == "relu" and "no plan" in found.exploratory[0]
    assert {each.kind for each in found.verdicts.values()} == {"exploratory"}
    assert analyse(runs_of(5), None, baseline="silu").acts == ("silu", "relu", "mish")


def test_additional_seeds_do_not_change_the_planned_verdict() -> None:
    planned = analyse(runs_of(3), plan_of(3))
    found, larger = analyse_all(runs_of(5), plan_of(3))
    assert found.verdicts == planned.verdicts and seeds_of(found) == (0, 1, 2) and found.exploratory == ()
    assert larger is not None and seeds_of(larger) == (0, 1, 2, 3, 4)
    assert "relu 3, 4; mish 3, 4; silu 3, 4" in larger.exploratory[0]
    assert {each.kind for each in larger.verdicts.values()} == {"exploratory"}


def test_additional_activations_do_not_change_the_planned_verdict() -> None:
    found, larger = analyse_all(runs_of(3), plan_of(3, acts=("relu", "mish")))
    assert found.acts == ("relu", "mish") and list(found.verdicts) == ["mish"]
    assert larger is not None and larger.acts == ACTS
    assert found.primary.comparison.candidates == 1 and larger.primary.comparison.candidates == 2


@pytest.mark.parametrize("left_out", [0, 2])
def test_incomplete_seeds_are_exploratory(left_out: int) -> None:
    found = analyse([run for run in runs_of(3) if run.seed != left_out], plan_of(3))
    assert f"{left_out} of the 3 planned seeds" in found.exploratory[0]
    assert found.verdicts["mish"].kind == "exploratory"


@pytest.mark.parametrize(("done", "analysis", "alpha"), [(2, None, 0.05), (3, 3, 0.01), (4, 3, 0.01), (5, 5, 0.04)])
def test_interim_analyses(done: int, analysis: int | None, alpha: float) -> None:
    found, larger = analyse_all(runs_of(done), plan_of(5, interim=(3, 5)))
    assert bool(found.exploratory) == (analysis is None) and found.alpha == pytest.approx(alpha)
    if analysis:
        assert seeds_of(found) == tuple(range(analysis))
        assert f"{100 * (1 - alpha):g} % CI" in found.verdicts["mish"].text
        assert (larger is not None) == (done > analysis)


def test_unfinished_runs_are_listed_and_not_included() -> None:
    runs = [*runs_of(3), made("mish", 3, status="unfinished")]
    found, larger = analyse_all(runs, plan_of(4, interim=(3, 4)))
    assert found.unfinished == ("mish, seed 3",) and larger is None and seeds_of(found) == (0, 1, 2)
    runs[4] = replace(runs[4], status="unfinished")
    found = analyse(runs[:9], plan_of(3))
    assert found.unfinished == ("mish, seed 1",) and "1 of the 3 planned seeds" in found.exploratory[0]
    assert set(values_of(found.primary, "mish")) == {0, 2}


def test_a_baseline_other_than_the_planned_one_is_exploratory() -> None:
    found = analyse(runs_of(3), plan_of(3), baseline="silu")
    assert "silu" in found.exploratory[0] and "relu" in found.exploratory[0]


def test_one_seed_has_no_verdict() -> None:
    found = analyse(runs_of(1), plan_of(1))
    assert found.primary.comparison.differences["mish"].interval is None
    assert found.verdicts["mish"].kind == found.time_verdicts["mish"].kind == "none"


def test_runs_that_cannot_be_analysed_are_rejected() -> None:
    with pytest.raises(ValueError, match="both mish with seed 0"):
        analyse([*runs_of(2), made("mish", 0, folder=Path("again"))], None)
    with pytest.raises(ValueError, match="found runs of relu; expected the baseline relu and others"):
        analyse(runs_of(3, ("relu",)), None)
    with pytest.raises(ValueError, match="found runs of mish, silu; expected the baseline relu"):
        analyse(runs_of(3, ("mish", "silu")), plan_of(3))
    with pytest.raises(ValueError, match="found runs of nothing"):
        analyse([], None)


@pytest.mark.parametrize(
    ("starts", "steps", "counted"), [(1, 40, True), (2, 40, False), (2, 400, True), (5, 400, False)]
)
def test_runs_that_were_resumed_often_are_excluded_from_timing(starts: int, steps: int, counted: bool) -> None:
    """The first steps of every start are warm-up and are not timed, so each interruption makes a run look faster."""
    rows = ({"epoch": 1.0, "step": float(steps), "time_train_s": 10.0, "time_data_s": 0.0, "other_cores": 0.0},)
    run = Run(
        folder=Path("relu-s0"), act="relu", seed=0, status="finished", record={"starts": [{}] * starts}, rows=rows
    )
    reason = exclusion_reason(run)
    assert (reason == "") == counted
    assert counted or f"resumed {starts - 1} time" in reason
