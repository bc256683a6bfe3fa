"""Short runs of train.py in this process."""

from pathlib import Path

import pytest

import models
import train
from engine import final_results
from engine.pictures import error_page, evaluation_plots, plots
from tests.support.scripts import run

SMALL = Path(__file__).with_name("small.yaml")  # a config
BRIEF = ("--imgsz", 64, "--batch", 2, "--workers", 0, "--no-amp", "--seed", 3)


def start(data: Path, *more: object) -> int:
    """Train a small model for a few small steps; returns the exit code."""
    return run(train.main, "train.py", "--cfg", SMALL, "--data", data, *BRIEF, *more)


def leave_out_pictures(patch: pytest.MonkeyPatch) -> None:
    """No pictures, and no figures of the run's table: they take most of the time of a short run."""
    for name in ("plot_dataset", "plot_train_batch", "plot_results"):
        patch.setattr(plots, name, lambda *_: None)
    patch.setattr(evaluation_plots, "plot_evaluation", lambda *_: None)
    patch.setattr(error_page, "write_errors", lambda *_, **__: None)
    patch.setattr(models, "flops", lambda *_: 8.1)
    patch.setattr(final_results, "latency_ms", lambda *_, **__: 5.0)
