"""TensorBoard: every number of results.csv as a curve, and learnable activation parameters."""

from __future__ import annotations

import os

from torch.utils.tensorboard import SummaryWriter

from engine.loggers import EpochEnd, Logger, RunEnd, RunStart, plotted


class TensorBoard(Logger):
    """Writes event files into the run folder."""

    writer: SummaryWriter | None = None

    def start(self, run: RunStart) -> None:
        """Open an event file; after a resume, events of epochs that are trained again are discarded."""
        self.writer = SummaryWriter(os.fspath(run.folder), purge_step=len(run.rows) + 1 if run.rows else None)

    def epoch(self, epoch: EpochEnd) -> None:
        """Write the numbers of an epoch; parameters with several values as mean and histogram."""
        if self.writer is None:
            return
        step = epoch.row["epoch"]
        for name, value in plotted(epoch.row).items():
            self.writer.add_scalar(name if "/" in name else f"run/{name}", value, step)
        for name, parameter in epoch.activations.items():
            values = parameter.detach().float().cpu()
            self.writer.add_scalar(f"activation/{name}", values.mean().item(), step)
            if values.numel() > 1:
                self.writer.add_histogram(f"activation/{name}", values, step)
        self.writer.flush()

    def end(self, run: RunEnd) -> None:
        """Close the event file."""
        self._close()

    def fail(self, error: BaseException) -> None:
        """Close the event file."""
        self._close()

    def _close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
