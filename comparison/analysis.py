"""Analyse runs: metrics by activation and seed, runs excluded from timing, failures, verdicts.

The report and the simulations share this step. Which runs carry the planned verdict is decided here; the intervals come
from ``comparison.statistics``, the sentences from ``comparison.wording``.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from comparison import checks, wording
from comparison.all_pairs import PairDifference, all_pairs
from comparison.plan import Plan
from comparison.runs import Run, by_key
from comparison.statistics import compare, compare_ratio, interim_alpha, value_at
from comparison.summary import (
    POINTS,
    PRIMARY,
    Excluded,
    Failures,
    LearningCurve,
    Metric,
    Outcome,
    RunKey,
    Values,
    Verdict,
)
from core.limits import MAX_DATA_WAIT_FRACTION
from core.metrics import EVALUATION

MARGIN = 0.5  # mAP points, if no plan declares one
TIME_COLUMNS = ("time_train_s", "time_warmup_s", "time_data_s", "time_val_s", "time_save_s")


def analyse(
    runs: Sequence[Run], plan: Plan | None, *, baseline: str | None = None, doubts: Sequence[str] = ()
) -> tuple[Outcome, Outcome | None]:
    """The planned outcome and, if there are more runs than planned, the exploratory outcome of all of them.

    `doubts` are reasons why the runs do not carry the planned verdict; with any, everything is exploratory.

    Without a plan, the first activation is the baseline and everything is exploratory. With one, the verdict is that of
    the last planned analysis whose seeds are complete. ValueError if two runs have the same activation and seed, if
    there is nothing to compare, or if the baseline has no run.
    """
    if plan is None or plan.split == "val":
        runs = [run.with_scores({}) for run in runs]
    keyed = by_key([concluded(run) for run in runs])
    acts = list(dict.fromkeys(act for act, _ in keyed))
    margin = 100 * plan.margin if plan else MARGIN
    baseline = baseline or (plan.baseline if plan else acts[0] if acts else "")
    if baseline not in acts or len(acts) < 2:
        raise ValueError(f"found runs of {', '.join(acts) or 'nothing'}; expected the baseline {baseline} and others")
    if plan is None:
        return _outcome(keyed, baseline, acts, 0.05, margin, wording.reasons.no_plan(), *doubts), None
    if baseline != plan.baseline:
        reason = wording.reasons.other_baseline(baseline, plan.baseline)
        return _outcome(keyed, baseline, acts, plan.alpha, margin, reason, *doubts), None
    interim = plan.interim or (len(plan.seeds),)
    complete = _complete_seeds(keyed, plan)
    reached = [seeds for seeds in interim if seeds <= complete]
    if not reached:
        reason = wording.reasons.seeds_missing(complete, len(plan.seeds))
        return _outcome(keyed, baseline, acts, plan.alpha, margin, reason, *doubts), None
    planned = {(act, seed): keyed[act, seed] for seed in plan.seeds[: reached[-1]] for act in plan.acts}
    alpha = interim_alpha(interim, reached[-1], alpha=plan.alpha)
    outcome = replace(
        _outcome(planned, baseline, list(plan.acts), alpha, margin, *doubts), unfinished=_unfinished(keyed)
    )
    if plan.all_pairs:
        outcome = replace(outcome, pairs=_pairs(outcome.primary, baseline, alpha))
    beyond = [key for key, run in keyed.items() if key not in planned and run.status != "unfinished"]
    if not beyond:
        return outcome, None
    reason = wording.reasons.beyond_plan(reached[-1], beyond)
    return outcome, _outcome(keyed, baseline, [*plan.acts, *acts], plan.alpha, margin, reason)


def _pairs(metric: Metric, baseline: str, alpha: float) -> tuple[PairDifference, ...]:
    """The candidates against each other."""
    values = {act: each.values for act, each in metric.arms.items() if each.values}
    return all_pairs(values, baseline=baseline, alpha=alpha)


def concluded(run: Run) -> Run:
    """The run, as failed if it finished without the primary metric: a loss that is not finite leaves none."""
    if run.status == "finished" and run.last(PRIMARY) is None:
        return replace(run, status="failed", reason=wording.reasons.no_primary())
    return run


def _complete_seeds(keyed: Mapping[RunKey, Run], plan: Plan) -> int:
    """How many seeds of the plan, from the first on, have ended for all activations."""
    for number, seed in enumerate(plan.seeds):
        group = [keyed.get((act, seed)) for act in plan.acts]
        if any(run is None or run.status == "unfinished" for run in group):
            return number
    return len(plan.seeds)


def _unfinished(keyed: Mapping[RunKey, Run]) -> tuple[str, ...]:
    return tuple(f"{act}, seed {seed}" for (act, seed), run in keyed.items() if run.status == "unfinished")


def _outcome(
    keyed: Mapping[RunKey, Run], baseline: str, acts: Sequence[str], alpha: float, margin: float, *exploratory: str
) -> Outcome:
    """The outcome of exactly these runs."""
    acts = tuple(dict.fromkeys([baseline, *acts]))
    ended = [run for run in keyed.values() if run.status != "unfinished"]
    failed = {
        act: Failures(
            failed=sum(run.status == "failed" for run in ended if run.act == act),
            ended=sum(run.act == act for run in ended),
        )
        for act in acts
    }
    runs = [run for run in ended if run.status == "finished"]
    excluded = tuple(
        Excluded(act=run.act, seed=run.seed, folder=str(run.folder), reason=reason)
        for run in runs
        if (reason := exclusion_reason(run))
    )
    metrics, until_seconds = _metrics(runs, acts, alpha)
    curves = [learning_curve(run) for run in runs if run.act == baseline]
    insensitive = checks.insensitivity(curves, margin=margin)
    judge = partial(
        _verdicts,
        acts=acts,
        failed=failed,
        margin=margin,
        exploratory=bool(exploratory),
        insensitive=wording.reasons.insensitivity(insensitive, baseline, margin),
    )
    return Outcome(
        baseline=baseline,
        acts=acts,
        seeds=tuple(sorted({seed for _, seed in keyed})),
        alpha=alpha,
        margin=margin,
        metrics=metrics,
        until_seconds=until_seconds,
        failed=failed,
        failure_rates=checks.failure_rates(failed, baseline=baseline, alpha=alpha),
        insensitive=insensitive,
        remarks=_remarks(metrics[PRIMARY], margin=margin, judge=judge),
        unfinished=_unfinished(keyed),
        excluded=excluded,
        exploratory=exploratory,
        verdicts=judge(metrics[PRIMARY]),
        time_verdicts=judge(metrics["time"], margin=None),
        headline=wording.verdicts.headline(metrics[PRIMARY], baseline),
    )


def _verdicts(
    metric: Metric,
    *,
    acts: Sequence[str],
    failed: Mapping[str, Failures],
    margin: float | None,
    exploratory: bool,
    insensitive: str,
) -> dict[str, Verdict]:
    """The verdict on each candidate; without a margin, on ratios."""
    verdicts = {}
    for act in acts[1:]:
        difference = metric.difference(act)
        if difference is None or metric.comparison is None:
            verdicts[act] = wording.verdicts.missing_verdict(act, metric, acts[0], failed)
        elif margin is None:
            verdicts[act] = wording.verdicts.time_verdict(difference, metric.comparison, exploratory=exploratory)
        else:
            verdicts[act] = wording.verdicts.map_verdict(
                difference,
                metric.comparison,
                margin=margin,
                failed=failed,
                exploratory=exploratory,
                insensitive=insensitive,
            )
    return verdicts


def _remarks(metric: Metric, *, margin: float, judge: Callable[[Metric], dict[str, Verdict]]) -> tuple[str, ...]:
    """How much each activation scatters, and what the verdicts would be without runs that collapsed."""
    values = {act: each.values for act, each in metric.arms.items()}
    scatter = wording.verdicts.scatter(
        {act: each.sd for act, each in metric.arms.items() if each.sd is not None}, metric.unit
    )
    low = checks.collapsed(values, margin=margin)
    if not low or metric.comparison is None:
        return scatter
    rest = {act: {seed: each for seed, each in own.items() if seed != low.get(act)} for act, own in values.items()}
    comparison = compare(rest, baseline=metric.comparison.baseline, alpha=metric.comparison.alpha)
    verdicts = judge(replace(metric, comparison=comparison))
    runs = {(act, seed): (values[act][seed], statistics.median(rest[act].values())) for act, seed in low.items()}
    return (*scatter, wording.verdicts.collapsed(runs, verdicts))


# --------------------------------------------------------------------------------------------------- metrics of a run


def last_points(column: str) -> Callable[[Run], float | None]:
    """A metric of the last epoch in points; None if COCO has nothing to average."""

    def value(run: Run) -> float | None:
        last = run.last(column)
        return None if last is None else 100 * last

    return value


def best_points(run: Run) -> float | None:
    """The largest mAP50-95 over the epochs, in points."""
    values = _recorded(run, PRIMARY)
    return 100 * max(values) if values else None


def total(run: Run, column: str) -> float:
    """The sum of a column over the epochs."""
    return sum(row.get(column) or 0.0 for row in run.rows)


def training_seconds(run: Run) -> float | None:
    """Device time of all steps but those of warm-up; None if nothing was timed."""
    return total(run, "time_train_s") or None


def epoch_seconds(run: Run) -> float:
    """Mean training time per epoch."""
    return total(run, "time_train_s") / len(run.rows)


def wall_hours(run: Run) -> float:
    """Hours from the first to the last epoch."""
    return sum(total(run, column) for column in TIME_COLUMNS) / 3600


def device_hours(run: Run) -> float:
    """GPU-hours, or hours times threads on a CPU."""
    threads = int(run.record.get("machine", {}).get("threads") or 1) if _on_cpu(run) else 1
    return wall_hours(run) * threads


def _on_cpu(run: Run) -> bool:
    return "cpu" in str(run.record.get("device", "")).lower()


def _recorded(run: Run, column: str) -> list[float]:
    return [value for row in run.rows if (value := row.get(column)) is not None]


def _images_per_second(run: Run) -> float | None:
    values = _recorded(run, "images_per_s")
    return statistics.median(values) if values else None


def _peak_memory(run: Run) -> float | None:
    return max(_recorded(run, "peak_memory_mib"), default=None)


def _latency(run: Run) -> float | None:
    return (run.record.get("latency") or {}).get("ms_per_image")


def exclusion_reason(run: Run) -> str:
    """Why a run is excluded from timing; empty if it is not."""
    train, waited = total(run, "time_train_s"), total(run, "time_data_s")
    if train and waited > MAX_DATA_WAIT_FRACTION * train:
        return wording.reasons.waited_for_data(waited / train)
    if not train:
        return wording.reasons.not_timed()
    seconds = [sum(row.get(column) or 0.0 for column in TIME_COLUMNS) for row in run.rows]
    others = checks.contention([row.get("other_cores") for row in run.rows], seconds)
    if others is None:
        return wording.reasons.load_unknown()
    mean, most = others
    if mean > checks.MAX_OTHER_CORES or most > checks.MAX_OTHER_CORES_ONCE:
        return wording.reasons.busy_machine(mean, most)
    return ""


def learning_curve(run: Run) -> LearningCurve:
    """mAP50-95 of the validated epochs by epoch and by training time."""
    elapsed = itertools.accumulate(row.get("time_train_s") or 0.0 for row in run.rows)
    points = [
        (row["epoch"] or 0.0, seconds, 100 * value)
        for row, seconds in zip(run.rows, elapsed, strict=True)
        if (value := row.get(PRIMARY)) is not None
    ]
    epochs, seconds, values = zip(*points, strict=True) if points else ((), (), ())
    return LearningCurve(activation=run.act, seed=run.seed, epochs=epochs, seconds=seconds, points=values)


# ----------------------------------------------------------------------------------------------------- the metric table


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """How a metric is computed from a finished run, and whether it is compared with the baseline."""

    key: str
    title: str
    unit: str
    value: Callable[[Run], float | None]
    compared: Literal["difference", "ratio"] | None = "difference"
    timed: bool = False  # without the runs excluded from timing
    note: str = ""


SECONDARY = tuple(metric for metric in EVALUATION if metric.compared and metric.key != PRIMARY)
METRICS = (
    MetricSpec(key=PRIMARY, title="mAP50-95, last epoch", unit=POINTS, value=last_points(PRIMARY)),
    *(MetricSpec(key=each.key, title=each.title, unit=POINTS, value=last_points(each.key)) for each in SECONDARY),
    MetricSpec(
        key="best", title="mAP50-95, best epoch", unit=POINTS, value=best_points, note="selected on the val set"
    ),
    MetricSpec(key="time", title="training time", unit="s", value=training_seconds, compared="ratio", timed=True),
    MetricSpec(key="memory", title="peak memory", unit="MiB", value=_peak_memory, compared=None),
    MetricSpec(
        key="images_per_s", title="training, median epoch", unit="images/s", value=_images_per_second, compared=None
    ),
    MetricSpec(key="latency", title="inference latency", unit="ms/image", value=_latency, compared=None, timed=True),
    MetricSpec(
        key="epoch_seconds", title="training time per epoch", unit="s", value=epoch_seconds, compared=None, timed=True
    ),
    MetricSpec(key="wall_hours", title="hours from first to last epoch", unit="h", value=wall_hours, compared=None),
    MetricSpec(key="device_hours", title="GPU-hours", unit="h", value=device_hours, compared=None),
)


def _metrics(runs: Sequence[Run], acts: Sequence[str], alpha: float) -> tuple[dict[str, Metric], dict[int, float]]:
    """All metrics of finished runs, and the training time by seed at which the metric "until" is read."""
    timed = [run for run in runs if not exclusion_reason(run)]
    metrics = {}
    split = next((f" on {run.scores['split']}" for run in runs if run.scores), "")
    for spec in METRICS:
        values = {(run.act, run.seed): spec.value(run) for run in (timed if spec.timed else runs)}
        on_cpu = all(_on_cpu(run) or not run.record.get("machine", {}).get("gpus") for run in runs)
        title = "CPU-hours (hours x threads)" if spec.key == "device_hours" and on_cpu else spec.title
        title = f"{title}{split}" if spec.key.startswith("metrics/") else title
        metrics[spec.key] = make_metric(replace(spec, title=title), values, acts, alpha)
        if spec.key == "best":
            until = MetricSpec(
                key="until", title="mAP50-95 at equal time", unit=POINTS, value=best_points, note="unfinished schedule"
            )
            until_seconds, values = _at_equal_time(timed)
            metrics["until"] = make_metric(until, values, acts, alpha)
    return metrics, until_seconds


def _at_equal_time(runs: Sequence[Run]) -> tuple[dict[int, float], dict[RunKey, float | None]]:
    """The time at which the fastest run of each seed ends, and the mAP50-95 of each run at that time."""
    curves = [learning_curve(run) for run in runs]
    ends: dict[int, float] = {}
    for curve in curves:
        if curve.seconds:
            ends[curve.seed] = min(ends.get(curve.seed, math.inf), curve.seconds[-1])
    values: dict[RunKey, float | None] = {}
    for curve in curves:
        if curve.seconds:  # an epoch of warm-up steps only takes no time: the later value counts
            by_time = dict(zip(curve.seconds, curve.points, strict=True))
            values[curve.activation, curve.seed] = value_at(list(by_time), list(by_time.values()), ends[curve.seed])
    return ends, values


def make_metric(spec: MetricSpec, values: Mapping[RunKey, float | None], acts: Sequence[str], alpha: float) -> Metric:
    """The values by activation and their comparison; without one, the note says why."""
    by_act: dict[str, dict[int, float]] = {act: {} for act in acts}
    for (act, seed), value in sorted(values.items(), key=lambda item: item[0][1]):
        if value is not None:
            by_act[act][seed] = value
    comparison, note = None, spec.note
    if spec.compared and not any(by_act.values()):
        note = note or ("every run is excluded from timing" if spec.timed else "no run has this metric")
    elif spec.compared and not by_act[acts[0]]:
        note = f"no run of the baseline {acts[0]} has this metric"
    elif spec.compared:
        how = compare_ratio if spec.compared == "ratio" else compare
        comparison = how(by_act, baseline=acts[0], alpha=alpha)
    arms = {
        act: Values(
            values=each,
            mean=statistics.fmean(each.values()) if each else None,
            sd=float(np.std([*each.values()], ddof=1)) if len(each) > 1 else None,
        )
        for act, each in by_act.items()
    }
    return Metric(key=spec.key, title=spec.title, unit=spec.unit, arms=arms, comparison=comparison, note=note)
