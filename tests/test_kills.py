"""Runs killed by SIGKILL at any moment and resumed, again and again, end bit for bit as the one never stopped."""

import os
from pathlib import Path

import pytest

from tests.stress.kills import Server, soak

pytestmark = pytest.mark.slow

KILLS = 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_runs_killed_at_any_moment_end_as_the_one_never_stopped(tmp_path: Path) -> None:
    server = Server()
    try:
        done = soak(server, tmp_path, kills=KILLS, seed=1, chain=4)
    finally:
        server.close()
    assert sum(done.values()) == KILLS and len(done) >= 4
