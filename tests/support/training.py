"""Short runs of train.py in this process."""

from pathlib import Path

import train
from tests.support.scripts import run

SMALL = Path(__file__).with_name("small.yaml")  # a config
BRIEF = ("--imgsz", 64, "--batch", 2, "--workers", 0, "--no-amp", "--seed", 3)


def start(data: Path, *more: object) -> int:
    """Train a small model for a few small steps; returns the exit code."""
    return run(train.main, "train.py", "--cfg", SMALL, "--data", data, *BRIEF, *more)
