"""Mish(x) = x tanh(ln(1 + exp x)) (Misra, arXiv 1908.08681, eq. 1): the operator and its dispatch.

Eager code runs a custom kernel (csrc/, chosen in ops/backend.py) that saves only its input and computes the first two
derivatives in closed form, or PyTorch's operator if no kernel is available. torch.compile and torch.export trace an
algebraic form with one exponential and one division instead, which the compiler fuses with its neighbours: it cannot
look into a kernel, and PyTorch's operator would be lowered to log1p and tanh. ONNX export emits ONNX's Mish operator.

Call path of an ordinary tensor: `mish` -> `_DirectMish` if a gradient is recorded -> `_Plan` -> the kernel. A tensor
that is like the last one of its shape is recognised by a single check of Dynamo's in C++ (`_recent`). Under a dispatch
mode, a transform, a forward derivative or a profiler, and for tensors that are not dense: `mish` -> `_mish` (autograd,
vmap, forward mode) -> yolo::mish, through the dispatcher -> `_run`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from ops.backend import choose, dense, expect
from ops.kernels import PLAIN_TENSORS, TYPES, Kernels, described, is_direct, is_like

# Above 20, tanh(softplus(x)) is 1 to within 2e-17, in fp32 and fp64; below -88, exp(x) underflows in fp32.
UPPER, LOWER = 20.0, -88.0
PLANS = 4096  # shapes remembered
NO_INPLACE = "Mish has no in-place form: its backward pass needs the input, which would be overwritten"


@dataclass(frozen=True)
class Dispatch:
    """The implementation that a call runs, and the reason."""

    implementation: str
    reason: str


def dispatch(device: torch.device | str, dtype: torch.dtype, *, compiled: bool = False) -> Dispatch:
    """What `mish` runs for tensors of this device and type, without building or running anything."""
    if compiled:
        return Dispatch("algebraic formula", "traced, so that the compiler fuses it with its neighbours")
    if dtype not in TYPES:
        return Dispatch("torch.nn.functional.mish", f"no kernel for {dtype}")
    choice = expect(torch.device(device))
    return Dispatch(choice.implementation, choice.reason)


def prepare(device: torch.device | str) -> Dispatch:
    """Build and load what `mish` runs on this device in advance, so that no timed call has to."""
    choice = choose(torch.device(device))
    return Dispatch(choice.implementation, choice.reason)


def mish(x: Tensor, inplace: bool = False) -> Tensor:
    """Mish of a floating-point tensor of any shape, in the input's type and layout, also under autocast."""
    if inplace:
        raise ValueError(NO_INPLACE)
    if type(x) is Tensor and not _is_dynamo_compiling():
        known = _recent.get(x.shape)
        while known is not None:
            is_alike, is_current, run, known = known
            if is_alike(x) and is_current() and not (_modes() or _is_profiled() or forward_ad._current_level >= 0):
                return run(x)
    if torch.compiler.is_compiling():
        return _traced(x)
    if x.dtype not in TYPES or x.layout is not torch.strided or type(x) not in PLAIN_TENSORS or _is_tracing():
        return F.mish(x)  # PyTorch's error for integers, the override of subclasses, one operator in traced graphs
    choice = choose(x.device)
    kernels = choice.kernels
    if kernels is None:
        return x * torch.tanh(F.softplus(x)).to(x.dtype) if choice.eager else F.mish(x)
    plan = _plan(kernels, x.dtype, x.shape, x.stride()) if is_direct(x) else None
    if plan is None:
        return _mish(x)
    if not kernels.is_current():
        with kernels.guard():
            return mish(x)
    if type(x) is Tensor:
        _remember(x, plan)
    return plan.record(x) if x.requires_grad else plan.forward(x)


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
    """Mish as x n / (n + 2) with n = e^x (e^x + 2), in fp32 for 16-bit inputs.

    From tanh(ln u) = (u^2 - 1) / (u^2 + 1) with u = 1 + e^x; n is u^2 - 1, written without cancellation.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    c = wide.clamp(LOWER, UPPER)
    e = c.exp()
    n = e * (e + 2)
    # >= rather than >: the gradient of clamp at its bound is unspecified.
    return torch.where(wide >= UPPER, wide, c * (n / (n + 2))).to(x.dtype)


def reference(x: Tensor) -> Tensor:
    """Mish from its definition, computed and returned in float64: the reference for implementations."""
    x = x.double()
    return x * torch.tanh(torch.logaddexp(x, torch.zeros_like(x)))


def _traced(x: Tensor) -> Tensor:
    if torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export():
        return torch.onnx.ops.symbolic("Mish", (x,), dtype=x.dtype, shape=x.shape, version=18)
    return formula(x)


# ------------------------------------------------------------------------------------------- calls of ordinary tensors


class _Plan:
    """How calls run for one shape, layout and type."""

    def __init__(self, kernels: Kernels, dtype: torch.dtype, shape: torch.Size, strides: tuple[int, ...]):
        self.kernels, self.dtype, self.strides = kernels, dtype, strides
        self.empty, self.size, self.count = kernels.empty, tuple(shape), shape.numel()
        empty, size, run = kernels.empty, tuple(shape), kernels.bind_map(0, dtype, shape.numel())
        self.backward_map = kernels.bind_map(1, dtype, shape.numel())
        address = Tensor.data_ptr

        def forward(x: Tensor) -> Tensor:
            out, at = empty(size, strides, dtype), address(x)
            run(at, at, address(out))
            return out

        self.forward: Callable[[Tensor], Tensor] = forward  # mish(x); a closure has all at hand sooner than a method
        self.calls = 0

    def record(self, x: Tensor) -> Tensor:
        """mish(x) of an x that requires a gradient."""
        return _apply(x, self) if torch.is_grad_enabled() else self.forward(x)

    def backward(self, x: Tensor, g: Tensor) -> Tensor:
        """g mish'(x)."""
        if g.stride() != self.strides:  # that of a sum is expanded
            g = self.empty(self.size, self.strides, self.dtype).copy_(g)
        out = self.empty(self.size, self.strides, self.dtype)
        self.backward_map(x.data_ptr(), g.data_ptr(), out.data_ptr())
        return out

    def fits(self, x: Tensor, grad: Tensor) -> bool:
        """Whether `run` takes a saved x, which hooks may have changed, and its gradient."""
        dtype, count = self.dtype, self.count
        return (
            is_direct(x)
            and x.stride() == self.strides
            and x.numel() == count == grad.numel()
            and x.dtype is dtype is grad.dtype
            and x.get_device() == grad.get_device()
            and self.kernels.is_current()
        )


@functools.lru_cache(maxsize=PLANS)
def _plan(kernels: Kernels, dtype: torch.dtype, shape: torch.Size, strides: tuple[int, ...]) -> _Plan | None:
    """The plan for dense tensors, None for others and for empty ones."""
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size != 1 and stride != expected:
            return None
        expected *= size
    return _Plan(kernels, dtype, shape, strides) if expected else None


_is_dynamo_compiling, _modes = torch.compiler.is_dynamo_compiling, torch._C._len_torch_dispatch_stack
_is_profiled = torch._C._autograd._profiler_enabled
# Whether a tensor has the type, dispatch keys, device, shape and strides of another one, in the same modes, which
# `is_direct` takes six times as long to find out; whether its device is the current one; what runs then; and another
# one of that shape.
_Known = tuple[Callable[[Tensor], bool], Callable[[], bool], Callable[[Tensor], Tensor], "_Known | None"]
_recent: dict[torch.Size, _Known] = {}
_Guards: Any = torch._C._dynamo.guards.TensorGuards  # whose stub is not that of what it is
KINDS = 4  # of tensors and modes that are known of a shape


def _remember(x: Tensor, plan: _Plan) -> None:
    """Let `mish` recognise tensors like x, which `is_direct` and `plan` take, from their second call on."""
    plan.calls += 1
    if plan.calls == 1:
        return
    guards = _Guards(x, dynamic_dims_sizes=[[*plan.size]], dynamic_dims_strides=[[*plan.strides]])
    before, kinds = _recent.get(x.shape), 1
    each = before
    while each is not None:
        each, kinds = each[3], kinds + 1
    if len(_recent) >= PLANS:
        _recent.clear()
    run = plan.record if x.requires_grad else plan.forward
    _recent[x.shape] = guards.check, plan.kernels.is_current, run, before if kinds <= KINDS else None


# ---------------------------------------------------------------------------------------------- the operator's schema

_is_tracing = torch._C._is_tracing
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
torch.library.register_fake("yolo::mish_backward", lambda grad, x, order: torch.empty_like(x), lib=_LIBRARY)


# ------------------------------------------------------------------------------------------------------------- autograd


# Each operator has two forms: calling one with the `setup_context` and `vmap` that torch.func needs takes four times as
# long, so that form is used under transforms only.


def _below(operator: torch._ops.OpOverload, *arguments: Tensor | int) -> Tensor:
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _mish(x: Tensor) -> Tensor:
    if not torch._C._are_functorch_transforms_active():
        return _Mish.apply(x)
    if torch._C._functorch.peek_interpreter_stack().key() == torch._C._functorch.TransformType.Functionalize:
        return F.mish(x)  # which takes no autograd.Function
    return _TransformedMish.apply(x)


def _mish_backward(grad: Tensor, x: Tensor, order: int) -> Tensor:
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
        return _mish_backward(grad, ctx.saved_tensors[0], 1)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return _mish_backward(tangent, ctx.saved_tensors[0], 1)


class _DirectMish(torch.autograd.Function):
    """For tensors that kernels may take without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan) -> Tensor:
        ctx.save_for_backward(x)
        ctx.plan = plan
        return plan.forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,), plan = ctx.saved_tensors, ctx.plan
        if torch.is_grad_enabled() or not (is_direct(grad) and plan.fits(x, grad)):
            return _mish_backward(grad, x, 1), None
        return plan.backward(x, grad), None


# Without the Python half of `apply`, which serves transforms only: `mish` takes the other form under them.
_apply = super(torch.autograd.Function, _DirectMish).apply


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
            tensor.unsqueeze(0) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip((grad, x), in_dims, strict=False)
        )
        grad, x = torch.broadcast_tensors(grad, x)
        return _mish_backward(grad, x, order), 0


def _next(order: int) -> int:
    if order >= 2:
        raise NotImplementedError(
            "the Mish kernel has two derivatives; set YOLO_MISH=torch (PyTorch's operator) for a third"
        )
    return order + 1


_LIBRARY.impl("mish", _mish, "Autograd")
_LIBRARY.impl("mish_backward", _mish_backward, "Autograd")
