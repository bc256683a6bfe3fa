"""The cells of a study: each is measured once, and a later call resumes there."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from studies import __main__ as command
from studies import study
from studies.rows import Row
from studies.study import measure_all
from tests.support.scripts import run

CELLS: list[Row] = [{"act": act, "seed": seed} for act in ("relu", "mish") for seed in (0, 1, 2)]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """The cells that a made-up study was asked for; seed 2 fails as long as "broken" is among them."""
    asked: list[Row] = []

    def measure(cell: Row) -> Row:
        asked.append(cell)
        if cell["seed"] == 2 and {"broken": True} in asked:
            raise RuntimeError("no memory")
        return {"accuracy": 90 + int(str(cell["seed"]))} | ({"note": "a, b"} if cell["act"] == "mish" else {})

    made = SimpleNamespace(cells=lambda *, quick: CELLS[:2] if quick else CELLS, measure=measure)
    monkeypatch.setattr(study, "load_study", lambda name: made)
    monkeypatch.setattr(study, "ProcessPoolExecutor", lambda jobs, *_: ThreadPoolExecutor(jobs))
    return asked


def test_each_cell_is_measured_once(measured: list[Row], tmp_path: Path) -> None:
    rows = measure_all("made", tmp_path, quick=False, jobs=2)
    assert [{key: row[key] for key in ("act", "seed")} for row in rows] == CELLS
    assert [row["accuracy"] for row in rows] == [90, 91, 92] * 2 and len(measured) == 6
    assert measure_all("made", tmp_path, quick=False) == rows and len(measured) == 6
    assert measure_all("made", tmp_path, quick=True) == rows[:2] and len(measured) == 6
    with open(tmp_path / "cells.csv", newline="") as file:
        kept = ("act", "seed", "accuracy")  # without the hash of the code
        assert list(csv.DictReader(file)) == [{key: str(row[key]) for key in kept} for row in rows[:2]]


def test_a_failure_loses_no_other_cell(measured: list[Row], tmp_path: Path) -> None:
    measured.append({"broken": True})
    with pytest.raises(RuntimeError, match="no memory"):
        measure_all("made", tmp_path, quick=False, jobs=1)
    kept = len(list((tmp_path / "cells").iterdir()))
    assert kept == sum(cell.get("seed") in (0, 1) for cell in measured) >= 2  # all that were measured
    assert not (tmp_path / "cells.csv").exists()
    measured.clear()
    assert len(measure_all("made", tmp_path, quick=False)) == 6 and len(measured) == 6 - kept


@pytest.mark.parametrize("content", [b"", b'{"act": "relu"', b"\xff\xfe", b"[1]", b"{}", b'{"act": "relu", "seed": 0}'])
def test_a_damaged_file_is_named_before_anything_is_measured(measured, tmp_path: Path, content: bytes) -> None:
    measure_all("made", tmp_path, quick=True)
    damaged = tmp_path / "cells" / f"{study._key(CELLS[0])}.json"
    damaged.write_bytes(content)
    measured.clear()
    with pytest.raises(ValueError, match=rf"{damaged.name}: not the row of its cell"):
        measure_all("made", tmp_path, quick=False)
    assert not measured


def test_cells_of_other_code_are_kept_and_counted(measured, tmp_path: Path, monkeypatch, capsys) -> None:
    rows = measure_all("made", tmp_path, quick=True)
    assert measure_all("made", tmp_path, quick=True) == rows and "other code" not in capsys.readouterr().err
    monkeypatch.setattr(study, "_sources", lambda: "changed")
    assert measure_all("made", tmp_path, quick=False)[:2] == rows and len(measured) == 6
    assert "made: 2 of the cells" in capsys.readouterr().err
    assert study.of_other_code(measure_all("made", tmp_path, quick=False)) == 2


def test_an_unknown_study_beside_all_is_named(tmp_path: Path, capsys) -> None:
    assert run(command.main, "studies", "all", "dept", "--project", tmp_path / "runs") == 2
    assert "did you mean 'depth'" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_machines_that_measured_are_kept(measured, tmp_path: Path, monkeypatch) -> None:
    for name in ("first", "second", "second"):
        monkeypatch.setattr(study, "machine", lambda device, name=name: name)
        measure_all("made", tmp_path, quick=name == "first")
    assert study.machines(tmp_path) == "first; second"
    monkeypatch.setattr(study, "machine", lambda device: "third")
    measure_all("made", tmp_path, quick=False)  # which measures nothing
    assert study.machines(tmp_path) == "first; second"


@pytest.mark.slow
def test_a_killed_process_is_one_line_and_loses_no_finished_cell(tmp_path: Path) -> None:
    pytest.importorskip("mlxtend")
    words = [sys.executable, "-m", "studies", "depth", "--quick", "--jobs", "1", "--project", str(tmp_path)]
    cells = tmp_path / "depth-quick/cells"
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not (cells.is_dir() and len(list(cells.glob("*.json"))) >= 2):
        time.sleep(0.05)
    (worker,) = _workers(process)
    os.kill(worker, signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    last = error.strip().splitlines()[-1]
    assert process.returncode == 2 and "Traceback" not in error
    assert re.search(r"depth: a process was killed, .* with \d+ of \d+ cells; the same command resumes", last)
    assert len(list(cells.glob("*.json"))) >= 2


def test_a_folder_that_cannot_be_written_is_found_first(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert run(command.main, "studies", "curves", "--quick", "--project", tmp_path / "file") == 2
    shown = capsys.readouterr().err
    assert str(tmp_path / "file") in shown and "cell" not in shown and len(shown.splitlines()) == 1


def _depth(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "studies", "depth", "--quick", "--jobs", "2", "--project", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored if the tests run in the background
    )


def _workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes that measure."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(each) for each in children if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


@pytest.mark.slow
def test_an_interrupt_while_processes_start(tmp_path: Path) -> None:
    pytest.importorskip("mlxtend")
    process = _depth(tmp_path)
    while not _workers(process):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)  # they import
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "stopped with" in error and "Traceback" not in error


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_finishes_the_running_cells_and_a_second_ends_them(tmp_path: Path, times: int) -> None:
    pytest.importorskip("mlxtend")
    cells = tmp_path / "depth-quick/cells"
    process = _depth(tmp_path)
    assert process.stderr is not None
    while not (cells.is_dir() and len(list(cells.glob("*.json"))) >= 2):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    line = ""
    while "finishing the running cells" not in line:
        line = process.stderr.readline()
        assert line
    before = len(list(cells.glob("*.json")))
    if times == 2:
        os.killpg(process.pid, signal.SIGINT)
    start = time.monotonic()
    error = process.communicate()[1]
    assert process.returncode == 130 and time.monotonic() - start < 60  # a cell takes a second, beside others more
    kept = len(list(cells.glob("*.json")))
    assert f"stopped with {kept} of" in error and "Traceback" not in error and before <= kept <= before + 2


@pytest.mark.parametrize(
    ("words", "said"),
    [(("depht",), "depht.*'depth'"), (("curves", "--jobs", "0"), "--jobs 0"), (("curves", "--quik"), "--quik")],
)
def test_bad_input_is_one_line(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.main, "studies", *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(said, error)
