"""Verdicts and recommendations: what is said, and what is never said."""

import random
from collections.abc import Mapping

import pytest

from comparison import wording
from comparison.power import seeds_needed, sigma_upper
from comparison.statistics import Comparison, Difference, compare_ratio
from comparison.summary import Failures, Verdict

Interval = tuple[float, float]


def verdict(
    interval: Interval | None,
    narrow: Interval | None,
    *,
    estimate: float = 0.8,
    seeds: int = 5,
    failed: Mapping[str, Failures] | None = None,
    exploratory: bool = False,
    sigma: float | None = 0.6,
    alpha: float = 0.05,
    pairs: int | None = None,
    insensitive: str = "",
) -> Verdict:
    """The verdict on mish, one of two candidates, against relu."""
    difference = Difference(
        name="mish",
        estimate=estimate,
        standard_error=0.3,
        interval=interval,
        equivalence_interval=narrow,
        sigma=sigma,
        pairs=seeds if pairs is None else pairs,
        correlation=None,
    )
    comparison = Comparison(
        baseline="relu",
        seeds=tuple(range(seeds)),
        differences={"mish": difference, "silu": difference},
        sigma=sigma,
        degrees=2 * (seeds - 1),
        critical=2.67,
        alpha=alpha,
        complete=True,
    )
    return wording.verdicts.map_verdict(
        difference, comparison, margin=0.5, failed=failed or {}, exploratory=exploratory, insensitive=insensitive
    )


@pytest.mark.parametrize(
    ("interval", "narrow", "estimate", "kind", "text"),
    [
        (
            (0.2, 1.4), (0.3, 1.3), 0.8, "higher",
            "significantly higher than relu, +0.80 mAP points (simultaneous 95 % CI +0.20 to +1.40, 90 % CI +0.30",
        ),
        (
            (-1.4, -0.2), (-1.3, -0.3), -0.8, "lower",
            "significantly lower than relu, -0.80 mAP points (simultaneous 95 % CI -1.40 to -0.20, 90 % CI -1.30",
        ),
        (
            (0.01, 0.3), (0.05, 0.25), 0.2, "higher-within-margin",
            "higher than relu by less than the declared margin of 0.5 mAP points, +0.20",
        ),
        (
            (-0.52, -0.01), (-0.47, -0.05), -0.2, "lower-within-margin",
            "lower than relu by less than the declared margin of 0.5 mAP points, -0.20",
        ),
        ((0.01, 0.6), (0.05, 0.55), 0.3, "higher", "significantly higher"),
        (
            (-0.45, 0.51), (-0.4, 0.45), 0.02, "equivalent",
            "equivalent to relu within ±0.5 mAP points, +0.02 mAP points (simultaneous 95 % CI -0.45 to +0.51, 90 % CI",
        ),
        ((-0.6, 1.3), (-0.4, 1.1), 0.35, "non-inferior", "non-inferior to relu (margin 0.5 mAP points), super"),
        ((-0.45, 0.7), (-0.4, 0.55), 0.1, "non-inferior", "non-inferior to relu"),
        ((-1.1, 0.9), (-0.9, 0.7), -0.1, "inconclusive", "inconclusive, -0.10 mAP points vs relu (simul"),
        ((-0.7, 0.2), (-0.6, 0.1), -0.25, "inconclusive", "inconclusive"),
    ],
)  # fmt: skip
def test_first_conclusion_that_holds(
    interval: Interval, narrow: Interval, estimate: float, kind: str, text: str
) -> None:
    found = verdict(interval, narrow, estimate=estimate)
    assert found.kind == kind and found.text.startswith(text)


@pytest.mark.parametrize("exploratory", [False, True])
def test_one_seed_has_no_verdict(exploratory: bool) -> None:
    found = verdict(None, None, seeds=1, sigma=None, exploratory=exploratory)
    assert found.kind == "none" and found.text == "no verdict (one seed); observed +0.80 mAP points vs relu"


def test_inconclusive_verdicts_name_the_additional_seeds() -> None:
    needed = seeds_needed(0.5, sigma=0.6, candidates=2)
    assert needed and f"about {needed - 5} more seeds needed" in verdict((-1.1, 0.9), (-0.9, 0.7)).text
    assert "; more than 1,000 more seeds" in verdict((-60.0, 50.0), (-50.0, 40.0), sigma=30.0).text


def test_failed_runs_come_first() -> None:
    failed = {"mish": Failures(2, 5), "relu": Failures(0, 5), "silu": Failures(5, 5)}
    text = verdict((0.2, 1.4), (0.3, 1.3), failed=failed).text
    assert text.startswith("2 of 5 mish runs failed; completed runs only: significantly higher")
    both = verdict((0.2, 1.4), (0.3, 1.3), failed=failed | {"relu": Failures(1, 5)}).text
    assert both.startswith("2 of 5 mish runs failed, 1 of 5 relu runs failed; completed runs only:")
    assert "failed" not in verdict((0.2, 1.4), (0.3, 1.3), failed={"silu": Failures(5, 5)}).text


@pytest.mark.parametrize("interval", [(0.2, 1.4), (-0.1, 0.1), (-2.0, 2.0)])
def test_exploratory_results_have_no_verdict(interval: Interval) -> None:
    found = verdict(interval, interval, exploratory=True)
    assert found.kind == "exploratory" and found.text.startswith("exploratory, no verdict: +0.80 mAP points vs relu")
    assert not any(word in found.text for word in ("significant", "equivalent", "inferior", "inconclusive"))


def test_two_pairs_carry_a_warning() -> None:
    """Pairs count, not seeds: of five seeds, failures may leave two."""
    for found in (verdict((0.2, 1.4), (0.3, 1.3), seeds=2), verdict((0.2, 1.4), (0.3, 1.3), pairs=2)):
        assert "2 pairs)" in found.text and "with two pairs of runs, only large differences" in found.text
    assert "two pairs" not in verdict((0.2, 1.4), (0.3, 1.3)).text
    needed = seeds_needed(0.5, sigma=sigma_upper(0.6, 2), candidates=2)
    assert needed and f"{needed - 2} more seeds needed" in verdict((-1.1, 0.9), (-0.9, 0.7), seeds=2).text


@pytest.mark.parametrize(
    ("interval", "narrow", "kind"),
    [
        ((-0.1, 0.1), (-0.09, 0.09), "insensitive"),
        ((0.01, 0.3), (0.05, 0.25), "insensitive"),
        ((-0.6, 1.3), (-0.4, 1.1), "insensitive"),
        ((0.2, 1.4), (0.3, 1.3), "higher"),
        ((-1.4, -0.2), (-1.3, -0.3), "lower"),
        ((-1.1, 0.9), (-0.9, 0.7), "inconclusive"),
    ],
)
def test_nothing_is_equivalent_before_anything_is_learned(interval: Interval, narrow: Interval, kind: str) -> None:
    found = verdict(interval, narrow, insensitive="nothing was learned yet")
    assert found.kind == kind and found.text.startswith("nothing was learned yet") == (kind == "insensitive")
    assert "equivalent" not in found.text and "non-inferior" not in found.text


def test_confidence_levels_of_interim_analyses() -> None:
    assert "(simultaneous 99 % CI" in verdict((0.2, 1.4), (0.3, 1.3), alpha=0.01).text
    assert ", 98 % CI -0.30 to" in verdict((-0.6, 1.4), (-0.3, 1.3), alpha=0.01).text


def test_verdicts_never_claim_too_much() -> None:
    draw = random.Random(0)
    for _ in range(300):
        low = draw.uniform(-2, 1)
        high = low + draw.uniform(0.01, 3)
        inset = 0.1 * (high - low)
        found = verdict(
            (low, high), (low + inset, high - inset), estimate=(low + high) / 2, exploratory=draw.random() < 0.2
        )
        assert not any(word in found.text for word in ("no difference", "equal to", "trend", "best", "identical"))
        assert ("significant" in found.text) == (found.kind in ("higher", "lower"))
        assert "95 % CI" in found.text and "90 % CI" in found.text


def test_training_time_is_a_relative_change() -> None:
    slow = {"relu": {0: 100.0, 1: 101.0, 2: 99.5}, "mish": {0: 112.0, 1: 113.5, 2: 111.0}}

    def time_verdict(values: dict[str, dict[int, float]], *, exploratory: bool = False) -> Verdict:
        comparison = compare_ratio(values, baseline="relu")
        return wording.verdicts.time_verdict(comparison.differences["mish"], comparison, exploratory=exploratory)

    found = time_verdict(slow)
    assert found.kind == "higher" and found.text.startswith("+12.0 % vs relu (simultaneous 95 % CI +")
    assert found.text.endswith(", 3 pairs, significant)")
    same = {"relu": slow["relu"], "mish": {0: 101.0, 1: 100.0, 2: 100.0}}
    low, high = compare_ratio(same, baseline="relu").differences["mish"].interval or (0.0, 0.0)
    found = time_verdict(same)
    assert found.kind == "inconclusive"
    bounds = f"at most {100 * (high - 1):.1f} % more, at most {100 * (1 - low):.1f} % less than relu"
    assert found.text.startswith(bounds)
    assert "no interval (one seed)" in time_verdict({"relu": {0: 100.0}, "mish": {0: 110.0}}).text
    assert time_verdict(slow, exploratory=True).kind == "exploratory"
    wide = time_verdict({"relu": {0: 1e-40, 1: 1e40}, "mish": {0: 1e40, 1: 1e-40}})
    assert wide.kind == "inconclusive" and "unbounded" in wide.text


@pytest.mark.parametrize(
    ("names", "text"), [((), ""), (("a",), "a"), (("a", "b"), "a and b"), (("a", "b", "c"), "a, b and c")]
)
def test_lists_in_sentences(names: tuple[str, ...], text: str) -> None:
    assert wording.numbers.join(names) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "unknown"), (0.05, "3 min 00 s"), (0.5, "30 min"), (100, "100 h (4 days)")]
)
def test_hours_in_readable_units(value: float | None, text: str) -> None:
    assert wording.numbers.hours(value) == text


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("floor", "Train longer, or on easier data, before choosing."),
        ("rising", "A longer training may change the result."),
        ("ceiling", "Harder data may show one."),
    ],
)
def test_what_to_do_if_a_comparison_is_insensitive(reason: str, said: str) -> None:
    assert wording.reasons.remedy(reason) == said


def test_verdicts_without_a_collapsed_run_are_exploratory() -> None:
    text = wording.verdicts.collapsed({("mish", 2): (5.0, 65.0)}, {"mish": Verdict(kind="higher", text="higher")})
    assert text.endswith("It counts in the verdict. Without it (exploratory): mish: higher.")
    two = {("mish", 2): (5.0, 65.0), ("relu", 1): (4.0, 62.0)}
    assert "They count in the verdict. Without them (exploratory): " in wording.verdicts.collapsed(two, {})
