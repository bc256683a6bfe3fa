"""Fused batch norm and activation: `norm_act(x, norm, act)` is `act(norm(x))` for two ordinary modules.

With a fused kernel (csrc/norm_act_cpu.cpp, norm_act_cuda.cu), memory is passed over 3 times forward and 5 times
backward instead of 5 and 8 times, and only the input is saved for the backward pass. A static rule, `fusion`, decides
which modules are fused; all others run one after the other, with the same results. Parameters, buffers and state_dict
remain those of the modules.

Training consists of four passes, so that a SyncBatchNorm could exchange sums between them: `norm_statistics`,
`norm_act_forward`; `norm_act_reduce`, `norm_act_backward`. Ordinary tensors that nothing observes go to the kernels
directly, by a plan that is made once per shape, type and options; under a dispatch mode, a transform or a profiler the
passes are operators (ops/norm_act_operators.py), which cost more time than a small map.
"""

import contextlib
import functools
from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple

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
from ops.kernels import ALIGNMENT, NAMES, PLAIN_TENSORS, TYPES, Kernels, Pass, address, is_direct, is_like
from ops.mish import Dispatch, Mish
from ops.mish import prepare as prepare_mish
from ops.norm_act_operators import BACKWARD, FORWARD, REDUCE, STATISTICS

ACTIVATIONS: dict[type[nn.Module], int] = {Mish: 0, nn.ReLU: 1, nn.SiLU: 2, nn.LeakyReLU: 3}  # csrc/norm_act_*
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
    if type(norm) is not nn.BatchNorm2d or type(act) not in ACTIVATIONS or dtype not in FUSED_TYPES.get(device, ()):
        return False
    return all(value is None or value.dtype == torch.float32 for value in (norm.weight, norm.bias, norm.running_mean))


class Options(NamedTuple):
    """What a fused call computes: `use_batch` normalises by the statistics of x, and updates the running ones with
    momentum `factor`; `act` is one of ACTIVATIONS."""

    use_batch: bool
    factor: float
    eps: float
    act: int
    slope: float


def norm_act(x: Tensor, norm: nn.Module, act: nn.Module) -> Tensor:
    """act(norm(x)) for x (B, C, H, W), fused if `fusion` allows it and no hook or tracer observes the modules."""
    if torch.compiler.is_compiling() or not isinstance(norm, nn.BatchNorm2d) or _is_observed(x, norm, act):
        return act(norm(x))
    arrays = _arrays(norm)
    kernels = _kernels_for(x, norm, act, arrays)
    if kernels is None:
        return act(norm(x))
    use_batch, factor = norm.training or arrays[2] is None, 0.0
    if norm.training and norm.track_running_stats:
        tracked = norm.num_batches_tracked
        if tracked is not None:
            tracked.add_(1)
            factor = 1.0 / float(tracked) if norm.momentum is None else norm.momentum
    slope = act.negative_slope if isinstance(act, nn.LeakyReLU) else 0.0
    return _run(x, arrays, kernels, Options(use_batch, factor, norm.eps, ACTIVATIONS[type(act)], slope))


Arrays = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def _arrays(norm: nn.BatchNorm2d) -> Arrays:
    """Weight, bias, running mean and variance."""
    try:  # a module's attributes take ten times as long
        parameters, buffers = norm._parameters, norm._buffers
        return parameters["weight"], parameters["bias"], buffers["running_mean"], buffers["running_var"]
    except KeyError:  # a replica of DataParallel has them as plain attributes
        return norm.weight, norm.bias, norm.running_mean, norm.running_var


def _is_observed(x: Tensor, norm: nn.Module, act: nn.Module) -> bool:
    """Whether a tracer, a transform or a hook must see the two modules, or their classes are not supported."""
    if type(x) is not Tensor or type(norm) is not nn.BatchNorm2d or type(act) not in ACTIVATIONS:
        return True
    if torch._C._is_tracing() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return True
    return bool(_has_any_global_hook() or _is_hooked(norm) or _is_hooked(act))


def _is_hooked(module: nn.Module) -> Any:
    return module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks


def _kernels_for(x: Tensor, norm: nn.BatchNorm2d, act: nn.Module, arrays: Arrays) -> Kernels | None:
    """The kernels for x and a norm's arrays; None where PyTorch's modules must run, or must raise their error."""
    shape, dtype, index = x.shape, torch.float32, x.get_device()
    if len(shape) != 4 or shape[1] != norm.num_features or x.numel() <= shape[1]:
        return None  # too few values or wrong channels
    for array in arrays:
        if array is not None and (
            array.dtype is not dtype
            or type(array) not in PLAIN_TENSORS
            or array.get_device() != index
            or array.numel() != shape[1]
            or not array.is_contiguous()
        ):
            return None
    device = x.device
    if x.dtype not in FUSED_TYPES.get(device.type, ()):
        return None
    kernels = choose(device).kernels
    if isinstance(kernels, CudaKernels):
        _check_for(kernels, device, x.shape, x.stride(), x.dtype, not x.data_ptr() % ALIGNMENT, ACTIVATIONS[type(act)])
        return None if device in first_use.wrong else kernels
    return kernels


# ------------------------------------------------------------------------------------------------- the plan of a call


class _Plan(NamedTuple):
    """The four passes for one shape, type and options."""

    statistics: Pass
    forward: Pass
    reduce: Pass
    backward: Pass


@functools.lru_cache(maxsize=4096)
def _plan(
    kernels: Kernels, shape: torch.Size, stride: tuple[int, ...], dtype: torch.dtype, aligned: bool, options: Options
) -> _Plan | None:
    """The plan for x of this shape and stride, None if it is neither contiguous nor channels_last."""
    sizes = _sizes(shape, stride)
    if sizes is None:
        return None
    use_batch, factor, eps, act, slope = options

    def bind(name: str, **numbers: Any) -> Pass:
        return kernels.bind(name, TYPES[dtype], *sizes, aligned, **numbers)

    forward = bind("norm_act_forward", eps=eps, act=act, slope=slope)  # first: it names the group to load
    outer, _, inner = sizes
    return _Plan(
        bind("norm_statistics", factor=factor),
        forward,
        bind("norm_act_reduce", eps=eps, act=act, slope=slope),
        bind("norm_act_backward", eps=eps, count=outer * inner if use_batch else 0),
    )


def _sizes(shape: torch.Size, stride: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(outer, channels, inner) for the kernels, None if x is neither contiguous nor channels_last."""
    batch, channels, height, width = shape
    like = torch.empty_strided(shape, stride, device="meta")
    if like.is_contiguous():
        return batch, channels, height * width
    return (batch * height * width, channels, 1) if like.is_contiguous(memory_format=torch.channels_last) else None


def _run(x: Tensor, arrays: Arrays, kernels: Kernels, options: Options) -> Tensor:
    weight, bias, *_ = arrays
    if not x.is_contiguous() and not x.is_contiguous(memory_format=torch.channels_last):
        x = x.contiguous()
    if torch.is_grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)
    ):
        return _apply(x, weight, bias, arrays, kernels, options)
    return _forward(x, arrays, kernels, options)[0]


def _forward(x: Tensor, arrays: Arrays, kernels: Kernels, options: Options) -> tuple[Tensor, Tensor | None]:
    """The output, and the mean and variance (2, C) of x if they were computed."""
    weight, bias, running_mean, running_var = arrays
    if not options.factor and options.use_batch:
        running_mean = running_var = None
    if not is_direct(x):
        return _forward_by_operators(x, (weight, bias, running_mean, running_var), options)
    y, at = torch.empty_like(x), x.data_ptr()
    out = y.data_ptr()
    plan = _plan(kernels, x.shape, x.stride(), x.dtype, not (at | out) % ALIGNMENT, options)
    assert plan is not None  # x is in a supported layout
    mean = 0 if running_mean is None else running_mean.data_ptr()
    variance = 0 if running_var is None else running_var.data_ptr()
    statistics = None
    if options.use_batch:
        channels = x.shape[1]
        statistics = torch.empty((2, channels), dtype=torch.float32, device=x.device)
        running, mean = (mean, variance), statistics.data_ptr()
        variance = mean + 4 * channels
        plan.statistics(at, 0, 0, mean, variance, 0, 0, *running, 0, 0)
    plan.forward(at, 0, out, mean, variance, address(weight), address(bias), 0, 0, 0, 0)
    return y, statistics


def _forward_by_operators(x: Tensor, arrays: Arrays, options: Options) -> tuple[Tensor, Tensor | None]:
    weight, bias, mean, variance = arrays
    statistics = None
    if options.use_batch:
        mean, variance = STATISTICS(x, mean, variance, options.factor)
        statistics = torch.stack((mean, variance))
    return FORWARD(x, mean, variance, weight, bias, *options[2:]), statistics


Saved = tuple[Tensor, Tensor, Tensor | None, Tensor | None]  # x, statistics (2, C), weight, bias


def _gradients(
    grad: Tensor, saved: Saved, kernels: Kernels, options: Options, *, needs_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x (unless `needs_x`: of the activation's input), weight and bias."""
    x, statistics, weight, bias = saved
    if not is_direct(grad) or grad.stride() != x.stride() or not is_like(grad, x):
        return _gradients_by_operators(grad, saved, options, needs_x=needs_x)
    g, channels = torch.empty_like(x), x.shape[1]
    at, dy, out, mean = x.data_ptr(), grad.data_ptr(), g.data_ptr(), statistics.data_ptr()
    plan = _plan(kernels, x.shape, x.stride(), x.dtype, not (at | dy | out) % ALIGNMENT, options)
    if plan is None:  # hooks of saved tensors have changed the layout
        return _gradients_by_operators(grad, saved, options, needs_x=needs_x)
    by_weight, by_bias = (torch.empty(channels, dtype=torch.float32, device=x.device) for _ in range(2))
    norm = (mean, mean + 4 * channels, address(weight), address(bias))
    sums = (by_weight.data_ptr(), by_bias.data_ptr())
    plan.reduce(at, dy, out, *norm, 0, 0, *sums)
    if needs_x:
        plan.backward(at, 0, out, *norm, 0, 0, *sums)
    return g, by_weight, by_bias


def _gradients_by_operators(
    grad: Tensor, saved: Saved, options: Options, *, needs_x: bool
) -> tuple[Tensor, Tensor, Tensor]:
    x, statistics, weight, bias = saved
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
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, arrays: Arrays, kernels: Kernels,
        options: Options,
    ) -> Tensor:  # fmt: skip
        y, statistics = _forward(x, arrays, kernels, options)
        if statistics is None:  # a copy: a later call may update the running statistics before this one's backward pass
            assert arrays[2] is not None and arrays[3] is not None
            statistics = torch.stack((arrays[2], arrays[3]))
        ctx.save_for_backward(x, statistics, weight, bias)
        ctx.kernels, ctx.options = kernels, options
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed: tuple[bool, ...] = ctx.needs_input_grad
        saved: tuple[Any, ...] = ctx.saved_tensors
        if torch.is_grad_enabled():  # for higher derivatives use PyTorch's operators
            return *_plain_gradients(ctx, grad, *saved), None, None, None
        by_x, by_weight, by_bias = _gradients(grad, saved, ctx.kernels, ctx.options, needs_x=needed[0])
        return (
            by_x if needed[0] else None,
            by_weight if needed[1] else None,
            by_bias if needed[2] else None,
            *(None, None, None),
        )


# Without the Python half of `apply`, which serves transforms only: they run the modules (_is_observed).
_apply = super(torch.autograd.Function, _NormAct).apply


def _plain_gradients(
    ctx: Any, grad: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias by PyTorch's operators, which are differentiable again."""
    use_batch, _, eps, act, slope = ctx.options
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


@functools.lru_cache(maxsize=4096)
def _check_for(
    kernels: CudaKernels, device: torch.device, shape: torch.Size, stride: tuple[int, ...], dtype: torch.dtype,
    aligned: bool, act: int,
) -> None:  # fmt: skip
    """Check the group of kernels for x of this shape and stride."""
    sizes = _sizes(shape, stride)
    if sizes is None:  # copied first
        sizes, aligned = (shape[0], shape[1], shape[2] * shape[3]), True
    first_use.check(kernels, device, kernels.group(TYPES[dtype], *sizes[1:], aligned, act))
