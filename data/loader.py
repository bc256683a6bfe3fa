"""Batches for training and evaluation.

The training's samples are a function of (seed, epoch, image index), its order of (seed, epoch): the epoch travels with
the index to the workers, which keep no state, so any number of them gives the same batches, from any position on.
"""

from __future__ import annotations

import atexit
import gc
import math
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from core.geometry import Geometry, fit, resize
from core.types import Batch, Targets
from data.annotations import Annotations
from data.augment import LAYOUT, MIXUP, Appearance, Augmentation, stream
from data.image import ImageProblem, read_image
from data.image_cache import ImageStore
from data.mosaic import Tile, centre_place, lay_out, mosaic_places, random_pose

Preprocess = Callable[[np.ndarray, int], tuple[np.ndarray, Geometry]]


class LoaderFault(ValueError):
    """Batches cannot be made any more: an image that was usable at the start is not, or a worker process has died."""


def as_loader_fault(error: Exception) -> Exception:
    """The error itself, or a LoaderFault where it says that a worker has died: PyTorch raises that one anywhere."""
    if not isinstance(error, RuntimeError) or "DataLoader worker" not in str(error):
        return error
    reason = " ".join(str(error).split())
    return LoaderFault(
        f"a data worker has died ({reason}); a killed one often means that memory ran out: try fewer --workers or "
        "--cache off"
    )


@dataclass(frozen=True)
class Failure:
    """Why a sample could not be made; carried to the main process, where it is raised in one line."""

    message: str


@dataclass(frozen=True)
class Sample:
    """One image in its final size with its boxes in its pixels."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    index: int
    geometry: Geometry | None = None
    preprocess_ms: float = math.nan


@dataclass(frozen=True)
class Fitting:
    """How an image is brought to the side of training: its long side, or both where `stretch`.

    `smooth`: averaged when shrinking, as in `core.geometry.resize`.
    """

    stretch: bool = False
    smooth: bool = True

    def size(self, width: int, height: int, side: int) -> tuple[int, int]:
        """(width, height) of an image of this size."""
        return (side, side) if self.stretch else fit(width, height, side)


def base_image(annotations: Annotations, index: int, imgsz: int, fitting: Fitting = Fitting()) -> np.ndarray:  # noqa: B008
    """An image scaled to the side `imgsz`: what caches hold, and what augmentation starts from."""
    image = read_image(annotations.path(index))
    width, height = fitting.size(image.shape[1], image.shape[0], imgsz)
    return resize(image, width, height, smooth=fitting.smooth)


class TrainSamples(Dataset):
    """Augmented samples by (epoch, index)."""

    def __init__(
        self,
        annotations: Annotations,
        *,
        imgsz: int,
        seed: int,
        augmentation: Augmentation,
        mosaic_until: int | None = None,
        store: ImageStore | None = None,
        fitting: Fitting = Fitting(),  # noqa: B008
    ):
        """`mosaic_until` is the first epoch without mosaic and mixup, None for all with; `store` holds base images."""
        self.annotations, self.imgsz, self.seed, self.store = annotations, imgsz, seed, store
        self.augmentation, self.mosaic_until, self.fitting = augmentation, mosaic_until, fitting
        self.appearance = Appearance(augmentation, seed=seed, size=imgsz)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: tuple[int, int]) -> Sample | Failure:
        epoch, index = key
        try:
            return self.sample(epoch, index)
        except ImageProblem as problem:
            return Failure(f"an image became unusable during the training: {problem.what}")

    def sample(self, epoch: int, index: int) -> Sample:
        """One augmented sample."""
        settings = self.augmentation
        composed = self.mosaic_until is None or epoch < self.mosaic_until
        image, boxes, labels = self._scene(index, composed, stream(self.seed, epoch, index, LAYOUT))
        if composed and settings.mixup:
            rng = stream(self.seed, epoch, index, MIXUP)
            if rng.random() < settings.mixup:
                share = rng.beta(32.0, 32.0)  # mostly near one half
                other, more_boxes, more_labels = self._scene(int(rng.integers(len(self))), composed, rng)
                image = cv2.addWeighted(image, share, other, 1 - share, 0)
                boxes, labels = np.concatenate([boxes, more_boxes]), np.concatenate([labels, more_labels])
        image, boxes, labels = self.appearance(image, boxes, labels, epoch=epoch, index=index)
        return Sample(image, boxes, labels, index)

    def _scene(self, index: int, composed: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One image or a mosaic of four, posed at random on the canvas."""
        mosaic = rng.random() < self.augmentation.mosaic and composed
        pose = random_pose(self.imgsz, rng, **self.augmentation.pose())
        if not mosaic:
            tile = self._tile(index)
            return lay_out([tile], [pose @ centre_place(tile)], self.imgsz)
        tiles = [self._tile(each) for each in (index, *rng.integers(len(self), size=3).tolist())]
        rng.shuffle(tiles)  # type: ignore[arg-type]
        return lay_out(tiles, [pose @ place for place in mosaic_places(tiles, self.imgsz, rng)], self.imgsz)

    def _tile(self, index: int) -> Tile:
        if self.store is not None:
            image = self.store[index]
        else:
            try:
                image = base_image(self.annotations, index, self.imgsz, self.fitting)
            except ImageProblem as problem:
                raise ImageProblem(problem.kind, f"{self.annotations.path(index)} {problem.what}") from problem
        boxes, labels, rows = self.annotations.training_boxes(index)
        width, height = self.annotations.sizes[index]
        scale = np.array([image.shape[1] / width, image.shape[0] / height], np.float32)

        def outlines(position: int) -> list[np.ndarray]:
            return [outline * scale for outline in self.annotations.polygons(rows[position])]

        return Tile(image, boxes * np.tile(scale, 2), labels, outlines)


class EvalSamples(Dataset):
    """Samples for evaluation: each image through the detector's own preprocessing."""

    def __init__(self, annotations: Annotations, *, imgsz: int, preprocess: Preprocess):
        self.annotations, self.imgsz, self.preprocess = annotations, imgsz, preprocess
        self.store: ImageStore | None = None
        self.shapes: list[tuple[int, int]] = []  # (height, width) of each preprocessed image
        self.geometries: list[Geometry] = []
        fitted: dict[tuple[int, int], tuple[tuple[int, int], Geometry]] = {}
        for width, height in annotations.sizes.tolist():
            if (width, height) not in fitted:
                # Only the detector knows what becomes of an image of this size; a blank one finds out.
                blank, geometry = preprocess(np.zeros((height, width, 3), np.uint8), imgsz)
                fitted[width, height] = (blank.shape[0], blank.shape[1]), geometry
            shape, geometry = fitted[width, height]
            self.shapes.append(shape)
            self.geometries.append(geometry)

    def __len__(self) -> int:
        return len(self.annotations)

    def image(self, index: int) -> np.ndarray:
        """One preprocessed image (H, W, 3)."""
        return self.preprocess(read_image(self.annotations.path(index)), self.imgsz)[0]

    def __getitem__(self, index: int) -> Sample | Failure:
        spent = math.nan
        try:
            if self.store is not None:
                image = self.store[index]
            else:
                decoded = read_image(self.annotations.path(index))
                start = time.perf_counter()
                image = self.preprocess(decoded, self.imgsz)[0]
                spent = (time.perf_counter() - start) * 1e3
        except ImageProblem as problem:
            return Failure(f"{self.annotations.path(index)} became unusable since the start: {problem.what}")
        boxes, labels, _ = self.annotations.training_boxes(index)
        geometry = self.geometries[index]
        return Sample(image, geometry.to_network(boxes), labels, index, geometry, spent)


def collate(samples: Sequence[Sample | Failure], *, annotations: Annotations) -> Batch | Failure:
    """One batch of samples of equal shape."""
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
        good.append(sample)
    images = np.ascontiguousarray(np.stack([sample.image for sample in good]).transpose(0, 3, 1, 2))
    targets = Targets.collate([sample.boxes for sample in good], [sample.labels for sample in good])
    return Batch(
        images=torch.from_numpy(images),
        targets=targets,
        indices=torch.tensor([sample.index for sample in good], dtype=torch.int64),
        image_ids=[annotations.image_id(sample.index) for sample in good],
        geometries=[sample.geometry for sample in good if sample.geometry is not None],
        paths=[annotations.path(sample.index) for sample in good],
        crc32=checksum(images, targets.boxes.numpy(), targets.labels.numpy()),
        preprocess_ms=sum(sample.preprocess_ms for sample in good),
    )


def checksum(*arrays: np.ndarray) -> int:
    """CRC-32 over the bytes of arrays."""
    crc32 = 0
    for array in arrays:
        crc32 = zlib.crc32(array.tobytes(), crc32)
    return crc32


class EpochSampler(Sampler):
    """Batches of (epoch, index): each epoch's own order, from any batch on."""

    def __init__(self, count: int, *, batch: int, seed: int):
        self.count, self.batch, self.seed = count, batch, seed
        self.epoch, self.first = 0, 0

    def __len__(self) -> int:
        return -(-self.count // self.batch)

    def order(self, epoch: int) -> np.ndarray:
        """The order (N,) in which an epoch goes through the images."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.count)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = self.epoch, self.order(self.epoch).tolist()
        for number in range(self.first, len(self)):
            yield [(epoch, index) for index in order[number * self.batch : (number + 1) * self.batch]]


class TrainLoader:
    """Training batches, one epoch an iteration."""

    def __init__(self, samples: TrainSamples, *, batch: int, workers: int = 0, pin_memory: bool = False):
        self.dataset = samples
        self.annotations = samples.annotations
        self.sampler = EpochSampler(len(samples), batch=batch, seed=samples.seed)
        self.workers = workers
        self._loader = _data_loader(samples, self.sampler, samples.annotations, workers, pin_memory)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.sampler)

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """The next iteration yields the batches of `epoch` from number `batch` on."""
        if epoch < 0 or not 0 <= batch <= len(self):
            raise ValueError(f"position: epoch {epoch}, batch {batch}; expected batch 0 to {len(self)} of an epoch")
        self.sampler.epoch, self.sampler.first = epoch, batch

    def __iter__(self) -> Iterator[Batch]:
        """The batches from the position on; afterwards the position is the start of the next epoch."""
        if self.sampler.first < len(self):
            yield from _checked(self._loader)
        self.set_position(self.sampler.epoch + 1)

    def describe(self) -> str:
        """What is loaded and how, in one line."""
        return _describe(self.annotations, self.dataset.store, self.workers)


class EvalLoader:
    """Evaluation batches in a fixed order, images of equal shape together: no image is padded for its neighbours,
    so that results do not depend on the batch size."""

    def __init__(self, samples: EvalSamples, *, batch: int, workers: int = 0, pin_memory: bool = False):
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
        self._loader = _data_loader(samples, self.batches, samples.annotations, workers, pin_memory)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return _checked(self._loader)

    def describe(self) -> str:
        """What is loaded and how, in one line."""
        return _describe(self.annotations, self.dataset.store, self.workers)


def _checked(batches: Any) -> Iterator[Batch]:
    rest = iter(batches)
    while True:
        try:
            batch = next(rest, None)
        except RuntimeError as error:
            raise as_loader_fault(error) from error
        if batch is None:
            return
        if isinstance(batch, Failure):
            raise LoaderFault(batch.message)
        yield batch


def _describe(annotations: Annotations, store: ImageStore | None, workers: int) -> str:
    kept = "decoded each time"
    if store is not None:
        kept = f"cached {'in memory' if store.path is None else 'on disk'} ({store.nbytes / 2**20:.0f} MiB)"
    boxes = int((~annotations.crowd).sum())
    return f"{len(annotations)} images, {boxes} boxes, {len(annotations.classes)} classes, {kept}, {workers} workers"


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # workers are the parallelism; OpenCV's own threads would only fight for the cores
    torch.set_num_threads(1)
    # A cluster or a terminal sends these to every process of the run; when to stop is the main process's to say.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _data_loader(
    samples: Dataset, batches: Any, annotations: Annotations, workers: int, pin_memory: bool
) -> DataLoader:
    # Forked workers share memory with the main process as it is; elsewhere they are spawned with handles to it.
    context = ("fork" if sys.platform == "linux" else "spawn") if workers else None
    if context == "fork":
        # A full garbage collection, there or here, would write to every object and so copy each page that is shared.
        gc.collect()
        gc.freeze()
        atexit.register(gc.unfreeze)  # or libraries complain at the exit of what they take for leaks
    return DataLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(collate, annotations=annotations),
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        multiprocessing_context=context,
        # Not torch's global generator: the order in which loaders start must not change what a model draws from it.
        generator=torch.Generator().manual_seed(0),
    )
