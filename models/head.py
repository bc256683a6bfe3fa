"""The decoupled, anchor-free head: at each level one branch for the box and one for the classes."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.blocks import ConvFactory

PRIOR = 0.01  # score of every class at every cell before training
DECAY = 0.3  # of the odds of a distance from one bin to the next before training: 2.7 strides are expected


class HeadLevel(nn.Module):
    """Features of one level to a map of 4 distributions of distances and the class logits at each cell."""

    def __init__(self, inputs: int, box_width: int, class_width: int, outputs: tuple[int, int], *, conv: ConvFactory):
        super().__init__()
        self.box = nn.Sequential(
            conv(inputs, box_width, kernel=3),
            conv(box_width, box_width, kernel=3),
            nn.Conv2d(box_width, outputs[0], 1),
        )
        self.classes = nn.Sequential(
            conv(inputs, class_width, kernel=3),
            conv(class_width, class_width, kernel=3),
            nn.Conv2d(class_width, outputs[1], 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, 4 * reg_max + classes, H, W)."""
        return torch.cat((self.box(x), self.classes(x)), dim=1)


class Head(nn.Module):
    """One HeadLevel a level. The widths of the branches follow the finest level's, and the number of classes."""

    STAGES = ("P3", "P4", "P5")
    P3: HeadLevel
    P4: HeadLevel
    P5: HeadLevel

    def __init__(
        self,
        channels: Sequence[int],
        *,
        num_classes: int,
        reg_max: int,
        strides: Sequence[int],
        convs: Mapping[str, ConvFactory],
    ):
        """`channels` and `strides` of the three levels; `reg_max` bins a box side; a conv factory a level."""
        super().__init__()
        if reg_max < 2:
            raise ValueError(f"model.reg_max is {reg_max}, expected 2 or more: a distance lies between two bins")
        self.strides = tuple(strides)
        self.num_classes, self.reg_max = num_classes, reg_max
        box_width = max(16, channels[0] // 4, 4 * reg_max)
        class_width = max(channels[0], min(num_classes, 100))
        for name, inputs in zip(self.STAGES, channels, strict=True):
            level = HeadLevel(inputs, box_width, class_width, (4 * reg_max, num_classes), conv=convs[name])
            self.add_module(name, level)

    def set_biases(self) -> None:
        """Start with boxes some cells wide and class scores of PRIOR (Lin et al., arXiv 1708.02002, sec. 4.1).

        An optimiser moves a bias by about its learning rate a step, so that where a bias starts is where a short run
        spends its first epochs. Even distributions would mean boxes of reg_max cells, which overlap hardly any object.
        """
        bins = -DECAY * torch.arange(self.reg_max, dtype=torch.float32)
        for level in (self.P3, self.P4, self.P5):
            level.box.get_parameter("2.bias").data.copy_(bins.repeat(4))
            nn.init.constant_(level.classes.get_parameter("2.bias"), math.log(PRIOR / (1 - PRIOR)))

    def forward(self, n3: Tensor, n4: Tensor, n5: Tensor) -> list[Tensor]:
        """Three levels of features to three maps (B, 4 * reg_max + classes, H, W), the box distributions first."""
        return [self.P3(n3), self.P4(n4), self.P5(n5)]
