"""The published numbers: statistics against scipy and by hand, and the rows that contradict themselves."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from studies import published, published_statistics
from studies.__main__ import main
from studies.published_tables import CIFAR10, COCO, FLATTEN_T_SWISH_OF_3
from studies.verdicts import holm


def test_welch_against_scipy() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(1, 2, 23), generator.normal(0, 0.5, 23)
    expected = stats.ttest_ind(one, other, equal_var=False)
    found = published_statistics.welch((one.mean(), one.std(ddof=1)), (other.mean(), other.std(ddof=1)), 23)
    assert found == pytest.approx((one.mean() - other.mean(), *expected.confidence_interval(), expected.pvalue))


def test_rows_agree_with_what_is_printed_but_for_one() -> None:
    rows = {name: published.measure({"table": "cifar10", "row": name}) for name in CIFAR10}
    for name, row in rows.items():
        assert row["d"] == pytest.approx(-CIFAR10[name].cohens_d if name == "E-Swish" else CIFAR10[name].cohens_d, 1e-2)
        if row["p_printed"] == published_statistics.BELOW:
            assert row["p"] < 1e-4
        else:
            assert row["p"] == pytest.approx(row["p_printed"], abs=2e-4)
    assert [name for name, row in rows.items() if not row["row_consistent"]] == ["ISRU"]
    assert [name for name, row in rows.items() if not row["width_consistent"]] == ["SoftPlus"]
    assert (CIFAR10["ISRU"].mean, CIFAR10["ISRU"].sd) == pytest.approx(FLATTEN_T_SWISH_OF_3, abs=1e-5)
    assert [name for name, row in rows.items() if row["p_holm"] >= 0.05] == ["Swish-1", "E-Swish", "GELU", "ELiSH"]


def test_largest_standard_deviations() -> None:
    """A little below the limit all are significant by Holm as said, a little above it not."""
    differences = {"a": 1.4, "b": -0.6, "c": 0.5, "d": 0.0}
    limits = published_statistics.largest_sds(differences)
    assert limits["a"] == pytest.approx(1.4 / (math.sqrt(2) * stats.norm.isf(0.05 / 8))) and limits["d"] == 0
    for name in "abc":
        for factor, significant in ((0.999, True), (1.001, False)):
            sd = limits[name] * factor
            ps = [2 * stats.norm.sf(abs(each) / (math.sqrt(2) * sd)) for each in differences.values()]
            assert (dict(zip(differences, holm(ps), strict=True))[name] < 0.05) == significant


def test_the_depth_figures_noise_by_hand() -> None:
    row = published.measure({"table": "depth", "row": "ReLU"})
    assert (row["largest_gap"], row["largest_gap_layers"]) == (pytest.approx(11.7), 25)
    gaps = (0, 2.5, 8.9, 10.6, 6, 11.6, 5.7, 0.1, 7.4, 6.6, 11.7)
    assert row["run_sd"] == pytest.approx(math.sqrt(sum(gap**2 for gap in gaps) / 22))


def test_a_claim_of_each_activation_needs_all() -> None:
    rows = [{**cell, **published.measure(cell)} for cell in published.cells(quick=False)]
    cifar, coco, depth = published.conclude(rows)
    assert cifar.verdict == coco.verdict == depth.verdict == "inconclusive"
    assert cifar.judged is not None and cifar.judged.p == pytest.approx(0.9075, abs=2e-4)
    assert "9 of 13" in cifar.found and "3 of 5" in coco.found
    assert len([row for row in rows if row["table"] == "coco"]) == len(COCO)


@pytest.mark.slow
def test_quick(tmp_path) -> None:
    assert main(["published", "--quick", "--jobs", "1", "--project", str(tmp_path)]) == 0
    folder = tmp_path / "published-quick"
    assert len(json.loads((folder / "findings.json").read_text())["findings"]) == 3
    assert (folder / "cells.csv").is_file() and (folder / "published.png").stat().st_size > 20_000
