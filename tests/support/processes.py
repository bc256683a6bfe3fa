"""Several processes that train together, started as torchrun starts them but without it."""

import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT = 300  # seconds; a test takes a few on a quiet machine


def start_together(
    count: int, *command: object, folder: Path, environment: dict[str, str] | None = None
) -> list[subprocess.Popen]:
    """Start a command once for each rank; output goes to rank0.log, rank1.log, ... in the folder."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    started = []
    for rank in range(count):
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        variables = {name: str(value) for name, value in ranks.items()} | {
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        with open(folder / f"rank{rank}.log", "w", encoding="utf-8") as log:
            started.append(
                subprocess.Popen(
                    list(map(str, command)),
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env={**os.environ, **variables, **(environment or {})},
                )
            )
    return started


def run_together(count: int, *command: object, folder: Path) -> list[int]:
    """Run a command once for each rank; returns the exit codes, and ends all of them if one does not end."""
    return wait_for(start_together(count, *command, folder=folder))


def wait_for(started: Sequence[subprocess.Popen], seconds: float = TIMEOUT) -> list[int]:
    """The exit codes of processes, which are ended if they take longer."""
    try:
        return [each.wait(seconds) for each in started]
    finally:
        for each in started:
            each.kill()
            each.wait()


def output_of(rank: int, folder: Path) -> str:
    """What a rank printed."""
    return (folder / f"rank{rank}.log").read_text(encoding="utf-8")
