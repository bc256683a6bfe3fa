"""Backbones, stacks of stages each of which halves the resolution; the sizes n to x; the table of backbones."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.blocks import CSP, SPPF, ConvFactory

# Depth multiple, width multiple and largest width of each size, as in YOLOv8.
SIZES = {
    "n": (1 / 3, 0.25, 1024),
    "s": (1 / 3, 0.5, 1024),
    "m": (2 / 3, 0.75, 768),
    "l": (1.0, 1.0, 512),
    "x": (1.0, 1.25, 512),
}
# By level; level i has stride 2**i. Those above P5 repeat its width, so that P1 to P5 are the same at any `levels`.
CHANNELS = {1: 64, 2: 128, 3: 256, 4: 512, 5: 1024, 6: 1024, 7: 1024}
REPEATS = {2: 3, 3: 6, 4: 6, 5: 3, 6: 3, 7: 3}  # of the bottlenecks in a CSP block


def scaled_channels(size: str, width: float | None = None) -> dict[int, int]:
    """Channels of each level at a size, or at a width multiple instead of the size's own, as multiples of 8."""
    _, own, largest = SIZES[size]
    width = width or own
    return {level: -(-int(min(channels, largest) * width) // 8) * 8 for level, channels in CHANNELS.items()}


def scaled_repeats(size: str, depth: float | None = None) -> dict[int, int]:
    """Bottlenecks in the CSP block of each level at a size, or at a depth multiple instead of the size's own."""
    depth = depth or SIZES[size][0]
    return {level: max(1, round(repeats * depth)) for level, repeats in REPEATS.items()}


class CSPBackbone(nn.Module):
    """Images to features at some levels, by CSP blocks; stage P{i} has stride 2**i, and the last one ends with an SPPF.

    `channels` and `repeats` hold values for each level up to the highest of `levels`; `convs` a conv factory per stage.
    """

    def __init__(
        self,
        levels: Sequence[int],
        *,
        channels: Mapping[int, int],
        repeats: Mapping[int, int],
        convs: Mapping[str, ConvFactory],
    ):
        super().__init__()
        self.levels = tuple(levels)
        self.add_module("P1", nn.Sequential(convs["P1"](3, channels[1], kernel=3, stride=2)))
        for level in range(2, max(levels) + 1):
            conv = convs[f"P{level}"]
            blocks: list[nn.Module] = [
                conv(channels[level - 1], channels[level], kernel=3, stride=2),
                CSP(channels[level], channels[level], repeats=repeats[level], conv=conv),
            ]
            if level == max(levels):
                blocks.append(SPPF(channels[level], channels[level], conv=conv))
            self.add_module(f"P{level}", nn.Sequential(*blocks))

    @staticmethod
    def stages(levels: Sequence[int]) -> tuple[str, ...]:
        """Names of the stages, in the order of the forward pass."""
        return tuple(f"P{level}" for level in range(1, max(levels) + 1))

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """(B, 3, H, W) to {level: (B, channels, H / 2**level, W / 2**level)}."""
        features = {}
        x = images
        for level, stage in enumerate(self.children(), start=1):
            x = stage(x)
            if level in self.levels:
                features[level] = x
        return features


BACKBONES: dict[str, type[CSPBackbone]] = {"csp": CSPBackbone}
