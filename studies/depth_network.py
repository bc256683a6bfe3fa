"""The networks of the study of depth: built, trained, and scored."""

from typing import cast

import torch
from torch import Tensor, nn

from studies.mnist import activation, digits, initialise, scores, train
from studies.study import Row

BATCH, WIDTH, DROPOUT = 64, 500, 0.25
TRAINED = 50.0  # % of test accuracy above which a network has trained
SAME = 1e-3  # a unit is dead if its outputs for a seventh of the training images differ by less


def measure(cell: Row) -> Row:
    """Losses in nats and accuracies in %, all in evaluation mode; gradient norms of the first step; dead units in %."""
    splits, seed, every = digits(), cast(int, cell["seed"]), cast(int, cell["every"])
    model = network(cast(int, cell["depth"]), str(cell["activation"]))
    initialise(model, str(cell["initialisation"]), torch.Generator().manual_seed(seed))
    norms: list[float] = []

    def keep_norms(step: int) -> None:
        if step == 0:
            layers = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
            norms.extend(float(cast(Tensor, layer.weight.grad).norm()) for layer in layers)

    train(
        model,
        torch.optim.SGD(model.parameters(), lr=cast(float, cell["rate"])),
        splits["train"],
        steps=cast(int, cell["steps"]),
        batch=BATCH,
        seed=seed,
        after_backward=keep_norms,
    )
    train_loss, train_accuracy = scores(model, splits["train"].every(every))
    held_out_loss, held_out_accuracy = scores(model, splits["held-out"].every(every))
    test_loss, test_accuracy = scores(model, splits["test"].every(every))
    blocks = norms[2:-1]  # the dense layers but the output
    return {
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "held_out_loss": held_out_loss,
        "held_out_accuracy": held_out_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "gap": test_loss - train_loss,
        "trained": test_accuracy > TRAINED,
        "gradient_first": blocks[0],
        "gradient_middle": blocks[len(blocks) // 2],
        "gradient_last": blocks[-1],
        "gradient_ratio": blocks[0] / blocks[-1],
        "dead_percent": dead_percent(model, splits["train"].every(7 * every).images),
    }


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
