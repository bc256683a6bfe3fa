"""What a study is, and how its cells are measured: in parallel, each once; a first Ctrl-C loses none.

A study is a module of this package with the members of `Study`. Its cells are the combinations of what it varies
(activation, depth, seed, ...). Each is measured by itself and kept as a file, so that a later call resumes there.
With ``ALONE = True``, a study that measures times has its cells measured one after the other.
"""

import hashlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import cache
from multiprocessing import active_children, get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import torch

from core.arguments import shown
from core.cores import usable_cores
from core.files import write_text
from core.progress import progress_bar
from core.text import did_you_mean
from engine.machine import source_hash
from ops.bench import machine
from studies.rows import Row, to_csv
from studies.verdicts import Finding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCES = "source_sha256"  # in a cell's file: the code that measured it
MACHINES = "machines.txt"
_stop: Event | None = None  # in the processes that measure
NAMES = ("curves", "landscape", "depth", "noise", "width", "runtime", "published")


class Study(Protocol):
    """The members of a study's module."""

    TITLE: str  # what it asks
    CLAIM: str  # of the paper
    MINUTES: float  # that all cells take on two cores
    EXTRA: str  # that the libraries of its data come with, empty for none
    PICTURE: tuple[float, float]  # its size in inches

    def cells(self, *, quick: bool) -> Sequence[Row]:
        """What is measured, a mapping per cell; a few small ones if quick."""

    def measure(self, cell: Row) -> Row:
        """The figures of a cell, which depend on nothing else."""

    def conclude(self, rows: Sequence[Row]) -> Sequence[Finding]:
        """The findings of all rows."""

    def draw(self, rows: Sequence[Row], figure: "Figure") -> None:
        """Draw the picture."""


def load_study(name: str) -> Study:
    """The study of this name, ValueError for an unknown one."""
    if name not in NAMES:
        found = f"{shown(name)}: no such study{did_you_mean(name, NAMES)}"
        raise ValueError(f"{found}; expected one of {', '.join(NAMES)}")
    return cast(Study, importlib.import_module(f"studies.{name}"))


def measure_all(name: str, folder: Path, *, quick: bool, jobs: int | None = None) -> list[Row]:
    """Measure the missing cells of a study, ``jobs`` at a time with one thread each; returns the rows of all cells.

    Each row is kept in ``folder``/cells, with the hash of the code, and all are written to ``folder``/cells.csv.
    """
    study = load_study(name)
    cells = list(study.cells(quick=quick))
    jobs = 1 if getattr(study, "ALONE", False) else jobs or usable_cores()
    places = [folder / "cells" / f"{_key(cell)}.json" for cell in cells]
    missing = [(cell, place) for cell, place in zip(cells, places, strict=True) if not place.is_file()]
    found = [_read(cell, place) for cell, place in zip(cells, places, strict=True) if place.is_file()]
    _report_other_code(name, found, folder)  # and a damaged file is reported before anything is measured
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    if missing:
        _note_machine(folder)
    try:
        with closing(_measured(name, missing, jobs)) as steps:  # also if interrupted outside of it
            for _ in progress_bar(steps, name, total=len(missing), unit="cell", show=bool(missing)):
                pass
    except KeyboardInterrupt:
        print(f"\n{name}: stopped with {_kept(places)}; the same command resumes", file=sys.stderr)
        raise
    except BrokenProcessPool as error:
        raise ValueError(
            f"{name}: a process was killed, perhaps for want of memory, with {_kept(places)}; the same command "
            "resumes, with --jobs 1 in less memory"
        ) from error
    rows = [_read(cell, place) for cell, place in zip(cells, places, strict=True)]
    write_text(folder / "cells.csv", to_csv([{key: row[key] for key in row if key != SOURCES} for row in rows]))
    return rows


def _kept(places: Sequence[Path]) -> str:
    return f"{sum(place.is_file() for place in places)} of {len(places)} cells"


def _note_machine(folder: Path) -> None:
    """Add this machine, with PyTorch's version and the date, to those that measured cells."""
    file, now = folder / MACHINES, machine(torch.device("cpu"))
    known = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    if now not in known:
        write_text(file, "".join(f"{each}\n" for each in [*known, now]))


def machines(folder: Path) -> str:
    """The machines on which the cells of a folder were measured, each with PyTorch's version and the date."""
    return "; ".join((folder / MACHINES).read_text(encoding="utf-8").splitlines())


def of_other_code(rows: Sequence[Row]) -> int:
    """How many rows were measured by other sources than these."""
    return sum(row.get(SOURCES) != _sources() for row in rows)


def _report_other_code(name: str, rows: Sequence[Row], folder: Path) -> None:
    others = of_other_code(rows)
    if others:
        print(
            f"{name}: {others} of the cells in {folder} were measured by other code, and are kept; "
            f"to measure them again, remove {folder / 'cells'}",
            file=sys.stderr,
        )


@cache
def _sources() -> str:
    """SHA-256 of the sources of trainings and of the studies."""
    digest = hashlib.sha256(source_hash().encode())
    for file in sorted(Path(__file__).parent.glob("*.[cp]*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _key(cell: Row) -> str:
    return hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:24]


def _read(cell: Row, place: Path) -> Row:
    """The row of a cell from its file; ValueError if the file has something else."""
    try:
        row = json.loads(place.read_text(encoding="utf-8"))
    except ValueError:
        row = None
    if not isinstance(row, dict) or not cell.items() < row.items():
        raise ValueError(f"{place}: not the row of its cell; remove the file to measure the cell again")
    return row


def _measured(name: str, cells: Sequence[tuple[Row, Path]], jobs: int) -> Generator[None, None, None]:
    """Measure cells into their files; one step for each that is ready."""
    if not cells:
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes when they import torch
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(jobs, len(cells)), context, _begin_process, (stop,))
    try:
        with _without_interrupts():
            running = [pool.submit(_measure, name, dict(cell), place) for cell, place in cells]
        for done in as_completed(running):
            done.result()
            yield
    except (KeyboardInterrupt, GeneratorExit):  # the latter if the caller was interrupted
        stop.set()
        print(f"\n{name}: finishing the running cells; Ctrl-C again ends them", file=sys.stderr, flush=True)
        raise
    finally:
        stop.set()
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            for process in active_children():
                process.terminate()
            raise


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Take Ctrl-C afterwards, and never in the processes started here, which would end with a traceback of imports."""
    if not hasattr(signal, "pthread_sigmask"):  # as on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_process(stop: Event) -> None:
    """Leave Ctrl-C to the parent, whose ``stop`` says that no further cell is wanted."""
    global _stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _stop = stop


def _measure(name: str, cell: Row, place: Path) -> None:
    """Measure a cell and keep its row: here, so that a finished cell is not lost with the parent."""
    if _stop is not None and _stop.is_set():
        return
    write_text(place, json.dumps({**cell, **load_study(name).measure(cell), SOURCES: _sources()}) + "\n")
