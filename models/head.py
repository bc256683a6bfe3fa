"""The decoupled, anchor-free head: one branch for boxes and one for classes per level; the table of heads by name."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.blocks import ConvFactory

PRIOR = 0.01  # initial score of every class in every cell
DECAY = 0.3  # initial log odds of a distance bin over the next one: the expected distance is 2.7 strides


class HeadLevel(nn.Module):
    """Features of one level to a map of 4 distance distributions and the class logits of each cell."""

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


class DecoupledHead(nn.Module):
    """A HeadLevel per level. The widths of the branches follow the finest level and the number of classes.

    `channels` are those of the features by level; `reg_max` is the number of bins for each side of a box; `convs` a
    conv factory per stage.
    """

    def __init__(
        self, channels: Mapping[int, int], *, num_classes: int, reg_max: int, convs: Mapping[str, ConvFactory]
    ):
        super().__init__()
        self.num_classes, self.reg_max = num_classes, reg_max
        self.strides = tuple(2**level for level in channels)
        finest = next(iter(channels.values()))
        box_width = max(16, finest // 4, 4 * reg_max)
        class_width = max(finest, min(num_classes, 100))
        for level, inputs in channels.items():
            outputs = (4 * reg_max, num_classes)
            self.add_module(f"P{level}", HeadLevel(inputs, box_width, class_width, outputs, conv=convs[f"P{level}"]))

    @staticmethod
    def stages(levels: Sequence[int]) -> tuple[str, ...]:
        """Names of the stages, one per level."""
        return tuple(f"P{level}" for level in levels)

    def set_biases(self) -> None:
        """Start with boxes a few cells wide and class scores of PRIOR (Lin et al., arXiv 1708.02002, sec. 4.1).

        An optimiser moves a bias by about its learning rate per step, so the initial biases decide how a short run
        spends its first epochs. Uniform distributions would mean boxes of reg_max cells, which overlap few objects.
        """
        bins = -DECAY * torch.arange(self.reg_max, dtype=torch.float32)
        for level in self.children():
            level.get_parameter("box.2.bias").data.copy_(bins.repeat(4))
            nn.init.constant_(level.get_parameter("classes.2.bias"), math.log(PRIOR / (1 - PRIOR)))

    def forward(self, features: Mapping[int, Tensor]) -> list[Tensor]:
        """{level: (B, C, h, w)} to a map (B, 4 * reg_max + classes, h, w) per level, finest first, boxes first."""
        return [stage(x) for stage, x in zip(self.children(), features.values(), strict=True)]


HEADS: dict[str, type[DecoupledHead]] = {"decoupled": DecoupledHead}
