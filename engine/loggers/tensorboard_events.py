"""TensorBoard: every number of results.csv as a curve, and learnable activation parameters.

Events are written in this thread, not by TensorBoard's own: an error of the disk ends the run like any other.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from typing import IO, Any

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import histogram, scalar

from engine.loggers import EpochEnd, Logger, RunEnd, RunStart, plotted

VERSION = "brain.Event:2"
_numbers = itertools.count()  # of event files, which may be opened within one second


class TensorBoard(Logger):
    """Writes event files into the run folder."""

    file: IO[bytes] | None = None

    def start(self, run: RunStart) -> None:
        """Open an event file; after a resume, events of epochs that are trained again are discarded."""
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.file = open(run.folder / name, "xb")  # noqa: SIM115 - closed by end and fail
        self._write(file_version=VERSION)
        if run.rows:
            self._write(step=len(run.rows) + 1, session_log=SessionLog(status=SessionLog.START))
        self.file.flush()

    def epoch(self, epoch: EpochEnd) -> None:
        """Write the numbers of an epoch; parameters with several values as mean and histogram."""
        if self.file is None:
            return
        step = epoch.row["epoch"]
        for name, value in plotted(epoch.row).items():
            self._write(step=step, summary=scalar(name if "/" in name else f"run/{name}", value))
        for name, parameter in epoch.activations.items():
            values = parameter.detach().float().cpu()
            self._write(step=step, summary=scalar(f"activation/{name}", values.mean().item()))
            if values.numel() > 1 and bool(torch.isfinite(values).all()):
                self._write(step=step, summary=histogram(f"activation/{name}", values.numpy(), bins="auto"))
        self.file.flush()

    def _write(self, **content: Any) -> None:
        assert self.file is not None
        RecordWriter(self.file).write(Event(wall_time=time.time(), **content).SerializeToString())

    def end(self, run: RunEnd) -> None:
        """Close the event file."""
        self._close()

    def fail(self, error: BaseException) -> None:
        """Close the event file."""
        self._close()

    def _close(self) -> None:
        if self.file is not None:
            file, self.file = self.file, None
            file.close()
