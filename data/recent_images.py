"""Base images of recent samples, kept for the mosaics that use them again, in memory that all workers share.

A data set whose images all fit stays decoded. Of a larger one, mosaics draw their partners from the same block of the
epoch's order (see data.samples), so that each image is decoded about once an epoch by whichever worker comes first.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import AbstractContextManager, nullcontext

import cv2
import numpy as np

from data.image_cache import available_memory
from data.workers import WorkerContext

RECENT_BYTES = 512 << 20  # a constant, as which partners a mosaic has depends on it
MAX_FRACTION = 0.25  # of the free memory; with less, images are decoded each time
SMALLEST_BLOCK = 64  # images: fewer partners would make mosaics too similar
LOCKS = 16


def slots_for(imgsz: int) -> int:
    """The number of images that are kept."""
    return max(RECENT_BYTES // (3 * imgsz**2), 1)


class RecentImages:
    """Slots for an image each, of at most `side` x `side` pixels. Forked workers share them, spawned ones do not."""

    def __init__(self, slots: int, side: int, *, shared: bool):
        """`shared`: between workers, which takes semaphores of the system."""
        self.slots, self.side = slots, side
        self._locks: list[AbstractContextManager[object]] = [nullcontext()]
        if shared and sys.platform == "linux":
            context = WorkerContext()
            self._locks = [context.Lock() for _ in range(min(slots, LOCKS))]
        self._make()

    @staticmethod
    def fitting(count: int, side: int, *, shared: bool) -> RecentImages | None:
        """Slots for a data set of `count` images; None where memory or semaphores are short."""
        slots = min(slots_for(side), count)
        if slots * 3 * side**2 > available_memory() * MAX_FRACTION:
            return None
        try:
            return RecentImages(slots, side, shared=shared)
        except OSError:
            return None

    @property
    def nbytes(self) -> int:
        """Total size of all slots."""
        return self.slots * 3 * self.side**2

    def _make(self) -> None:
        self._pixels = np.frombuffer(mmap.mmap(-1, self.nbytes), np.uint8)
        # Of each slot: 1 + the position of its image in the data set, or 0; height and width.
        self._contents = np.frombuffer(mmap.mmap(-1, self.slots * 3 * 8), np.int64).reshape(self.slots, 3)

    def get(self, slot: int, index: int) -> np.ndarray | None:
        """A copy (H, W, 4) of an image, its fourth channel without meaning, as data.mosaic.paint takes it; or None."""
        with self._locks[slot % len(self._locks)]:
            found, height, width = self._contents[slot].tolist()
            return cv2.cvtColor(self._view(slot, height, width), cv2.COLOR_RGB2RGBA) if found == index + 1 else None

    def put(self, slot: int, index: int, image: np.ndarray) -> None:
        """Keep an image (H, W, 3) instead of the one in this slot."""
        height, width = image.shape[:2]
        with self._locks[slot % len(self._locks)]:
            self._contents[slot] = 0, 0, 0  # until the pixels are complete, should this worker be killed
            self._view(slot, height, width)[:] = image
            self._contents[slot] = index + 1, height, width

    def _view(self, slot: int, height: int, width: int) -> np.ndarray:
        start = slot * 3 * self.side**2
        return self._pixels[start : start + 3 * height * width].reshape(height, width, 3)

    def __getstate__(self) -> dict[str, object]:
        return {"slots": self.slots, "side": self.side, "_locks": [nullcontext()]}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._make()
