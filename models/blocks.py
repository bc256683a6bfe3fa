"""The blocks of the network. Composite blocks receive `conv`, a factory of ConvNormAct, never an activation's name:

conv = functools.partial(ConvNormAct, act={"name": "mish"})
CSP(64, 64, repeats=2, conv=conv)
"""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.activations import Spec, make_activation
from ops.norm_act import norm_act

ConvFactory = Callable[..., "ConvNormAct"]
Model = TypeVar("Model", bound=nn.Module)


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, activation; the output's side is the input's divided by the stride.

    `fuse`: norm and activation may run as one operator, where ops/norm_act.py has one for them. `options` are those of
    nn.Conv2d; its padding is half of the kernel where they do not say otherwise. `eps`, `momentum` are the norm's.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        act: Spec,
        fuse: bool = False,
        eps: float = 1e-3,
        momentum: float = 0.03,
        **options: Any,
    ):
        super().__init__()
        self.fuse = fuse
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, bias=False, **{"padding": kernel // 2, **options})
        self.norm = nn.BatchNorm2d(outputs, eps=eps, momentum=momentum)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        x = self.conv(x)
        return norm_act(x, self.norm, self.act) if self.fuse else self.act(self.norm(x))

    def folded(self) -> "ConvAct":
        """The same function in evaluation, with the norm's scale and shift inside the convolution."""
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
    """Convolution with bias and activation: made so, or what is left of a ConvNormAct once its norm is folded."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module):
        super().__init__()
        self.conv = conv
        self.act = act
        self.wide = False  # whether the activation is computed and given out in float32: probabilities near 1 need it

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H', W')."""
        x = self.conv(x)
        return self.act(x.float() if self.wide else x)


class AddAct(nn.Module):
    """The sum of two features and its activation."""

    def __init__(self, act: Spec):
        super().__init__()
        self.act = make_activation(act)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, C, H, W) twice to the same."""
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
    """Two 3x3 convolutions, with the input added where `shortcut` (He et al., arXiv 1512.03385)."""

    def __init__(self, channels: int, *, shortcut: bool, conv: ConvFactory):
        super().__init__()
        self.first = conv(channels, channels, kernel=3)
        self.second = conv(channels, channels, kernel=3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same."""
        y = self.second(self.first(x))
        return x + y if self.shortcut else y


class CSP(nn.Module):
    """Cross-stage partial block (Wang et al., arXiv 1911.11929): half passes by, half through `repeats` bottlenecks.

    Every bottleneck's output reaches the last convolution, as in ELAN (Wang et al., arXiv 2211.04800).
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
    """Spatial pyramid pooling (He et al., arXiv 1406.4729): windows of 5, 9 and 13 as one 5-window applied thrice."""

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
