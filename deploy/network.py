"""The network as it is exported: norms folded, activations in a form that targets compute, boxes and scores as outputs.

Its interface is the same for every target and precision: `images` (B, 3, H, W) float32 in 0..1, RGB; `boxes` (B, A, 4)
float32 xyxy in pixels of the network's input; `scores` (B, A, classes) float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.activations import MishEager
from ops.mish import Mish

MishForm = Literal["formula", "op"]
INPUTS, OUTPUTS = ["images"], ["boxes", "scores"]
# From here on n / (n + 2) is 1 when rounded, while n = e^x (e^x + 2) is far from overflow: 4.9e8 < 3.4e38 and
# 6.0e4 < 65504.
FLAT = {torch.float32: 10.0, torch.float16: 5.49}


class MishFormula(nn.Module):
    """Mish as x n / (n + 2) with n = e^x (e^x + 2), in the type of x.

    As ops.mish.formula, but e^x stops at FLAT, where the quotient has reached 1 in fp32 and fp16: no overflow (e^x of
    fp16 overflows from x = 11), no choice between two branches, and no detour through fp32.
    """

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.flat = FLAT[dtype]

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape."""
        e = x.clamp(max=self.flat).exp()
        n = e * (e + 2)
        return x * (n / (n + 2))


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
                self.model.set_submodule(path, MishFormula(dtype) if mish == "formula" else MishOperator())
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
