"""Numbers, intervals and lists in sentences."""

import math
from collections.abc import Sequence

from comparison.statistics import Difference
from core.text import format_duration


def signed(value: float, *, digits: int = 2) -> str:
    """A number with its sign, as in +0.80; zero has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def percent(ratio: float) -> str:
    """A ratio as a relative change, as in +4.0 %."""
    change = 100 * (ratio - 1)
    if math.isinf(change):
        return "unbounded"
    return f"{change:+.0e} %" if change >= 1e6 else f"{signed(change, digits=1)} %"


def level(alpha: float) -> str:
    """The confidence level, as in 95 %."""
    return f"{100 * (1 - alpha):g} %"


def join(names: Sequence[str], last: str = "and") -> str:
    """The list "a, b and c"."""
    return " ".join([", ".join(names[:-1]), last, names[-1]]) if len(names) > 1 else "".join(names)


def count(number: int, noun: str) -> str:
    """A number with its noun, as in "1 seed" and "3 seeds"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def hours(value: float | None) -> str:
    """A number of hours in readable units."""
    if value is None:
        return "unknown"
    if value < 1:
        return f"{60 * value:.0f} min" if value > 1 / 6 else format_duration(3600 * value)
    return format_duration(3600 * value) if value < 48 else f"{value:,.0f} h ({value / 24:,.0f} days)"


def seeds_or_more(seeds: int | None) -> str:
    """A required number of seeds; None stands for more than the limit of the search."""
    return "more than 1,000" if seeds is None else str(seeds)


def about(seeds: int | None) -> str:
    """An estimated number of seeds."""
    return seeds_or_more(seeds) if seeds is None else f"about {seeds}"


def confidence_interval(interval: tuple[float, float], alpha: float) -> str:
    """An interval with its level, as in simultaneous 95 % CI +0.10 to +1.54."""
    return f"simultaneous {level(alpha)} CI {ends(interval)}"


def ends(interval: tuple[float, float]) -> str:
    """The ends of an interval, as in +0.10 to +1.54."""
    return f"{signed(interval[0])} to {signed(interval[1])}"


def ratio_interval(interval: tuple[float, float], alpha: float) -> str:
    """An interval of ratios with its level, as in simultaneous 95 % CI -1.0 % to +4.0 %."""
    return f"simultaneous {level(alpha)} CI {percent(interval[0])} to {percent(interval[1])}"


def time_ratio(ratio: Difference) -> str:
    """A time ratio with the bounds of its interval."""
    if ratio.interval is None or math.isinf(ratio.interval[1]):
        return f"×{ratio.estimate:.2f} (no interval)"
    low, high = ratio.interval
    return f"×{ratio.estimate:.2f} ({low:.2f} to {high:.2f})"


def signed_points(value: float, interval: tuple[float, float] | None = None) -> str:
    """A difference in points with its interval: +0.82 [+0.10, +1.54]."""
    return f"{signed(value)}{'' if interval is None else ' ' + signed_interval(interval)}".replace("-", "−")


def signed_interval(interval: tuple[float, float]) -> str:
    """An interval in points: [+0.10, +1.54]."""
    return f"[{signed(interval[0])}, {signed(interval[1])}]".replace("-", "−")


def times_ratio(value: float, interval: tuple[float, float] | None = None) -> str:
    """A ratio with its interval: ×1.10 [1.08, 1.12], with a third digit if the interval is narrow."""
    if interval is None:
        return f"×{value:.2f}"
    digits = 3 if interval[1] - interval[0] < 0.02 else 2
    low, high = (f"{end:.{digits}f}" if end < 1000 else "∞" if math.isinf(end) else f"{end:.0e}" for end in interval)
    return f"×{value:.{digits}f} [{low}, {high}]"
