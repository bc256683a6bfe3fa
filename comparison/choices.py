"""What is chosen before the runs of a comparison: the choice as its plan holds it, and as its report shows it."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from configs.fields import Seed


class Tuning(BaseModel):
    """The choice of one setting for each arm, frozen before the runs of the comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    key: str  # of the config
    values: tuple[JsonValue, ...]  # tried by every arm
    seeds: tuple[Seed, ...]  # none of them a seed of the comparison
    holdout: Annotated[float, Field(gt=0, lt=1)]  # fraction of the training images that scored them
    scores: dict[str, tuple[tuple[float | None, ...], ...]]  # mAP by arm, value and seed; None: the run failed
    chosen: dict[str, JsonValue]  # by arm: the value with the largest mean
    common: JsonValue  # the value of the config, for all arms
    common_trained: bool  # whether the arms are compared at the common value, too

    @property
    def chose_common(self) -> bool:
        """Whether every arm chose the common value, so that the verdict at either is the same."""
        return all(value == self.common for value in self.chosen.values())


class Bound(BaseModel):
    """The bound of a search, with what was measured before any training."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    place: str  # a runtime, or "step" for the training step
    limit: Annotated[float, Field(gt=0)]  # largest ratio to the baseline
    baseline: str
    ratios: dict[str, float]  # of all mixtures that were measured, in the order drawn


class Search(BaseModel):
    """The choice of a mixture of activations, frozen before the runs of the comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    acts: tuple[str, ...]  # that were mixed
    groups: dict[str, tuple[str, ...]]  # stages by group; one activation for each group
    budget: Annotated[int, Field(ge=2)]  # the most trainings
    holdout: Annotated[float, Field(gt=0, lt=1)]  # fraction of the training images that scored them
    seeds: tuple[Seed, ...]  # one for each round, none of them a seed of the comparison
    bound: Bound | None = None
    candidates: dict[str, tuple[str, ...]]  # by label: the activation of each group; in the order drawn
    scores: dict[str, tuple[float | None, ...]]  # mAP by candidate, one for each of its rounds; None: the run failed
    chosen: str  # label

    @property
    def trainings(self) -> int:
        """How many runs were trained."""
        return sum(map(len, self.scores.values()))


@dataclass(frozen=True, kw_only=True)
class TuningCurve:
    """The mAP of one arm on held-out training images, by value of the tuned key."""

    act: str
    means: tuple[float | None, ...]  # points, in the order of the values; None if a run failed
    runs: tuple[tuple[float | None, ...], ...]  # points, by value and tuning seed
    chosen: int  # place of the chosen value
    at_edge: bool  # the chosen value is the smallest or largest of several


@dataclass(frozen=True, kw_only=True)
class TuningSummary:
    """How the arms were tuned, and the verdicts at the common value."""

    key: str
    values: tuple[JsonValue, ...]
    common: JsonValue  # the value of the config
    curves: tuple[TuningCurve, ...]
    words: tuple[str, ...]
    common_verdicts: tuple[str, ...]  # empty if the comparison at the common value was not made


@dataclass(frozen=True, kw_only=True)
class SearchRow:
    """A candidate of a search."""

    label: str
    acts: tuple[str, ...]  # by group
    ratio: float | None  # to the baseline of the bound, if there is one
    points: tuple[float | None, ...]  # held-out mAP by round; None if the run failed
    mean: float | None  # None if a run failed, or without a race
    chosen: bool


@dataclass(frozen=True, kw_only=True)
class SearchSummary:
    """How a mixture was chosen; the search's scores are no verdict."""

    groups: tuple[str, ...]
    seeds: tuple[int, ...]  # by round
    place: str  # that the bound is about; "" without one
    rows: tuple[SearchRow, ...]  # those of the last round first, by their means
    words: tuple[str, ...]
