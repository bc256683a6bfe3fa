"""Hostile input by the thousand: ``python -m tests.stress.fuzz --count 100000 --seed 0 [--kind images]``.

Each case damages a small valid file with its own seed and reads it as the project does. It must be read, and then
hold what ``docs/architecture.md`` and the docstrings promise, or be refused: a ValueError or FileNotFoundError of ours
with one line that names the file. Anything else (another exception, a warning, output, code that runs, time or memory
out of bounds) is a finding, printed with the words that replay it: ``--only checkpoints:1234``.
"""

import argparse
import contextlib
import faulthandler
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from core.text import one_line
from tests.stress.fuzz_kinds import KINDS, Kind, Violation

SECONDS = 10.0  # per case
MEBIBYTES = 400  # limit for the growth of peak memory per case; an image may have 150 million pixels
MEBIBYTES_OF = {"images": 2500}
REFUSALS = ("ValueError", "FileNotFoundError", "ImageError")  # raised for invalid user input


class Overdue(BaseException):
    """A case takes too long; not caught by handlers of Exception."""


@dataclass
class Report:
    """The results of the cases."""

    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """All cases."""
        return sum(self.read.values()) + sum(self.refused.values()) + len(self.findings)


def run(cases: Iterator[tuple[str, int]] | list[tuple[str, int]], *, debug: bool = False) -> Report:
    """Run cases (kind, seed) in sequence; ``debug`` lets exceptions of findings through."""
    report = Report()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    kinds: dict[str, Kind] = {}
    before = signal.signal(signal.SIGALRM, _overdue)
    try:
        with _watched() as spoken:
            for name, seed in cases:
                if name not in kinds:
                    (folder / name).mkdir()
                    kinds[name] = KINDS[name](folder / name)
                (folder / "case").write_text(f"{name}:{seed}")  # remains after a crash of the interpreter
                fault, said = _one(kinds[name], name, seed, report, debug), spoken()
                fault = fault or (None if kinds[name].loud else said)
                if fault:
                    report.findings.append(f"{name}:{seed}: {fault}")
    except KeyboardInterrupt:
        report.findings.append(f"stopped after {report.count} cases")
    finally:
        signal.signal(signal.SIGALRM, before)
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _one(kind: Kind, name: str, seed: int, report: Report, debug: bool) -> str | None:
    """Run one case and return its fault, if any."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faulthandler.dump_traceback_later(6 * SECONDS, exit=True)  # for code that does not return to Python
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # lines of ours; those of libraries do not pass through it
            kind.case(random.Random(f"{name}:{seed}"))
        report.read[name] += 1
        fault = None
    except Overdue:
        return f"takes more than {SECONDS:.0f} s"
    except Violation as violation:
        if debug:
            raise
        return f"read, but {violation}"
    except Exception as error:  # of any class: finding unexpected ones is the purpose
        signal.setitimer(signal.ITIMER_REAL, 0)
        fault = _fault_of(error, kind)
        if fault and debug:
            raise
        report.refused[name] += not fault
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    if fault is None and grown > MEBIBYTES_OF.get(name, MEBIBYTES):
        fault = f"takes {grown:.0f} MiB"
    return fault


def _fault_of(error: Exception, kind: Kind) -> str | None:
    """The fault of an error message, None if it is as documented."""
    message = str(error)
    if type(error).__name__ not in REFUSALS:
        return f"raises {type(error).__name__}: {one_line(message)[:300]}"
    if not message.strip() or "\n" in message.replace("a\nb", "") or len(message) > 10_000:  # a file's name
        return f"the message is no line: {message[:200]!r}"
    if kind.named and not any(word in message for word in kind.named):
        return f"the message does not say where: {one_line(message)[:300]}"
    return None


def _overdue(number: int, frame: FrameType | None) -> None:
    raise Overdue


@contextmanager
def _watched() -> Iterator:
    """Yield a function that returns the stderr output and warnings since its last call."""
    heard: list[str] = []
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as the scripts do
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # as Python does
        warnings.showwarning = lambda message, category, *rest, **more: heard.append(f"{category.__name__}: {message}")
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)

        def spoken() -> str | None:
            if os.fstat(file.fileno()).st_size:
                heard.append("stderr: " + os.pread(file.fileno(), 300, 0).decode("utf-8", "replace"))
                os.ftruncate(file.fileno(), 0)
                os.lseek(2, 0, os.SEEK_SET)
            said = one_line("; ".join(heard))[:300]
            heard.clear()
            return f"says {said}" if said else None

        try:
            yield spoken
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def cases(count: int, seed: int, kinds: list[str]) -> Iterator[tuple[str, int]]:
    """``count`` cases, cycling through the kinds."""
    for number in range(count):
        yield kinds[number % len(kinds)], seed + number // len(kinds)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.fuzz", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="cases")
    parser.add_argument("--seed", type=int, default=0, help="of the first case of each kind")
    parser.add_argument("--kind", choices=sorted(KINDS), action="append", help="kinds to try; all by default")
    parser.add_argument("--only", metavar="KIND:SEED", help="replay one case, with its traceback")
    options = parser.parse_args(arguments)
    faulthandler.enable()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # report the findings so far
    start = time.perf_counter()
    if options.only:
        name, _, seed = options.only.partition(":")
        report = run([(name, int(seed))], debug=True)
    else:
        report = run(cases(options.count, options.seed, options.kind or sorted(KINDS)))
    for finding in report.findings[:200]:
        print(finding)
    for name in sorted({*report.read, *report.refused}):
        print(f"{name}: {report.read[name]} read, {report.refused[name]} refused")
    spent = time.perf_counter() - start
    print(f"{report.count} cases in {spent:.0f} s, {len(report.findings)} findings")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
