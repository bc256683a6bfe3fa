"""A report shared by the tests of this folder: drawing one takes several seconds."""

import shutil
from pathlib import Path

import pytest

from tests.comparison.made_runs import ACTS, GAINS, plan_of, report_of, write_comparison, write_failed, write_run


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figures: drawing takes most of the time of a report."""
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four activations, five seeds; one run failed, one lacks a metric, two are excluded from timing."""
    folder = tmp_path_factory.mktemp("example")
    write_comparison(folder, gains=GAINS, slower={"mish": 1.1})
    for name in ("silu-s3", "mish-s1", "relu-s4"):
        shutil.rmtree(folder / name)
    write_failed(folder / "silu-s3", act="silu", seed=3, reason="<script>alert(1)</script>")
    write_run(folder / "mish-s1", act="mish", seed=1, last=0.65, seconds=20, waited=3.0)
    write_run(folder / "relu-s4", act="relu", seed=4, last=0.62, seconds=15, others=0.4, small=False)
    report_of(folder, plan_of(ACTS, range(5)))
    return folder
