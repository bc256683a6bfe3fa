"""Tune one setting for each arm before a comparison: the same values and seeds for all, scored on held-out images.

The runs are those of a separate plan in the folder ``tuning``. Their seeds are none of the comparison's, and they
are scored on a part of the training images (``train.holdout``), never on val.
"""

import math
import statistics
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from comparison.arms import MAX_SEEDS, Arm, parse_seeds, parse_values, varied_keys
from comparison.choices import Tuning
from comparison.fingerprint import run_settings
from comparison.plan import Overrides, Plan, make_plan, read_plan
from comparison.runs import PRECISION, Run
from comparison.summary import PRIMARY
from configs.cli import parse_setting
from configs.loading import flatten
from configs.schema import load

FOLDER, COMMON = "tuning", "common"  # in the comparison's folder
HOLDOUT = 0.2  # fraction of the training images
FIRST_SEED = 1000
# Fields of the plan in which the comparison at the common value does not differ.
SHARED = ("acts", "baseline", "seeds", "cfg", "overrides", "margin", "alpha", "split", "interim")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The settings to try: one arm of the tuning plan for each arm and value."""

    key: str
    values: tuple[JsonValue, ...]
    common: JsonValue  # the config's value
    arms: Mapping[str, Sequence[Arm]]  # by arm of the comparison, in the order of the values
    plan: Plan

    def matches(self, tuning: Tuning | None) -> bool:
        """Whether a frozen choice is one among these settings."""
        return (
            tuning is not None
            and (tuning.key, tuning.values, tuning.seeds) == (self.key, self.values, self.plan.seeds)
            and list(tuning.chosen) == list(self.arms)
        )


def grid_from(arguments: Namespace, arms: Sequence[Arm], common: Overrides) -> Grid:
    """The grid of --tune and --tune-seeds. ValueError if another flag excludes it or it is not one."""
    if arguments.aa or arguments.budget == "time":
        raise ValueError(f"--tune: it cannot be combined with {'--aa' if arguments.aa else '--budget time'}")
    if not 1 <= arguments.tune_seeds <= MAX_SEEDS:
        raise ValueError(f"--tune-seeds {arguments.tune_seeds}: expected 1 to {MAX_SEEDS}")
    require_unseen(arms, split=arguments.split, flag="--tune")
    taken = parse_seeds(arguments.seeds)
    return grid(arguments.tune, arms, common, cfg=arguments.cfg, seeds=arguments.tune_seeds, taken=taken)


def require_unseen(arms: Sequence[Arm], *, split: str, flag: str) -> None:
    """Raise ValueError if the comparison itself is scored on held-out training images: a choice would have seen them.

    The rule by which images are held out is the same for any fraction.
    """
    held_out = max(arm.config.train.holdout for arm in arms)
    if held_out and split == "val":
        raise ValueError(
            f"{flag}: with train.holdout={held_out:g}, the choice would be made on the images of the verdict; expected "
            "a validation split of its own, or --split test"
        )


def grid(text: str, arms: Sequence[Arm], common: Overrides, *, cfg: str, seeds: int, taken: Sequence[int]) -> Grid:
    """The settings that ``--tune KEY=VALUE,VALUE`` names, for each arm; ``taken`` are the seeds of the comparison.

    ValueError if the key is not a value of the config, if arms differ in it, or if a seed is taken.
    """
    key, texts = parse_values(text, "--tune")
    values = tuple(parse_setting(f"{key}={each}")[1] for each in texts)
    found = [flatten(load(cfg, {**common, **arm.overrides}).model_dump(mode="json")).get(key) for arm in arms]
    tuned = {
        arm.name: [
            at_value(replace(arm, name=f"{arm.name}, {key}={each}"), key, value, common, cfg=cfg)
            for each, value in zip(texts, values, strict=True)
        ]
        for arm in arms
    }
    if any(value != found[0] for value in found) or any(key in arm.overrides for arm in arms):
        raise ValueError(f"--tune {key}: the arms differ in it already; leave it out there")
    if key.startswith(("train.seed", "train.holdout", "run.", "data")):
        raise ValueError(f"--tune {key}: it is set by the comparison itself, choose another key")
    numbers = tuple(range(FIRST_SEED, FIRST_SEED + seeds))
    if both := sorted(set(numbers) & set(taken)):
        raise ValueError(
            f"--tune: seed {both[0]} is one of --seeds; the seeds from {FIRST_SEED} on are those of tuning"
        )
    listed = [each for row in tuned.values() for each in row]
    plan = make_plan(
        acts=tuple(each.name for each in listed),
        baseline=listed[0].name,
        seeds=numbers,
        cfg=cfg,
        overrides={**common, "train.holdout": HOLDOUT},
        arms={each.name: each.overrides for each in listed},
        epochs={each.name: each.config.train.epochs for each in listed},
        varies=varied_keys(listed),
        journaled=True,
    )
    return Grid(key=key, values=values, common=found[0], arms=tuned, plan=plan)


def at_value(arm: Arm, key: str, value: JsonValue, common: Overrides, *, cfg: str) -> Arm:
    """An arm with one more setting."""
    overrides = {**arm.overrides, key: value}
    return replace(arm, overrides=overrides, config=load(cfg, {**common, **overrides}))


def choose(grid: Grid, runs: Sequence[Run], *, common_trained: bool) -> Tuning:
    """The value of each arm with the largest mean mAP over the tuning seeds; the first one of equals.

    A value of which a run failed is not eligible. ValueError for an arm without an eligible value.
    """
    by_run = {(run.act, run.seed): last_score(run) for run in runs}
    scores = {
        name: tuple(tuple(by_run.get((each.name, seed)) for seed in grid.plan.seeds) for each in tuned)
        for name, tuned in grid.arms.items()
    }
    chosen: dict[str, JsonValue] = {}
    for name, rows in scores.items():
        means = {number: mean for number, row in enumerate(rows) if (mean := mean_score(row)) is not None}
        if not means:
            raise ValueError(f"--tune: every value of {grid.key} failed for {name} with one seed or more")
        chosen[name] = grid.values[max(means, key=lambda number: means[number])]
    return Tuning(
        key=grid.key,
        values=grid.values,
        seeds=grid.plan.seeds,
        holdout=HOLDOUT,
        scores=scores,
        chosen=chosen,
        common=grid.common,
        common_trained=common_trained,
    )


def mean_score(scores: Sequence[float | None]) -> float | None:
    """The mean over the tuning seeds, None if one of them failed."""
    known = [score for score in scores if score is not None]
    return statistics.fmean(known) if known and len(known) == len(scores) else None


def last_score(run: Run) -> float | None:
    """The mAP of the last epoch of a finished run."""
    return run.last(PRIMARY) if run.status == "finished" else None


def chosen_arms(
    tuning: Tuning, arms: Sequence[Arm], common: Overrides, *, cfg: str, at_common: bool = False
) -> list[Arm]:
    """The arms of the comparison, each at its chosen value, or all at the common one."""
    return [
        at_value(arm, tuning.key, tuning.common if at_common else tuning.chosen[arm.name], common, cfg=cfg)
        for arm in arms
    ]


def write_plan(plan: Plan, folder: Path) -> Plan:
    """Write the plan of the tuning, merged into the one that is there."""
    existing = read_plan(folder)
    merged = plan if existing is None else existing.merged(plan)
    merged.write(folder)
    return merged


def common_plan(plan: Plan, arms: Sequence[Arm], existing: Plan | None) -> Plan:
    """The plan of the same comparison with all arms at the common value, merged into the ``existing`` one."""
    assert plan.tuning is not None
    at_common = chosen_arms(plan.tuning, arms, plan.overrides, cfg=plan.cfg, at_common=True)
    second = make_plan(
        **{name: getattr(plan, name) for name in SHARED},
        sigma_assumed=plan.sigma_assumed,
        arms={arm.name: arm.overrides for arm in at_common},
        epochs={arm.name: arm.config.train.epochs for arm in at_common},
        varies=varied_keys(at_common),
        journaled=plan.journaled,
        notes=(f"the same comparison with {plan.tuning.key}={plan.tuning.common} for all arms",),
    )
    return second if existing is None else existing.merged(second)


def check_common(plan: Plan, runs: Sequence[Run], second: Plan, others: Sequence[Run], folder: Path) -> None:
    """ValueError if `second` and its runs are not this comparison with all arms at the common value."""
    tuned = plan.tuning
    assert tuned is not None
    wrong = [name for name in SHARED if getattr(plan, name) != getattr(second, name)]
    wrong += [
        f"settings of {act}"
        for act in plan.acts
        if act in second.arms and second.arms[act] != {**plan.arms[act], tuned.key: tuned.common}
    ]
    ours, theirs = _values(runs), _values(others)
    own = f"config.{tuned.key}"
    wrong += [key for key, values in ours.items() if key not in (own, "arms") and not values & theirs.get(key, values)]
    if wrong:
        raise ValueError(
            f"{folder}: not this comparison at {tuned.key}={tuned.common}; it differs in {', '.join(wrong)}. Restore "
            "the folder or remove it"
        )


def _values(runs: Sequence[Run]) -> dict[str, set[str]]:
    """The values of each setting of these runs, as text."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run_settings(run).items() if run.record else ():
            values.setdefault(key, set()).add(str(value))
    return values


def unconfirmed(plan: Plan, steps: Plan, runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The runs of the tuning that are missing, and those with other scores than the plan; `steps` is the tuning's."""
    tuned = plan.tuning
    assert tuned is not None
    wanted_scores: list[tuple[str, int, float | None]] = []
    for act, rows in tuned.scores.items():
        for value, row in zip(tuned.values, rows, strict=True):
            wanted = {**plan.arms[act], tuned.key: value}
            label = next((name for name, each in steps.arms.items() if each == wanted), f"{act}, {tuned.key}={value}")
            wanted_scores += [(label, seed, score) for seed, score in zip(tuned.seeds, row, strict=True)]
    return missing_and_other(wanted_scores, runs)


def missing_and_other(
    scores: Iterable[tuple[str, int, float | None]], runs: Sequence[Run]
) -> tuple[list[str], list[str]]:
    """Of scores by arm and seed, the runs that are missing and those with another score, by name."""
    by_run = {(run.act, run.seed): run for run in runs}
    missing, other = [], []
    for act, seed, score in scores:
        run, name = by_run.get((act, seed)), f"{act}, seed {seed}"
        if run is None:
            missing.append(name)
        elif not _same_score(last_score(run), score):
            other.append(name)
    return missing, other


def _same_score(one: float | None, other: float | None) -> bool:
    """Whether two mAPs are equal in the precision of results.csv."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=PRECISION)


def common_folder(plan: Plan, folder: Path) -> Path | None:
    """The folder of the comparison at the common value; None if there is none, as when all arms chose that value."""
    tuning = plan.tuning
    if tuning is None or not tuning.common_trained or tuning.chose_common:
        return None
    return folder / COMMON
