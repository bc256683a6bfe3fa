"""Mish(x) = x tanh(ln(1 + exp x)) (Misra, arXiv 1908.08681, eq. 1): the operator, and what runs it.

Eager code runs a kernel of ours (csrc/, chosen in ops/backend.py) that saves only its input and has its first two
derivatives in closed form; where there is none, PyTorch's own. Under torch.compile and torch.export an algebraic form
is traced instead, one exponential and one division, which the compiler fuses with what stands around it: it would not
look into a kernel, and PyTorch's operator would lower to log1p and tanh. In a file of ONNX it is ONNX's own Mish.

The way of a call: `mish` -> `_mish` (autograd, vmap, forward mode) -> yolo::mish (the dispatcher, so that fake tensors
and dispatch modes see it) -> `_run` -> the kernel.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.backend import TYPES, choose, dense, expect

# Above 20, tanh(softplus(x)) rounds to 1 in fp32 and fp64 alike up to 2e-17; below -88 exp(x) leaves fp32's range.
UPPER, LOWER = 20.0, -88.0
NO_INPLACE = "Mish has no in-place form: its backward pass needs the input, which would be overwritten"


@dataclass(frozen=True)
class Plan:
    """Which implementation a call gets, and why."""

    implementation: str
    reason: str


def plan(device: torch.device | str, dtype: torch.dtype, *, compiled: bool = False) -> Plan:
    """Say, without building or running anything, what `mish` runs for tensors of this device and type."""
    if compiled:
        return Plan("algebraic formula", "traced, so that the compiler fuses it with its neighbours")
    if dtype not in TYPES:
        return Plan("torch.nn.functional.mish", f"there is no kernel for {dtype}")
    choice = expect(torch.device(device))
    return Plan(choice.implementation, choice.reason)


def prepare(device: torch.device | str) -> Plan:
    """Build and load what `mish` runs on this device, so that no later call has to: before a clock starts."""
    choice = choose(torch.device(device))
    return Plan(choice.implementation, choice.reason)


def mish(x: Tensor, inplace: bool = False) -> Tensor:
    """Mish of a floating tensor of any shape, in the input's type and layout, under autocast too; never in place."""
    if inplace:
        raise ValueError(NO_INPLACE)
    if torch.compiler.is_compiling():
        return _traced(x)
    if x.dtype not in TYPES or type(x) not in (Tensor, nn.Parameter) or torch.jit.is_tracing():
        return F.mish(x)  # integers get PyTorch's own error, subclasses keep their meaning, traced graphs an operator
    choice = choose(x.device)
    if choice.eager:
        return x * torch.tanh(F.softplus(x)).to(x.dtype)
    return F.mish(x) if choice.kernels is None else _mish(x)


class Mish(nn.Module):
    """`mish` as a layer."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        if inplace:
            raise ValueError(NO_INPLACE)

    def forward(self, x: Tensor) -> Tensor:
        """Apply Mish to a tensor of any shape."""
        return mish(x)


# ------------------------------------------------------------------------------------------------------------- formulas


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


def _traced(x: Tensor) -> Tensor:
    if torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export():
        return torch.onnx.ops.symbolic("Mish", (x,), dtype=x.dtype, shape=x.shape, version=18)
    return formula(x)


# ---------------------------------------------------------------------------------------------- the operator's schema

_LIBRARY = torch.library.Library("yolo", "FRAGMENT")
_LIBRARY.define("mish(Tensor x) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
_LIBRARY.define("mish_backward(Tensor grad, Tensor x, int order) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))


def _run(order: int, x: Tensor, grad: Tensor | None = None) -> Tensor:
    """The kernel: mish(x), grad mish'(x) or grad mish''(x), as `order` is 0, 1 or 2, in the layout of x."""
    x, out = dense(x)
    if grad is None:
        grad = x
    elif grad.stride() != x.stride():
        grad = torch.empty_like(x).copy_(grad)
    kernels = choose(x.device).kernels
    if kernels is None:
        raise RuntimeError(f"yolo::mish has no kernel on {x.device}; call ops.mish.mish, which knows what to do then")
    if x.numel():
        kernels.map(order, x, grad, out)
    return out


for _key in ("CPU", "CUDA"):
    _LIBRARY.impl("mish", lambda x: _run(0, x), _key)
    _LIBRARY.impl("mish_backward", lambda grad, x, order: _run(order, x, grad), _key)
_MISH, _MISH_BACKWARD = torch.ops.yolo.mish.default, torch.ops.yolo.mish_backward.default
torch.library.register_fake("yolo::mish", torch.empty_like, lib=_LIBRARY)
torch.library.register_fake("yolo::mish_backward", lambda grad, x, order: torch.empty_like(x), lib=_LIBRARY)


# ------------------------------------------------------------------------------------------------------------- autograd


# Each operator has two forms: PyTorch takes four times as long to call one with the `setup_context` and `vmap` that
# torch.func needs, so that one is taken under its transforms only.


def _below(operator: Any, *arguments: Any) -> Tensor:
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _mish(x: Tensor) -> Tensor:
    return (_TransformedMish if torch._C._are_functorch_transforms_active() else _Mish).apply(x)


def _mish_backward(grad: Tensor, x: Tensor, order: int) -> Tensor:
    transformed = torch._C._are_functorch_transforms_active()
    return (_TransformedMishBackward if transformed else _MishBackward).apply(grad, x, order)


class _Mish(torch.autograd.Function):
    """mish(x); only x is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return _below(_MISH, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _mish_backward(grad, ctx.saved_tensors[0], 1)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return _mish_backward(tangent, ctx.saved_tensors[0], 1)


class _TransformedMish(_Mish):
    @staticmethod
    def forward(x: Tensor) -> Tensor:  # type: ignore[override]
        return _below(_MISH, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int | None]:
        return _mish(x), in_dims[0]


class _MishBackward(torch.autograd.Function):
    """grad mish'(x) for order 1, grad mish''(x) for order 2; differentiable once more, in both arguments."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, order: int) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.save_for_forward(grad, x)
        ctx.order = order
        return _below(_MISH_BACKWARD, grad, x, order)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad, x = ctx.saved_tensors
        by_grad = _mish_backward(outer, x, ctx.order) if ctx.needs_input_grad[0] else None
        by_x = _mish_backward(outer * grad, x, _next(ctx.order)) if ctx.needs_input_grad[1] else None
        return by_grad, by_x, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, x_tangent: Tensor | None, _: None) -> Tensor:
        grad, x = ctx.saved_tensors
        result = torch.zeros_like(x) if tangent is None else _mish_backward(tangent, x, ctx.order)
        if x_tangent is None:
            return result
        return result + _mish_backward(x_tangent * grad, x, _next(ctx.order))


class _TransformedMishBackward(_MishBackward):
    @staticmethod
    def forward(grad: Tensor, x: Tensor, order: int) -> Tensor:  # type: ignore[override]
        return _below(_MISH_BACKWARD, grad, x, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.order = inputs[2]

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, int | None, None], grad: Tensor, x: Tensor, order: int
    ) -> tuple[Tensor, int]:
        grad, x = (
            each.unsqueeze(0) if dim is None else each.movedim(dim, 0)
            for each, dim in zip((grad, x), in_dims, strict=False)
        )
        grad, x = torch.broadcast_tensors(grad, x)
        return _mish_backward(grad, x, order), 0


def _next(order: int) -> int:
    if order >= 2:
        raise NotImplementedError(
            "Mish's kernel has two derivatives; for a third set YOLO_MISH=torch, which takes PyTorch's own operator"
        )
    return order + 1


_LIBRARY.impl("mish", _mish, "Autograd")
_LIBRARY.impl("mish_backward", _mish_backward, "Autograd")
