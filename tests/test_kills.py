"""Runs killed by SIGKILL at any moment and resumed, again and again, end bit for bit as the one never stopped."""

from pathlib import Path

import pytest

from tests.stress.kills import soak

pytestmark = pytest.mark.slow

KILLS = 8


def test_runs_killed_at_any_moment_end_as_the_one_never_stopped(tmp_path: Path, warm_python: str) -> None:
    done = soak(warm_python, tmp_path, kills=KILLS, seed=1, chain=4)
    assert sum(done.values()) == KILLS and len(done) >= 4
