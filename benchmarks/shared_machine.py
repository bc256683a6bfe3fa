"""Training steps beside a busy program: ``python -m benchmarks.shared_machine --threads 1 2 --busy 0 1``.

Steps of ``benchmarks.step`` (forward, loss, backward, clipping, optimiser) with so many threads, while so many
processes that never wait run beside it. Each pair of numbers is measured in a separate process, for some seconds, in
interleaved rounds; the table has images per second: the median over rounds, the least and the largest.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from configs.cli import run_script

SPIN = "while True: pass"


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never wait."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def images_per_second(arguments: argparse.Namespace) -> float:
    """Steps in this process for `seconds`, after two that are not counted."""
    import torch

    from benchmarks.step import our_step, random_batch

    torch.set_num_threads(arguments.threads[0])
    step, batch = our_step(arguments.act, arguments, amp=arguments.amp, channels_last="auto"), random_batch(arguments)
    for _ in range(2):
        step(*batch)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < arguments.seconds or count == 0:
        step(*batch)
        count += 1
    return count * arguments.batch / (time.perf_counter() - start)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shared_machine", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--threads", type=int, nargs="+", default=[1, 2])
    add("--busy", type=int, nargs="+", default=[0, 1], help="processes that run beside it")
    add("--act", default="mish")
    add("--size", default="n")
    add("--imgsz", type=int, default=160)
    add("--batch", type=int, default=16)
    add("--amp", default="auto")
    add("--device", default="cpu", choices=("cpu",))
    add("--seconds", type=float, default=10.0, help="of each turn")
    add("--rounds", type=int, default=3)
    add("--turn", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, and print a table."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    if arguments.turn:
        print(images_per_second(arguments))
        return 0
    cases = list(itertools.product(arguments.threads, arguments.busy))
    found: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    for _ in range(arguments.rounds):
        for threads, others in cases:
            with busy(others):
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.shared_machine",
                    *argv,
                    "--turn",
                    "--threads",
                    str(threads),
                ]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[threads, others].append(float(done.stdout.split()[-1]))
    first = statistics.median(found[cases[0]])
    print("| threads | busy processes | images/s (least, largest) | relative to the first row |\n|---|---|---|---|")
    for (threads, others), rates in found.items():
        middle = statistics.median(rates)
        print(f"| {threads} | {others} | {middle:.1f} ({min(rates):.1f}, {max(rates):.1f}) | {middle / first:.2f} |")
    return 0


if __name__ == "__main__":
    run_script(main)
