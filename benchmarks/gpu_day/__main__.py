"""The GPU day, all measurements in one command: ``python -m benchmarks.gpu_day --budget 520 --out FOLDER``.

Checks that our kernels are what runs, then runs the stages in the order of their value: correctness, kernels, training
steps, compiled steps, trainings, a comparison. Every stage has a deadline taken from the budget; what one leaves is for
the next. FOLDER/day.md has the output of every command, FOLDER/day.json its figures, both after every stage; a summary
of at most 80 lines is printed last. docs/gpu_day.md says how to run it on a bare machine.
"""

import argparse
import os
import signal
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from benchmarks.gpu_day.plan import FIRST, Setting, Stage, stages, write_data
from benchmarks.gpu_day.processes import ABSENT, FAILED, PASSED, SKIPPED, STOPPED, Job, Outcome, lacks, run_together
from benchmarks.gpu_day.record import Record
from core.text import one_line

RESERVE = 10.0  # seconds of the budget for the summary
NAMES = [stage.name for stage in stages(Setting("cpu", False, Path()))]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages; returns 1 if something failed or was stopped, 2 for wrong input."""
    arguments = parse(argv)
    try:
        check(arguments)
        setting = Setting(arguments.device, arguments.dry, arguments.out.resolve())
        record = Record(setting.out)
        write_data(setting)
        environment = environment_of(setting.out, arguments.wheels)
        if arguments.dry:  # threads that wait for a core would take most of the time of so small steps
            environment["OMP_NUM_THREADS"] = "1"
    except (ValueError, OSError) as error:
        print(f"benchmarks.gpu_day: error: {one_line(error)}", file=sys.stderr)
        return 2
    chosen = [stage for stage in stages(setting) if stage.name in (FIRST, *arguments.stages)]
    before = signal.signal(signal.SIGTERM, interrupt)
    reason = ""
    try:
        Day(record, environment, arguments.budget - RESERVE).run(chosen)
    except KeyboardInterrupt:
        reason = "interrupted\n"
    finally:
        signal.signal(signal.SIGTERM, before)
    failed = {FAILED, STOPPED} & set(record.ran.values())
    print("\n" + "=" * 20 + "\n" + "\n".join(record.summary()) + f"\n{reason}", end="", flush=True)
    return 1 if failed or reason else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_day", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--out",
        type=folder_name,
        required=True,
        metavar="FOLDER",
        help="folder of the results, also of builds and caches",
    )
    add("--budget", type=float, default=520, metavar="SECONDS", help="time for everything (default: %(default)s)")
    add("--stages", nargs="+", choices=NAMES, default=NAMES, metavar="STAGE", help=f"of {', '.join(NAMES)}")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    add("--dry", action="store_true", help="tiny sizes, to rehearse the command, on a CPU too")
    add("--wheels", type=Path, metavar="FOLDER", help="wheels of packages that the machine lacks")
    return parser.parse_args(argv)


def folder_name(text: str) -> Path:
    """A folder, which an empty text is not."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a folder, found an empty name")
    return Path(text)


def check(arguments: argparse.Namespace) -> None:
    """Raise ValueError for options that cannot be."""
    if not arguments.budget > RESERVE:
        raise ValueError(f"--budget {arguments.budget:g}: expected more than {RESERVE:g} seconds")
    if arguments.device == "cpu" and not arguments.dry:
        raise ValueError("--device cpu: expected --dry with it; the figures are those of a GPU")
    if arguments.wheels is not None and not list(arguments.wheels.glob("*.whl")):
        raise ValueError(f"--wheels {arguments.wheels}: expected a folder with .whl files")


def environment_of(out: Path, wheels: Path | None) -> dict[str, str]:
    """The environment of all jobs, with the packages of the wheels, and caches in `out`: the home may be read-only."""
    added = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    if wheels is not None:
        site = out / "site"
        for wheel in sorted(wheels.glob("*.whl")):
            try:
                with zipfile.ZipFile(wheel) as archive:  # an archive of what would lie in site-packages
                    archive.extractall(site)
            except zipfile.BadZipFile as error:
                raise ValueError(f"{wheel} is damaged ({error}); expected a wheel") from error
        added.insert(0, str(site))
    folders = {"YOLO_MISH_CACHE": "kernels", "TORCHINDUCTOR_CACHE_DIR": "inductor", "MPLCONFIGDIR": "matplotlib"}
    caches = {name: str(out / "caches" / folder) for name, folder in folders.items()}
    others = {"NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": os.pathsep.join(added), "PYTHONUNBUFFERED": "1"}
    return {**caches, **os.environ, **others}  # a cache that the caller names may hold builds


def interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM like Ctrl-C: the jobs are ended and the summary is printed."""
    raise KeyboardInterrupt


class Day:
    """The course of the stages within their time."""

    def __init__(self, record: Record, environment: Mapping[str, str], seconds: float) -> None:
        self.record, self.environment = record, environment
        self.end = time.monotonic() + seconds

    def run(self, chosen: Sequence[Stage]) -> None:
        """Run stages one after the other; only the first if it finds that our kernels do not run."""
        for number, stage in enumerate(chosen):
            left = self.end - time.monotonic()
            deadline = time.monotonic() + left * stage.seconds / sum(each.seconds for each in chosen[number:])
            if stage.together:
                self.run_jobs(stage, stage.jobs, deadline)
            for at, job in enumerate(() if stage.together else stage.jobs):
                now = time.monotonic()
                weights = [each.weight for each in stage.jobs[at:]]
                self.run_jobs(stage, (job,), now + (deadline - now) * job.weight / sum(weights))
            if stage.name == FIRST and self.record.ran[FIRST] != PASSED:
                return

    def run_jobs(self, stage: Stage, jobs: Sequence[Job], deadline: float) -> None:
        """Run jobs of a stage side by side, those that can be, and record all."""
        able = []
        for job in jobs:
            self.record.forget_figures(job)
            if missing := lacks(job):
                self.record.add(stage.name, job, Outcome(status=ABSENT, reason=missing))
            elif failed := self.record.failed_now(job.after):
                self.record.add(stage.name, job, Outcome(status=SKIPPED, reason=f"{failed} did not pass"))
            else:
                able.append(job)
        logs = [self.record.log(stage.name, job) for job in able]
        seconds = deadline - time.monotonic()
        try:
            outcomes = run_together(able, logs, seconds=seconds, environment=self.environment) if able else []
        except KeyboardInterrupt:  # what they have printed and written so far is kept
            for job in able:
                self.record.add(stage.name, job, Outcome(status=STOPPED, reason="interrupted"))
            raise
        for job, outcome in zip(able, outcomes, strict=True):
            self.record.add(stage.name, job, outcome)


if __name__ == "__main__":
    sys.exit(main())
