"""Mish(x) = x tanh(ln(1 + exp x)) (Misra, arXiv 1908.08681, eq. 1), and which implementation of it a call will get.

Eager code runs PyTorch's own operator, which saves only its input and recomputes in the backward pass.
Under torch.compile and torch.export that operator would lower to log1p and tanh, so there an algebraic form is traced,
one exponential and one division, which the compiler fuses with what stands around it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Above 20, tanh(softplus(x)) rounds to 1 in fp32 and fp64 alike up to 2e-17; below -88 exp(x) leaves fp32's range.
UPPER, LOWER = 20.0, -88.0


@dataclass(frozen=True)
class Plan:
    """Which implementation a call gets, and why."""

    implementation: str
    reason: str


def plan(device: torch.device | str, dtype: torch.dtype, *, compiled: bool = False) -> Plan:
    """Say, without running anything, what `mish` runs for tensors of this device and type."""
    if compiled:
        return Plan("algebraic formula", "traced, so that the compiler fuses it with its neighbours")
    kind = torch.device(device).type
    return Plan("torch.nn.functional.mish", f"PyTorch's own operator, {kind} {str(dtype).removeprefix('torch.')}")


def mish(x: Tensor) -> Tensor:
    """Mish of a floating tensor of any shape, in the input's type, under autocast too; never in place."""
    return formula(x) if torch.compiler.is_compiling() else F.mish(x)


def formula(x: Tensor) -> Tensor:
    """Mish as x n / (n + 2) with n = e^x (e^x + 2), in fp32 where the input has 16 bits.

    From tanh(ln u) = (u^2 - 1) / (u^2 + 1) with u = 1 + e^x; n is u^2 - 1, written so that nothing cancels.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    c = wide.clamp(LOWER, UPPER)
    e = c.exp()
    n = e * (e + 2)
    # From 20 on, not above it: the gradient of clamp at its bound is no one's promise.
    return torch.where(wide >= UPPER, wide, c * (n / (n + 2))).to(x.dtype)


def reference(x: Tensor) -> Tensor:
    """Mish straight from its definition, computed and returned in float64: what implementations are checked against."""
    x = x.double()
    return x * torch.tanh(torch.logaddexp(x, torch.zeros_like(x)))


class Mish(nn.Module):
    """`mish` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply Mish to a tensor of any shape."""
        return mish(x)
