"""Fused batch norm and activation: `norm_act(x, norm, act)` is `act(norm(x))` for two ordinary modules.

With a fused kernel (csrc/norm_act_cpu.cpp, norm_act_cuda.cu), memory is passed over 3 times forward and 5 times
backward instead of 5 and 8 times, and only the input is saved for the backward pass. A static rule, `fusion`, decides
which modules are fused; all others run one after the other, with the same results. Parameters, buffers and state_dict
remain those of the modules.

Training consists of four passes, between which ops/sync_norm.py exchanges sums with other processes:
`norm_statistics`, `norm_act_forward`; `norm_act_reduce`, `norm_act_backward`. Ordinary tensors that nothing observes go
to the kernels directly, by a plan that is made once per shape, type and options; under a dispatch mode, a transform or
a profiler the passes are operators (ops/norm_act_operators.py), which cost more time than a small map.
"""

import contextlib
import functools
from collections.abc import Iterable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from ops import first_use
from ops.backend import CpuKernels, choose, exact, expect
from ops.build import Unavailable
from ops.cuda import CudaKernels
from ops.first_use import activation
from ops.groups import EVERYTHING, Group
from ops.kernels import ALIGNMENT, NAMES, PLAIN_TENSORS, TYPES, Kernels, is_direct
from ops.mish import Dispatch, Mish
from ops.mish import prepare as prepare_mish
from ops.norm_act_operators import BACKWARD, FORWARD, REDUCE, STATISTICS
from ops.norm_act_plan import Options, Plan
from ops.sync_norm import SyncBatchNorm, sync_norm_act

ACTIVATIONS: dict[type[nn.Module], int] = {Mish: 0, nn.ReLU: 1, nn.SiLU: 2, nn.LeakyReLU: 3}  # csrc/norm_act_*
NORMS = (nn.BatchNorm2d, SyncBatchNorm)
_is_tracing, _are_transforms_active = torch._C._is_tracing, torch._C._are_functorch_transforms_active
_ONE = torch.ones((), dtype=torch.int64, device="cpu")  # added in less time than a number
FUSED_TYPES = {"cpu": CpuKernels.fused_types, "cuda": CudaKernels.fused_types}


def fusion(norm: nn.Module, act: nn.Module, device: torch.device | str, dtype: torch.dtype) -> Dispatch | None:
    """The fused kernel that eager code runs for tensors of this device and type, or None if the modules are not fused.

    A static rule: exactly these classes, fp32 or bf16 (on a GPU also fp16), fp32 parameters. Nothing is built or run.
    Nothing is fused on a GPU whose kernels have failed their check (`prepare`).
    """
    device = torch.device(device)
    if not _may_fuse(norm, act, device.type, dtype):
        return None
    choice = expect(device)
    if not choice.implementation.startswith("ops.mish") or exact(device) in first_use.wrong:
        return None
    return Dispatch(choice.implementation.replace("ops.mish", "ops.norm_act"), choice.reason)


def _may_fuse(norm: nn.Module, act: nn.Module, device: str, dtype: torch.dtype) -> bool:
    if type(norm) not in NORMS or type(act) not in ACTIVATIONS or dtype not in FUSED_TYPES.get(device, ()):
        return False
    return all(value is None or value.dtype == torch.float32 for value in (norm.weight, norm.bias, norm.running_mean))


def norm_act(x: Tensor, norm: nn.Module, act: nn.Module) -> Tensor:
    """act(norm(x)) for x (B, C, H, W), fused if `fusion` allows it and no hook or tracer observes the modules."""
    if torch.compiler.is_compiling() or not isinstance(norm, nn.BatchNorm2d) or _is_observed(x, norm, act):
        return act(norm(x))
    weight, bias, running_mean, running_var, batches = _arrays(norm)
    arrays = weight, bias, running_mean, running_var
    device, dtype, tracked = x.device, x.dtype, None
    if dtype not in FUSED_TYPES.get(device.type, ()) or not _fit(arrays, norm.num_features, x.get_device()):
        return act(norm(x))
    use_batch, factor = norm.training or running_mean is None, 0.0
    slope = act.negative_slope if isinstance(act, nn.LeakyReLU) else 0.0
    if use_batch and type(norm) is SyncBatchNorm:
        if choose(device).kernels is None or device in first_use.wrong:
            return act(norm(x))
        return sync_norm_act(x, norm, ACTIVATIONS[type(act)], slope)
    if norm.training and norm.track_running_stats and batches is not None:
        tracked = batches
        factor = 1.0 / (float(tracked) + 1.0) if norm.momentum is None else norm.momentum
    kernels, options = choose(device).kernels, (use_batch, factor, norm.eps, ACTIVATIONS[type(act)], slope)
    shape = x.shape
    plan = _plan(kernels, device, dtype, shape, x.stride(), not x.data_ptr() % ALIGNMENT, *options)
    if plan is None or shape[1] != norm.num_features or device in first_use.wrong:
        return act(norm(x))
    if plan.format is None:
        return norm_act(x.contiguous(), norm, act)
    if tracked is not None:
        tracked.add_(_ONE)
    if torch.is_grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)
    ):
        return _apply(x, weight, bias, (arrays, plan))
    return _forward(x, arrays, plan)[0]


Arrays = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def _arrays(norm: nn.BatchNorm2d) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Weight, bias, running mean and variance, and the number of batches seen."""
    try:  # a module's attributes take ten times as long
        values, buffers = norm._parameters, norm._buffers
        running = buffers["running_mean"], buffers["running_var"], buffers["num_batches_tracked"]
        return values["weight"], values["bias"], *running
    except KeyError:  # a replica of DataParallel has them as plain attributes
        return norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked


def _is_observed(x: Tensor, norm: nn.Module, act: nn.Module) -> bool:
    """Whether a tracer, a transform or a hook must see the two modules, or their classes are not supported."""
    if type(x) is not Tensor or type(norm) not in NORMS or type(act) not in ACTIVATIONS:
        return True
    if _is_tracing() or _are_transforms_active() or forward_ad._current_level >= 0:
        return True
    return bool(
        _has_any_global_hook()
        or ("forward" in norm.__dict__ or "forward" in act.__dict__)  # replaced, as by tools that move weights about
        or (norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks)
        or (act._forward_hooks or act._forward_pre_hooks or act._backward_hooks or act._backward_pre_hooks)
    )


def _fit(arrays: Iterable[Tensor | None], channels: int, index: int) -> bool:
    """Whether a norm's arrays are ordinary ones; else PyTorch's modules must run, or must raise their error.

    Looked at in each call: `norm.to(...)` leaves the same objects with other values behind them.
    """
    for array in arrays:
        if array is not None and (
            array.dtype is not torch.float32
            or type(array) not in PLAIN_TENSORS
            or array.get_device() != index
            or (index < 0 and not array.is_cpu)  # other devices without a number, such as meta
            or array.numel() != channels
            or not array.is_contiguous()
        ):
            return False
    return True


# ------------------------------------------------------------------------------------------------- the plan of a call


@functools.lru_cache(maxsize=4096)
def _plan(
    kernels: Kernels | None, device: torch.device, dtype: torch.dtype, shape: torch.Size, strides: tuple[int, ...],
    aligned: bool, *options: Any,
) -> Plan | None:  # fmt: skip
    """The plan for x of this shape and layout; None where the modules must run.

    On a GPU, the kernels are loaded and compared with PyTorch's operators before the first plan that uses them.
    """
    if kernels is None or len(shape) != 4 or shape.numel() <= shape[1]:
        return None  # no kernels, or too few values
    plan = Plan(kernels, device, dtype, shape, strides, Options(*options))
    if isinstance(kernels, CudaKernels) and plan.format is not None:
        first_use.check(kernels, device, kernels.group(TYPES[dtype], *plan.sizes[1:], aligned, plan.options.act))
    return plan


def _forward(x: Tensor, arrays: Arrays, plan: Plan) -> tuple[Tensor, Tensor | None]:
    """The output, and the mean and variance (2, C) of x if they were computed."""
    weight, bias, running_mean, running_var = arrays
    if not plan.updates:
        running_mean = running_var = None
    if not is_direct(x):
        return _forward_by_operators(x, (weight, bias, running_mean, running_var), plan.options)
    if not plan.kernels.is_current():
        with plan.kernels.guard():
            return _forward(x, arrays, plan)
    y, at = plan.empty(plan.size, plan.strides, plan.dtype), x.data_ptr()
    out = y.data_ptr()
    run = (plan.unaligned if (at | out) % ALIGNMENT else plan.aligned).forward
    by = 0 if weight is None else weight.data_ptr()
    offset = 0 if bias is None else bias.data_ptr()
    mean = 0 if running_mean is None else running_mean.data_ptr()
    variance = 0 if running_var is None else running_var.data_ptr()
    if not plan.use_batch:
        run(at, 0, out, mean, variance, by, offset, 0, 0, 0, 0)
        return y, None
    channels = plan.channels
    statistics = plan.empty((2, channels), (channels, 1), torch.float32)
    first = statistics.data_ptr()
    run(at, 0, out, first, first + 4 * channels, by, offset, mean, variance, 0, 0)
    return y, statistics


def _forward_by_operators(x: Tensor, arrays: Arrays, options: Options) -> tuple[Tensor, Tensor | None]:
    weight, bias, mean, variance = arrays
    statistics = None
    if options.use_batch:
        mean, variance = STATISTICS(x, mean, variance, options.factor)
        statistics = torch.stack((mean, variance))
    return FORWARD(x, mean, variance, weight, bias, *options[2:]), statistics


Saved = tuple[Tensor, Tensor, Tensor | None, Tensor | None]  # x, statistics (2, C), weight, bias


def _gradients(grad: Tensor, saved: Saved, plan: Plan, *, needs_x: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x (unless `needs_x`: of the activation's input), weight and bias."""
    x, statistics, weight, bias = saved
    dtype, count, index = plan.dtype, plan.count, grad.get_device()
    if not (
        is_direct(grad)
        and all(each is None or is_direct(each) for each in saved)
        and x.stride() == plan.strides  # hooks of saved tensors may have changed x, or one of the arrays
        and x.numel() == count == grad.numel()
        and x.dtype is dtype is grad.dtype
        and x.get_device() == index
        and _fit((weight, bias), plan.channels, index)
        and _fit((statistics,), 2 * plan.channels, index)
    ):
        return _gradients_by_operators(grad, saved, plan.options, needs_x=needs_x)
    if not plan.kernels.is_current():
        with plan.kernels.guard():
            return _gradients(grad, saved, plan, needs_x=needs_x)
    if grad.stride() != plan.strides:  # that of a sum is expanded; or it has the other layout
        grad = plan.empty(plan.size, plan.strides, dtype).copy_(grad)
    empty, channels = plan.empty, plan.channels
    g = empty(plan.size, plan.strides, dtype)
    by_weight, by_bias = empty((channels,), (1,), torch.float32), empty((channels,), (1,), torch.float32)
    at, dy, out, mean = x.data_ptr(), grad.data_ptr(), g.data_ptr(), statistics.data_ptr()
    passes = plan.unaligned if (at | dy | out) % ALIGNMENT else plan.aligned
    (passes.gradients if needs_x else passes.reduce)(
        at, dy, out, mean, mean + 4 * channels,
        0 if weight is None else weight.data_ptr(), 0 if bias is None else bias.data_ptr(),
        0, 0, by_weight.data_ptr(), by_bias.data_ptr(),
    )  # fmt: skip
    return g, by_weight, by_bias


def _gradients_by_operators(
    grad: Tensor, saved: Saved, options: Options, *, needs_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    x, *arrays = saved
    statistics, weight, bias = (each if each is None else each.float() for each in arrays)
    assert statistics is not None
    mean, variance = statistics.unbind()
    g, by_weight, by_bias = REDUCE(grad, x, mean, variance, weight, bias, *options[2:])
    if needs_x:
        count = x.numel() // x.shape[1] if options.use_batch else 0
        BACKWARD(g, x, mean, variance, weight, by_weight, by_bias, options.eps, count)
    return g, by_weight, by_bias


# ------------------------------------------------------------------------------------------------------------- autograd


class _NormAct(torch.autograd.Function):
    """Fused norm and activation; saves x and four arrays of one value per channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, call: tuple[Arrays, Plan]) -> Tensor:
        arrays, plan = call
        y, statistics = _forward(x, arrays, plan)
        if statistics is None:  # a copy: a later call may update the running statistics before this one's backward pass
            assert arrays[2] is not None and arrays[3] is not None
            statistics = torch.stack((arrays[2], arrays[3]))
        ctx.save_for_backward(x, statistics, weight, bias)
        ctx.plan = plan
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed: tuple[bool, ...] = ctx.needs_input_grad
        saved: tuple[Any, ...] = ctx.saved_tensors
        if torch.is_grad_enabled():  # for higher derivatives use PyTorch's operators
            return *_plain_gradients(ctx, grad, *saved), None
        by_x, by_weight, by_bias = _gradients(grad, saved, ctx.plan, needs_x=needed[0])
        return (
            by_x if needed[0] else None,
            by_weight if needed[1] else None,
            by_bias if needed[2] else None,
            None,
        )


# Without the Python half of `apply`, which serves transforms only: they run the modules (_is_observed).
_apply = super(torch.autograd.Function, _NormAct).apply


def _plain_gradients(
    ctx: Any, grad: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias by PyTorch's operators, which are differentiable again."""
    use_batch, _, eps, act, slope = ctx.plan.options
    running_mean, running_var = (None, None) if use_batch else statistics.unbind()
    z = nn.functional.batch_norm(x, running_mean, running_var, weight, bias, use_batch, 0.0, eps)
    y = activation(z, act, slope)
    inputs = zip((x, weight, bias), ctx.needs_input_grad, strict=False)
    inputs_with_grad = [tensor for tensor, needed in inputs if needed and tensor is not None]
    gradients = iter(torch.autograd.grad(y, inputs_with_grad, grad, create_graph=True))
    return tuple(next(gradients) if needed else None for needed in ctx.needs_input_grad[:3])


# ----------------------------------------------------------------------------------------------- check before first use


def prepare(
    device: torch.device | str,
    *,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    activations: Iterable[type[nn.Module]] | None = None,
) -> Dispatch:
    """As ops.mish.prepare; on a GPU, also build, load and compare the fused kernels with PyTorch's operators.

    By default all of them, once per machine, which takes as long as twenty groups; `dtype` of x, `memory_format` and
    classes of `activations` restrict them. Kernels that turn out to be missing are added when a call needs them.
    """
    prepared = prepare_mish(device)
    device = exact(torch.device(device))
    kernels = choose(device).kernels
    if not isinstance(kernels, CudaKernels):
        return prepared
    if dtype is None and memory_format is None and activations is None:
        with contextlib.suppress(Unavailable):  # `check` reports it
            kernels.load(EVERYTHING)  # sooner compiled than all groups one by one
    types = [each for each in kernels.fused_types if dtype in (None, each)]
    # Channels are mostly multiples of a piece, the sizes of planes (40x40, 10x10) are not.
    variants = [name for name, layouts in first_use.LAYOUTS.items() if memory_format in (None, layouts[0])]
    classes = ACTIVATIONS.keys() & set(ACTIVATIONS if activations is None else activations)
    for kind, variant, act in product(types, variants, sorted(ACTIVATIONS[each] for each in classes)):
        first_use.check(kernels, device, Group(NAMES[TYPES[kind]], variant, act))
    return prepared
