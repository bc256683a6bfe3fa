"""Means with 95 % intervals by Student's t, as numbers and as text."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ALPHA = 0.05


def mean_and_reach(values: ArrayLike) -> tuple[Any, Any]:
    """The mean over the first axis, and how far its interval reaches to both sides; NaN for a single value."""
    array = np.asarray(values, float)
    count, mean = len(array), array.mean(0)
    if count < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, stats.t.isf(ALPHA / 2, count - 1) * (array.std(0, ddof=1) / np.sqrt(count))


def mean_text(values: ArrayLike, form: str = "+.2f", unit: str = "") -> str:
    """The mean of values with its interval; a single value alone."""
    mean, reach = mean_and_reach(values)
    return interval_text(mean, mean - reach, mean + reach, form, unit)


def interval_text(estimate: float, low: float, high: float, form: str = "+.2f", unit: str = "") -> str:
    """An estimate with its unit and its interval, if there is one."""
    form = f"+z{form[1:]}" if form.startswith("+") else f"z{form}"  # z: no negative zero
    text = f"{estimate:{form}} {unit}".rstrip()
    return text if np.isnan(low) else f"{text} [{low:{form}}, {high:{form}}]"
