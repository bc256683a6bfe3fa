"""Comparisons on several data sets in one report: a row for each, and a summary over them as random effects.

The mAPs of different data sets are never pooled. Each data set contributes the difference of each candidate with its
standard error; the mean over data sets is that of DerSimonian and Laird (1986), its interval that of Hartung and Knapp
(2001), not narrower than theirs, as in Röver, Knapp and Friede (2015).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from comparison import wording
from comparison.analysis import analyse
from comparison.integrity import admit, doubts
from comparison.plan import PLAN, Plan, read_plan
from comparison.render import to_csv
from comparison.runs import Run, read_runs
from comparison.summary import Field, Outcome
from core.files import write_text
from core.templates import templates


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The mean difference over data sets that are a sample of many."""

    mean: float  # mAP points
    low: float
    high: float
    heterogeneity: float  # standard deviation of the true differences between data sets (tau), points
    tasks: int


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """The result of one candidate on one data set."""

    task: str
    candidate: str
    baseline_map: float | None  # points
    difference: float | None  # points
    standard_error: float | None
    interval: tuple[float, float] | None
    seeds: int
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """All that the report says."""

    baseline: str
    rows: tuple[TaskRow, ...]
    effects: Mapping[str, Effect | None]  # by candidate; None with fewer than two data sets that have an interval
    words: tuple[str, ...]
    remarks: tuple[str, ...]


def random_effects(estimates: Sequence[float], standard_errors: Sequence[float], *, alpha: float = 0.05) -> Effect:
    """The mean of estimates with known standard errors under random effects, and its two-sided interval.

    ValueError for fewer than two estimates or a standard error that is not positive.
    """
    y, variance = np.asarray(estimates, float), np.asarray(standard_errors, float) ** 2
    count = len(y)
    if count < 2 or len(variance) != count or not (variance > 0).all():
        raise ValueError(f"found {count} estimates, expected two or more, each with a positive standard error")
    weights = 1 / variance
    fixed = np.average(y, weights=weights)
    excess = float(weights @ (y - fixed) ** 2) - (count - 1)
    tau2 = max(0.0, excess / float(weights.sum() - (weights**2).sum() / weights.sum()))
    weights = 1 / (variance + tau2)
    mean = float(np.average(y, weights=weights))
    scale = max(1.0, float(weights @ (y - mean) ** 2) / (count - 1))  # of Hartung and Knapp, at least 1
    half = float(student.isf(alpha / 2, count - 1)) * math.sqrt(scale / weights.sum())
    return Effect(mean=mean, low=mean - half, high=mean + half, heterogeneity=math.sqrt(tau2), tasks=count)


def are_tasks(folders: Sequence[Path]) -> bool:
    """Whether these are two or more comparisons, with plans, on different data."""
    if len(folders) < 2 or not all((folder / PLAN).is_file() for folder in folders):
        return False
    return len({_data(read_runs([folder])) for folder in folders}) > 1


def _data(runs: Sequence[Run]) -> str:
    """The hashes of the annotations, as text."""
    return json.dumps(next((run.record.get("data") for run in runs if run.record), None), sort_keys=True)


def report_tasks(folders: Sequence[Path], output: Path) -> str:
    """Write tasks.html, tasks.csv and tasks.json into ``output``; returns the text for the terminal.

    ValueError if the comparisons do not have the same arms, baseline and split, if two are of the same data, or if one
    of them is not valid.
    """
    plans, outcomes, names_of = {}, {}, dict[str, str]()
    for folder in folders:
        plan, name = read_plan(folder), folder.resolve().name
        assert plan is not None  # are_tasks has looked
        if name in plans:
            raise ValueError(f"{folder}: another comparison is named {name} as well; rename one of the folders")
        runs = read_runs([folder])
        if (other := names_of.setdefault(_data(runs), name)) != name:
            raise ValueError(f"{name}: the same data as {other}, so it is no further data set; leave one out")
        plans[name], outcomes[name] = plan, _outcome(runs, plan)
    _check_alike(plans)
    tasks = summarise(plans, outcomes)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "tasks.json", json.dumps(asdict(tasks), indent=1, ensure_ascii=False) + "\n")
    write_text(output / "tasks.csv", to_csv([_csv_row(row) for row in tasks.rows]))
    template = templates(Path(__file__).parent).get_template("tasks.html")
    write_text(output / "tasks.html", template.render(tasks=tasks, signed=wording.numbers.signed))
    return "\n".join([*map(_line, tasks.rows), "", *tasks.words, *tasks.remarks, f"report: {output / 'tasks.html'}"])


def _outcome(runs: Sequence[Run], plan: Plan) -> Outcome:
    runs, _ = admit(plan.as_compared(runs), plan)
    return analyse(runs, plan, doubts=doubts(runs, plan))[0]


def _check_alike(plans: Mapping[str, Plan]) -> None:
    first, *others = plans.items()
    for name, plan in others:
        for what in ("baseline", "split", "budget", "margin", "alpha"):
            if getattr(plan, what) != getattr(first[1], what):
                found, expected = getattr(plan, what), getattr(first[1], what)
                raise ValueError(f"{name}: {what} {found}, but {expected} in {first[0]}; expected the same in all")
        if set(plan.acts) != set(first[1].acts):
            raise ValueError(f"{name}: arms {', '.join(plan.acts)}, but {', '.join(first[1].acts)} in {first[0]}")
        for act in plan.acts:
            found, expected = (_settings(each, act) for each in (plan, first[1]))
            if found != expected:
                raise ValueError(f"{name}: {act} is {found}, but {expected} in {first[0]}; expected the same in all")


def _settings(plan: Plan, act: str) -> str:
    """The settings of an arm as text, without the one that was tuned on each data set."""
    tuned = plan.tuning.key if plan.tuning else None
    settings = [f"{key}={value}" for key, value in sorted(plan.arms[act].items()) if key != tuned]
    return ", ".join(settings) or "without settings of its own"


def summarise(plans: Mapping[str, Plan], outcomes: Mapping[str, Outcome]) -> Tasks:
    """The rows of all data sets and the summary over them."""
    plan = next(iter(plans.values()))
    candidates = [act for act in plan.acts if act != plan.baseline]
    rows = [_row(name, outcome, act) for name, outcome in outcomes.items() for act in candidates]
    effects: dict[str, Effect | None] = {}
    for act in candidates:
        known = [
            (row.difference, row.standard_error)
            for row in rows
            if row.candidate == act and row.difference is not None and row.standard_error
        ]
        alpha = plan.alpha / len(candidates)  # Bonferroni over the candidates
        effects[act] = random_effects(*zip(*known, strict=True), alpha=alpha) if len(known) > 1 else None
    exploratory = [name for name, outcome in outcomes.items() if outcome.exploratory]
    return Tasks(
        baseline=plan.baseline,
        rows=tuple(rows),
        effects=effects,
        words=tuple(
            wording.captions.over_tasks(
                act,
                plan.baseline,
                [row.difference for row in rows if row.candidate == act],
                None if effect is None else (effect.mean, effect.low, effect.high, effect.heterogeneity),
                wins=[outcome.verdicts[act].kind for outcome in outcomes.values() if act in outcome.verdicts],
                alpha=plan.alpha,
            )
            for act, effect in effects.items()
        ),
        remarks=(f"exploratory: {', '.join(exploratory)}, and so is this summary.",) if exploratory else (),
    )


def _row(task: str, outcome: Outcome, act: str) -> TaskRow:
    difference = outcome.primary.difference(act)
    return TaskRow(
        task=task,
        candidate=act,
        baseline_map=outcome.primary.mean(outcome.baseline),
        difference=None if difference is None else difference.estimate,
        standard_error=None if difference is None else difference.standard_error,
        interval=None if difference is None else difference.interval,
        seeds=len(outcome.seeds),
        verdict=outcome.verdicts[act].text,
    )


def _csv_row(row: TaskRow) -> dict[str, Field]:
    low, high = row.interval or (None, None)
    content = {key: value for key, value in asdict(row).items() if key != "interval"}
    return {**content, "low": low, "high": high}


def _line(row: TaskRow) -> str:
    return f"{row.task}, {row.candidate}: {row.verdict}"
