"""Mish(x) = x tanh(ln(1 + exp x)) (Misra, arXiv 1908.08681, eq. 1): the operator and its dispatch.

Eager code runs a custom kernel (csrc/, chosen in ops/backend.py) that saves only its input and computes the first two
derivatives in closed form, or PyTorch's operator if no kernel is available. torch.compile and torch.export trace an
algebraic form with one exponential and one division instead, which the compiler fuses with its neighbours: it cannot
look into a kernel, and PyTorch's operator would be lowered to log1p and tanh. ONNX export emits ONNX's Mish operator.

Call path of an ordinary tensor: `mish` -> `_DirectMish` if a gradient is recorded -> `_Plan` -> the kernel. A tensor
that is like an earlier one of its shape is recognised by a single check of Dynamo's in C++ (`_known_by_shape`). Under a
dispatch mode, a transform, a forward derivative or a profiler, and for tensors that are not dense: `mish` ->
`mish_operator` -> yolo::mish, through the dispatcher (ops/mish_operators.py).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from ops.backend import choose, expect
from ops.kernels import PLAIN_TENSORS, TYPES, Kernels, is_direct
from ops.mish_operators import mish_backward, mish_operator

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
        known = _known_by_shape.get(x.shape)
        while known is not None:
            is_alike, is_current, run, known = known
            if is_alike(x) and is_current() and not (_modes() or _is_profiled() or forward_ad._current_level >= 0):
                return run(x)
    if torch.compiler.is_compiling():
        return _traced(x)
    if (
        getattr(x, "dtype", None) not in TYPES
        or x.layout is not torch.strided
        or type(x) not in PLAIN_TENSORS
        or x.is_nested
        or _is_tracing()
    ):
        # PyTorch's error for integers and what is no tensor, the override of subclasses, one operator in traced graphs.
        return F.mish(x)
    choice = choose(x.device)
    kernels = choice.kernels
    if kernels is None:
        return x * torch.tanh(F.softplus(x)).to(x.dtype) if choice.eager else F.mish(x)
    plan = _plan(kernels, x.dtype, x.shape, x.stride()) if is_direct(x) else None
    if plan is None:
        return mish_operator(x)
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
        run, self.run_backward = (kernels.bind_map(order, dtype, self.count) for order in (0, 1))
        empty, size, address = self.empty, self.size, Tensor.data_ptr

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
        self.run_backward(x.data_ptr(), g.data_ptr(), out.data_ptr())
        return out

    def fits(self, x: Tensor, grad: Tensor) -> bool:
        """Whether `backward` takes a saved x, which hooks may have changed, and its gradient."""
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


_is_tracing, _is_dynamo_compiling, _modes = (
    torch._C._is_tracing,
    torch.compiler.is_dynamo_compiling,
    torch._C._len_torch_dispatch_stack,
)
_is_profiled = torch._C._autograd._profiler_enabled
# Whether a tensor has the type, dispatch keys, device, shape and strides of another one, in the same modes, which
# `is_direct` takes six times as long to find out; whether its device is the current one; what runs then; and another
# one of that shape.
_Known = tuple[Callable[[Tensor], bool], Callable[[], bool], Callable[[Tensor], Tensor], "_Known | None"]
_known_by_shape: dict[torch.Size, _Known] = {}
_Guards: Any = torch._C._dynamo.guards.TensorGuards  # whose stub is not that of what it is
KINDS = 4  # of tensors and modes that are known of a shape


def _remember(x: Tensor, plan: _Plan) -> None:
    """Let `mish` recognise tensors like x, which `is_direct` and `plan` take, from their second call on."""
    plan.calls += 1
    if plan.calls == 1:
        return
    guards = _Guards(x, dynamic_dims_sizes=[[*plan.size]], dynamic_dims_strides=[[*plan.strides]])
    before, kinds = _known_by_shape.get(x.shape), 1
    each = before
    while each is not None:
        each, kinds = each[3], kinds + 1
    if len(_known_by_shape) >= PLANS:
        _known_by_shape.clear()
    run = plan.record if x.requires_grad else plan.forward
    _known_by_shape[x.shape] = guards.check, plan.kernels.is_current, run, before if kinds <= KINDS else None


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
            return mish_backward(grad, x, 1), None
        return plan.backward(x, grad), None


# Without the Python half of `apply`, which serves transforms only: `mish` takes the other form under them.
_apply = super(torch.autograd.Function, _DirectMish).apply
