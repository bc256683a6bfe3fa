"""From runs to comparisons: the one step that the report, the command and the simulations share.

``analyse`` picks the cells (activation, seed) of each metric, leaves out the times that are no evidence, counts what
failed, says whether the verdict is the planned one, and hands the numbers to ``comparison.statistics``.
Detection figures are in mAP points (100 x the fraction of the files), times in seconds, memory in MiB.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from comparison.plan import Plan
from comparison.runs import Run, by_cell
from comparison.statistics import (
    Comparison,
    at_time,
    compare,
    compare_ratio,
    look_alpha,
    signed,
    verdict,
    verdict_ratio,
)

PRIMARY = "metrics/mAP50-95"
SECONDARY = (
    ("metrics/mAP50", "mAP50"),
    ("metrics/AP_small", "AP small"),
    ("metrics/AP_medium", "AP medium"),
    ("metrics/AP_large", "AP large"),
)
POINTS = "mAP points"
MARGIN = 0.5  # mAP points, where no plan declares one
WAIT_SHARE = 0.05  # of the step time waited for data: above it a time says nothing about the network
OTHER_CORES = 0.10  # cores used by other processes: above it neither

Cell = tuple[str, int]
Failed = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The values of one activation in one metric."""

    act: str
    values: Mapping[int, float]  # by seed
    mean: float | None  # None without a value
    sd: float | None  # None below two values


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure of all activations, and its comparison with the baseline where one is made."""

    key: str  # the column, or what it was computed from: "metrics/mAP50-95", "time", "best", "until"
    title: str
    unit: str  # "mAP points", "s", "MiB", ...
    cells: tuple[Cells, ...]  # in the order of the activations, baseline first
    comparison: Comparison | None  # None where no test is made (memory) or none can be (note says why)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Voided:
    """A run whose time is no evidence."""

    act: str
    seed: int
    folder: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the runs say. `primary` alone carries a verdict; time is a family of its own; the rest is description."""

    baseline: str
    acts: tuple[str, ...]  # baseline first
    seeds: tuple[int, ...]
    alpha: float  # of this look
    margin: float  # mAP points within which two count as the same
    primary: Metric  # mAP50-95 of the last epoch
    secondary: tuple[Metric, ...]  # mAP50, AP small/medium/large, best epoch: intervals as they are, no verdict
    time: Metric  # training time, ratios
    until: Metric  # mAP50-95 at equal wall-clock: "unfinished schedule"
    until_seconds: Mapping[int, float]  # by seed: the time at which `until` is read
    costs: tuple[Metric, ...]  # memory, images/s, inference latency: no test
    failed: Mapping[str, tuple[int, int]]  # activation -> (failed, failed and finished)
    unfinished: tuple[str, ...]  # "mish, seed 3": neither finished nor failed
    voided: tuple[Voided, ...]
    exploratory: tuple[str, ...]  # reasons; empty where the verdict is the planned one
    verdicts: Mapping[str, str]  # candidate -> words on the primary figure
    time_verdicts: Mapping[str, str]  # candidate -> words on training time
    headline: str  # the verdict in one line: largest observed, or what cannot be told
    larger: "Analysis | None" = None  # all the runs, exploratory, where there are more than the plan's


def analyse(runs: Sequence[Run], plan: Plan | None, *, baseline: str | None = None) -> Analysis:
    """Compare the runs as the plan says; without one, the first activation is the baseline and all is exploratory.

    With a plan, the seeds of the last declared look that all its activations have reached carry the verdict; where
    there are more runs than those, all of them are in `larger`, which is exploratory. ValueError where two runs are of
    one cell, where there is nothing to compare, or the baseline has no run.
    """
    cells = by_cell(runs)
    acts = list(dict.fromkeys(act for act, _ in cells))
    margin = 100 * plan.margin if plan else MARGIN
    baseline = baseline or (plan.baseline if plan else acts[0] if acts else "")
    if baseline not in acts or len(acts) < 2:
        raise ValueError(f"found runs of {', '.join(acts) or 'nothing'}; expected the baseline {baseline} and others")
    if plan is None:
        return _analyse(cells, baseline, acts, 0.05, margin, ("no plan was written before the runs",))
    if baseline != plan.baseline:
        reasons = (f"the baseline is {baseline}, the plan's is {plan.baseline}",)
        return _analyse(cells, baseline, acts, plan.alpha, margin, reasons)
    looks = plan.looks or (len(plan.seeds),)
    reached = [look for look in looks if look <= _done(cells, plan)]
    if not reached:
        reasons = (f"{_done(cells, plan)} of the {len(plan.seeds)} planned seeds are done; no look was declared here",)
        return _analyse(cells, baseline, acts, plan.alpha, margin, reasons)
    planned = [(act, seed) for seed in plan.seeds[: reached[-1]] for act in plan.acts]
    alpha = look_alpha(looks, reached[-1], alpha=plan.alpha)
    found = _analyse({cell: cells[cell] for cell in planned}, baseline, list(plan.acts), alpha, margin, ())
    beyond = [cell for cell, run in cells.items() if cell not in set(planned) and run.status != "unfinished"]
    unfinished = tuple(_name(run) for run in cells.values() if run.status == "unfinished")
    if not beyond:
        return replace(found, unfinished=unfinished)
    reasons = (f"runs beyond the {reached[-1]} seeds of the plan's look: {_listed(beyond)}",)
    larger = _analyse(cells, baseline, [*plan.acts, *acts], plan.alpha, margin, reasons)
    return replace(found, unfinished=unfinished, larger=larger)


def _done(cells: Mapping[Cell, Run], plan: Plan) -> int:
    """How many seeds of the plan, from its first on, have finished or failed in all activations."""
    for number, seed in enumerate(plan.seeds):
        here = [cells.get((act, seed)) for act in plan.acts]
        if any(run is None or run.status == "unfinished" for run in here):
            return number
    return len(plan.seeds)


def _name(run: Run) -> str:
    return f"{run.act}, seed {run.seed}"


def _listed(cells: Sequence[Cell]) -> str:
    """Activations with their seeds: "mish 5, 6; relu 5"."""
    seeds: dict[str, list[int]] = {}
    for act, seed in cells:
        seeds.setdefault(act, []).append(seed)
    return "; ".join(f"{act} {', '.join(map(str, sorted(each)))}" for act, each in seeds.items())


def _analyse(
    cells: Mapping[Cell, Run],
    baseline: str,
    acts: Sequence[str],
    alpha: float,
    margin: float,
    exploratory: tuple[str, ...],
) -> Analysis:
    """The figures of these runs, all of them."""
    acts = list(dict.fromkeys([baseline, *acts]))
    ended = {act: [run for run in cells.values() if run.act == act and run.status != "unfinished"] for act in acts}
    runs = [run for run in cells.values() if run.status == "finished"]
    voided = tuple(
        Voided(act=run.act, seed=run.seed, folder=str(run.folder), reason=reason)
        for run in runs
        if (reason := void_reason(run))
    )
    timed = [run for run in runs if not void_reason(run)]
    failed = {act: (sum(run.status == "failed" for run in each), len(each)) for act, each in ended.items()}

    def metric(key: str, title: str, unit: str, values: Mapping[Cell, float | None], **how: Any) -> Metric:
        return _metric(key, title, unit, values, acts=acts, baseline=baseline, alpha=alpha, **how)

    def figures(column: str) -> dict[Cell, float | None]:
        return {(run.act, run.seed): last_points(run, column) for run in runs}

    primary = metric(PRIMARY, "mAP50-95, last epoch", POINTS, figures(PRIMARY))
    secondary = [metric(column, title, POINTS, figures(column)) for column, title in SECONDARY]
    best = {(run.act, run.seed): best_points(run) for run in runs}
    secondary.append(metric("best", "mAP50-95, best epoch", POINTS, best, note="chosen on the set it is measured on"))
    seconds = {(run.act, run.seed): training_seconds(run) for run in timed}
    time = metric("time", "training time", "s", seconds, ratio=True)
    until_seconds, until = _until(timed)
    at_once = metric("until", "mAP50-95 at equal wall-clock", POINTS, until, note="unfinished schedule")
    costs = [
        metric(key, title, unit, {(r.act, r.seed): of(r) for r in runs}, test=False) for key, title, unit, of in COSTS
    ]
    return Analysis(
        baseline=baseline,
        acts=tuple(acts),
        seeds=tuple(sorted({seed for _, seed in cells})),
        alpha=alpha,
        margin=margin,
        primary=primary,
        secondary=tuple(secondary),
        time=time,
        until=at_once,
        until_seconds=until_seconds,
        costs=tuple(costs),
        failed=failed,
        unfinished=tuple(_name(run) for run in cells.values() if run.status == "unfinished"),
        voided=voided,
        exploratory=exploratory,
        verdicts=_verdicts(primary, acts, failed, margin=margin, exploratory=bool(exploratory)),
        time_verdicts=_verdicts(time, acts, failed, margin=None, exploratory=bool(exploratory)),
        headline=_headline(primary),
    )


def _metric(
    key: str,
    title: str,
    unit: str,
    values: Mapping[Cell, float | None],
    *,
    acts: Sequence[str],
    baseline: str,
    alpha: float,
    ratio: bool = False,
    test: bool = True,
    note: str = "",
) -> Metric:
    """The cells of a figure and, where `test`, their comparison; the note says why there is none."""
    cells = cells_of(values, acts)
    table = {each.act: each.values for each in cells}
    comparison = None
    if test and not any(table.values()):
        note = note or "no run has this figure"
    elif test and not table[baseline]:
        note = f"no run of the baseline {baseline} has this figure"
    elif test:
        comparison = (compare_ratio if ratio else compare)(table, baseline=baseline, alpha=alpha)
    return Metric(key=key, title=title, unit=unit, cells=cells, comparison=comparison, note=note)


def cells_of(values: Mapping[Cell, float | None], acts: Sequence[str]) -> tuple[Cells, ...]:
    """The values there are by activation and seed, with mean and sd."""
    table: dict[str, dict[int, float]] = {act: {} for act in acts}
    for (act, seed), value in sorted(values.items(), key=lambda item: item[0][1]):
        if value is not None:
            table[act][seed] = value
    return tuple(
        Cells(
            act=act,
            values=each,
            mean=statistics.fmean(each.values()) if each else None,
            sd=float(np.std([*each.values()], ddof=1)) if len(each) > 1 else None,
        )
        for act, each in table.items()
    )


def _verdicts(
    metric: Metric, acts: Sequence[str], failed: Failed, *, margin: float | None, exploratory: bool
) -> dict[str, str]:
    """The words on each candidate; `margin` None: ratios of the metric, which know none."""
    found = {} if metric.comparison is None else {each.name: each for each in metric.comparison.differences}
    words = {}
    for act in acts[1:]:
        if metric.comparison is None or act not in found:
            lost = [
                f"{failed[name][0]} of {failed[name][1]} runs of {name} failed"
                for name in (act, acts[0])
                if failed[name][0]
            ]
            why = metric.note or f"no finished run of {act} that has this figure shares a seed with the baseline's"
            words[act] = "; ".join([*lost, why, "no verdict"])
        elif margin is None:
            words[act] = verdict_ratio(
                found[act], metric.comparison, what=metric.title, failed=failed, exploratory=exploratory
            )
        else:
            words[act] = verdict(
                found[act], metric.comparison, margin=margin, unit=metric.unit, failed=failed, exploratory=exploratory
            )
    return words


def _headline(metric: Metric) -> str:
    """Which activation has the largest observed figure: an observation, so never "best"."""
    if metric.comparison is None:
        return f"no comparison: {metric.note}"
    top = max(metric.comparison.differences, key=lambda each: each.estimate, default=None)
    if top is None or top.estimate <= 0:
        return f"largest observed {metric.title}: {metric.comparison.baseline}, the baseline"
    gain = signed(top.estimate, metric.unit)
    return f"largest observed {metric.title}: {top.name}, {gain} against {metric.comparison.baseline}"


# ------------------------------------------------------------------------------------------------- figures of a run


def last_points(run: Run, column: str) -> float | None:
    """A figure of the last epoch in points; None where COCO has nothing to average."""
    value = run.rows[-1].get(column)
    return None if value is None else 100 * value


def best_points(run: Run) -> float | None:
    """The largest mAP50-95 over the epochs, in points."""
    values = [value for row in run.rows if (value := row.get(PRIMARY)) is not None]
    return 100 * max(values) if values else None


def total(run: Run, column: str) -> float:
    """The sum of a column over the epochs."""
    return sum(row.get(column) or 0.0 for row in run.rows)


def training_seconds(run: Run) -> float | None:
    """Device time of all steps but the first of a process (warm-up); None where nothing was timed."""
    return total(run, "time_train_s") or None


def void_reason(run: Run) -> str:
    """Why the time of a run is no evidence about its activation; empty where it is."""
    train, waited = total(run, "time_train_s"), total(run, "time_data_s")
    if train and waited > WAIT_SHARE * train:
        return f"waited for data {100 * waited / train:.0f} % of its step time"
    others = [cores for row in run.rows if (cores := row.get("other_cores")) is not None]
    if others and statistics.fmean(others) > OTHER_CORES:
        return f"other processes used {statistics.fmean(others):.2f} of a core"
    return ""


def curve(run: Run) -> tuple[list[float], list[float]]:
    """Seconds of training so far and mAP50-95 in points, of the epochs that were validated."""
    times: list[float] = []
    points: list[float] = []
    so_far = 0.0
    for row in run.rows:
        so_far += row.get("time_train_s") or 0.0
        if (value := row.get(PRIMARY)) is None:
            continue
        if times and times[-1] == so_far:  # an epoch of warm-up alone: the later value stands
            times.pop(), points.pop()
        times.append(so_far)
        points.append(100 * value)
    return times, points


def _until(runs: Sequence[Run]) -> tuple[dict[int, float], dict[Cell, float | None]]:
    """By seed the earliest finish, and each run's mAP50-95 at it."""
    curves = {(run.act, run.seed): curve(run) for run in runs}
    finish: dict[int, float] = {}
    for (_, seed), (times, _) in curves.items():
        if times:
            finish[seed] = min(finish.get(seed, times[-1]), times[-1])
    values = {(act, seed): at_time(*each, finish[seed]) for (act, seed), each in curves.items() if each[0]}
    return finish, values


def _images_per_second(run: Run) -> float | None:
    values = [value for row in run.rows if (value := row.get("images_per_s")) is not None]
    return statistics.median(values) if values else None


def _peak_memory(run: Run) -> float | None:
    return max((value for row in run.rows if (value := row.get("peak_memory_mib")) is not None), default=None)


def _latency(run: Run) -> float | None:
    return (run.record.get("latency") or {}).get("ms_per_image")


COSTS: tuple[tuple[str, str, str, Callable[[Run], float | None]], ...] = (
    ("memory", "peak memory", "MiB", _peak_memory),
    ("images_per_s", "training, median epoch", "images/s", _images_per_second),
    ("latency", "inference latency", "ms an image", _latency),
)
"""Figures that are described and not tested: key, title, unit, where from."""
