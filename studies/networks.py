"""Small networks for the studies, whose initial weights depend on a seed and not on the activation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.activations import make_activation, parse_activation
from models.blocks import AddAct, ConvNormAct


def activation(name: str) -> nn.Module:
    """A new module of models/activations.py."""
    return make_activation(parse_activation(name))


def random_network(act: str, sizes: Sequence[int], seed: int) -> nn.Sequential:
    """Linear layers of these sizes with the activation between them, in float64, from PyTorch's own initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = [nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
    layers: list[nn.Module] = []
    for layer in linear[:-1]:
        layers += [layer, activation(act)]
    return nn.Sequential(*layers, linear[-1]).double()


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut, as in ResNet (He et al., arXiv 1512.03385)."""

    def __init__(self, c1: int, c2: int, stride: int, act: str):
        super().__init__()
        self.first = _conv(c1, c2, act, kernel=3, stride=stride)
        self.second = _conv(c2, c2, "identity", kernel=3)
        same = stride == 1 and c1 == c2
        self.shortcut = nn.Identity() if same else _conv(c1, c2, "identity", stride=stride)
        self.add = AddAct(parse_activation(act))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c1, H, W) to (B, c2, H / stride, W / stride)."""
        return self.add(self.second(self.first(x)), self.shortcut(x))


def _conv(c1: int, c2: int, act: str, *, kernel: int = 1, stride: int = 1) -> ConvNormAct:
    """The block of the detector with PyTorch's own defaults of the norm, which classifiers are trained with."""
    spec = parse_activation(act)
    return ConvNormAct(c1, c2, kernel=kernel, stride=stride, act=spec, eps=1e-5, momentum=0.1)


def resnet(act: str, seed: int, *, stages: int, blocks: int, width: int) -> nn.Sequential:
    """Images (N, 1, 8, 8) to logits (N, 10), with PyTorch's own initialisation.

    Stages of ``blocks`` blocks, the first with ``width`` channels, each other with twice those of the one before.
    """
    channels = [width, *(width * 2**stage for stage in range(stages) for _ in range(blocks))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            _conv(1, width, act, kernel=3),
            *(Block(c1, c2, 1 if c1 == c2 else 2, act) for c1, c2 in zip(channels, channels[1:], strict=False)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels[-1], 10),
        )


def initialise(model: nn.Module, rule: str, seed: int) -> None:
    """Draw the weights of convolutions and linear layers by ``rule``, glorot or he; set their biases to 0.

    glorot is uniform, Keras's default; he is normal, for ReLU (kaiming_normal_).
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if rule == "he":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            else:
                nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
