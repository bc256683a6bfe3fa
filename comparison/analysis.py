"""Analyse runs: metrics by activation and seed, runs excluded from timing, failures, verdicts.

The report and the simulations share this step. Which runs carry the planned verdict is decided here; the intervals come
from ``comparison.statistics``, the sentences from ``comparison.wording``.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from comparison import checks, wording
from comparison.all_pairs import PairDifference, all_pairs
from comparison.plan import Plan
from comparison.run_metrics import ISOLATED_TIME, all_metrics, exclusion_reason, learning_curve, make_metric
from comparison.runs import Run, by_key
from comparison.statistics import compare, interim_alpha
from comparison.summary import (
    PRIMARY,
    Excluded,
    Failures,
    Metric,
    Outcome,
    RunKey,
    Timing,
    Verdict,
)

MARGIN = 0.5  # mAP points, if no plan declares one


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
    outcome = _outcome(planned, baseline, list(plan.acts), alpha, margin, *doubts)
    interim_remark = wording.verdicts.interim_analysis(reached[-1], len(plan.seeds), alpha)
    outcome = replace(outcome, unfinished=_unfinished(keyed), remarks=(*interim_remark, *outcome.remarks))
    if plan.all_pairs:
        outcome = replace(outcome, pairs=_pairs(outcome.primary, baseline, alpha))
    beyond = [key for key, run in keyed.items() if key not in planned and run.status != "unfinished"]
    if not beyond:
        return outcome, None
    reason = wording.reasons.beyond_plan(reached[-1], beyond)
    return outcome, _outcome(keyed, baseline, [*plan.acts, *acts], plan.alpha, margin, reason)


def with_isolated_time(outcome: Outcome, timing: Timing) -> Outcome:
    """The outcome, with the isolated timing of a training step as the cost if no training time can be compared."""
    timed = outcome.time.comparison is not None and outcome.time.comparison.differences
    if timed or not set(outcome.acts) <= set(timing.rounds):
        return outcome
    values = {(act, number): ms for act in outcome.acts for number, ms in enumerate(timing.rounds[act])}
    metric = make_metric(ISOLATED_TIME, values, outcome.acts, outcome.alpha)
    arms = {act: replace(each, values={}) for act, each in metric.arms.items()}  # rounds are no seeds
    assert metric.comparison is not None
    verdicts = {
        act: wording.verdicts.time_verdict(
            difference, metric.comparison, exploratory=bool(outcome.exploratory), sample="round"
        )
        for act, difference in metric.comparison.differences.items()
    }
    return replace(outcome, isolated_time=replace(metric, arms=arms), time_verdicts=verdicts)


def _pairs(metric: Metric, baseline: str, alpha: float) -> tuple[PairDifference, ...]:
    """The candidates against each other."""
    values = {act: each.values for act, each in metric.arms.items() if each.values}
    return all_pairs(values, baseline=baseline, alpha=alpha)


def concluded(run: Run) -> Run:
    """The run, as failed if it finished without the primary metric: a loss that is not finite leaves none."""
    if run.status == "finished" and run.last(PRIMARY) is None:
        return replace(run, status="failed", reason=wording.reasons.no_primary(), diverged=True)
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
            diverged=sum(run.diverged for run in ended if run.act == act),
        )
        for act in acts
    }
    runs = [run for run in ended if run.status == "finished"]
    excluded = tuple(
        Excluded(act=run.act, seed=run.seed, folder=str(run.folder), reason=reason)
        for run in runs
        if (reason := exclusion_reason(run))
    )
    metrics, until_seconds = all_metrics(runs, acts, alpha)
    curves = [learning_curve(run) for run in runs if run.act == baseline]
    insensitive = checks.insensitivity(curves, mean=metrics[PRIMARY].mean(baseline), margin=margin)
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
    deviations = {act: each.sd for act, each in metric.arms.items() if each.sd is not None}
    scatter = wording.verdicts.scatter(deviations, metric.unit, p=checks.unequal_scatter(values))
    low = checks.collapsed(values, margin=margin)
    if not low or metric.comparison is None:
        return scatter
    rest = {act: {seed: each for seed, each in own.items() if seed != low.get(act)} for act, own in values.items()}
    comparison = compare(rest, baseline=metric.comparison.baseline, alpha=metric.comparison.alpha)
    verdicts = judge(replace(metric, comparison=comparison))
    runs = {(act, seed): (values[act][seed], statistics.median(rest[act].values())) for act, seed in low.items()}
    return (*scatter, wording.verdicts.collapsed(runs, verdicts))
