"""Intervals against scipy, and how they are written."""

import numpy as np
import pytest
from scipy import stats

from studies.intervals import mean_and_reach, mean_text


def test_the_interval_is_students():
    values = [1.0, 2.0, 4.0]
    mean, reach = mean_and_reach(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (mean - reach, mean + reach) == pytest.approx((low, high)) and np.isnan(mean_and_reach([1.0])[1])
    columns = np.array([values, [2.0, 2.0, 2.0]]).T
    means, reaches = mean_and_reach(columns)
    assert means == pytest.approx([mean, 2]) and reaches == pytest.approx([reach, 0])


def test_the_text_of_a_mean() -> None:
    assert mean_text([1.0, 2.0, 4.0], ".1f", "points") == "2.3 points [-1.5, 6.1]"  # 4.303 sqrt(7 / 9) to both sides
    assert mean_text([-1.5]) == "-1.50"
