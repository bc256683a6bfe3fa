"""A run that is trained again, removed or replaced, and a failure that is removed or invented, leave a trace."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from comparison.integrity import doubts
from comparison.journal import JOURNAL, Event, Irregular, irregular, note, note_ended
from comparison.plan import Plan, read_plan
from comparison.report import report
from comparison.runner import read_outcome, train_all
from comparison.runs import read_runs
from tests.comparison.made_runs import (
    declare,
    edit_record,
    plan_of,
    write_comparison,
    write_failed,
)
from tests.comparison.test_report import rounds, timing_of
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
    events: tuple[Event, ...], again: bool, tmp_path: Path
) -> None:
    """Also with the journals of earlier versions, which have no hashes and lack some ends."""
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


def test_a_line_that_was_cut_off_by_a_kill_does_no_harm(tmp_path: Path) -> None:
    note(tmp_path, "mish-s1", "started")
    (tmp_path / JOURNAL).open("a").write('{"time": "cut o')
    note(tmp_path, "mish-s1", "restarted")
    assert irregular(tmp_path, {}, complete=True) == Irregular()


# ----------------------------------------------------------------------------------------------------------- forgeries


@pytest.fixture
def folder(tmp_path: Path, undrawn: None) -> Path:
    """A finished comparison of relu and mish with three seeds and a journal; relu failed once with seed 2."""
    place = tmp_path / "c"
    write_comparison(place, gains={"relu": 0.0, "mish": 4.0}, seeds=range(3))
    plan = plan_of(("relu", "mish"), range(3), journaled=True)
    plan.write(place)
    declare(place, plan)
    for run in plan.runs:
        note(place, run.name, "started")
        if run.name == "relu-s2":
            (place / "relu-s2/failure.json").write_text('{"reason": "a reason"}', encoding="utf-8")
            note(place, run.name, "failed")
            (place / "relu-s2/failure.json").rename(place / "relu-s2/failure-1.json")
            note(place, run.name, "restarted")
        note(place, run.name, "finished")
    return place


def found(place: Path) -> list[str]:
    """Why the report of a comparison is exploratory; empty for the planned verdict."""
    report([place], place)
    reasons: list[str] = json.loads((place / "report.json").read_text(encoding="utf-8"))["exploratory"]
    return reasons


def lines(place: Path, change: Callable[[list[str]], object]) -> None:
    """Change the lines of the journal."""
    file = place / JOURNAL
    content = file.read_text(encoding="utf-8").splitlines(keepends=True)
    change(content)
    file.write_text("".join(content), encoding="utf-8")


def fail(run: Path) -> None:
    """Turn a finished run into one that failed before it began."""
    act, _, seed = run.name.rpartition("-s")
    shutil.rmtree(run)
    write_failed(run, act=act, seed=int(seed), reason="the loss is not finite")
    (run / "run.json").unlink()


def replace(run: Path) -> None:
    """Put a better run of the same plan in the place of a run."""
    edit_record(run, lambda record: record.__setitem__("note", "another run"))


FORGERIES: dict[str, Callable[[Path], object]] = {
    "a finished run as a failed one": lambda place: fail(place / "mish-s0"),
    "a run replaced by another one": lambda place: replace(place / "mish-s0"),
    "a failure invented": lambda place: (place / "mish-s0/failure-1.json").write_text('{"reason": "killed"}'),
    "a failure removed": lambda place: (place / "relu-s2/failure-1.json").unlink(),
    "the reason of a failure edited": lambda place: (place / "relu-s2/failure-1.json").write_text('{"reason": "disk"}'),
    "a failure and its run's name removed": lambda place: (
        (place / "relu-s2/failure-1.json").unlink(),
        (place / "relu-s2").rename(place / "relu-2"),
    ),
    "the journal removed": lambda place: (place / JOURNAL).unlink(),
    "the journal removed and its runs reported as ended": lambda place: (
        (place / JOURNAL).unlink(),
        note_ended(place, {"mish-s0": "finished", "relu-s0": "finished"}),
    ),
    "a line removed": lambda place: lines(place, lambda rows: rows.pop(2)),
    "the last line removed": lambda place: lines(place, list.pop),
    "the first line removed": lambda place: lines(place, lambda rows: rows.pop(0)),
    "a line twice": lambda place: lines(place, lambda rows: rows.insert(1, rows[0])),
    "lines reordered": lambda place: lines(place, list.reverse),
    "a time edited": lambda place: lines(
        place, lambda rows: rows.__setitem__(0, json.dumps({**json.loads(rows[0]), "time": "2020-01-01"}) + "\n")
    ),
    "the plan without its seal": lambda place: edit_plan(place, seal=None, notes=["declared afterwards"]),
    "the plan without its journal": lambda place: edit_plan(place, seal=None, journaled=False),
}


def edit_plan(place: Path, **changes: object) -> None:
    content = {**json.loads((place / "plan.json").read_text(encoding="utf-8")), **changes}
    content = {key: value for key, value in content.items() if value is not None}
    (place / "plan.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_comparison_with_its_journal_has_its_verdict(folder: Path) -> None:
    assert found(folder) == []


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_comparison_has_no_verdict(folder: Path, name: str) -> None:
    FORGERIES[name](folder)
    try:
        assert found(folder) != []
    except ValueError as refused:
        assert "plan.json: changed" in str(refused)


def test_an_isolated_timing_that_is_measured_again_says_so(folder: Path) -> None:
    file = folder / "timing.json"
    for ratio in (1.2, 1.01):
        file.write_text(json.dumps(timing_of(times_ms=rounds(ratio))))
        note(folder, file.name, "timed")
    assert found(folder) == []
    text = json.loads((folder / "report.json").read_text(encoding="utf-8"))["timing"]["load"]
    assert "measured 2 times, of which this is the last" in text
    file.write_text(json.dumps(timing_of(times_ms=rounds(1.0))))
    assert found(folder) == ["timing.json was removed or replaced after it was measured"]
    file.unlink()
    assert found(folder) == ["timing.json was removed or replaced after it was measured"]


@pytest.mark.parametrize(
    ("events", "again"),
    [
        (("started", "restarted", "resumed", "finished"), ()),  # stopped before its first checkpoint
        (("started", "started", "finished"), ("mish-s0",)),  # its folder was removed
    ],
)
def test_an_unfinished_run_that_was_removed_leaves_a_trace(
    folder: Path, events: tuple[Event, ...], again: tuple[str, ...]
) -> None:
    (folder / JOURNAL).unlink()
    for event in events:
        note(folder, "mish-s0", event)
    run = read_runs([folder / "mish-s0"])[0]
    assert irregular(folder, {"mish-s0": run}, complete=True) == Irregular(again=again)


def test_seeds_removed_after_an_interim_analysis_give_no_verdict(folder: Path) -> None:
    """The verdict after two seeds is that of the plan, but the third was trained."""
    plan = plan_of(("relu", "mish"), range(3), journaled=True, interim=(2, 3))
    plan.write(folder)
    declare(folder, plan)
    (folder / JOURNAL).unlink()
    for run in plan.runs:
        note(folder, run.name, "started")
        note(folder, run.name, "finished")
    (folder / "relu-s2/failure-1.json").unlink()
    assert found(folder) == []
    shutil.rmtree(folder / "mish-s2")
    shutil.rmtree(folder / "relu-s2")
    assert any("relu-s2 and mish-s2" in reason for reason in found(folder))


def test_a_comparison_that_was_moved_has_its_verdict(folder: Path) -> None:
    assert found(folder.rename(folder.with_name("elsewhere"))) == []


def test_a_run_that_ended_after_its_comparison_was_killed_is_noted_by_the_next_call(folder: Path) -> None:
    lines(folder, list.pop)
    plan = read_plan(folder)
    assert plan is not None and any("rerun its command" in reason for reason in doubts(read_runs([folder]), plan))
    note_ended(folder, {run.name: "finished" for run in plan.runs})
    assert doubts(read_runs([folder]), plan) == ()


# ---------------------------------------------------------------------------------------------------------- the runner


def of(plan: Plan, place: Path) -> Irregular:
    runs = {run.folder.name: run for run in read_outcome(plan, place)}
    return irregular(place, {run.name: runs.get(run.name) for run in plan.runs}, complete=True)


@pytest.mark.slow
def test_the_runner_notes_what_it_does(tmp_path: Path) -> None:
    plan = plan_to_train("relu", "mish", seeds=(0,), epochs=2)
    behave(tmp_path, mish_s0={"fail": True})
    train_all(plan, tmp_path, trainer=STUB)
    assert of(plan, tmp_path) == Irregular()
    behave(tmp_path)
    train_all(plan, tmp_path, retry_failed=True, trainer=STUB)
    assert of(plan, tmp_path) == Irregular()
    (tmp_path / "mish-s0/failure-1.json").unlink()
    assert of(plan, tmp_path) == Irregular(lost=("mish-s0",))
    shutil.rmtree(tmp_path / "relu-s0")
    assert of(plan, tmp_path) == Irregular(lost=("mish-s0",), other=("relu-s0",))
    train_all(plan, tmp_path, trainer=STUB)
    assert of(plan, tmp_path) == Irregular(again=("relu-s0",), lost=("mish-s0",))
