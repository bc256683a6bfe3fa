"""A small ResNet on the 8x8 digits of scikit-learn (1797 images of 10 classes), trained from a seed in seconds."""

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.activations import make_activation, parse_activation
from studies.networks import Block

CLASSES = 10
TRAINING_IMAGES = 500  # the other 1297 are test images
MOMENTUM, DECAY, WARMUP = 0.9, 5e-4, 0.05  # the last as a fraction of the steps


def build(act: str, *, width: int, blocks: int, seed: int) -> nn.Sequential:
    """Images (N, 1, 8, 8) to logits (N, 10); ``width`` channels in the first of two stages of ``blocks`` blocks each.

    The initial weights depend on the seed and the size, not on the activation.
    """
    channels = [width] * (blocks + 1) + [2 * width] * blocks
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            make_activation(parse_activation(act)),
            *(
                Block(before, after, 1 if before == after else 2, act)
                for before, after in zip(channels, channels[1:], strict=False)
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, CLASSES),
        )


def layers(blocks: int) -> int:
    """Convolutions in a row and the linear layer."""
    return 4 * blocks + 2


@cache
def images(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images (500, 1, 8, 8) and labels (500,), test images and labels; standardised, drawn by the seed."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    x = torch.from_numpy(pixels.astype(np.float32)).reshape(-1, 1, 8, 8)[order]
    y = torch.from_numpy(labels.astype(np.int64))[order]
    first = x[:TRAINING_IMAGES]
    x = (x - first.mean()) / first.std()
    return x[:TRAINING_IMAGES], y[:TRAINING_IMAGES], x[TRAINING_IMAGES:], y[TRAINING_IMAGES:]


def train(
    act: str, *, width: int, blocks: int, seed: int, steps: int, batch: int = 50, lr: float = 0.05
) -> dict[str, float]:
    """Train by SGD with a cosine schedule; returns losses, accuracies in % after the last step, and the parameters.

    ``lr`` is the peak learning rate. Networks of the same seed see the same batches.
    """
    x, y, x_test, y_test = images(seed)
    network = build(act, width=width, blocks=blocks, seed=seed).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True)
    warmup = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))
    )
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(x), generator=generator)
        chosen, order = order[:batch], order[batch:]
        loss = F.cross_entropy(network(x[chosen]), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    result = {"parameters": float(sum(each.numel() for each in network.parameters()))}
    with torch.no_grad():
        for name, inputs, labels in (("train", x, y), ("test", x_test, y_test)):
            logits = network(inputs)
            result[f"{name}_loss"] = float(F.cross_entropy(logits, labels))
            result[f"{name}_accuracy"] = 100 * float((logits.argmax(1) == labels).double().mean())
    return result
