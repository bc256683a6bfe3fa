"""The end of a comparison: runs checked against each other, and the report of them."""

from collections.abc import Sequence
from pathlib import Path

from comparison.analysis import analyse
from comparison.fingerprint import EPOCHS, checked
from comparison.plan import Plan, read_plan
from comparison.runs import Run, read_runs


def report(
    runs: Sequence[Run], plan: Plan | None, folder: Path, *, baseline: str | None = None, allow: Sequence[str] = ()
) -> str:
    """Write the report of these runs into a folder; returns what the terminal is told.

    Nothing is written where the runs cannot be compared (ValueError). Runs kept apart are no longer those of the plan,
    and against another ``baseline`` than the plan's all is exploratory.
    """
    free = (EPOCHS,) if plan is not None and plan.budget == "time" else ()
    found, remarks = checked(runs, allow=allow, free=free)
    if remarks:
        plan = None
    analyse(found, plan, baseline=baseline)  # what cannot be compared is said before anything is written

    from comparison.report import write_report

    folder.mkdir(parents=True, exist_ok=True)
    return "\n".join([*remarks, write_report(folder, found, plan=plan, baseline=baseline)])


def report_again(places: Sequence[Path], new: Path, *, baseline: str | None, allow: Sequence[str]) -> str:
    """The report of runs that are there: of a comparison into its own folder, of any others into ``new`` (numbered).

    Without a plan all runs have to have ended; the first activation is the baseline where none is named.
    """
    plan = read_plan(places[0]) if len(places) == 1 else None
    runs = read_runs(places)
    if plan is not None and baseline in (None, plan.baseline):
        return report(plan.as_compared(runs), plan, places[0], allow=allow)
    if plan is not None:
        runs = plan.as_compared(runs)
    for run in runs:
        if run.status == "unfinished":
            raise ValueError(f"{run.folder}: the run is not finished; end it with train.py --resume, or leave it out")
    labels = list(dict.fromkeys(run.act for run in runs))
    if baseline is not None and baseline not in labels:
        raise ValueError(f"--baseline: found {baseline}, expected one of {', '.join(labels)}")
    runs.sort(key=lambda run: (run.act != (baseline or labels[0]), labels.index(run.act), run.seed))
    return report(runs, plan, _untaken(new), baseline=baseline, allow=allow)


def _untaken(folder: Path) -> Path:
    number, found = 1, folder
    while found.exists():
        number += 1
        found = folder.with_name(f"{folder.name}{number}")
    return found
