"""Building blocks. Composite blocks receive `conv`, a factory of ConvNormAct, instead of an activation:

conv = functools.partial(ConvNormAct, act=parse_activation("mish"))
CSP(64, 64, repeats=2, conv=conv)
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.activations import ActivationSpec, make_activation
from ops.norm_act import norm_act

ConvFactory = Callable[..., "ConvNormAct"]
Model = TypeVar("Model", bound=nn.Module)


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, activation.

    `padding`: None for half of the kernel size. `fuse`: let norm and activation run as one operator if
    ops/norm_act.py has one for them. `eps` and `momentum` are those of the norm.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        act: ActivationSpec,
        fuse: bool = False,
        eps: float = 1e-3,
        momentum: float = 0.03,
    ):
        super().__init__()
        self.fuse = fuse
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=eps, momentum=momentum)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        x = self.conv(x)
        return norm_act(x, self.norm, self.act) if self.fuse else self.act(self.norm(x))

    def folded(self) -> "ConvAct":
        """The equivalent block for inference, with the norm's scale and shift folded into the convolution."""
        conv, norm = self.conv, self.norm
        scale = norm.weight.double() * (norm.get_buffer("running_var").double() + norm.eps).rsqrt()  # (outputs,)
        shift = norm.bias.double() - norm.get_buffer("running_mean").double() * scale
        folded = nn.utils.skip_init(
            nn.Conv2d,
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        folded = folded.requires_grad_(False)
        folded.weight.copy_(conv.weight.double() * scale[:, None, None, None])
        folded.bias.copy_(shift)
        return ConvAct(folded, self.act).train(self.training)


class ConvAct(nn.Module):
    """Convolution with bias, activation: a block without a norm, or a ConvNormAct after folding."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module):
        super().__init__()
        self.conv = conv
        self.act = act
        self.wide = False  # whether to compute and return the activation in float32, which probabilities near 1 need

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        x = self.conv(x)
        return self.act(x.float() if self.wide else x)


class AddAct(nn.Module):
    """Sum of two feature maps, activation."""

    def __init__(self, act: ActivationSpec):
        super().__init__()
        self.act = make_activation(act)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two (B, C, H, W) to one of the same shape."""
        return self.act(x + y)


@torch.no_grad()
def folded(model: Model) -> Model:
    """A copy for inference with every batch norm folded into its convolution."""
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    for path, module in list(copied.named_modules()):
        if isinstance(module, ConvNormAct):
            copied.set_submodule(path, module.folded())
    return copied


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, plus the input if `shortcut` (He et al., arXiv 1512.03385)."""

    def __init__(self, channels: int, *, shortcut: bool, conv: ConvFactory):
        super().__init__()
        self.first = conv(channels, channels, kernel=3)
        self.second = conv(channels, channels, kernel=3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same shape."""
        y = self.second(self.first(x))
        return x + y if self.shortcut else y


class CSP(nn.Module):
    """Cross-stage partial block (Wang et al., arXiv 1911.11929): half of the channels go through `repeats` bottlenecks.

    The other half and the output of every bottleneck are merged, as in ELAN (Wang et al., arXiv 2211.04800).
    """

    def __init__(self, inputs: int, outputs: int, *, repeats: int, shortcut: bool = True, conv: ConvFactory):
        super().__init__()
        half = outputs // 2
        self.split = conv(inputs, 2 * half)
        self.bottlenecks = nn.ModuleList(Bottleneck(half, shortcut=shortcut, conv=conv) for _ in range(repeats))
        self.merge = conv((2 + repeats) * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        parts = list(self.split(x).chunk(2, dim=1))
        for bottleneck in self.bottlenecks:
            parts.append(bottleneck(parts[-1]))
        return self.merge(torch.cat(parts, dim=1))


class SPPF(nn.Module):
    """Spatial pyramid pooling (He et al., arXiv 1406.4729): windows of 5, 9 and 13 by applying a window of 5 thrice."""

    def __init__(self, inputs: int, outputs: int, *, conv: ConvFactory):
        super().__init__()
        half = inputs // 2
        self.reduce = conv(inputs, half)
        self.merge = conv(4 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W)."""
        pooled = [self.reduce(x)]
        for _ in range(3):
            pooled.append(F.max_pool2d(pooled[-1], kernel_size=5, stride=1, padding=2))
        return self.merge(torch.cat(pooled, dim=1))
