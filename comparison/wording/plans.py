"""The plan of a comparison, as printed before its runs and in the report."""

from comparison.plan import Plan
from comparison.power import seeds_for_equivalence
from comparison.summary import (
    POINTS,
)
from comparison.wording.captions import MAX_TIME_GAP
from comparison.wording.numbers import count, join, percent, seeds_or_more
from comparison.wording.searches import plan_entry
from core.text import format_duration

POSSIBLE_SIGMAS = (0.5, 1.0, 2.0, 3.5)  # residual sd of one run in mAP points, as measured on small data


def describe(plan: Plan) -> str:
    """The plan as printed before the runs."""
    return "\n".join(f"{name:<20}{text}" for name, text in plan_entries(plan))


def describe_tuning(plan: Plan) -> str:
    """The plan of a tuning as printed before its runs: it carries no verdict."""
    shown = ("arms", "seeds", "epochs", "order", "estimated time")
    lines = [f"{name:<20}{text}" for name, text in plan_entries(plan) if name in shown]
    return "\n".join(["tuning, on held-out training images", *lines])


def plan_entries(plan: Plan) -> list[tuple[str, str]]:
    """The plan as names and texts."""
    epochs_by_act = {act: _epochs(plan, act) for act in plan.all_acts}
    same_epochs = len(set(epochs_by_act.values())) == 1
    epochs = epochs_by_act[plan.baseline] if same_epochs else ", ".join(f"{a} {n}" for a, n in epochs_by_act.items())
    budget = (
        "" if plan.budget == "epochs" else f", planned to fit the training time of the fastest activation{_gaps(plan)}"
    )
    runs = plan.runs
    interim = ", ".join(map(str, plan.interim or (len(plan.seeds),)))
    entries = [
        ("arms" if plan.varies else "activations", f"{', '.join(plan.acts)} (baseline {plan.baseline})"),
        *([("arms differ in", ", ".join(plan.varies))] if plan.varies else []),
        ("seeds", ", ".join(map(str, plan.seeds))),
        ("epochs", f"{epochs}{budget}"),
        ("order", ", ".join(run.name for run in runs[:6]) + (", ..." if len(runs) > 6 else "")),
        ("estimated time", _estimated_time(plan)),
        ("primary metric", f"{plan.primary} of the last epoch, EMA weights{_split(plan)}"),
        ("detectable", _detectable(plan)),
        ("equivalence", f"margin ±{100 * plan.margin:.2g} {POINTS}; {_seeds_for_equivalence(plan)}"),
        *([("data", "drawn anew for each seed, so that seeds cover the data as well")] if plan.redrawn else []),
        *([] if plan.target is None else [("target", f"epochs to mAP50-95 of {100 * plan.target:g} points")]),
        ("analyses", f"after {interim} seeds; family-wise error rate {plan.alpha:g} in total"),
    ]
    if plan.tuning is not None:
        tuned = plan.tuning
        chosen = ", ".join(f"{act} {value}" for act, value in tuned.chosen.items())
        values = ", ".join(map(str, tuned.values))
        entries.append(
            ("tuning", f"{tuned.key} from {values}, {count(len(tuned.seeds), 'seed')} on held-out images: {chosen}")
        )
    if plan.search is not None:
        entries.append(("search", plan_entry(plan.search)))
    if plan.all_pairs:
        entries.append(("all pairs", "candidates also against each other (Tukey), a family with its own error rate"))
    if plan.added_acts or plan.added_seeds:
        added = [*plan.added_acts, *(f"seed {seed}" for seed in plan.added_seeds)]
        entries.append(("added", f"{', '.join(added)}, beyond the plan: their results are exploratory"))
    return entries + [("note", note) for note in plan.notes]


def _epochs(plan: Plan, act: str) -> str:
    whole = plan.epochs[act]
    return f"{plan.train_batches(act) / plan.batches[0]:.3g}" if act in plan.last_epoch_batches else f"{whole}"


def _split(plan: Plan) -> str:
    return "" if plan.split == "val" else f", on the split {plan.split}, scored once after the last run"


def _gaps(plan: Plan) -> str:
    """Which planned training times differ from the baseline's after rounding to whole batches, and by how much."""
    times = {act: plan.train_batches(act) * plan.step_ms[act] for act in plan.acts if act in plan.step_ms}
    base = times.get(plan.baseline)
    gaps = {act: time / base for act, time in times.items() if base and abs(time / base - 1) > MAX_TIME_GAP}
    listed = ", ".join(f"{act} {percent(ratio)}" for act, ratio in gaps.items())
    return f"; not equal after rounding to whole batches: {listed} vs {plan.baseline}" if gaps else ""


def plan_record(plan: Plan | None) -> tuple[tuple[str, str], ...]:
    """The plan for the report, with all runs in their order."""
    if plan is None:
        return ()
    entries = [("written", plan.created), ("config", plan.cfg)]
    entries += [("code", plan.source_sha256)] if plan.source_sha256 else []
    entries += [entry for entry in plan_entries(plan) if entry[0] != "order"]
    if plan.overrides:
        entries.append(("overrides", ", ".join(f"{key}={value}" for key, value in plan.overrides.items())))
    return (*entries, ("order", ", ".join(run.name for run in plan.runs)))


def _estimated_time(plan: Plan) -> str:
    estimates = [plan.seconds(run) for run in plan.runs]
    known = [each for each in estimates if each is not None]
    if len(known) < len(estimates):
        return f"{len(estimates)} runs; no probe, so an estimate follows after the first epoch"
    return (
        f"{len(estimates)} runs, about {format_duration(sum(known))} on one device, from a probe of each activation's "
        "step (a validation batch counted as a third of a step; without final evaluation and plots)"
    )


def _detectable(plan: Plan) -> str:
    if len(plan.seeds) < 2:
        return "no interval and no verdict with one seed"
    few = "; with two seeds, only large differences are detectable" if len(plan.seeds) == 2 else ""
    if plan.sigma_assumed is None:
        smallest = join([f"{100 * plan.detectable(sigma / 100):.2g}" for sigma in POSSIBLE_SIGMAS])
        return (
            f"unknown without an estimate of the residual standard deviation of one run: {smallest} {POINTS} (80 % "
            f"probability) if it is {join([f'{sigma:g}' for sigma in POSSIBLE_SIGMAS])} points; two or three pilot "
            f"seeds tell (--sigma){few}"
        )
    return (
        f"a difference of {100 * plan.detectable(plan.sigma_assumed):.2g} {POINTS} with 80 % probability{few} (assumes "
        f"a residual standard deviation of one run of {100 * plan.sigma_assumed:.2g} points, --sigma)"
    )


def _seeds_for_equivalence(plan: Plan) -> str:
    def seeds(sigma: float) -> str:
        needed = seeds_for_equivalence(plan.margin, sigma=sigma, candidates=len(plan.acts) - 1, alpha=plan.alpha)
        return seeds_or_more(needed)

    if plan.sigma_assumed is None:
        known = join([seeds(sigma / 100) for sigma in POSSIBLE_SIGMAS])
        return f"showing equivalence requires {known} seeds (80 % probability, same standard deviations)"
    return f"showing equivalence requires {seeds(plan.sigma_assumed)} seeds (80 % probability, same assumption)"
