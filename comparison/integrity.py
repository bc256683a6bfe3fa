"""What a run must be before it counts: whole, unchanged since its end, distinct from all others, and planned.

`admit` rejects damaged, edited and copied runs, and those that cannot be compared with each other. Runs that cannot be
shown to be those of the plan make the result exploratory (`doubts`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from comparison import wording
from comparison.evaluation import VAL_FILES
from comparison.fingerprint import DATA, EPOCHS, check_comparable, check_redrawn
from comparison.journal import irregular, timings
from comparison.plan import Plan, PlannedRun, brief
from comparison.runs import ACTIVATION_KEYS, PARTS, PRECISION, Run, activation_label, run_folders
from comparison.scores import check_scored, require_unchanged
from comparison.summary import PRIMARY
from comparison.timing_record import TIMING
from configs.loading import flatten
from configs.schema import load
from core.seal import SEAL, seal_of

LARGEST = 1e12  # seconds, cores, MiB or images per second
# Keys that are named by path, by file or in short forms, so that a run's config holds another text than the plan.
NOT_LITERAL = ("data", "weights", "run", "model.act", "model.config", *(f"model.{part}" for part in PARTS))


def admit(runs: Sequence[Run], plan: Plan | None, *, allow: Sequence[str] = ()) -> tuple[list[Run], list[str]]:
    """All checks that runs pass before they are compared; returns the runs and remarks, as `check_comparable` does.

    ValueError, naming the runs, if they are not whole, not those of the plan's arms, not scored, or not comparable.
    """
    check_runs(runs)
    free: tuple[str, ...] = ()
    if plan is not None:
        _check_arms(runs, plan)
        if plan.split != "val":
            check_scored(plan, runs)
        if plan.budget == "time":
            free += EPOCHS
        if plan.redrawn:
            check_redrawn(runs)
            free += DATA
    return check_comparable(runs, allow=allow, free=free)


def check_runs(runs: Sequence[Run]) -> None:
    """ValueError, naming the run, if a finished run is not whole, was changed since its end, or is a copy.

    A run that was sealed had ended, so it cannot count as failed.
    """
    finished = [run for run in runs if run.status == "finished"]
    for run in runs:
        if run.status == "failed" and SEAL in run.record:
            raise ValueError(f"{run.folder}: run.json was sealed at the end of the run, but has no results; restore it")
    for run in finished:
        _check_seal(run)
        _check_whole(run)
    _check_distinct(finished)


def _check_seal(run: Run) -> None:
    seal = run.record.get(SEAL)
    try:
        expected = None if seal is None else seal_of(run.record, (run.folder / "results.csv").read_bytes())
    except ValueError as error:
        raise ValueError(f"{run.folder}: run.json has a number that is not finite; a finished run has none") from error
    if seal != expected:
        raise ValueError(
            f"{run.folder}: run.json or results.csv was changed after the end of the run (the seal does not match); "
            "restore the files or leave the run out"
        )
    require_unchanged([run.folder / name for name in VAL_FILES], run.record, "run.json")


def _check_whole(run: Run) -> None:
    """The epochs are 1 to the last, the last row is that of run.json, and every number is in its range."""
    planned, found = _epochs(run), [row.get("epoch") for row in run.rows]
    expected = len(found) if _stopped_early(run) else planned
    if found != [float(epoch) for epoch in range(1, expected + 1)]:
        raise ValueError(f"{run.folder}: results.csv has the epochs {_listed(found)}; expected 1 to {expected}")
    last: Mapping[str, Any] = run.record.get("last_epoch") or {}
    for key, value in last.items():
        shown = run.rows[-1].get(key)
        if not isinstance(value, int | float) or (shown is None and key != PRIMARY):
            continue
        if shown is None or not math.isclose(shown, value, rel_tol=PRECISION):
            raise ValueError(
                f"{run.folder}: {key} of the last epoch is {shown} in results.csv, but {value} in run.json"
            )
    for row in run.rows:
        for key, number in row.items():
            if number is not None and not _in_range(key, number):
                raise ValueError(f"{run.folder}: {key} of epoch {row['epoch']:g} is {number:g}, expected {_range(key)}")


def _epochs(run: Run) -> int:
    return int(run.record["config"]["train"].get("epochs") or len(run.rows))


def _stopped_early(run: Run) -> bool:
    return bool(run.record["config"]["train"].get("patience")) and len(run.rows) < _epochs(run)


def _listed(epochs: Sequence[float | None]) -> str:
    shown = ["?" if epoch is None else f"{epoch:g}" for epoch in epochs]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-2:]])


def _in_range(key: str, value: float) -> bool:
    if key.startswith("metrics/"):
        return 0 <= value <= 1
    if key.startswith("time_") or key in ("other_cores", "peak_memory_mib", "images_per_s"):
        return 0 <= value <= LARGEST
    return math.isfinite(value)


def _range(key: str) -> str:
    return "a fraction from 0 to 1" if key.startswith("metrics/") else "a finite number, neither negative nor huge"


def _check_distinct(runs: Sequence[Run]) -> None:
    """Two seeds of one activation start from other weights and see other batches; no two runs take the same times."""
    seen: dict[object, Run] = {}
    for run in runs:
        model, weights = run.record["config"]["model"], run.record["config"].get("weights")
        label = activation_label(model)
        clues: dict[str, object] = {"batches of the first epoch": run.rows[0].get("batches_crc32")}
        if not weights:  # pretrained weights are equal for all seeds
            clues["initial weights"] = run.record.get("initial_weights")
        found: dict[str, object] = {what: (label, what, value) for what, value in clues.items() if value}
        if any(row.get("time_train_s") for row in run.rows):
            found["metrics and times"] = tuple(tuple(sorted(row.items(), key=str)) for row in run.rows)
        for what, key in found.items():
            other = seen.setdefault(key, run)
            same = other.folder.resolve() == run.folder.resolve()  # a run given twice is reported as such
            if not same and (what == "metrics and times" or _seed(other) != _seed(run)):
                raise ValueError(
                    f"{other.folder} and {run.folder} have the same {what}, so one is a copy; leave one out"
                )


def _seed(run: Run) -> object:
    return run.record["config"]["train"]["seed"]


# ------------------------------------------------------------------------------------------------------------- the plan


def _check_arms(runs: Sequence[Run], plan: Plan) -> None:
    """ValueError if runs name other varied keys than the plan, or do not have the settings of their arm."""
    varies = plan.varies or ACTIVATION_KEYS
    for run in runs:
        if not run.record:
            continue
        if run.varies != varies:
            its, planned = ", ".join(run.varies), ", ".join(varies)
            raise ValueError(f"{run.folder}: its arms differ in {its}, those of the plan in {planned}")
        config, settings = flatten(run.record["config"]), plan.arms.get(run.act, {}) if plan.varies else {}
        for key, value in settings.items():
            found = config.get(key, value)  # a mapping is not one key of the flat config
            if found != {"name": value} and not _is_held(value, found, key):
                raise ValueError(f"{run.folder}: {key} is {brief(found)}, expected {brief(value)} of {run.act}")


def _is_held(value: object, found: object, key: str) -> bool:
    """Whether a configuration in which a key was set to a value holds what was found there.

    The word off, which YAML reads as false, is off again; a null is replaced by what follows from other keys.
    """
    if found == value or value is None:
        return True
    try:
        return flatten(load("yolo.yaml", {key: value}).model_dump(mode="json")).get(key) == found
    except ValueError:  # a key of a Darknet network
        return False


def doubts(runs: Sequence[Run], plan: Plan | None) -> tuple[str, ...]:
    """Why these runs do not carry the verdict of the plan; empty if they are those that the plan has started."""
    finished = [run for run in runs if run.status == "finished"]
    reasons = [
        wording.reasons.stopped_early(run.folder.name, len(run.rows), _epochs(run))
        for run in finished
        if _stopped_early(run)
    ]
    if unsealed := [run.folder.name for run in finished if SEAL not in run.record]:
        reasons.append(wording.reasons.unsealed(unsealed))
    if plan is None:
        return tuple(reasons)
    by_key = {_planned_key(run, plan): run for run in runs if run.record}
    planned = [(each, by_key[each]) for each in plan.runs if each in by_key]
    if unnamed := [run.folder.name for _, run in planned if _plan_of(run) != plan.reference]:
        reasons.append(wording.reasons.not_named(unnamed))
    elif early := [run.folder.name for _, run in planned if _started_before(run, plan)]:
        reasons.append(wording.reasons.older_than_plan(early))
    reasons += [reason for each, run in planned if (reason := next(_deviations(each, run, plan), ""))]
    return (*reasons, *_journal_doubts(runs, plan))


def _journal_doubts(runs: Sequence[Run], plan: Plan) -> Iterator[str]:
    """What the journal of the comparison says against these runs, which are all in its folder."""
    by_key = {_planned_key(run, plan): run for run in runs}
    for folder in dict.fromkeys(run.folder.parent for run in runs):
        runs_of = {each.name: by_key.get(each) for each in plan.runs}
        found = irregular(folder, runs_of, complete=plan.journaled)
        for names, reason in (
            (found.again, wording.reasons.trained_again),
            (found.lost, wording.reasons.failures_removed),
            (found.other, wording.reasons.not_as_noted),
        ):
            if names:
                yield reason(names)
        if not timings(folder / TIMING)[1]:
            yield wording.reasons.timing_changed()
        if found.edited:
            yield wording.reasons.journal_edited()


def _planned_key(run: Run, plan: Plan) -> PlannedRun:
    if not run.record:
        return plan.planned(run.act, run.seed)
    seed = _seed(run)
    assert isinstance(seed, int)
    return PlannedRun(plan.acts[0] if plan.aa else run.act, seed)


def _plan_of(run: Run) -> object:
    return (run.record["config"].get("run") or {}).get("plan")


def _started_before(run: Run, plan: Plan) -> bool:
    """Whether a run began before the plan was written."""
    starts = run.record.get("starts") or [{}]
    try:
        return datetime.fromisoformat(starts[0]["time"]) < datetime.fromisoformat(plan.created)
    except (LookupError, TypeError, ValueError):
        return True


def _deviations(planned: PlannedRun, run: Run, plan: Plan) -> Iterator[str]:
    config = flatten(run.record["config"])
    for key, value in plan.overrides_of(planned).items():
        literal = not any(key == prefix or key.startswith(f"{prefix}.") for prefix in NOT_LITERAL)
        literal = literal and isinstance(value, bool | int | float | str) and key in config
        if literal and not _is_held(value, config[key], key):
            yield wording.reasons.unlike_plan(run.folder.name, key, config[key], value)


def not_in_plan(runs: Sequence[Run], folder: Path) -> list[str]:
    """The run folders of a comparison's folder that are not among the runs that are reported."""
    known = {run.folder.resolve() for run in runs}
    try:
        return [each.name for each in run_folders(folder) if each.resolve() not in known]
    except FileNotFoundError:
        return []
