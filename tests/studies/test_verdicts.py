"""The rules by which a claim is judged."""

import math

import numpy as np
import pytest
from scipy import stats

from studies.verdicts import Finding, corrected, finding, holm, judge


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([3.0, 3.5, 2.5, 3.2, 2.8], "supported"),
        ([0.2, 0.1, 0.3, 0.2, 0.25], "contradicted"),  # significant, and too small to count
        ([-3.0, -3.5, -2.5], "contradicted"),
        ([4.0, -2.0, 3.0, -1.0, 2.0], "inconclusive"),
        ([1.5, 0.5, 0.8, 1.0, 0.9], "inconclusive"),  # significant, but perhaps less than the margin
    ],
)
def test_a_claim_of_one_point(differences: list[float], verdict: str) -> None:
    judged = judge(differences, margin=1.0)
    test = stats.ttest_1samp(differences, 0)
    assert judged.verdict == verdict and judged.p == pytest.approx(test.pvalue)
    assert judged.interval == pytest.approx(tuple(test.confidence_interval()))


@pytest.mark.parametrize(("mean", "distance"), [(0.15, 0.05), (0.05, 0.15), (-0.1, 0.3), (0.3, 0.3)])
def test_seeds_needed_tell_a_mean_from_the_margin_or_from_0(mean: float, distance: float) -> None:
    """Against the power of a t test by simulation: sd 0.2, margin 0.2, 80 % at 5 %, two-sided."""
    values = mean + 0.2 * np.array([-1, 1, -1, 1]) * math.sqrt(3 / 4)  # sd 0.2
    judged = judge(values.tolist(), margin=0.2)
    assert judged.verdict == "inconclusive" and judged.seeds_needed is not None

    def power(seeds: int) -> float:
        generator = np.random.default_rng(0)
        samples = distance + 0.2 * generator.normal(size=(40_000, seeds))
        t = samples.mean(1) / (samples.std(1, ddof=1) / math.sqrt(seeds))
        return float((t > stats.t.ppf(0.975, seeds - 1)).mean())

    assert power(judged.seeds_needed) > 0.79
    assert judged.seeds_needed == 3 or power(judged.seeds_needed - 1) < 0.81


def test_no_difference_at_all_has_p_1() -> None:
    assert judge([0.0, 0.0], margin=1.0).p == 1 and judge([2.0, 2.0], margin=1.0).p == 0


def test_a_finding_without_a_figure_is_inconclusive_and_a_descriptive_one_is_not_corrected() -> None:
    judged = judge([3.0, 3.5, 2.5, 3.2, 2.8], margin=1.0)
    words = {"claim": "c", "published": "p", "found": "f"}
    whole, descriptive = finding(**words, judged=judged), finding(**words, judged=judged, primary=False)
    assert (whole.verdict, whole.judged) == ("supported", judged)
    assert (descriptive.verdict, descriptive.judged, descriptive.brief) == ("supported", None, whole.brief)
    assert finding(**words, judged=None).verdict == "inconclusive"


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04]) and holm([0.7, 0.6]) == [1, 1] and not holm([])


def test_holms_correction_against_hand_calculation() -> None:
    base = judge([3.0, 3.5, 2.5, 3.2, 2.8], margin=1.0)
    ps = (0.04, 0.01, 0.02)
    findings = [_finding(base.__class__(**{**vars(base), "p": p})) for p in ps] + [_finding(None)]
    found = corrected(findings)
    assert [each.judged and round(each.judged.p, 12) for each in found] == [0.04, 0.03, 0.04, None]
    assert {each.verdict for each in found} == {"supported"}
    worse = [_finding(base.__class__(**{**vars(base), "p": p})) for p in (0.04, 0.03)]
    assert [each.verdict for each in corrected(worse)] == ["inconclusive"] * 2


def _finding(judged: object) -> Finding:
    return Finding(claim="c", published="p", found="f", brief="b", verdict="supported", judged=judged)  # type: ignore[arg-type]


def test_the_deciding_figure_in_its_unit_by_hand() -> None:
    judged = judge([1.0, 2.0, 3.0], margin=0.5)  # mean 2, standard error 0.577, t 4.303
    text = {"claim": "c", "published": "p", "found": "One. Two."}
    assert finding(**text, judged=judged, unit="points").brief == "+2 [-0.484, +4.48] points; +0.5 counts"
    less = judge([math.log(each) for each in (2.0, 2.0, 2.0)], margin=math.log(1.25))
    assert finding(**text, judged=less, unit="of it", ratio=-1).brief == "0.500 [0.500, 0.500] of it; 0.80 counts"
    assert finding(**text, judged=less, unit="of it", ratio=1).brief == "2.000 [2.000, 2.000] of it; 1.25 counts"
    assert finding(**text, judged=None).brief == "One"
    assert finding(**text, judged=less, unit="of it", ratio=1, brief="Two").brief.startswith("Two; 2.000 [")
