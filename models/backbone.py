"""The CSP backbone: five stages, each at half the side of the one before."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.blocks import CSP, SPPF, ConvFactory


class Backbone(nn.Module):
    """Image to features at strides 8, 16 and 32. Stage names are levels: P1 has stride 2, P5 has stride 32."""

    STAGES = ("P1", "P2", "P3", "P4", "P5")
    P1: nn.Module
    P2: nn.Module
    P3: nn.Module
    P4: nn.Module
    P5: nn.Module

    def __init__(self, channels: Sequence[int], repeats: Sequence[int], *, convs: Mapping[str, ConvFactory]):
        """`channels` of the five stages, `repeats` of the CSP blocks of P2 to P5, a conv factory a stage."""
        super().__init__()
        self.P1 = nn.Sequential(convs["P1"](3, channels[0], kernel=3, stride=2))
        for index, name in enumerate(self.STAGES[1:], start=1):
            conv = convs[name]
            blocks: list[nn.Module] = [
                conv(channels[index - 1], channels[index], kernel=3, stride=2),
                CSP(channels[index], channels[index], repeats=repeats[index - 1], conv=conv),
            ]
            if name == "P5":
                blocks.append(SPPF(channels[index], channels[index], conv=conv))
            self.add_module(name, nn.Sequential(*blocks))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) to P3, P4, P5: (B, channels, H / 8, W / 8) and so on."""
        p3 = self.P3(self.P2(self.P1(images)))
        p4 = self.P4(p3)
        return p3, p4, self.P5(p4)
