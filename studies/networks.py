"""Small networks and the digits they are trained on, for studies: weights and batches follow from a seed alone."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.activations import make_activation, parse_activation


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1797 digits of 8 x 8 pixels, 1438 for training and 359 for the test, the same in every run."""

    images: Tensor  # (N, 1, 8, 8) float32, mean 0 and variance 1 over the training images
    labels: Tensor  # (N,) int64
    test_images: Tensor
    test_labels: Tensor


def digits() -> Digits:
    """The digits, every fifth for the test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images).float().unsqueeze(1)
    labels = torch.from_numpy(data.target).long()
    test = torch.arange(len(labels)) % 5 == 4
    mean, deviation = images[~test].mean(), images[~test].std()
    images = (images - mean) / deviation
    return Digits(images[~test], labels[~test], images[test], labels[test])


def random_network(act: str, sizes: Sequence[int], seed: int) -> nn.Sequential:
    """Linear layers of these sizes with the activation between them, in float64, from PyTorch's own initialisation.

    The weights are the same for all activations.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
    layers: list[nn.Module] = []
    for layer in linear[:-1]:
        layers += [layer, make_activation(parse_activation(act))]
    return nn.Sequential(*layers, linear[-1]).double()


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut, as in ResNet (He et al., arXiv 1512.03385)."""

    def __init__(self, c1: int, c2: int, stride: int, act: str):
        super().__init__()
        self.conv1 = nn.Conv2d(c1, c2, 3, stride, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(c2), nn.BatchNorm2d(c2)
        self.conv2 = nn.Conv2d(c2, c2, 3, 1, 1, bias=False)
        self.act1, self.act2 = (make_activation(parse_activation(act)) for _ in range(2))
        same = stride == 1 and c1 == c2
        self.shortcut = (
            nn.Identity() if same else nn.Sequential(nn.Conv2d(c1, c2, 1, stride, bias=False), nn.BatchNorm2d(c2))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) to (B, c2, H / stride, W / stride)."""
        y = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Sequential):
    """Images (B, 1, 8, 8) to logits (B, 10): three stages of `width`, 2 and 4 times `width` channels."""

    def __init__(self, act: str, *, width: int = 8, blocks: int = 1):
        stem = nn.Sequential(
            nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), make_activation(parse_activation(act))
        )
        stages: list[nn.Module] = []
        channels = width
        for stage in range(3):
            for block in range(blocks):
                wider = width * 2**stage
                stages.append(Block(channels, wider, 2 if stage and not block else 1, act))
                channels = wider
        super().__init__(stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def make_resnet(act: str, seed: int, *, width: int = 8, blocks: int = 1) -> ResNet:
    """A ResNet with PyTorch's own initialisation, the same weights for all activations."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet(act, width=width, blocks=blocks)


def train(
    model: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    *,
    epochs: int,
    seed: int,
    lr: float = 0.1,
    batch: int = 64,
) -> None:
    """Minimise a loss by SGD with Nesterov momentum 0.9, weight decay 5e-4 and a cosine schedule down to 0.

    ``loss`` maps the numbers of a batch's examples, (B,) below ``count``, to a scalar; their order depends on the seed
    alone. The model is left in evaluation mode.
    """
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * math.ceil(count / batch))
    for chosen in _batches(count, batch, epochs, torch.Generator().manual_seed(seed)):
        optimiser.zero_grad()
        loss(chosen).backward()
        optimiser.step()
        schedule.step()
    model.eval()


def _batches(count: int, batch: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(epochs):
        yield from torch.randperm(count, generator=generator).split(batch)
