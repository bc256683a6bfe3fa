"""What a comparison measures: the metrics of a finished run, runs excluded from timing, and the table of metrics."""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from comparison import checks, wording
from comparison.runs import Run
from comparison.statistics import compare, compare_ratio, value_at
from comparison.summary import (
    POINTS,
    PRIMARY,
    STEP,
    LearningCurve,
    Metric,
    RunKey,
    Values,
)
from core.limits import MAX_DATA_WAIT_FRACTION, WARMUP_STEPS
from core.metrics import EVALUATION

TIME_COLUMNS = ("time_train_s", "time_warmup_s", "time_data_s", "time_val_s", "time_save_s")


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
    resumed = len(run.record.get("starts") or [{}]) - 1
    untimed = WARMUP_STEPS * resumed / max(_steps(run), 1)
    if untimed > checks.MAX_UNTIMED_FRACTION:
        return wording.reasons.resumed(resumed, untimed)
    seconds = [sum(row.get(column) or 0.0 for column in TIME_COLUMNS) for row in run.rows]
    others = checks.contention([row.get("other_cores") for row in run.rows], seconds)
    if others is None:
        return wording.reasons.load_unknown()
    mean, most = others
    if mean > checks.MAX_OTHER_CORES or most > checks.MAX_OTHER_CORES_ONCE:
        return wording.reasons.busy_machine(mean, most)
    return ""


def _steps(run: Run) -> float:
    """The training steps of a run, one per batch."""
    batches = run.record.get("batches_per_epoch")
    return batches * len(run.rows) if batches else run.rows[-1].get("step") or 0


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


ISOLATED_TIME = MetricSpec(
    key=STEP, title="training step, isolated timing", unit="ms", value=lambda _: None, compared="ratio"
)  # of no run: its values are those of timing.json


def all_metrics(runs: Sequence[Run], acts: Sequence[str], alpha: float) -> tuple[dict[str, Metric], dict[int, float]]:
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
