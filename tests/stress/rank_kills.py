"""Runs of several processes of which one is killed by SIGKILL at random moments, compared with a run never stopped.

``python -m tests.stress.rank_kills --kills 20 --processes 2``. ``train.py --device cpu,cpu`` must end the others by
itself, with exit code 1; the run is resumed by as many processes, and ends bit for bit as the whole one.
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.stress.kills import OPTIONS, compare, prepare
from tests.support.processes import ROOT

TRAIN = ROOT / "tests" / "support" / "quick_train.py"
PATIENCE = 120  # seconds in which the others end after a kill; a few on a quiet machine


def soak(
    folder: Path,
    *,
    kills: int,
    processes: int,
    seed: int,
    chain: int = 5,
    report: Callable[[str], None] = lambda line: None,
) -> Counter[int]:
    """Kill a random rank ``kills`` times, at most ``chain`` times in a run; returns how often each rank was killed.

    Raises AssertionError where a training does not end, or the end of a run differs from that of the whole one.
    """
    rng = random.Random(seed)
    start = [*OPTIONS, "--data", str(prepare(folder)), "--device", ",".join(["cpu"] * processes)]
    begun = time.monotonic()
    whole = launch(folder, *start, "--name", "whole")
    assert whole.wait() == 0, log(folder)
    seconds = time.monotonic() - begun
    done: Counter[int] = Counter()
    runs = 0
    while done.total() < kills:
        runs += 1
        cut = folder / f"runs/train/cut{runs}"
        last, left = cut / "weights/last.pt", min(chain, kills - done.total())
        while True:
            words = ["--resume", str(last)] if last.is_file() else [*start, "--name", cut.name, "--exist-ok"]
            training = launch(folder, *words)
            victim, moment = rng.randrange(processes), rng.uniform(0.0, seconds)
            killed = left > 0 and kill_rank(training, victim, moment)
            code = training.wait(None if left == 0 else seconds + PATIENCE)
            if killed:
                done[victim] += 1
                left -= 1
                report(f"{done.total()} killed, run {runs}, rank {victim} after {moment:.1f} s, exit code {code}")
            if code == 0 or (code == 2 and "is finished" in log(folder)):
                break
            assert killed and code == 1, f"exit code {code}: {log(folder)}"
        wrong = compare(folder / "runs/train/whole", cut)
        assert not wrong, f"run {runs} (seed {seed}) differs from the one never stopped in {wrong[:5]}"
    return done


def launch(folder: Path, *words: str) -> subprocess.Popen:
    """Start train.py, which starts a process for each device."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(folder / "log.txt", "a", encoding="utf-8") as output:
        return subprocess.Popen(
            [sys.executable, str(TRAIN), *words], cwd=folder, env=environment, stdout=output, stderr=output
        )


def kill_rank(training: subprocess.Popen, rank: int, seconds: float) -> bool:
    """Kill this rank so many seconds from now, or as soon as it exists; False if the training ends before."""
    end = time.monotonic() + seconds
    while training.poll() is None:
        if time.monotonic() >= end:
            for child in psutil.Process(training.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if child.environ().get("RANK") == str(rank):
                        child.kill()
                        return True
        time.sleep(0.05)
    return False


def log(folder: Path) -> str:
    """The end of the output of the runs."""
    return (folder / "log.txt").read_text(encoding="utf-8")[-600:]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = soak(
            Path(folder),
            kills=arguments.kills,
            processes=arguments.processes,
            seed=arguments.seed,
            report=lambda line: print(line, flush=True),
        )
    print(f"{done.total()} kills (by rank: {dict(done)}): every run ended bit for bit as the one never stopped")


if __name__ == "__main__":
    main()
