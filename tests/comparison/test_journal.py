"""A run that is trained again, and a failure that is removed, leave a trace."""

import shutil
from pathlib import Path

import pytest

from comparison.integrity import doubts
from comparison.journal import JOURNAL, note, retrained
from comparison.runner import read_outcome, train_all
from tests.comparison.made_runs import declare, plan_of, write_comparison
from tests.comparison.test_runner import STUB, behave
from tests.comparison.test_runner import plan_of as plan_to_train


@pytest.mark.parametrize(
    ("events", "again"),
    [
        ((), False),
        (("started", "finished"), False),
        (("started", "started", "resumed", "finished"), False),  # killed before its first checkpoint
        (("started", "finished", "finished"), False),  # seen by two processes
        (("started", "finished", "started", "finished"), True),
        (("finished", "started"), True),
    ],
)
def test_a_run_that_is_trained_again_makes_the_result_exploratory(
    events: tuple[str, ...], again: bool, tmp_path: Path
) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(2))
    plan = plan_of(("relu", "mish"), range(2))
    plan.write(tmp_path)
    declare(tmp_path, plan)
    for event in events:
        note(tmp_path, "mish-s1", event)
        note(tmp_path, "another-run", event)
    (tmp_path / JOURNAL).open("a").write("cut off {")
    reasons = doubts(read_outcome(plan, tmp_path), plan)
    assert [reason for reason in reasons if "mish-s1: trained again" in reason] == [*reasons] and bool(reasons) == again


@pytest.mark.slow
def test_the_runner_notes_what_it_does(tmp_path: Path) -> None:
    plan = plan_to_train("relu", "mish", seeds=(0,), epochs=2)
    behave(tmp_path, mish_s0={"fail": True})
    train_all(plan, tmp_path, trainer=STUB)
    assert retrained(read_outcome(plan, tmp_path)) == ([], [])
    behave(tmp_path)
    train_all(plan, tmp_path, retry_failed=True, trainer=STUB)
    assert retrained(read_outcome(plan, tmp_path)) == ([], [])
    (tmp_path / "mish-s0/failure-1.json").unlink()
    assert retrained(read_outcome(plan, tmp_path)) == ([], ["mish-s0"])
    shutil.rmtree(tmp_path / "relu-s0")
    train_all(plan, tmp_path, trainer=STUB)
    assert retrained(read_outcome(plan, tmp_path)) == (["relu-s0"], ["mish-s0"])
