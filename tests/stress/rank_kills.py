"""Runs of several processes of which one is killed by SIGKILL at random moments, compared with a run never stopped.

``python -m tests.stress.rank_kills --kills 20 --processes 2``. The others must end by themselves; the run is resumed by
as many processes, and its end must be bit for bit that of the whole one.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.stress.kills import OPTIONS, compare, prepare
from tests.support.processes import ROOT, output_of, start_together, wait_for
from tests.support.warm_python import warm_python

TRAIN = ROOT / "tests" / "support" / "quick_train.py"
PATIENCE = 120  # seconds in which the others end after a kill; a few on a quiet machine


def soak(
    python: str,
    folder: Path,
    *,
    kills: int,
    processes: int,
    seed: int,
    chain: int = 5,
    report: Callable[[str], None] = lambda line: None,
) -> Counter[int]:
    """Kill a random rank ``kills`` times, at most ``chain`` times in a run; returns how often each rank was killed.

    Raises AssertionError where a process does not end, or the end of a run differs from that of the whole one.
    """
    rng = random.Random(seed)
    start = [*OPTIONS, "--data", str(prepare(folder)), "--device", "cpu"]

    def launch(*words: object) -> list:
        return start_together(processes, python, TRAIN, *words, folder=folder)

    begun = time.monotonic()
    assert wait_for(launch(*start, "--name", "whole")) == [0] * processes, output_of(0, folder)
    seconds = time.monotonic() - begun
    done: Counter[int] = Counter()
    runs = 0
    while done.total() < kills:
        runs += 1
        cut = folder / f"runs/train/cut{runs}"
        last, left = cut / "weights/last.pt", min(chain, kills - done.total())
        while True:
            words: list[object] = ["--resume", last] if last.is_file() else [*start, "--name", cut.name, "--exist-ok"]
            ranks = launch(*words)
            victim, moment = rng.randrange(processes), rng.uniform(0.0, seconds)
            killed = False
            if left > 0:
                end = time.monotonic() + moment
                while time.monotonic() < end and all(each.poll() is None for each in ranks):
                    time.sleep(0.01)
                killed = ranks[victim].poll() is None
                if killed:
                    ranks[victim].kill()
                    done[victim] += 1
                    left -= 1
                    report(f"{done.total()} killed, run {runs}, rank {victim} after {moment:.1f} s")
            codes = wait_for(ranks, PATIENCE)
            if codes == [0] * processes or (2 in codes and "is finished" in output_of(0, folder)):
                break
            assert killed and 2 not in codes, f"{codes}: {output_of(0, folder)}"
        wrong = compare(folder / "runs/train/whole", cut)
        assert not wrong, f"run {runs} (seed {seed}) differs from the one never stopped in {wrong[:5]}"
    return done


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with warm_python() as python, tempfile.TemporaryDirectory() as folder:
        done = soak(
            python,
            Path(folder),
            kills=arguments.kills,
            processes=arguments.processes,
            seed=arguments.seed,
            report=lambda line: print(line, flush=True),
        )
    print(f"{done.total()} kills (by rank: {dict(done)}): every run ended bit for bit as the one never stopped")


if __name__ == "__main__":
    main()
