"""Search mixed activations before a comparison: mixtures race on tuning seeds, and the winner is one more arm.

A mixture gives each group of stages one of the activations. Those that race are drawn with a fixed seed. In each round,
those left are trained with one more seed, in full length, each round with its own folder and plan, and the better half
by the mean mAP goes on. Their seeds are none of the comparison's, and they are scored on a part of the training
images (``train.holdout``), never on val. The scores choose a mixture; the verdict on it is that of the comparison.
"""

import itertools
import random
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison import wording
from comparison.arms import Arm, parse_arms, parse_seeds
from comparison.bound import Measure, within
from comparison.choices import Bound, Search, SearchRow, SearchSummary
from comparison.integrity import check_runs
from comparison.plan import Overrides, Plan, make_plan, read_plan
from comparison.runner import read_outcome
from comparison.runs import Run
from comparison.tuning import FIRST_SEED, HOLDOUT, last_score, mean_score, missing_and_other, require_unseen, write_plan
from configs.schema import Config

FOLDER = "search"  # in the comparison's folder
BATCH = 12  # mixtures that are timed beside each other
DRAW_SEED = 0  # of the order in which mixtures are drawn
GROUPS = ("shallow backbone", "deep backbone", "neck", "head")
EXCLUDED = {"tune": "--tune", "vary": "--vary", "arm": "--arm", "aa": "--aa"}
Train = Callable[[Plan, Path], None]
"""Trains what is left of a plan in its folder; it raises an exception if runs are stopped from outside."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a search chooses from, and how: all of it is known before the first run."""

    acts: tuple[str, ...]
    baseline: str  # the activation that a bound is relative to
    groups: Mapping[str, tuple[str, ...]]  # stages by group
    mixtures: tuple[tuple[str, ...], ...]  # the activation of each group, in the order in which they are drawn
    budget: int  # trainings
    cfg: str
    common: Overrides

    @property
    def most(self) -> int:
        """As many mixtures as the budget can race."""
        return schedule(self.budget, len(self.mixtures))[0]

    @property
    def seeds(self) -> tuple[int, ...]:
        """One for each round of the longest race; none of them a seed of the comparison."""
        return tuple(range(FIRST_SEED, FIRST_SEED + len(schedule(self.budget, len(self.mixtures)))))

    def text(self, mixture: Sequence[str]) -> str:
        """A mixture as --acts takes it, which is also its label."""
        shallow, deep, neck, head = mixture
        stages = [f"{stage}={shallow}" for stage in self.groups[GROUPS[0]]] if shallow != deep else []
        return ",".join([f"backbone={deep}", f"neck={neck}", f"head={head}", *stages])

    def arms(self, mixtures: Sequence[Sequence[str]]) -> list[Arm]:
        """The arms of these mixtures."""
        return parse_arms([self.text(each) for each in mixtures], self.common, cfg=self.cfg)

    def matches(self, search: Search | None, bound: tuple[str, float] | None) -> bool:
        """Whether a frozen choice is one from this space."""
        frozen = None if search is None or search.bound is None else (search.bound.place, search.bound.limit)
        return (
            search is not None
            and (search.acts, search.groups, search.budget) == (self.acts, self.groups, self.budget)
            and frozen == bound
        )


def refuse(arguments: Namespace) -> None:
    """Raise ValueError for flags that do not go together with --search, or not without it."""
    if not arguments.search:
        given = {"--budget-runs": arguments.budget_runs, "--search-bound": arguments.search_bound}
        for flag in (name for name, value in given.items() if value is not None):
            raise ValueError(f"{flag} is for --search, as in --acts relu silu mish --search --budget-runs 24")
        return
    if not arguments.acts:
        raise ValueError("--search mixes the activations of --acts, as in --acts relu silu mish --search")
    for name, flag in EXCLUDED.items():
        if getattr(arguments, name):
            raise ValueError(f"--search: it cannot be combined with {flag}")
    if arguments.budget == "time":
        raise ValueError("--search: it cannot be combined with --budget time")
    if arguments.budget_runs is None:
        raise ValueError("--search: expected --budget-runs N, the number of trainings that it may use, as in 24")
    if arguments.budget_runs < 2:
        raise ValueError(
            f"--budget-runs {arguments.budget_runs}: expected 2 or more; the smallest search trains two mixtures once"
        )


def space_from(
    arguments: Namespace, arms: Sequence[Arm], common: Overrides, stages: Callable[[Config], Mapping[str, object]]
) -> Space:
    """The space of --search over the activations of ``arms``; ``stages``: the activation of each stage of a network.

    ValueError if there is nothing to mix, or if a seed of the comparison is one of the search.
    """
    if arms[0].config.model.kind == "darknet":
        raise ValueError(
            f"--search: {arguments.cfg} is a Darknet network, which has no stages to mix activations over; expected a "
            "YOLO network, as yolo-mish.yaml"
        )
    if len(arms) < 2:
        raise ValueError(f"--search: found {arms[0].name} alone; expected two or more activations to mix")
    for arm in arms:
        found = list(stages(arm.config).values())
        if any(each != found[0] for each in found):
            raise ValueError(f"--search: {arm.text} is a mixture already; expected one activation for all stages")
    require_unseen(arms, split=arguments.split, flag="--search")
    acts = tuple(arm.name for arm in arms)
    mixtures = [each for each in itertools.product(acts, repeat=len(GROUPS)) if len(set(each)) > 1]
    random.Random(DRAW_SEED).shuffle(mixtures)
    baseline = arguments.baseline or acts[0]
    if baseline not in acts:
        baseline = parse_arms([baseline], common, cfg=arguments.cfg)[0].name
    space = Space(
        acts=acts,
        baseline=baseline,
        groups=groups_of(list(stages(arms[0].config))),
        mixtures=tuple(mixtures),
        budget=arguments.budget_runs,
        cfg=arguments.cfg,
        common=common,
    )
    if both := sorted(set(space.seeds) & set(parse_seeds(arguments.seeds))):
        raise ValueError(f"--search: seed {both[0]} is one of --seeds; seeds from {FIRST_SEED} on are those of search")
    return space


def groups_of(stages: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The stages of each group: the first half of the backbone's are shallow, rounded down."""

    def of(part: str) -> tuple[str, ...]:
        return tuple(stage for stage in stages if stage.startswith(f"{part}."))

    backbone, neck, head = of("backbone"), of("neck"), of("head")
    half = len(backbone) // 2
    return dict(zip(GROUPS, (backbone[:half], backbone[half:], neck, head), strict=True))


def rounds(candidates: int) -> tuple[int, ...]:
    """How many candidates each round trains: the better half goes on, rounded up, until one is left."""
    sizes = []
    while candidates > 1:
        sizes.append(candidates)
        candidates = -(-candidates // 2)
    return tuple(sizes)


def schedule(budget: int, mixtures: int) -> tuple[int, ...]:
    """The rounds of the largest race until one is left that a budget of trainings pays for."""
    count = next((n for n in range(min(budget, mixtures), 2, -1) if sum(rounds(n)) <= budget), 2)
    return rounds(count)


def bounded(
    space: Space, baseline: Arm, limit: tuple[str, float], folder: Path, measure: Measure
) -> tuple[Bound, list[tuple[str, ...]]]:
    """The first mixtures within a bound, as many as the budget can race, and the ratios that were measured."""
    named: dict[str, tuple[str, ...]] = {}

    def batches() -> Iterator[list[Arm]]:
        for batch in (space.mixtures[first : first + BATCH] for first in range(0, len(space.mixtures), BATCH)):
            arms = space.arms(batch)
            named.update(zip((arm.name for arm in arms), batch, strict=True))
            yield arms

    bound, inside = within(limit, baseline, batches(), folder, measure, space.most)
    return bound, [named[name] for name in inside]


def round_folder(folder: Path, number: int) -> Path:
    """The folder of a round, counted from 1, in that of the search."""
    return folder / f"round-{number}"


def round_plan(space: Space, arms: Sequence[Arm], number: int, *, notes: Sequence[str] = ()) -> Plan:
    """The plan of a round: the candidates that are left, with one more seed."""
    return make_plan(
        acts=tuple(arm.name for arm in arms),
        baseline=arms[0].name,
        seeds=(space.seeds[number - 1],),
        cfg=space.cfg,
        overrides={**space.common, "train.holdout": HOLDOUT},
        arms={arm.name: arm.overrides for arm in arms},
        epochs={arm.name: arm.config.train.epochs for arm in arms},
        journaled=True,
        notes=tuple(notes),
    )


def race(
    space: Space,
    mixtures: Sequence[tuple[str, ...]],
    folder: Path,
    train: Train,
    *,
    bound: Bound | None = None,
    notes: Sequence[str] = (),
) -> Search:
    """Let these mixtures race and return the choice; rounds that have ended are read, not trained again.

    One mixture alone is chosen without a race. ValueError if all that were trained in a round failed.
    """
    arms = {arm.name: arm for arm in space.arms(mixtures)}
    scores: dict[str, list[float | None]] = {name: [] for name in arms}
    left, runs, number = list(arms), list[Run](), 0
    while len(left) > 1:
        number += 1
        place = round_folder(folder, number)
        print(f"search, round {number}: {len(left)} mixtures, seed {space.seeds[number - 1]}", flush=True)
        plan = write_plan(round_plan(space, [arms[name] for name in left], number, notes=notes), place)
        train(plan, place)
        ended = read_outcome(plan, place)
        runs += ended
        check_runs(runs)
        by_act = {run.act: last_score(run) for run in ended}
        for name in left:
            scores[name].append(by_act.get(name))
        left = better_half({name: scores[name] for name in left})
        if not left:
            raise ValueError(f"--search: every mixture of round {number} failed; see the logs in {place}")
    return Search(
        acts=space.acts,
        groups=dict(space.groups),
        budget=space.budget,
        holdout=HOLDOUT,
        seeds=space.seeds[:number],
        bound=bound,
        candidates=dict(zip(arms, mixtures, strict=True)),
        scores={name: tuple(row) for name, row in scores.items()},
        chosen=left[0],
    )


def better_half(scores: Mapping[str, Sequence[float | None]]) -> list[str]:
    """The half with the larger means, rounded up, in the order given; of equals, the first ones.

    A candidate of which a run failed is not eligible.
    """
    means = {name: mean for name, row in scores.items() if (mean := mean_score(row)) is not None}
    best = sorted(means, key=lambda name: -means[name])[: -(-len(scores) // 2)]
    return [name for name in scores if name in best]


# --------------------------------------------------------------------------------------------------------- the evidence


def read_rounds(search: Search, folder: Path) -> Iterator[tuple[Plan | None, list[Run]]]:
    """The plan and the runs of each round in the folder of a search. ValueError if a run was changed after its end."""
    seen: list[Run] = []
    for number in range(1, len(search.seeds) + 1):
        place = round_folder(folder, number)
        plan = read_plan(place)
        runs = read_outcome(plan, place) if plan is not None else []
        seen += runs
        check_runs(seen)
        yield plan, runs


def unconfirmed(search: Search, runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """The runs of a search that are missing, and those with other scores than the plan."""
    scores = [
        (act, seed, score)
        for act, row in search.scores.items()
        for seed, score in zip(search.seeds, row, strict=False)  # a mixture that left early has fewer
    ]
    return missing_and_other(scores, runs)


def other_choice(search: Search) -> bool:
    """Whether the frozen scores give another race or another winner than the frozen ones."""
    left = list(search.candidates)
    for number in range(1, len(search.seeds) + 1):
        if [name for name, row in search.scores.items() if len(row) >= number] != left:
            return True
        left = better_half({name: search.scores[name][:number] for name in left})
    return left != [search.chosen]


def summary_of(search: Search) -> SearchSummary:
    """A search for its report: the candidates that went furthest first, the best first among them."""
    bound, rows = search.bound, []
    for name, acts in search.candidates.items():
        scores = search.scores[name]
        mean = mean_score(scores)
        row = SearchRow(
            label=name,
            acts=acts,
            ratio=None if bound is None else bound.ratios[name],
            points=tuple(None if score is None else 100 * score for score in scores),
            mean=None if mean is None else 100 * mean,
            chosen=name == search.chosen,
        )
        rows.append(row)
    rows.sort(key=lambda row: (not row.chosen, -len(row.points), -(row.mean or 0.0)))
    return SearchSummary(
        groups=tuple(search.groups),
        seeds=search.seeds,
        place="" if bound is None else bound.place,
        rows=tuple(rows),
        words=wording.searches.report_words(search),
    )
