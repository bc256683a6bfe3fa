"""Runs that are repeatedly killed by SIGKILL and resumed, compared with an uninterrupted run.

``python -m tests.stress.kills --kills 100 --seed 0`` is the long form of tests/test_kills.py. Kills come at random
moments, or at chosen events: before a step (in the middle of gradient accumulation or not), between optimizer and EMA,
while a file is being written, before or after it is renamed, in the middle of a validation, and at the end.
"""

import argparse
import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.warm_python import warm_python

ROOT = Path(__file__).parents[2]
COUNTS = {"train": 10, "val": 4}
EPOCHS = 4
SIZE = 1.3e6  # bytes of the weights
OPTIONS = (
    *("--cfg", str(ROOT / "tests/support/small.yaml"), "--imgsz", "64", "--batch", "2", "--nbs", "4"),
    *("--epochs", str(EPOCHS), "--seed", "3"),
    *("--workers", "2", "--amp", "off", "--close-mosaic", "2", "--multi-scale", "0.5", "--save-period", "3"),
    *("--set", "model.neck.act=rrelu", "augment.mixup=0.5", "train.save_minutes=0.005", "train.ema=0.2"),
)
TIMES = ("time_", "images_per_s", "step_median_s", "peak_memory", "other_cores")
# The number of the fatal event is drawn from 1 to this: about a third of how often it comes in a whole run.
EVENTS = {"step": 7, "average": 4, "write": 5, "rename": 8, "renamed": 8, "validation": 2, "pictures": 1}
AT_A_TIME = 0.3  # fraction of kills at a random time instead, within the first half of a run


def run(python: str, argv: list[str], *, folder: Path, kill: dict[str, Any] | None = None) -> int:
    """Run train.py with these arguments in a folder, by this Python; returns its exit code, -9 where it was killed."""
    words = [python, "-m", "tests.stress.kills", "--run", json.dumps({"argv": argv, "kill": kill})]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, cwd=folder, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())  # of the training, which may be a child of another process
        if kill is not None and "seconds" in kill:
            time.sleep(kill["seconds"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        code = process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # data workers that are still running
    return code


def train_here(argv: list[str], kill: dict[str, Any] | None) -> None:
    """Train in this process, which prints its process id first and writes all else to log.txt."""
    import train
    from configs.cli import run_script
    from tests.support.training import leave_out_pictures

    print(os.getpid(), flush=True)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    leave_out_pictures(pytest.MonkeyPatch())
    if kill is not None and "event" in kill:
        die_at(**kill)
    run_script(lambda: train.main(argv))


def die_at(event: str, number: int, share: float) -> None:
    """Make this process kill itself at the ``number``-th occurrence of an event."""
    import engine.checkpoint
    import engine.ema
    import engine.evaluation.evaluate
    import engine.pictures.plots
    import engine.trainer

    count = Counter[str]()

    def comes() -> bool:
        count[event] += 1
        return count[event] == number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def before(holder: Any, name: str) -> None:
        inner = getattr(holder, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            if comes():
                die()
            return inner(*arguments, **named)

        setattr(holder, name, wrapped)

    if event == "step":
        before(engine.trainer.Trainer, "one_step")
    elif event == "average":
        before(engine.ema.ModelEMA, "update")
    elif event == "validation":
        before(engine.evaluation.evaluate, "_detect")
    elif event == "pictures":
        before(engine.pictures.plots, "plot_results")
    elif event in ("rename", "renamed"):
        replace = os.replace

        def replaced(*arguments: Any) -> None:
            fatal = comes()
            if fatal and event == "rename":
                die()
            replace(*arguments)
            if fatal:
                die()

        os.replace = replaced  # type: ignore[assignment]
    else:  # while a checkpoint is being written
        save = engine.checkpoint.save_checkpoint
        watched = engine.checkpoint._ErrorKeepingFile
        inner_write = watched.write

        def saving(path: Path, content: dict[str, Any]) -> None:
            if comes():
                written = Counter[str]()
                size = share * SIZE * (4 if content["kind"] == "training" else 1)

                def write(self: Any, data: Any) -> int:
                    written["bytes"] += len(memoryview(data).cast("B"))
                    done = inner_write(self, data)
                    if written["bytes"] > size:
                        self.file.flush()
                        die()
                    return done

                watched.write = write  # type: ignore[method-assign]
            save(path, content)

        engine.run.save_checkpoint = saving  # type: ignore[assignment]


def draw_kill(rng: random.Random, run_seconds: float) -> dict[str, Any]:
    """When the next run is killed."""
    if rng.random() < AT_A_TIME:
        return {"seconds": rng.uniform(0.0, run_seconds / 2)}
    event = rng.choice(sorted(EVENTS))
    return {"event": event, "number": rng.randint(1, EVENTS[event]), "share": rng.random()}


def prepare(folder: Path) -> Path:
    """Draw the data of these runs; return the data YAML."""
    from data.synthetic import draw
    from tests.support.checkpoints import write_data_yaml

    draw(folder / "shapes", **COUNTS, test=0, side=64, seed=5, progress=False)
    return write_data_yaml(folder / "shapes.yaml", *COUNTS)


def soak(
    python: str,
    folder: Path,
    *,
    kills: int,
    seed: int,
    chain: int = 5,
    report: Callable[[str], None] = lambda line: None,
) -> Counter[str]:
    """Kill ``kills`` runs, at most ``chain`` times each, and compare the end of each with the run never stopped.

    Returns how often each kind of kill came. Raises AssertionError where something differs.
    """
    rng = random.Random(seed)
    data = prepare(folder)
    start = [*OPTIONS, "--data", str(data)]
    begun = time.monotonic()
    assert run(python, [*start, "--name", "whole"], folder=folder) == 0, log(folder)
    seconds = time.monotonic() - begun
    whole = folder / "runs/train/whole"
    done: Counter[str] = Counter()
    runs = 0
    while sum(done.values()) < kills:
        runs += 1
        cut = folder / f"runs/train/cut{runs}"
        last, left = cut / "weights/last.pt", min(chain, kills - sum(done.values()))
        while True:
            argv = [*start, "--name", cut.name, "--exist-ok"]
            if last.is_file():
                argv = ["--resume", str(last), "--workers", str(rng.randint(0, 2))]
            kill = draw_kill(rng, seconds) if left > 0 else None
            code = run(python, argv, folder=folder, kill=kill)
            if code == 0 or (code == 2 and "is finished" in log(folder)):
                break
            assert kill is not None and code == -signal.SIGKILL, f"exit {code} after {kill}: {log(folder)}"
            left -= 1
            done[str(kill.get("event", "time"))] += 1
            report(f"{sum(done.values())} killed, run {runs}, {kill}")
        wrong = compare(whole, cut)
        assert not wrong, f"run {runs} (seed {seed}) differs from the one never stopped in {wrong[:5]}"
        for path in sorted(cut.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    return done


def log(folder: Path) -> str:
    """The end of the output of the runs."""
    return (folder / "log.txt").read_text(encoding="utf-8")[-600:]


def compare(whole: Path, cut: Path) -> list[str]:
    """Differences between two run folders, except times and the number of workers."""
    from engine.checkpoint import load_checkpoint

    wrong = []
    for name in ("last.pt", "best.pt", "epoch3.pt"):
        one, other = (load_checkpoint(folder / "weights" / name) for folder in (whole, cut))
        wrong += [f"{name}{each}" for each in differing(one, other)]
    tables = [list(csv.DictReader((folder / "results.csv").open(encoding="utf-8"))) for folder in (whole, cut)]
    wrong += [f"results.csv{each}" for each in differing(*tables)]
    texts = [(folder / "predictions.json").read_text(encoding="utf-8") for folder in (whole, cut)]
    return wrong + (["predictions.json"] if texts[0] != texts[1] else [])


def differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two checkpoint values differ, except times, run folder and number of workers."""
    import torch

    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    if isinstance(one, dict) and isinstance(other, dict):
        wrong = [f"{path}.{key}" for key in one.keys() ^ other.keys()]
        return wrong + [
            d for k in one.keys() & other.keys() if not free(k) for d in differing(one[k], other[k], f"{path}.{k}")
        ]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        wrong = [] if len(one) == len(other) else [f"{path} has another length"]
        pairs = enumerate(zip(one, other, strict=False))
        return wrong + [d for number, (a, b) in pairs for d in differing(a, b, f"{path}[{number}]")]
    return [] if one == other or (one != one and other != other) else [path]


def free(key: Any) -> bool:
    """Whether a key may differ between an uninterrupted and a resumed run."""
    return key in ("clock", "run", "run_id", "workers") or str(key).startswith(TIMES)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        train_here(**arguments.run)
    with warm_python() as python, tempfile.TemporaryDirectory() as folder:
        done = soak(
            python,
            Path(folder),
            kills=arguments.kills,
            seed=arguments.seed,
            report=lambda line: print(line, flush=True),
        )
    print(f"{sum(done.values())} kills ({dict(done)}): every run ended bit for bit as the one never stopped")


if __name__ == "__main__":
    main()
