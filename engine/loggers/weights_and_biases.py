"""Weights & Biases. Project, entity and mode come from its environment variables (WANDB_PROJECT, WANDB_MODE, ...)."""

from __future__ import annotations

import os
from uuid import uuid4

import wandb

from core.text import one_line
from engine.loggers import EpochEnd, Logger, RunEnd, RunStart, plotted, remembered_id

PROJECT = "yolo-mish"


class WeightsAndBiases(Logger):
    """Logs the config, the numbers of each epoch and the final ones."""

    run: wandb.Run | None = None

    def start(self, run: RunStart) -> None:
        """Start a run, or continue it after a resume; ValueError if its server does not take it."""
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=run.folder.name,
                dir=run.folder,
                id=remembered_id(run, "wandb", lambda: uuid4().hex[:8]),
                resume="allow",
                config=dict(run.config),
                settings=wandb.Settings(silent=True),
            )
        except wandb.Error as error:  # without a login or a connection
            raise ValueError(f"wandb: {one_line(error)} (WANDB_MODE=offline keeps the run here)") from error

    def epoch(self, epoch: EpochEnd) -> None:
        """Log the numbers of an epoch."""
        if self.run is not None:
            histograms = {
                f"activation/{name}": wandb.Histogram(parameter.flatten().tolist())
                for name, parameter in epoch.activations.items()
            }
            self.run.log(plotted(epoch.row) | histograms, step=epoch.row["epoch"])

    def end(self, run: RunEnd) -> None:
        """Add the final numbers to the summary and finish the run."""
        if self.run is not None:
            self.run.summary.update({f"best/{name}": value for name, value in run.numbers.items()})
            self.run.finish()

    def fail(self, error: BaseException) -> None:
        """Finish the run as failed."""
        if self.run is not None:
            self.run.finish(exit_code=1)
