"""Necks: features of some levels to fused features of the same levels, and the table of necks by name.

To add one, subclass `Neck`, name its stages, and add an entry to `NECKS`; `model.neck.name` selects it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import CSP, ConvFactory

MIN_WIDTH = 64  # of FPN and BiFPN: the width of EfficientDet-D0's BiFPN (arXiv 1911.09070, table 1)
FUSION_EPS = 1e-4  # EfficientDet (arXiv 1911.09070), sec. 3.3


class Neck(nn.Module, ABC):
    """Base class. `channels` are those of the outputs by level, finest level first; they set the input of the head.

    The constructor receives the channels of the inputs by level, consecutive and ascending, the number of `repeats` of
    the neck's blocks at this model size, and a conv factory for each stage.
    """

    channels: dict[int, int]

    def __init__(self, channels: Mapping[int, int], *, repeats: int, convs: Mapping[str, ConvFactory]):
        super().__init__()
        self.levels = tuple(channels)

    @staticmethod
    @abstractmethod
    def stages(levels: Sequence[int]) -> tuple[str, ...]:
        """Names of the stages: N{i} gives the output of level i, T{i} an intermediate top-down result."""

    @abstractmethod
    def forward(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """{level: (B, C, H / 2**level, W / 2**level)} to the same levels with `channels`."""


def upsample(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, C, 2H, 2W) by repeating pixels."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class TopDown(nn.Module):
    """Upsample the coarse features, concatenate them with the fine ones, mix."""

    def __init__(self, coarse: int, fine: int, *, repeats: int, conv: ConvFactory):
        super().__init__()
        self.mix = CSP(coarse + fine, fine, repeats=repeats, shortcut=False, conv=conv)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, coarse, H, W) and (B, fine, 2H, 2W) to (B, fine, 2H, 2W)."""
        return self.mix(torch.cat((upsample(coarse), fine), dim=1))


class BottomUp(nn.Module):
    """Downsample the fine features, concatenate them with the coarse ones, mix."""

    def __init__(self, fine: int, coarse: int, *, repeats: int, conv: ConvFactory):
        super().__init__()
        self.reduce = conv(fine, fine, kernel=3, stride=2)
        self.mix = CSP(fine + coarse, coarse, repeats=repeats, shortcut=False, conv=conv)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, fine, 2H, 2W) and (B, coarse, H, W) to (B, coarse, H, W)."""
        return self.mix(torch.cat((self.reduce(fine), coarse), dim=1))


class PAN(Neck):
    """Path aggregation (Liu et al., arXiv 1803.01534): a top-down path, then a bottom-up path, both of CSP blocks.

    The outputs have the channels of the inputs.
    """

    def __init__(self, channels: Mapping[int, int], *, repeats: int, convs: Mapping[str, ConvFactory]):
        super().__init__(channels, repeats=repeats, convs=convs)
        self.channels = dict(channels)
        lowest, *higher = self.levels
        for level in reversed(self.levels[:-1]):
            name = f"N{level}" if level == lowest else f"T{level}"
            step = TopDown(channels[level + 1], channels[level], repeats=repeats, conv=convs[name])
            self.add_module(name, step)
        for level in higher:
            name = f"N{level}"
            self.add_module(name, BottomUp(channels[level - 1], channels[level], repeats=repeats, conv=convs[name]))

    @staticmethod
    def stages(levels: Sequence[int]) -> tuple[str, ...]:
        """The top-down results between the highest and the lowest level, then the outputs, finest first."""
        return (*(f"T{level}" for level in reversed(levels[1:-1])), *(f"N{level}" for level in levels))

    def forward(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """{level: (B, C, h, w)} to the same levels and shapes."""
        lowest, *between, highest = self.levels
        down = {highest: features[highest]}
        for level in reversed(between):
            down[level] = self.get_submodule(f"T{level}")(down[level + 1], features[level])
        outputs = {lowest: self.get_submodule(f"N{lowest}")(down[lowest + 1], features[lowest])}
        for level in (*between, highest):
            outputs[level] = self.get_submodule(f"N{level}")(outputs[level - 1], down[level])
        return outputs


class LateralStep(nn.Module):
    """One level of an FPN: a 1x1 convolution to the common width, and a 3x3 convolution of the merged features."""

    def __init__(self, inputs: int, width: int, *, conv: ConvFactory):
        super().__init__()
        self.lateral = conv(inputs, width)
        self.smooth = conv(width, width, kernel=3)

    def forward(self, x: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, inputs, H, W) and the merged (B, width, H/2, W/2) of the level above to merged features and output."""
        merged = self.lateral(x)
        if coarser is not None:
            merged = merged + upsample(coarser)
        return merged, self.smooth(merged)


class FPN(Neck):
    """Feature pyramid network (Lin et al., arXiv 1612.03144, sec. 3): a top-down path with lateral connections.

    All outputs have the same width, that of the finest level but at least MIN_WIDTH. The paper's convolutions have no
    norm or activation; here they are those of the rest of the network.
    """

    def __init__(self, channels: Mapping[int, int], *, repeats: int, convs: Mapping[str, ConvFactory]):
        super().__init__(channels, repeats=repeats, convs=convs)
        width = max(MIN_WIDTH, channels[self.levels[0]])
        self.channels = dict.fromkeys(self.levels, width)
        for name, level in zip(self.stages(self.levels), reversed(self.levels), strict=True):
            self.add_module(name, LateralStep(channels[level], width, conv=convs[name]))

    @staticmethod
    def stages(levels: Sequence[int]) -> tuple[str, ...]:
        """One per level, coarsest first."""
        return tuple(f"N{level}" for level in reversed(levels))

    def forward(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """{level: (B, C, h, w)} to {level: (B, width, h, w)}."""
        outputs = {}
        merged: Tensor | None = None
        for level in reversed(self.levels):
            merged, outputs[level] = self.get_submodule(f"N{level}")(features[level], merged)
        return {level: outputs[level] for level in self.levels}


class WeightedFusion(nn.Module):
    """Fast normalised fusion sum_i w_i x_i / (sum_j w_j + eps), w_i >= 0 learned (arXiv 1911.09070, sec. 3.3)."""

    def __init__(self, inputs: int):
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))

    def forward(self, *features: Tensor) -> Tensor:
        """As many (B, C, H, W) as there are weights to one of the same shape and dtype."""
        weights = self.weights.clamp(min=0)
        weights = (weights / (weights.sum() + FUSION_EPS)).to(features[0].dtype)
        total = weights[0] * features[0]
        for weight, x in zip(weights[1:], features[1:], strict=True):
            total = total + weight * x
        return total


class FusionNode(nn.Module):
    """A node of a BiFPN: fuse the inputs, then a depthwise separable 3x3 convolution."""

    def __init__(self, inputs: int, width: int, *, conv: ConvFactory):
        super().__init__()
        self.fuse = WeightedFusion(inputs)
        self.depthwise = conv(width, width, kernel=3, groups=width)
        self.pointwise = conv(width, width)

    def forward(self, *features: Tensor) -> Tensor:
        """As many (B, width, H, W) as `inputs` to one of the same shape."""
        return self.pointwise(self.depthwise(self.fuse(*features)))


class OutputStage(nn.Module):
    """An output level of a BiFPN: the projection of its input to the common width, and its node in each layer."""

    def __init__(self, inputs: int, width: int, *, fused: int, layers: int, conv: ConvFactory):
        super().__init__()
        self.project = conv(inputs, width)
        self.nodes = nn.ModuleList(FusionNode(fused, width, conv=conv) for _ in range(layers))


class BiFPN(Neck):
    """Weighted bidirectional feature pyramid (Tan et al., EfficientDet, arXiv 1911.09070, sec. 3).

    `repeats` layers, each with a top-down and a bottom-up path, in which a level in between fuses its input a second
    time. Upsampling repeats pixels, downsampling is a 3x3 max pooling. Batch norm and activation follow each
    convolution, as in the paper. All outputs have the same width, that of the finest level but at least MIN_WIDTH.
    """

    def __init__(self, channels: Mapping[int, int], *, repeats: int, convs: Mapping[str, ConvFactory]):
        super().__init__(channels, repeats=repeats, convs=convs)
        width = max(MIN_WIDTH, channels[self.levels[0]])
        self.channels = dict.fromkeys(self.levels, width)
        self.layers = repeats
        between = self.levels[1:-1]
        for level in reversed(between):
            conv = convs[f"T{level}"]
            self.add_module(f"T{level}", nn.ModuleList(FusionNode(2, width, conv=conv) for _ in range(repeats)))
        for level in self.levels:
            fused = 3 if level in between else 2
            stage = OutputStage(channels[level], width, fused=fused, layers=repeats, conv=convs[f"N{level}"])
            self.add_module(f"N{level}", stage)

    @staticmethod
    def stages(levels: Sequence[int]) -> tuple[str, ...]:
        """The top-down results between the highest and the lowest level, then the outputs, finest first."""
        return PAN.stages(levels)

    def forward(self, features: dict[int, Tensor]) -> dict[int, Tensor]:
        """{level: (B, C, h, w)} to {level: (B, width, h, w)}."""
        x = {level: self.get_submodule(f"N{level}.project")(features[level]) for level in self.levels}
        for layer in range(self.layers):
            x = self._layer(x, layer)
        return x

    def _layer(self, inputs: dict[int, Tensor], layer: int) -> dict[int, Tensor]:
        lowest, *between, highest = self.levels
        down = {highest: inputs[highest]}
        for level in reversed(between):
            down[level] = self.get_submodule(f"T{level}.{layer}")(inputs[level], upsample(down[level + 1]))
        outputs = {lowest: self.get_submodule(f"N{lowest}.nodes.{layer}")(inputs[lowest], upsample(down[lowest + 1]))}
        for level in (*between, highest):
            finer = F.max_pool2d(outputs[level - 1], kernel_size=3, stride=2, padding=1)
            fused = (inputs[level], finer) if level == highest else (inputs[level], down[level], finer)
            outputs[level] = self.get_submodule(f"N{level}.nodes.{layer}")(*fused)
        return outputs


NECKS: dict[str, type[Neck]] = {"pan": PAN, "fpn": FPN, "bifpn": BiFPN}
