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
