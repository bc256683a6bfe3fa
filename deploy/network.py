"""The network as it is exported: norms folded, activations in a form that targets compute, boxes and scores as outputs.

Its interface is the same for every target and precision: `images` (B, 3, H, W) float32 in 0..1, RGB; `boxes` (B, A, 4)
float32 xyxy in pixels of the network's input; `scores` (B, A, classes) float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploy.options import MishForm
from models.activations import MishEager
from ops.mish import Mish

INPUTS, OUTPUTS = ["images"], ["boxes", "scores"]


class MishFormula(nn.Module):
    """Mish as x w / (2 - w) with w = s (2 - s) and s = sigmoid(x), in the type of x.

    tanh(ln(1 + e^x)) = (1 - v^2) / (1 + v^2) with v = sigmoid(-x) = 1 - s, and w is 1 - v^2 without cancellation.
    Nothing in it overflows in any precision, unlike forms with e^x (in fp16 from x = 11 on), so it also suits devices
    that choose fp16 by themselves; and every target has a sigmoid.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape."""
        s = x.sigmoid()
        w = s * (2 - s)
        return x * (w / (2 - w))


class MishOperator(nn.Module):
    """Mish as the target's own operator: ONNX's `Mish`, elsewhere what the target makes of PyTorch's."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape."""
        if torch.onnx.is_in_onnx_export():
            return torch.onnx.ops.symbolic("Mish", (x,), dtype=x.dtype, shape=x.shape, version=18)
        return F.mish(x)


class Folding(Protocol):
    """What is exported: a detector, or a part of one that has its interface."""

    stride: int

    def fused(self) -> Any: ...


class Exportable(nn.Module):
    """Images to boxes and scores, or to the raw maps of the heads (`heads`); the weights in `dtype`."""

    def __init__(self, model: Folding, *, mish: MishForm, dtype: torch.dtype, heads: bool = False):
        """`model` is copied. `mish`: the form of all Mish layers, whatever implementation trained them."""
        super().__init__()
        self.dtype, self.heads = dtype, heads
        self.model = model.fused().cpu().to(dtype)
        for path, module in list(self.model.named_modules()):
            if isinstance(module, Mish | nn.Mish | MishEager):
                self.model.set_submodule(path, MishFormula() if mish == "formula" else MishOperator())
            elif isinstance(module, nn.RReLU):  # what it computes in inference
                self.model.set_submodule(path, nn.LeakyReLU((module.lower + module.upper) / 2))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Sequence[Tensor]:
        """`images` (B, 3, H, W) float32 to the outputs, float32."""
        outputs = self.model(images.to(self.dtype))
        if self.heads:
            return [output.float() for output in outputs]
        return self.model.decode(outputs)


def free_sizes(network: Exportable, *, batch: bool = True) -> dict[str, dict[int, object]]:
    """The free sizes of the input for torch.export: any multiple of the stride, and any number of images (`batch`)."""
    stride, free = network.model.stride, torch.export.Dim
    sizes: dict[int, object] = {2: stride * free("rows", min=1, max=256), 3: stride * free("columns", min=1, max=256)}
    return {INPUTS[0]: ({0: free("batch", min=1, max=4096)} if batch else {}) | sizes}
