"""Loaders: batches for training and evaluation, in an order that depends on (seed, epoch) alone.

Together with data/samples.py this makes batches identical for any number of workers and from any position on.
"""

from __future__ import annotations

import atexit
import gc
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, get_worker_info

from core.distributed import share
from core.types import Batch, Targets
from data.annotations import Annotations
from data.batch_slots import BatchSlots
from data.image_cache import ImageStore
from data.recent_images import RecentImages
from data.samples import EvalSamples, Failure, Sample, TrainSamples, epoch_order
from data.sampling import Arrangement, RectSamples
from data.workers import (
    LoaderError,
    PipedBatch,
    WorkerContext,
    end_workers,
    hand_over,
    has_pin_thread,
    is_timeout,
    receive,
    require_semaphores,
    start_worker,
    worker_error,
)

WAIT_SECONDS = 600  # for a batch of the workers; a longer wait is an error
POLL_SECONDS = 1
PREFETCH = 2  # batches that each worker makes ahead


def collate(
    samples: Sequence[Sample | Failure], *, annotations: Annotations, side: int = 0, slots: BatchSlots | None = None
) -> Batch | PipedBatch | Failure:
    """One batch of samples of equal shape, in a worker ready to be handed over to the main process.

    Without samples, the share of a process in a batch of fewer images than processes: images (0, 3, side, side).
    """
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
        good.append(sample)
    height, width = good[0].image.shape[:2] if good else (side, side)
    shape = (len(good), 3, height, width)
    loan = slots.take(shape) if slots is not None else None
    images = np.empty(shape, np.uint8) if loan is None else loan.array()
    for planes, sample in zip(images, good, strict=True):
        if sample.image.shape != (height, width, 3):
            raise ValueError(f"images of one batch: {sample.image.shape}, expected {(height, width, 3)}")
        cv2.split(sample.image, list(planes))
    targets = Targets.collate([sample.boxes for sample in good], [sample.labels for sample in good])
    images_crc32 = checksum(images)
    batch = Batch(
        images=torch.from_numpy(images),
        targets=targets,
        indices=torch.tensor([sample.index for sample in good], dtype=torch.int64),
        image_ids=[annotations.image_id(sample.index) for sample in good],
        geometries=[sample.geometry for sample in good if sample.geometry is not None],
        paths=[annotations.path(sample.index) for sample in good],
        crc32=checksum(targets.boxes.numpy(), targets.labels.numpy(), start=images_crc32),
        images_crc32=images_crc32,
        preprocess_ms=sum(sample.preprocess_ms for sample in good),
    )
    return batch if get_worker_info() is None else hand_over(batch, loan)


def checksum(*arrays: np.ndarray, start: int = 0) -> int:
    """CRC-32 over the bytes of arrays, after those whose checksum is `start`."""
    for array in arrays:
        start = zlib.crc32(np.ascontiguousarray(array).data, start)
    return start


class EpochSampler(Sampler[list[tuple[int, ...]]]):
    """Batches of (epoch, index), in a new order for each epoch, from any batch on; of each, the share of a process.

    For batches that are not square, of (epoch, index, height, width).
    """

    def __init__(
        self,
        count: int,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        arrangement: Arrangement | None = None,
    ):
        self.count, self.batch, self.seed = count, batch, seed
        self.rank, self.world = rank, world
        self.arrangement = Arrangement(seed, batch) if arrangement is None else arrangement
        self.epoch, self.first = 0, 0

    def __len__(self) -> int:
        return -(-self.count // self.batch)

    def order(self, epoch: int) -> np.ndarray:
        """Permutation (N,) of the images for an epoch."""
        return epoch_order(self.count, seed=self.seed, epoch=epoch)

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        epoch = self.epoch
        order = self.arrangement.order(epoch, self.order(epoch)).tolist()
        for number in range(self.first, len(self)):
            whole = order[number * self.batch : (number + 1) * self.batch]
            shape = self.arrangement.shape(whole) or ()
            yield [(epoch, whole[place], *shape) for place in share(len(whole), self.rank, self.world)]


class TrainLoader:
    """Training batches; each iteration is one epoch."""

    def __init__(
        self,
        samples: TrainSamples,
        *,
        batch: int,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world: int = 1,
        arrangement: Arrangement | None = None,
    ):
        """`batch` images for all `world` processes together, of which this one gets the share of its `rank`.

        `arrangement`: class balance, or batches that are not square.
        """
        self.dataset = samples
        self.annotations = samples.annotations
        self.sampler = EpochSampler(
            len(samples), batch=batch, seed=samples.seed, rank=rank, world=world, arrangement=arrangement
        )
        self.workers = workers
        rect = self.sampler.arrangement.sizes is not None
        self._loader = _data_loader(
            RectSamples(samples) if rect else samples, self.sampler, samples.annotations, workers, pin_memory
        )

    def images_of(self, batch: int) -> int:
        """The number of images of a batch of an epoch, those of all processes."""
        return min(self.sampler.batch, self.sampler.count - batch * self.sampler.batch)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.sampler)

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Make the next iteration yield the batches of `epoch` from number `batch` on."""
        if epoch < 0 or not 0 <= batch <= len(self):
            raise ValueError(f"position: epoch {epoch}, batch {batch}; expected batch 0 to {len(self)} of an epoch")
        self.sampler.epoch, self.sampler.first = epoch, batch

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()

    def iterate(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[Batch]:
        """The batches from the current position on; afterwards the position is the start of the next epoch.

        `on_wait` is called every POLL_SECONDS while the workers have no batch, and may raise.
        """
        if self.sampler.first < len(self):
            yield from _checked(self._loader, on_wait)
        self.set_position(self.sampler.epoch + 1)

    def describe(self) -> str:
        """A one-line summary of the data and how it is loaded."""
        text = _describe(self.annotations, self.dataset.store, self.workers, recent=self.dataset.recent)
        return text + self.sampler.arrangement.describe()


class EvalLoader:
    """Evaluation batches in a fixed order, grouped by image shape: no image is padded to match others, so results do
    not depend on the batch size."""

    def __init__(
        self,
        samples: EvalSamples,
        *,
        batch: int,
        workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world: int = 1,
    ):
        """Of the batches, those of number rank, rank + world, ..."""
        self.dataset = samples
        self.annotations = samples.annotations
        self.workers = workers
        order = sorted(range(len(samples)), key=lambda index: (samples.shapes[index], index))
        groups: dict[tuple[int, int], list[int]] = {}
        for index in order:
            groups.setdefault(samples.shapes[index], []).append(index)
        self.batches = [
            group[start : start + batch] for group in groups.values() for start in range(0, len(group), batch)
        ]
        self.rounds = -(-len(self.batches) // world)  # batches of a process, at most
        self.batches = self.batches[rank::world]
        self._loader = _data_loader(samples, self.batches, samples.annotations, workers, pin_memory)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()

    def iterate(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[Batch]:
        """The batches; `on_wait` as for TrainLoader."""
        return _checked(self._loader, on_wait)

    def describe(self) -> str:
        """A one-line summary of the data and how it is loaded."""
        return _describe(self.annotations, self.dataset.store, self.workers)


def _checked(batches: DataLoader[Sample | Failure], on_wait: Callable[[], None]) -> Iterator[Batch]:
    iterator: Any = None
    since = time.monotonic()
    while True:
        try:
            if iterator is None:
                require_semaphores(batches.num_workers)
                iterator = iter(batches)  # starts the workers
                iterator._timeout = POLL_SECONDS if batches.num_workers else 0
            item = next(iterator, None)
        except (RuntimeError, OSError, EOFError) as error:
            if batches.num_workers == 0:
                raise
            if is_timeout(error) and time.monotonic() - since < WAIT_SECONDS and has_pin_thread(iterator):
                with ExitStack() as stack:
                    stack.callback(
                        end_workers
                    )  # whatever ends the wait, Ctrl-C too: PyTorch would wait for busy workers
                    on_wait()
                    stack.pop_all()
                continue
            end_workers()
            raise worker_error(error, waited=time.monotonic() - since) from error
        if item is None:
            return
        if isinstance(item, Failure):
            raise LoaderError(item.message)
        yield receive(item, pin_memory=batches.pin_memory)
        since = time.monotonic()


def _describe(
    annotations: Annotations, store: ImageStore | None, workers: int, *, recent: RecentImages | None = None
) -> str:
    storage = "decoded each time"
    if store is not None:
        storage = f"cached {'in memory' if store.path is None else 'on disk'} ({store.nbytes / 2**20:.0f} MiB)"
    elif recent is not None:
        storage = f"decoded when needed, the last {recent.slots} kept ({recent.nbytes / 2**20:.0f} MiB)"
    boxes = int((~annotations.crowd).sum())
    return f"{len(annotations)} images, {boxes} boxes, {len(annotations.classes)} classes, {storage}, {workers} workers"


def _data_loader(
    samples: TrainSamples | RectSamples | EvalSamples,
    batches: EpochSampler | list[list[int]],
    annotations: Annotations,
    workers: int,
    pin_memory: bool,
) -> DataLoader[Sample | Failure]:
    slots = None
    if workers and sys.platform == "linux":  # where they are forked
        if isinstance(batches, EpochSampler):  # an evaluation is soon over, and the memory would remain taken
            assert not isinstance(samples, EvalSamples)
            images = -(-batches.batch // batches.world)
            slots = BatchSlots.fitting(PREFETCH * workers, images * 3 * samples.imgsz**2)
        # A full garbage collection in any process would write to every object and so copy every shared page.
        gc.collect()
        gc.freeze()
        atexit.register(gc.unfreeze)  # else some libraries report leaks at exit
    side = 0 if isinstance(samples, EvalSamples) else samples.imgsz
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(collate, annotations=annotations, side=side, slots=slots),
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH if workers else None,
        timeout=WAIT_SECONDS if workers else 0,
        multiprocessing_context=WorkerContext() if workers else None,
        # Not torch's global generator: starting a loader must not change the random numbers that a model draws.
        generator=torch.Generator().manual_seed(0),
    )
