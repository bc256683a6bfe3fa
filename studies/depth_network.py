"""The network of the study of depth, and its dead units."""

import torch
from torch import Tensor, nn

from studies.networks import activation

WIDTH, DROPOUT = 500, 0.25
SAME = 1e-3  # a unit is dead if its outputs for a seventh of the training images differ by less


def network(depth: int, name: str) -> nn.Sequential:
    """``depth`` layers, 4 or more, from images (N, 1, 28, 28) to logits (N, 10)."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 20), (20, 50)):
        layers += [nn.Conv2d(inputs, outputs, 5), activation(name), nn.MaxPool2d(2)]
    layers += [nn.Dropout(DROPOUT), nn.Flatten()]
    for number in range(depth - 3):
        inputs = WIDTH if number else 50 * 4 * 4
        layers += [nn.Linear(inputs, WIDTH), nn.BatchNorm1d(WIDTH, eps=1e-3), activation(name), nn.Dropout(DROPOUT)]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


@torch.no_grad()
def dead_percent(model: nn.Sequential, images: Tensor) -> float:
    """Share in % of the units of the dense blocks whose outputs for all images are the same, in evaluation mode."""
    model.eval()
    dead, after_norm, x = [], False, images
    for layer in model:
        x = layer(x)
        if after_norm:
            dead.append(x.amax(dim=0) - x.amin(dim=0) < SAME)
        after_norm = isinstance(layer, nn.BatchNorm1d)
    return 100 * float(torch.cat(dead).double().mean())
