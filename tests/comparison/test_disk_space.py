"""The disk space that a comparison needs, before it starts."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from comparison import disk_space
from comparison.disk_space import OTHER_FILES, require_space
from comparison.plan import Plan, make_plan

MIB = 1 << 20


def plan_of(*acts: str) -> Plan:
    arms = {act: {"model.act": act} for act in acts}
    return make_plan(
        acts=acts, baseline=acts[0], seeds=(0, 1), cfg="yolo.yaml", arms=arms, epochs=dict.fromkeys(acts, 2)
    )


@pytest.mark.parametrize(("at_once", "done", "needed"), [(1, 0, 280), (2, 0, 320), (1, 30, 250)])
def test_what_is_left_must_fit(
    at_once: int, done: int, needed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four runs with 60 MiB of checkpoints, of which one is written twice; one has some of its files already."""
    if done:
        (tmp_path / "c/relu-s0").mkdir(parents=True)
        (tmp_path / "c/relu-s0/epoch1.pt").write_bytes(bytes(done * MIB))

    def check(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
        require_space(
            plan_of("relu", "mish"), tmp_path / "c", lambda run: (60 * MIB, 40 * MIB, 10 * MIB), at_once=at_once
        )

    exact = needed * MIB + 4 * OTHER_FILES
    check(exact)
    with pytest.raises(ValueError, match="what is left of its 4 runs needs about .* MiB are free"):
        check(exact - 1)


def test_exported_files_are_counted_until_they_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six files of 10 MiB for each of four runs, all of them trained and one exported."""
    monkeypatch.setattr(disk_space, "remaining", lambda *_, **__: [])
    (tmp_path / "relu-s0").mkdir()
    (tmp_path / "relu-s0/deployed.json").write_text("{}")
    for free, fits in ((180 * MIB, True), (180 * MIB - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        with nullcontext() if fits else pytest.raises(ValueError, match="needs about 180 MiB"):
            require_space(plan_of("relu", "mish"), tmp_path, lambda run: (60, 40, 10 * MIB), at_once=1, exported=6)
