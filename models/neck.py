"""The path-aggregation neck (Liu et al., arXiv 1803.01534): once down to the fine level, once back up."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks import CSP, ConvFactory


class TopDown(nn.Module):
    """Enlarge the coarse features twofold, join the fine ones, mix."""

    def __init__(self, coarse: int, fine: int, outputs: int, *, repeats: int, conv: ConvFactory):
        super().__init__()
        self.mix = CSP(coarse + fine, outputs, repeats=repeats, shortcut=False, conv=conv)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, coarse, H, W) and (B, fine, 2H, 2W) to (B, outputs, 2H, 2W)."""
        return self.mix(torch.cat((F.interpolate(coarse, scale_factor=2.0, mode="nearest"), fine), dim=1))


class BottomUp(nn.Module):
    """Halve the fine features, join the coarse ones, mix."""

    def __init__(self, fine: int, coarse: int, outputs: int, *, repeats: int, conv: ConvFactory):
        super().__init__()
        self.reduce = conv(fine, fine, kernel=3, stride=2)
        self.mix = CSP(fine + coarse, outputs, repeats=repeats, shortcut=False, conv=conv)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """(B, fine, 2H, 2W) and (B, coarse, H, W) to (B, outputs, H, W)."""
        return self.mix(torch.cat((self.reduce(fine), coarse), dim=1))


class Neck(nn.Module):
    """Features of three levels to features of the same levels; T4 is the step between on the way down."""

    STAGES = ("T4", "N3", "N4", "N5")

    def __init__(self, channels: Sequence[int], repeats: int, *, convs: Mapping[str, ConvFactory]):
        """`channels` of P3, P4 and P5, which the outputs keep; a conv factory a stage."""
        super().__init__()
        c3, c4, c5 = channels
        self.T4 = TopDown(c5, c4, c4, repeats=repeats, conv=convs["T4"])
        self.N3 = TopDown(c4, c3, c3, repeats=repeats, conv=convs["N3"])
        self.N4 = BottomUp(c3, c4, c4, repeats=repeats, conv=convs["N4"])
        self.N5 = BottomUp(c4, c5, c5, repeats=repeats, conv=convs["N5"])

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """P3, P4, P5 to N3, N4, N5 of the same shapes."""
        t4 = self.T4(p5, p4)
        n3 = self.N3(t4, p3)
        n4 = self.N4(n3, t4)
        return n3, n4, self.N5(n4, p5)
