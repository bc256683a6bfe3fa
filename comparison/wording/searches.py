"""What is said of a search for a mixture of activations: its plan before the first run, and its part of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from comparison.choices import Bound, Search
from comparison.wording.captions import MAX_LISTED
from comparison.wording.numbers import count, join

if TYPE_CHECKING:
    from comparison.search import Space


def describe_search(space: Space, sizes: Sequence[int], *, epochs: int, objective: str) -> list[tuple[str, str]]:
    """The plan of a search before its runs, as names and texts; ``sizes``: mixtures in each round."""
    return [
        ("search", f"mixtures of {_mixed(space.acts, space.groups)}, drawn with a fixed seed"),
        ("objective", objective),
        ("rounds", _rounds(sizes, space.seeds) or "none: one mixture is left, and is taken without a race"),
        ("trainings", f"{sum(sizes)} of at most {space.budget}, {count(epochs, 'epoch')} each"),
    ]


def objective(bound: Bound | None, *, holdout: float) -> str:
    """What a search maximises, and under which bound."""
    maximised = f"mAP50-95 of the last epoch on {100 * holdout:g} % of the training images, held out"
    if bound is None:
        return maximised
    inside = sum(ratio <= bound.limit for ratio in bound.ratios.values())
    return (
        f"{maximised}; {_quantity(bound)} at most {bound.limit:g} times that of {bound.baseline}, measured on "
        f"untrained networks: {inside} of {count(len(bound.ratios), 'mixture')} within"
    )


def plan_entry(search: Search) -> str:
    """A search in the plan of its comparison."""
    return (
        f"{count(len(search.candidates), 'mixture')} of {', '.join(search.acts)}, {search.trainings} trainings; "
        f"{objective(search.bound, holdout=search.holdout)}: {search.chosen}"
    )


def report_words(search: Search) -> tuple[str, ...]:
    """The section of the report on the search."""
    drawn = len(search.acts) ** len(search.groups) - len(search.acts)
    sizes = [sum(len(row) > number for row in search.scores.values()) for number in range(len(search.seeds))]
    raced = (
        f"They raced, every run in full length: {_rounds(sizes, search.seeds)}. In each round the better half by the "
        f"mean mAP50-95 of the last epoch went on. The scores are those on {100 * search.holdout:g} % of the training "
        "images, which these runs did not train on; no run of the search saw the validation images."
    )
    sentences = [
        f"Mixtures of {_mixed(search.acts, search.groups)}: of {drawn}, {len(search.candidates)} entered, in an order "
        f"drawn with a fixed seed, for at most {search.budget} trainings.",
        *([] if search.bound is None else [_bound(search.bound)]),
        raced if sizes else "It was the only one, so nothing was trained.",
        f"Chosen: {search.chosen}.",
        "The search's scores are never the verdict: they chose a mixture, and the largest of several noisy scores is "
        "too high on average. The verdict on it is that of the comparison, from seeds that the search did not use.",
    ]
    return tuple(sentences)


def missing(runs: Sequence[str]) -> str:
    """The runs of a search that are missing."""
    return f"search: the runs of {_listed(runs)} are missing"


def other_scores(runs: Sequence[str]) -> str:
    """The runs of a search whose scores are not those from which the plan has chosen."""
    return f"search: the scores of {_listed(runs)} are not those of the plan"


def other_ratios(mixtures: Sequence[str]) -> str:
    """The mixtures whose measured ratios are not those of the plan."""
    return f"search: the ratios of {_listed(mixtures)} are not those that were measured"


def other_choice() -> str:
    """That the frozen scores do not give the frozen choice."""
    return "search: the scores of the plan give another race or another choice"


def of_search(reason: str) -> str:
    """A reason that is about the runs of a search."""
    return f"search: {reason}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED
    return "; ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _mixed(acts: Sequence[str], groups: Mapping[str, Sequence[str]]) -> str:
    stages = [f"{name} ({', '.join(stage.partition('.')[2] for stage in group)})" for name, group in groups.items()]
    return f"{join(acts)} over {join(stages)}"


def _rounds(sizes: Sequence[int], seeds: Sequence[int]) -> str:
    return ", ".join(f"{size} with seed {seed}" for size, seed in zip(sizes, seeds, strict=False))


def _quantity(bound: Bound) -> str:
    return "time of a training step" if bound.place == "step" else f"latency on {bound.place}"


def _bound(bound: Bound) -> str:
    inside = sum(ratio <= bound.limit for ratio in bound.ratios.values())
    return (
        f"Only mixtures with a {_quantity(bound)} of at most {bound.limit:g} times that of {bound.baseline} could "
        f"enter: {inside} of the {len(bound.ratios)} that were measured, before any training and side by side."
    )
