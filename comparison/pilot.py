"""The residual sd of earlier runs on the same data, from which a comparison is planned."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison.analysis import concluded
from comparison.plan import PLAN, read_plan
from comparison.run_metrics import last_points
from comparison.runs import Run, read_runs
from comparison.statistics import compare
from comparison.summary import PRIMARY

SAME = ("data.root", "data.train", "data.val", "model.size", "train.imgsz", "train.epochs")
MIN_DEGREES = 2  # of freedom: below, an estimate is off by a factor of several


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """An estimate from one earlier comparison."""

    sigma: float  # mAP as a fraction
    degrees: int  # degrees of freedom
    folder: Path


def pilot_from(folder: Path, config: Mapping[str, Any]) -> Pilot | None:
    """The estimate with the most degrees of freedom from this folder and those beside it; None if there is none.

    ``config``: the configuration as in run.json. Runs count if they agree with it in `SAME`. What cannot be read is
    skipped.
    """
    found = []
    for each in sorted({folder, *(path.parent for path in folder.parent.glob(f"*/{PLAN}"))}):
        try:
            plan, runs = read_plan(each), [concluded(run) for run in read_runs([each])]
            if plan is not None:
                runs = plan.as_compared(runs)
        except (OSError, ValueError):
            continue
        pilot = _estimate(each, [run for run in runs if run.status == "finished" and _same_task(run, config)])
        if pilot is not None:
            found.append(pilot)
    return max(found, key=lambda pilot: pilot.degrees, default=None)


def _same_task(run: Run, config: Mapping[str, Any]) -> bool:
    def value(tree: Mapping[str, Any], key: str) -> object:
        section, _, name = key.partition(".")
        return (tree.get(section) or {}).get(name)

    return all(value(run.record.get("config", {}), key) == value(config, key) for key in SAME)


def _estimate(folder: Path, runs: list[Run]) -> Pilot | None:
    values: dict[str, dict[int, float]] = {}
    for run in runs:
        if (value := last_points(PRIMARY)(run)) is not None:
            values.setdefault(run.act, {})[run.seed] = value
    if len(values) < 2:
        return None
    comparison = compare(values, baseline=next(iter(values)))
    if not comparison.sigma or comparison.degrees < MIN_DEGREES:
        return None
    return Pilot(sigma=comparison.sigma / 100, degrees=comparison.degrees, folder=folder)
