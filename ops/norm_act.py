"""Fused batch norm and activation: `norm_act(x, norm, act)` is `act(norm(x))` for two ordinary modules.

With a fused kernel (csrc/norm_act_cpu.cpp, norm_act_cuda.cu), memory is passed over 3 times forward and 5 times
backward instead of 5 and 8 times, and only the input is saved for the backward pass. A static rule, `fusion`, decides
which modules are fused; all others run one after the other, with the same results. Parameters, buffers and state_dict
remain those of the modules.

Training consists of four operators, so that a SyncBatchNorm could exchange sums between them: `norm_statistics`,
`norm_act_forward`; `norm_act_reduce`, `norm_act_backward`.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from ops.backend import TYPES, CudaKernels, choose, expect
from ops.build import say
from ops.mish import Dispatch, Mish
from ops.mish import prepare as prepare_mish

ACTIVATIONS: dict[type[nn.Module], int] = {Mish: 0, nn.ReLU: 1, nn.SiLU: 2, nn.LeakyReLU: 3}  # csrc/norm_act_*
FUSED_TYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}


def fusion(norm: nn.Module, act: nn.Module, device: torch.device | str, dtype: torch.dtype) -> Dispatch | None:
    """The fused kernel that eager code runs for tensors of this device and type, or None if the modules are not fused.

    A static rule: exactly these classes, fp32 or bf16 (on a GPU also fp16), fp32 parameters. Nothing is built or run.
    Nothing is fused on a GPU whose kernels have failed their check (`prepare`).
    """
    device = torch.device(device)
    if not _may_fuse(norm, act, device.type, dtype):
        return None
    choice = expect(device)
    if not choice.implementation.startswith("ops.mish") or _wrong.get(device):
        return None
    return Dispatch(choice.implementation.replace("ops.mish", "ops.norm_act"), choice.reason)


def _may_fuse(norm: nn.Module, act: nn.Module, device: str, dtype: torch.dtype) -> bool:
    if type(norm) is not nn.BatchNorm2d or type(act) not in ACTIVATIONS or dtype not in FUSED_TYPES.get(device, ()):
        return False
    return all(value is None or value.dtype == torch.float32 for value in (norm.weight, norm.bias, norm.running_mean))


def norm_act(x: Tensor, norm: nn.Module, act: nn.Module) -> Tensor:
    """act(norm(x)) for x (B, C, H, W), fused if `fusion` allows it and no hook or tracer observes the modules."""
    if not isinstance(norm, nn.BatchNorm2d) or _is_plain(x, norm, act):
        return act(norm(x))
    use_batch = norm.training or norm.running_mean is None
    factor = 0.0
    if norm.training and norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        factor = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    running = (norm.running_mean, norm.running_var)
    slope = act.negative_slope if isinstance(act, nn.LeakyReLU) else 0.0
    options = (use_batch, factor, norm.eps, ACTIVATIONS[type(act)], slope)
    return _NormAct.apply(_layout(x)[0], norm.weight, norm.bias, *running, *options)


def _is_plain(x: Tensor, norm: nn.Module, act: nn.Module) -> bool:
    """Whether the two modules run one after the other: they cannot be fused, or are hooked or traced."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not Tensor or x.dim() != 4:
        return True
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0 or _has_any_global_hook():
        return True
    if _is_hooked(norm) or _is_hooked(act) or not _may_fuse(norm, act, x.device.type, x.dtype):
        return True
    if x.numel() <= x.shape[1] or x.shape[1] != norm.num_features:
        return True  # too few values or wrong channels: let PyTorch raise its error
    return not _is_usable(x.device)


def _is_hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


# ------------------------------------------------------------------------------------------------------------ operators

_LIBRARY = torch.library.Library("yolo", "FRAGMENT")


def _layout(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """x in a layout that the kernels support (x itself if possible), and its shape as (outer, channels, inner)."""
    batch, channels, height, width = x.shape
    if x.is_contiguous():
        return x, (batch, channels, height * width)
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous(), (batch, channels, height * width)
    return x, (batch * height * width, channels, 1)


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """grad in the layout of x."""
    return grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)


def _call(name: str, x: Tensor, shape: tuple[int, int, int], *arguments: Tensor | float | None) -> None:
    kernels = choose(x.device).kernels
    if kernels is None:
        raise RuntimeError(f"yolo::{name} has no kernel on {x.device}")
    device = x.device
    for value in arguments:
        if isinstance(value, Tensor) and (value.device != device or (value.dim() == 1 and not value.is_contiguous())):
            raise RuntimeError(f"yolo::{name} expects contiguous norm parameters on {device}, the device of x")
    kernels.call(name, TYPES[x.dtype], *shape, *arguments)


def _statistics(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, factor: float
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel; the running statistics are updated with momentum `factor`."""
    x, shape = _layout(x)
    mean, variance = _channels(x), _channels(x)
    _call("norm_statistics", x, shape, x, mean, variance, running_mean, running_var, factor)
    return mean, variance


def _forward(x: Tensor, *parameters: Tensor | float | None) -> Tensor:
    """act((x - mean) / sqrt(variance + eps) weight + bias); `parameters`: those of _NORM, act and slope."""
    x, shape = _layout(x)
    y = torch.empty_like(x)
    _call("norm_act_forward", x, shape, x, *parameters, y)
    return y


def _reduce(grad: Tensor, x: Tensor, *parameters: Tensor | float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the activation's input, of weight and of bias; `parameters` as for `_forward`."""
    x, shape = _layout(x)
    g, by_weight, by_bias = torch.empty_like(x), _channels(x), _channels(x)
    _call("norm_act_reduce", x, shape, x, _like(grad, x), *parameters, g, by_weight, by_bias)
    return g, by_weight, by_bias


def _backward(
    g: Tensor,
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    by_weight: Tensor,
    by_bias: Tensor,
    eps: float,
    count: int,
) -> None:
    """Turn g of `_reduce` into the gradient of x in place. `count`: values per channel, 0 for fixed statistics."""
    x, shape = _layout(x)
    _call("norm_act_backward", x, shape, x, mean, variance, weight, by_weight, by_bias, eps, count, g)


def _fake_of(x: Tensor) -> Tensor:
    return torch.empty_like(_layout(x)[0])


def _channels(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], dtype=torch.float32)


def _register(schema: str, kernel: Callable[..., object], fake: Callable[..., object]) -> torch._ops.OpOverload:
    """Define an operator yolo::NAME with one kernel for CPU and CUDA; `fake` gives its results on fake tensors."""
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema.partition("(")[0]
    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(name, kernel, device)
    torch.library.register_fake(f"yolo::{name}", fake, lib=_LIBRARY)
    operator: torch._ops.OpOverload = getattr(torch.ops.yolo, name).default
    return operator


_NORM = "Tensor mean, Tensor variance, Tensor? weight, Tensor? bias, float eps"
_STATISTICS = _register(
    "norm_statistics(Tensor x, Tensor(a!)? running_mean, Tensor(b!)? running_var, float factor) -> (Tensor, Tensor)",
    _statistics,
    lambda x, *_: (_channels(x), _channels(x)),
)
_FORWARD = _register(
    f"norm_act_forward(Tensor x, {_NORM}, int act, float slope) -> Tensor",
    _forward,
    lambda x, *_: _fake_of(x),
)
_REDUCE = _register(
    f"norm_act_reduce(Tensor grad, Tensor x, {_NORM}, int act, float slope) -> (Tensor, Tensor, Tensor)",
    _reduce,
    lambda grad, x, *_: (_fake_of(x), _channels(x), _channels(x)),
)
_BACKWARD = _register(
    "norm_act_backward(Tensor(a!) g, Tensor x, Tensor mean, Tensor variance, Tensor? weight, Tensor by_weight, "
    "Tensor by_bias, float eps, int count) -> ()",
    _backward,
    lambda *_: None,
)


# ------------------------------------------------------------------------------------------------------------- autograd


class _NormAct(torch.autograd.Function):
    """Fused norm and activation; saves x and four arrays of one value per channel."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        use_batch: bool,
        factor: float,
        eps: float,
        act: int,
        slope: float,
    ) -> Tensor:
        """`use_batch`: normalise by the statistics of x and update the running ones with momentum `factor`."""
        if use_batch or running_mean is None or running_var is None:
            running = (running_mean, running_var) if factor else (None, None)
            mean, variance = _STATISTICS(x, *running, factor)
        else:
            mean, variance = running_mean.clone(), running_var.clone()
        ctx.save_for_backward(x, mean, variance, weight, bias)
        ctx.options = (use_batch, eps, act, slope)
        return _FORWARD(x, mean, variance, weight, bias, eps, act, slope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, weight, bias = ctx.saved_tensors
        use_batch, eps, act, slope = ctx.options
        if torch.is_grad_enabled():  # for higher derivatives use PyTorch's operators
            return *_plain_gradients(ctx, grad, x, mean, variance, weight, bias), *[None] * 7
        by_x, by_weight, by_bias = _REDUCE(grad, x, mean, variance, weight, bias, eps, act, slope)
        if ctx.needs_input_grad[0]:
            count = x.numel() // x.shape[1] if use_batch else 0
            _BACKWARD(by_x, x, mean, variance, weight, by_weight, by_bias, eps, count)
        gradients = zip((by_x, by_weight, by_bias), ctx.needs_input_grad, strict=False)
        return *(gradient if needed else None for gradient, needed in gradients), *[None] * 7


_PLAIN = {0: nn.functional.mish, 1: nn.functional.relu, 2: nn.functional.silu}


def _activation(z: Tensor, act: int, slope: float) -> Tensor:
    """The activation by PyTorch's operator."""
    return nn.functional.leaky_relu(z, slope) if act == 3 else _PLAIN[act](z)


def _plain_gradients(
    ctx: Any, grad: Tensor, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias by PyTorch's operators, which are differentiable again."""
    use_batch, eps, act, slope = ctx.options
    running_mean, running_var = (None, None) if use_batch else (mean, variance)
    z = nn.functional.batch_norm(x, running_mean, running_var, weight, bias, use_batch, 0.0, eps)
    y = _activation(z, act, slope)
    inputs = zip((x, weight, bias), ctx.needs_input_grad, strict=False)
    inputs_with_grad = [tensor for tensor, needed in inputs if needed and tensor is not None]
    gradients = iter(torch.autograd.grad(y, inputs_with_grad, grad, create_graph=True))
    return tuple(next(gradients) if needed else None for needed in ctx.needs_input_grad[:3])


# ----------------------------------------------------------------------------------------------- check before first use

_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}  # relative to an array's largest value
_RESULTS = ("output", "gradient of x", "gradient of weight", "gradient of bias", "running mean", "running variance")
_wrong: dict[torch.device, str] = {}  # GPU -> how its kernels differ from PyTorch, "" if they do not


def prepare(device: torch.device | str) -> Dispatch:
    """As ops.mish.prepare; on a GPU, also compare the fused kernels with PyTorch's operators, which takes a moment."""
    prepared = prepare_mish(device)
    _is_usable(torch.device(device))
    return prepared


def _is_usable(device: torch.device) -> bool:
    """Whether fused kernels are available and have passed their check."""
    kernels = choose(device).kernels
    if isinstance(kernels, CudaKernels) and device not in _wrong:
        try:
            _wrong[device] = _difference(device)
        except RuntimeError as error:
            _wrong[device] = str(error)
        if _wrong[device]:
            effect = f"batch norm and activation run unfused on {device}, slower"
            say(f"{effect}: {_wrong[device]}; please report this line; model.norm_act=plain skips the check")
    return kernels is not None and not _wrong.get(device)


@torch.inference_mode(False)
@torch.enable_grad()
def _difference(device: torch.device) -> str:
    """How the fused kernels differ from PyTorch in fp64 on the CPU, in words; empty if they do not."""
    shapes = ((2, 24, 4, 6), (3, 5, 3, 3))  # with and without rows of whole 16-byte pieces
    layouts = (torch.contiguous_format, torch.channels_last)
    for dtype, act, shape, layout in product(_TOLERANCES, ACTIVATIONS.values(), shapes, layouts):
        numbers = torch.arange(2.0 * math.prod(shape), device="cpu").mul(1.7).sin().reshape(2, *shape)
        x, dy = (values.to(dtype).to(memory_format=layout) for values in numbers)
        options = (True, 0.1, 1e-3, act, 0.1)
        expected = _pass(_unfused, options, x.double(), dy.double())
        computed = _pass(_NormAct.apply, options, x.to(device), dy.to(device))
        for name, value, reference in zip(_RESULTS, computed, expected, strict=True):
            error = ((value - reference).abs().max() / reference.abs().max()).item()
            if not error <= _TOLERANCES[dtype]:  # also true for NaN
                case = f"activation {act}, {dtype}, {shape}, {layout}"
                return f"{name} differs from PyTorch's by {error:.2g} of its largest value ({case})"
    return ""


def _unfused(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor,
    use_batch: bool, factor: float, eps: float, act: int, slope: float,
) -> Tensor:  # fmt: skip
    """As _NormAct.apply, by PyTorch's operators."""
    return _activation(nn.functional.batch_norm(x, mean, variance, weight, bias, use_batch, factor, eps), act, slope)


def _pass(function: Callable[..., Tensor], options: tuple[bool | float, ...], x: Tensor, dy: Tensor) -> list[Tensor]:
    """The _RESULTS of one forward and backward pass, in fp64 on the CPU."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    weight, bias = (torch.linspace(low, low + 1, x.shape[1], dtype=dtype, device=x.device) for low in (0.5, -0.5))
    running = (torch.zeros_like(weight), torch.ones_like(weight))
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    y = function(*leaves, *running, *options)
    return [tensor.detach().cpu().double() for tensor in (y, *torch.autograd.grad(y, leaves, dy), *running)]
