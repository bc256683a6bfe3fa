"""Memory in which workers make batches and the main process uses them, one batch after the other.

New memory costs both sides a page fault for each of its pages, which the system also has to clear: half as much time as
making the batch. A batch that finds no free slot goes another way (`data.workers.hand_over`).
"""

from __future__ import annotations

import itertools
import mmap
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from data.image_cache import available_memory
from data.workers import WorkerContext

MAX_FRACTION = 0.25  # of the free memory
SPARE = 2  # slots beyond those of the batches under way: of the batch in use, and of the one before it

_numbers = itertools.count()
_all: weakref.WeakValueDictionary[int, BatchSlots] = weakref.WeakValueDictionary()  # by number, also in forked workers


class BatchSlots:
    """Slots for the images of a batch each, shared by forked workers."""

    def __init__(self, slots: int, nbytes: int):
        """`nbytes`: of a slot."""
        self.slots, self.nbytes = slots, nbytes
        self._pixels = mmap.mmap(-1, slots * nbytes)  # a page exists once it is written
        self._taken = mmap.mmap(-1, slots)  # a byte for each slot: 1 from a worker's `take` until nobody uses the batch
        self._lock = WorkerContext().Lock()
        self.number = next(_numbers)
        _all[self.number] = self

    @staticmethod
    def fitting(under_way: int, nbytes: int) -> BatchSlots | None:
        """Slots for so many batches that workers make ahead; None where memory or semaphores are short."""
        slots = under_way + SPARE
        if not nbytes or slots * nbytes > available_memory() * MAX_FRACTION:
            return None
        try:
            return BatchSlots(slots, nbytes)
        except OSError:
            return None

    def take(self, shape: Sequence[int]) -> Loan | None:
        """In a worker: a slot for images of this shape, None if none is free or it would not fit."""
        if not 0 < prod(shape) <= self.nbytes:
            return None
        with self._lock:
            slot = self._taken.find(b"\0")
            if slot < 0:
                return None
            self._taken[slot] = 1
        return Loan(self.number, slot, tuple(shape))

    def view(self, slot: int, shape: Sequence[int]) -> np.ndarray:
        """The uint8 array of this shape in a slot."""
        return np.frombuffer(self._pixels, np.uint8, prod(shape), slot * self.nbytes).reshape(shape)

    def lent(self, slot: int, shape: Sequence[int]) -> np.ndarray:
        """In the main process: the array in a slot, which is free again once nothing refers to the array any more."""
        array = self.view(slot, shape)
        weakref.finalize(array, self._free, slot).atexit = False
        return array

    def _free(self, slot: int) -> None:
        self._taken[slot] = 0  # without the lock, which the garbage collector may interrupt: nobody else writes a 0


@dataclass(frozen=True)
class Loan:
    """A slot that a worker has taken. Sent to the main process, it arrives as the array in it."""

    pool: int
    slot: int
    shape: tuple[int, ...]

    def array(self) -> np.ndarray:
        """The array in it, for the worker to fill."""
        return _all[self.pool].view(self.slot, self.shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, (self.pool, self.slot, self.shape)


def _receive(pool: int, slot: int, shape: tuple[int, ...]) -> np.ndarray:
    return _all[pool].lent(slot, shape)
