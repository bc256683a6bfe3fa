"""Every sentence of a comparison: plan, verdicts, recommendation, captions and warnings."""

from comparison.wording import (
    captions,
    numbers,
    page,
    places,
    plans,
    reasons,
    recommendations,
    searches,
    titles,
    verdicts,
)

__all__ = [
    "captions",
    "numbers",
    "page",
    "places",
    "plans",
    "reasons",
    "recommendations",
    "searches",
    "titles",
    "verdicts",
]
