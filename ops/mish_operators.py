"""Mish as operators, yolo::mish and yolo::mish_backward: schema, autograd, vmap, forward mode.

For what has to see an operator, such as a dispatch mode or a transform, and for derivatives of derivatives; other calls
go to the kernels directly (ops/mish.py).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from ops.backend import choose, dense
from ops.kernels import TYPES, Kernels, demand_one_device, described, is_direct, is_like

_LIBRARY = torch.library.Library("yolo", "FRAGMENT")
_LIBRARY.define("mish(Tensor x) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))
_LIBRARY.define("mish_backward(Tensor grad, Tensor x, int order) -> Tensor", tags=(torch.Tag.pt2_compliant_tag,))


def _run(kernels: Kernels, order: int, x: Tensor, grad: Tensor | None = None) -> Tensor:
    """Run the kernel: mish(x), grad mish'(x) or grad mish''(x) for `order` 0, 1 or 2, in the layout of x."""
    if x.is_contiguous():
        out = torch.empty_like(x)
    else:
        x, out = dense(x)
    if grad is None:
        grad = x
    elif grad.stride() != x.stride():
        grad = torch.empty_like(x).copy_(grad)
    if x.numel():
        kernels.map(order, x, grad, out)
    return out


def _run_operator(name: str, order: int, x: Tensor, grad: Tensor | None = None) -> Tensor:
    """`_run` for arguments from anywhere: RuntimeError unless they fit."""
    kernels = choose(x.device).kernels
    if kernels is None:
        raise RuntimeError(f"yolo::{name} has no kernel on {x.device}; call ops.mish.mish, which falls back to PyTorch")
    if x.dtype not in TYPES:
        raise RuntimeError(f"yolo::{name} expects x in {', '.join(map(str, TYPES))}, not {x.dtype}")
    if order not in (0, 1, 2):
        raise RuntimeError(f"yolo::{name} expects order 0, 1 or 2, not {order}")
    if grad is not None and not is_like(grad, x):
        raise RuntimeError(f"yolo::{name} expects grad like x, {described(x)}, not {described(grad)}")
    with kernels.guard():
        return _run(kernels, order, x, grad)


for _key in ("CPU", "CUDA"):
    _LIBRARY.impl("mish", lambda x: _run_operator("mish", 0, x), _key)
    _LIBRARY.impl("mish_backward", lambda grad, x, order: _run_operator("mish_backward", order, x, grad), _key)
_MISH, _MISH_BACKWARD = torch.ops.yolo.mish.default, torch.ops.yolo.mish_backward.default
torch.library.register_fake("yolo::mish", torch.empty_like, lib=_LIBRARY)


@torch.library.register_fake("yolo::mish_backward", lib=_LIBRARY)
def _fake_backward(grad: Tensor, x: Tensor, order: int) -> Tensor:
    demand_one_device("mish_backward", grad, x)
    return torch.empty_like(x)


# ------------------------------------------------------------------------------------------------------------- autograd


# Each operator has two forms: calling one with the `setup_context` and `vmap` that torch.func needs takes four times as
# long, so that form is used under transforms only.


def _below(operator: torch._ops.OpOverload, *arguments: Tensor | int) -> Tensor:
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def mish_operator(x: Tensor) -> Tensor:
    """mish(x) through the dispatcher."""
    if not torch._C._are_functorch_transforms_active():
        return _Mish.apply(x)
    if torch._C._functorch.peek_interpreter_stack().key() == torch._C._functorch.TransformType.Functionalize:
        return F.mish(x)  # which takes no autograd.Function
    return _TransformedMish.apply(x)


def mish_backward(grad: Tensor, x: Tensor, order: int) -> Tensor:
    """grad mish'(x) for order 1, grad mish''(x) for order 2, differentiable; directly where nothing has to see it."""
    if not torch.is_grad_enabled() and is_direct(grad) and is_direct(x) and is_like(grad, x):
        kernels = choose(x.device).kernels
        if kernels is not None and kernels.is_current():
            return _run(kernels, order, x, grad)
    transformed = torch._C._are_functorch_transforms_active()
    return (_TransformedMishBackward if transformed else _MishBackward).apply(grad, x, order)


class _Mish(torch.autograd.Function):
    """mish(x); saves only x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(x)
        return _below(_MISH, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return mish_backward(grad, ctx.saved_tensors[0], 1)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return mish_backward(tangent, ctx.saved_tensors[0], 1)


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
        return mish_operator(x), in_dims[0]


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
        by_grad = mish_backward(outer, x, ctx.order) if ctx.needs_input_grad[0] else None
        by_x = mish_backward(outer * grad, x, _next(ctx.order)) if ctx.needs_input_grad[1] else None
        return by_grad, by_x, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, x_tangent: Tensor | None, _: None) -> Tensor:
        grad, x = ctx.saved_tensors
        result = torch.zeros_like(x) if tangent is None else mish_backward(tangent, x, ctx.order)
        if x_tangent is None:
            return result
        return result + mish_backward(x_tangent * grad, x, _next(ctx.order))


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
            tensor.unsqueeze(0) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip((grad, x), in_dims, strict=False)
        )
        grad, x = torch.broadcast_tensors(grad, x)
        return mish_backward(grad, x, order), 0


def _next(order: int) -> int:
    if order >= 2:
        raise NotImplementedError(
            "the Mish kernel has two derivatives; set YOLO_MISH=torch (PyTorch's operator) for a third"
        )
    return order + 1


_LIBRARY.impl("mish", mish_operator, "Autograd")
_LIBRARY.impl("mish_backward", mish_backward, "Autograd")
