"""Errors that end a run and are no bugs: what is said about them."""

from __future__ import annotations

from core.device import out_of_memory
from core.distributed import lost
from core.text import one_line
from data.workers import LoaderError, as_loader_error
from engine.batch_size import fitting_batch
from engine.setup import TrainSetup
from engine.trainer import State

# Those that may have a reason; a RuntimeError only if PyTorch says by it that memory ran out or a data worker died.
FAILURES = (OSError, MemoryError, RuntimeError, FloatingPointError, LoaderError)


def failure_reason(error: Exception, setup: TrainSetup, state: State) -> str | None:
    """One line on an error of the machine, the data or the network; None for any other error."""
    error = as_loader_error(error)
    train = setup.config.train
    if out_of_memory(error):
        fits = fitting_batch(setup.config, setup.device)
        batch = f"--batch {max(1, train.batch // 2) if fits is None else fits}{', which fits' if fits else ''}"
        return (
            f"out of memory at epoch {state.epoch + 1}, batch {state.batch + 1} of {len(setup.train_loader)}, with "
            f"{train.batch} images of {train.imgsz} pixels: try {batch} (with --nbs {train.nominal_batch} to keep "
            "the size of the steps), --grad-checkpointing, a smaller --imgsz or model.size, or --cache off"
        )
    if lost(error):
        return "another process of the training has ended"
    if isinstance(error, OSError | FloatingPointError | LoaderError):
        return one_line(error)
    return None
