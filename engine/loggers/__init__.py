"""Loggers report the progress of a run: a run has a list of them and calls each at start, epoch, end or failure."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from core.text import did_you_mean

Row = dict[str, Any]  # an epoch's row of results.csv: numbers by column
NOT_PLOTTED = ("epoch", "step", "batches_crc32", "val_crc32")


@dataclass(frozen=True)
class RunStart:
    """What loggers get before the first epoch, or before the first one after a resume."""

    folder: Path
    config: Mapping[str, object]
    loss_names: Sequence[str]
    epochs: int
    rows: Sequence[Row]  # of the epochs before a resume
    text: str  # summary for the console


@dataclass(frozen=True)
class EpochEnd:
    """What loggers get after each epoch."""

    row: Row
    activations: Mapping[str, torch.Tensor]  # learnable activation parameters
    seconds_left: float  # estimate for the rest of the run


@dataclass(frozen=True)
class RunEnd:
    """What loggers get after the last epoch."""

    numbers: Mapping[str, float]  # COCO's twelve, of the best weights
    text: str  # summary for the console


class Logger:
    """The interface of a logger; override what it needs. After `end` or `fail` nothing else is called."""

    def start(self, run: RunStart) -> None:
        """Begin, or continue a resumed run."""

    def epoch(self, epoch: EpochEnd) -> None:
        """Report an epoch."""

    def end(self, run: RunEnd) -> None:
        """Report the final numbers and close."""

    def fail(self, error: BaseException) -> None:
        """Close after an error, or after a signal to stop (engine.trainer.Stopped)."""


def make_loggers(names: Sequence[str]) -> list[Logger]:
    """The console, results.csv and the optional loggers by name.

    ValueError for an unknown name or a package that is not installed.
    """
    from engine.loggers.console import Console
    from engine.loggers.results_csv import ResultsCsv

    for name in names:
        if name not in LOGGERS:
            hint = did_you_mean(name, LOGGERS)
            raise ValueError(f"run.loggers: unknown logger {name[:100]!r}{hint}; known are {', '.join(LOGGERS)}")
    optional = [LOGGERS[name]() for name in dict.fromkeys(names)]
    return [Console(), ResultsCsv(), *optional]


def _tensorboard() -> Logger:
    _require("tensorboard")
    from engine.loggers.tensorboard_events import TensorBoard

    return TensorBoard()


def _wandb() -> Logger:
    _require("wandb")
    from engine.loggers.weights_and_biases import WeightsAndBiases

    return WeightsAndBiases()


def _mlflow() -> Logger:
    _require("mlflow", package="mlflow-skinny")
    from engine.loggers.mlflow_tracking import MLflow

    return MLflow()


LOGGERS: dict[str, Callable[[], Logger]] = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
"""The optional loggers by name; each function imports its logger, since most need a package that may be missing."""


def _require(module: str, *, package: str | None = None) -> None:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:  # without origin: a folder of that name, not a package
        raise ValueError(f"logger {module}: the package is not installed; run pip install {package or module}")


def plotted(row: Row) -> dict[str, float]:
    """The numbers of a row that make a curve: finite, defined, and no counters."""
    return {
        name: float(value)
        for name, value in row.items()
        if name not in NOT_PLOTTED and is_defined(name, value) and isinstance(value, int | float)
    }


def is_defined(name: str, value: object) -> bool:
    """Whether a column has a value: COCO reports -1 for an average over no objects."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return False
    return not (name.startswith("metrics/") and value == -1)


def remembered_id(run: RunStart, name: str, make: Callable[[], str]) -> str:
    """The id of a run at a tracking service, kept in a file of the run folder so that a resumed run continues it."""
    file = run.folder / f"{name}_run_id.txt"
    if not run.rows or not file.is_file():
        file.write_text(make(), encoding="utf-8")
    return file.read_text(encoding="utf-8")
