"""Which images an epoch has, if not each of them once, and in which batches: class balance, batches of like aspect."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from data.annotations import Annotations
from data.mosaic import MIN_SIDE, MIN_VISIBLE
from data.samples import Failure, Sample, TrainSamples

BALANCE, ASPECT = 101, 102  # keys of random streams, beside (seed, epoch)


@dataclass(frozen=True)
class Arrangement:
    """The images of an epoch, as many as the data set has, in batches; a function of (seed, epoch)."""

    seed: int
    batch: int
    factors: np.ndarray | None = None  # (N,) from `repeat_factors`; None: each image once an epoch
    sizes: np.ndarray | None = None  # (N, 2) width and height of the resized images; None: square batches
    stride: int = 32  # of which the sides of batches are multiples

    def order(self, epoch: int, permutation: np.ndarray) -> np.ndarray:
        """The images (N,) of an epoch, batch by batch, from the permutation of that epoch."""
        order = permutation
        if self.factors is not None:
            order = balanced(permutation, self.factors, np.random.default_rng([self.seed, epoch, BALANCE]))
        if self.sizes is None:
            return order
        aspects = self.sizes[:, 0] / self.sizes[:, 1]
        return by_aspect(order, aspects, self.batch, np.random.default_rng([self.seed, epoch, ASPECT]))

    def shape(self, images: Sequence[int]) -> tuple[int, int] | None:
        """Height and width of the batch of these images, the smallest that holds all of them; None: square."""
        if self.sizes is None:
            return None
        width, height = -(-self.sizes[list(images)].max(0) // self.stride) * self.stride
        return int(height), int(width)

    def describe(self) -> str:
        """What is done, for the summary of a run; empty if nothing."""
        parts = []
        if self.factors is not None:
            parts.append(f"classes balanced: repeat factors 1 to {self.factors.max():.1f}")
        if self.sizes is not None:
            parts.append("batches of like aspect, without mosaic, copy-paste and mixup")
        return "".join(f", {part}" for part in parts)


def repeat_factors(annotations: Annotations, threshold: float) -> np.ndarray:
    """Repeat factors (N,) of images by Gupta et al. (2019, LVIS): max over their classes of sqrt(threshold / f).

    f is the fraction of images that have the class; at least 1, also for an image without objects.
    """
    classes = [np.unique(annotations.training_boxes(index)[1]) for index in range(len(annotations))]
    counts = np.bincount(np.concatenate(classes), minlength=len(annotations.classes))
    by_class = np.sqrt(np.maximum(threshold * len(annotations) / np.maximum(counts, 1), 1.0))
    return np.array([by_class[each].max(initial=1.0) for each in classes])


def balanced(permutation: np.ndarray, factors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many images as there are, each about in proportion to its factor, in random order.

    By systematic sampling: image i occurs floor(e) or ceil(e) times, where e is N times its share of all factors.
    """
    expected = np.cumsum(factors * (len(factors) / factors.sum()))
    places = np.searchsorted(expected, rng.random() + np.arange(len(factors)), side="right")
    return np.minimum(places, len(factors) - 1)[permutation]


def by_aspect(order: np.ndarray, aspects: np.ndarray, batch: int, rng: np.random.Generator) -> np.ndarray:
    """The images of `order` in batches of like aspect, the batches in random order, a shorter one last.

    Images of equal aspect are grouped anew with each order.
    """
    together = order[np.argsort(aspects[order], kind="stable")]
    whole, rest = divmod(len(order), batch)
    start = int(rng.integers(whole + 1)) * batch  # the shorter batch is of another aspect in each epoch
    short, others = together[start : start + rest], np.delete(together, np.s_[start : start + rest])
    return np.concatenate([others.reshape(whole, batch)[rng.permutation(whole)].ravel(), short])


class RectSamples(Dataset):
    """Training samples by (epoch, index, height, width): the middle of the square ones."""

    def __init__(self, samples: TrainSamples) -> None:
        self.samples, self.imgsz = samples, samples.imgsz

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int, int, int]) -> Sample | Failure:
        epoch, index, height, width = key
        sample = self.samples[epoch, index]
        return sample if isinstance(sample, Failure) else crop(sample, height, width)


def crop(sample: Sample, height: int, width: int) -> Sample:
    """The middle of a sample, with its boxes clipped; those of which too little is left are dropped, as in mosaics."""
    top, left = (sample.image.shape[0] - height) // 2, (sample.image.shape[1] - width) // 2
    image = np.ascontiguousarray(sample.image[top : top + height, left : left + width])
    moved = sample.boxes - np.array([left, top, left, top], np.float32)
    clipped = np.clip(moved, 0, np.array([width, height, width, height], np.float32))
    sides, full = clipped[:, 2:] - clipped[:, :2], (moved[:, 2:] - moved[:, :2]).prod(1)
    kept = (sides >= MIN_SIDE).all(1) & (sides.prod(1) >= MIN_VISIBLE * full)
    return dataclasses.replace(sample, image=image, boxes=clipped[kept], labels=sample.labels[kept])
