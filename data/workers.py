"""Data worker processes: how they hand over batches, and how their failures reach the main process.

Training batches are made in memory that is used again (data/batch_slots.py). Others go through shared memory, or where
it is short (64 MB in a container of Docker) through pipes.
"""

from __future__ import annotations

import atexit
import functools
import mmap
import multiprocessing
import multiprocessing.queues
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from core.cores import usable_cores
from core.distributed import local_world
from core.text import format_duration, one_line
from core.types import Batch, Targets

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - of the system, not written to by name
MAX_DEFAULT_WORKERS = 8
RESERVE = 1 << 20  # bytes that batches leave free there: semaphores need some
MORE_SHARED_MEMORY = "docker run --shm-size=2g (or --ipc=host) gives a container more"
WORDS_BYTES = 512
_words = mmap.mmap(-1, WORDS_BYTES)  # shared with forked workers: the error that ended one of them


class LoaderError(ValueError):
    """Batches cannot be made any more: an image became unusable, or the workers failed."""


def as_loader_error(error: Exception) -> Exception:
    """The error itself, or a LoaderError if it is about data workers, which PyTorch may raise at any point.

    Also of an error that another one caused, as where torch.save is interrupted and cannot end its file.
    """
    if not isinstance(error, RuntimeError):
        return error
    cause: BaseException | None = error
    while cause is not None and "DataLoader worker" not in str(cause):
        cause = cause.__context__
    text = str(error if cause is None else cause)
    if "Too many open files" in text or "ancdata" in text:
        return LoaderError("data workers: too many open files; raise the limit with ulimit -n, or try --workers 0")
    if "DataLoader worker" not in text:
        return error
    if "Original Traceback" in text:
        return LoaderError(f"a data worker failed: {text.strip().splitlines()[-1]}")
    what = one_line(text.partition(" Details are lost")[0])
    return LoaderError(
        f"a data worker died ({what}{_last_words()}); if it was killed, memory "
        "probably ran out: try fewer --workers or --cache off"
    )


def worker_error(error: Exception, *, waited: float) -> Exception:
    """A LoaderError for an error while workers are started or batches awaited, `waited` seconds after the last one."""
    if is_timeout(error):
        return LoaderError(
            f"no batch from the data workers for {format_duration(waited)}{_last_words()}: if the disk or network does "
            "not hang, try --workers 0"
        )
    if not isinstance(error, OSError | EOFError):
        return as_loader_error(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[-1]  # of the traceback, if it comes from a worker
    short = f" ({SHARED_MEMORY} is full: {MORE_SHARED_MEMORY})" if _free_shared_memory() < RESERVE else ""
    return LoaderError(f"data workers cannot be used: {text}{short}; try --workers 0")


def is_timeout(error: Exception) -> bool:
    """Whether an error says that workers had no batch yet."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader timed out")


def has_pin_thread(iterator: object) -> bool:
    """False if the thread of a DataLoader's iterator that moves batches to page-locked memory has ended."""
    thread = getattr(iterator, "_pin_memory_thread", None)
    return thread is None or bool(thread.is_alive())


def _last_words() -> str:
    text = _words[:].rstrip(b"\0").decode("utf-8", "replace")
    return f"; its last words: {text}" if text else ""


# ------------------------------------------------------------------------------------------------------- the processes

_context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


class DataWorker(_context.Process):  # type: ignore[name-defined]
    """A worker process, told apart from other children of a program that uses this package."""


class WorkerContext(type(_context)):  # type: ignore[misc]
    """How workers are started: forked ones share the memory of the main process, spawned ones get handles to it."""

    Process = DataWorker


def default_workers(batches: int) -> int:
    """How many worker processes load so many batches of an evaluation: one per core and per two batches, at most 8.

    None where workers are spawned: a program that calls the Python API at its top level would be started again by them.
    """
    return min(most_workers(), batches // 2) if sys.platform == "linux" else 0


def most_workers() -> int:
    """One worker process per core of this machine that a process of the training has, at most 8."""
    return min(MAX_DEFAULT_WORKERS, -(-usable_cores() // local_world()))


def start_worker(_: int) -> None:
    """Prepare a worker process."""
    cv2.setNumThreads(0)  # the workers are the parallelism; OpenCV's threads would only compete for cores
    torch.set_num_threads(1)
    # Clusters and terminals send these signals to all processes; the main process decides when workers stop.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Python prints an error in the thread that sends batches and goes on: the main process would wait forever.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: BaseException, _: object) -> None:
    """End this worker, with its error in the memory that it shares with the main process."""
    text = one_line(f"{type(error).__name__}: {error}").encode()[:WORDS_BYTES]
    _words[: len(text)] = text
    os._exit(1)


def require_semaphores(workers: int) -> None:
    """Raise OSError if the system has too few semaphores for so many workers, before a DataLoader starts some."""
    if workers:
        context = WorkerContext()
        _ = [context.Semaphore() for _ in range(3 * workers + 8)]  # in a list, to exist all at once


@atexit.register  # before Python waits for the workers, forever, since they ignore its SIGTERM
def end_workers() -> None:
    """Kill all data workers."""
    for child in multiprocessing.active_children():
        if isinstance(child, DataWorker):
            with suppress(RuntimeError):  # by which PyTorch reports the death
                child.kill()
                child.join(5)


# --------------------------------------------------------------------------------------------------------- the batches


@dataclass(frozen=True)
class PipedBatch:
    """A batch on its way through a pipe, into which arrays are copied; tensors would go to shared memory."""

    images: Any  # np.ndarray; in a worker also the Loan of a slot
    targets: dict[str, np.ndarray]
    indices: np.ndarray
    others: dict[str, Any]  # the other fields

    def unpacked(self) -> Batch:
        """The batch, in the memory in which it arrived."""
        targets = Targets(**{name: torch.from_numpy(value) for name, value in self.targets.items()})
        return Batch(torch.from_numpy(self.images), targets, torch.from_numpy(self.indices), **self.others)


class LentBatch(PipedBatch):
    """A batch whose images are in a slot of data.batch_slots; only the rest goes through the pipe."""

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, by which the slot is free again; called by the DataLoader."""
        return self.unpacked().pin_memory()


def hand_over(batch: Batch, loan: object | None = None) -> Batch | PipedBatch:
    """In a worker: the batch in the slot lent for its images, else in shared memory, else as arrays for a pipe."""
    targets = batch.targets
    if loan is not None:
        return _as_arrays(LentBatch, batch, loan)
    tensors = [each for each in (batch.images, batch.indices, *vars(targets).values()) if each.numel()]
    try:
        if _free_shared_memory() >= sum(each.nbytes for each in tensors) + RESERVE:
            for each in tensors:
                each.share_memory_()
            return batch
    except RuntimeError:  # filled by another process in the meantime
        pass
    return _as_arrays(PipedBatch, batch, batch.images.numpy())


def _as_arrays(kind: type[PipedBatch], batch: Batch, images: object) -> PipedBatch:
    others = {name: value for name, value in vars(batch).items() if name not in ("images", "targets", "indices")}
    arrays = {name: value.numpy() for name, value in vars(batch.targets).items()}
    return kind(images, arrays, batch.indices.numpy(), others)


def receive(item: Batch | PipedBatch, *, pin_memory: bool) -> Batch:
    """In the main process: the batch that a worker handed over."""
    if isinstance(item, Batch):
        return item
    if isinstance(item, LentBatch):
        return item.unpacked()
    _note_pipes()
    return item.unpacked().pin_memory() if pin_memory else item.unpacked()


@functools.cache
def _note_pipes() -> None:
    free = _free_shared_memory() / 2**20
    print(
        f"{SHARED_MEMORY} has {free:.1f} MiB free, too little for the batches: data workers send them through pipes, "
        f"which takes longer; {MORE_SHARED_MEMORY}",
        file=sys.stderr,
        flush=True,
    )


def _free_shared_memory() -> float:
    if sys.platform != "linux":
        return float("inf")
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize
