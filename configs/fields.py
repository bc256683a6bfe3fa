"""The types of values in a configuration, and the base of its sections."""

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Unit = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
MAX_COUNT = 10**9  # no sensible count is larger, and errors of libraries about integers beyond 64 bits are unclear
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
AtLeastOne = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Length = Annotated[float, Field(ge=0, le=MAX_COUNT)]  # part of the schedule: a fraction of the run, or epochs


def printable_path(value: str) -> str:
    """The path, ValueError if it has characters that a message could not show."""
    if not value.isprintable():
        raise ValueError("expected a path of printable characters")
    return value


PathText = Annotated[str, AfterValidator(printable_path)]


def finite(value: object) -> object:
    """The value, ValueError if a number in it is infinite or NaN."""
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        finite(item)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("expected a finite number")
    return value


class Frozen(BaseModel):
    """A section of the configuration: immutable, no key beyond its fields, no number read from a string."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)


def _word(value: object) -> object:
    """YAML reads the words on and off as booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


OnOff = BeforeValidator(_word)
