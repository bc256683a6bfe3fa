"""Batch norm and activation in one: `norm_act(x, norm, act)` is `act(norm(x))` for two ordinary modules.

Where a fused kernel serves them (csrc/norm_act_cpu.cpp, norm_act_cuda.cu), memory is passed over 3 times forward and 5
times backward instead of 5 and 8 times, and one tensor is kept for the backward pass, the input. Which pairs are fused
is a static rule, `fusion`; all others run as they stand and give the same numbers. Parameters, buffers and state_dict
are the modules' own.

Training is four operators, so that a SyncBatchNorm could exchange its sums between them: `norm_statistics`,
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
from ops.mish import Mish, Plan
from ops.mish import prepare as prepare_mish

ACTIVATIONS: dict[type[nn.Module], int] = {Mish: 0, nn.ReLU: 1, nn.SiLU: 2, nn.LeakyReLU: 3}  # csrc/norm_act_*
FUSED_TYPES = {
    "cpu": (torch.float32, torch.bfloat16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
}


def fusion(norm: nn.Module, act: nn.Module, device: torch.device | str, dtype: torch.dtype) -> Plan | None:
    """What runs the pair as one on tensors of this device and type in eager code; None where it is not fused.

    A static rule: these classes exactly, fp32 or bf16, on a GPU fp16 too, fp32 parameters. Nothing is built or run.
    Where the kernels of a GPU have been found wrong already (`prepare`), nothing is fused.
    """
    device = torch.device(device)
    if not _may_fuse(norm, act, device.type, dtype):
        return None
    choice = expect(device)
    if not choice.implementation.startswith("ops.mish") or _wrong.get(device):
        return None
    return Plan(choice.implementation.replace("ops.mish", "ops.norm_act"), choice.reason)


def _may_fuse(norm: nn.Module, act: nn.Module, device: str, dtype: torch.dtype) -> bool:
    if type(norm) is not nn.BatchNorm2d or type(act) not in ACTIVATIONS or dtype not in FUSED_TYPES.get(device, ()):
        return False
    return all(each is None or each.dtype == torch.float32 for each in (norm.weight, norm.bias, norm.running_mean))


def norm_act(x: Tensor, norm: nn.Module, act: nn.Module) -> Tensor:
    """act(norm(x)) for x (B, C, H, W), fused where `fusion` says so and nothing looks into the modules' calls."""
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
    """Whether the two modules run one after the other: not a fused pair, or somebody watches or traces them."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not Tensor or x.dim() != 4:
        return True
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0 or _has_any_global_hook():
        return True
    if _is_hooked(norm) or _is_hooked(act) or not _may_fuse(norm, act, x.device.type, x.dtype):
        return True
    if x.numel() <= x.shape[1] or x.shape[1] != norm.num_features:
        return True  # too few values or wrong channels: the error is PyTorch's to give
    return not _serve(x.device)


def _is_hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks)


# ------------------------------------------------------------------------------------------------------------ operators

_LIBRARY = torch.library.Library("yolo", "FRAGMENT")
_NORM = "Tensor mean, Tensor variance, Tensor? weight, Tensor? bias, float eps"
for _schema in (
    "norm_statistics(Tensor x, Tensor(a!)? running_mean, Tensor(b!)? running_var, float factor) -> (Tensor, Tensor)",
    f"norm_act_forward(Tensor x, {_NORM}, int act, float slope) -> Tensor",
    f"norm_act_reduce(Tensor grad, Tensor x, {_NORM}, int act, float slope) -> (Tensor, Tensor, Tensor)",
    "norm_act_backward(Tensor(a!) g, Tensor x, Tensor mean, Tensor variance, Tensor? weight, Tensor by_weight, "
    "Tensor by_bias, float eps, int count) -> ()",
):
    _LIBRARY.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))


def _layout(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """x in a layout of the kernels, itself where it has one, and that as (outer, channels, inner)."""
    batch, channels, height, width = x.shape
    if x.is_contiguous():
        return x, (batch, channels, height * width)
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous(), (batch, channels, height * width)
    return x, (batch * height * width, channels, 1)


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """grad in the layout of x."""
    return grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)


def _call(name: str, x: Tensor, *arguments: Any) -> None:
    kernels = choose(x.device).kernels
    if kernels is None:
        raise RuntimeError(f"yolo::{name} has no kernel on {x.device}")
    device = x.device
    for each in arguments:
        if isinstance(each, Tensor) and (each.device != device or (each.dim() == 1 and not each.is_contiguous())):
            raise RuntimeError(f"yolo::{name} wants the arrays of a norm contiguous and on {device}, as x is")
    kernels.call(name, TYPES[x.dtype], *arguments)


def _statistics(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, factor: float
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel; the running ones are moved towards them by `factor`."""
    x, shape = _layout(x)
    mean, variance = _channels(x), _channels(x)
    _call("norm_statistics", x, *shape, x, mean, variance, running_mean, running_var, factor)
    return mean, variance


def _forward(x: Tensor, *pair: Any) -> Tensor:
    """act((x - mean) / sqrt(variance + eps) weight + bias); `pair`: _NORM's arguments, act and slope."""
    x, shape = _layout(x)
    y = torch.empty_like(x)
    _call("norm_act_forward", x, *shape, x, *pair, y)
    return y


def _reduce(grad: Tensor, x: Tensor, *pair: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of what the activation got, of weight and of bias; `pair` as for `_forward`."""
    x, shape = _layout(x)
    g, by_weight, by_bias = torch.empty_like(x), _channels(x), _channels(x)
    _call("norm_act_reduce", x, *shape, x, _like(grad, x), *pair, g, by_weight, by_bias)
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
    """Make of `_reduce`'s g the gradient of x. `count`: values a channel, 0 where the statistics are not x's own."""
    x, shape = _layout(x)
    _call("norm_act_backward", x, *shape, x, mean, variance, weight, by_weight, by_bias, eps, count, g)


def _fake_of(x: Tensor) -> Tensor:
    return torch.empty_like(_layout(x)[0])


def _channels(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], dtype=torch.float32)


for _name, _kernel, _fake in (
    ("norm_statistics", _statistics, lambda x, *_: (_channels(x), _channels(x))),
    ("norm_act_forward", _forward, lambda x, *_: _fake_of(x)),
    ("norm_act_reduce", _reduce, lambda grad, x, *_: (_fake_of(x), _channels(x), _channels(x))),
    ("norm_act_backward", _backward, lambda *_: None),
):
    for _key in ("CPU", "CUDA"):
        _LIBRARY.impl(_name, _kernel, _key)
    torch.library.register_fake(f"yolo::{_name}", _fake, lib=_LIBRARY)
_STATISTICS, _FORWARD, _REDUCE, _BACKWARD = (
    getattr(torch.ops.yolo, _name).default
    for _name in ("norm_statistics", "norm_act_forward", "norm_act_reduce", "norm_act_backward")
)


# ------------------------------------------------------------------------------------------------------------- autograd


class _NormAct(torch.autograd.Function):
    """The fused pair; keeps x and four arrays of one value a channel."""

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
        """`use_batch`: normalise by x's own statistics, and move the running ones towards them by `factor`."""
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
        if torch.is_grad_enabled():  # a derivative of this derivative is wanted: by PyTorch's operators
            return *_plain_gradients(ctx, grad, x, mean, variance, weight, bias), *[None] * 7
        by_x, by_weight, by_bias = _REDUCE(grad, x, mean, variance, weight, bias, eps, act, slope)
        if ctx.needs_input_grad[0]:
            count = x.numel() // x.shape[1] if use_batch else 0
            _BACKWARD(by_x, x, mean, variance, weight, by_weight, by_bias, eps, count)
        wanted = zip((by_x, by_weight, by_bias), ctx.needs_input_grad, strict=False)
        return *(each if wants else None for each, wants in wanted), *[None] * 7


_PLAIN = {0: nn.functional.mish, 1: nn.functional.relu, 2: nn.functional.silu}


def _activation(z: Tensor, act: int, slope: float) -> Tensor:
    """The activation by PyTorch's own operator."""
    return nn.functional.leaky_relu(z, slope) if act == 3 else _PLAIN[act](z)


def _plain_gradients(
    ctx: Any, grad: Tensor, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias by PyTorch's own operators, which can be derived again."""
    use_batch, eps, act, slope = ctx.options
    running_mean, running_var = (None, None) if use_batch else (mean, variance)
    z = nn.functional.batch_norm(x, running_mean, running_var, weight, bias, use_batch, 0.0, eps)
    y = _activation(z, act, slope)
    places = zip((x, weight, bias), ctx.needs_input_grad, strict=False)
    asked = [each for each, wanted in places if wanted and each is not None]
    found = iter(torch.autograd.grad(y, asked, grad, create_graph=True))
    return tuple(next(found) if wanted else None for wanted in ctx.needs_input_grad[:3])


# ---------------------------------------------------------------------------------------------- tried before it is used

_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}  # of an array's largest value
_RESULTS = ("output", "gradient of x", "gradient of weight", "gradient of bias", "running mean", "running variance")
_wrong: dict[torch.device, str] = {}  # what the kernels of a GPU compute otherwise than PyTorch; once a process and GPU


def prepare(device: torch.device | str) -> Plan:
    """As ops.mish.prepare; on a GPU the kernels of the pair are also compared with PyTorch's operators, in a moment."""
    chosen = prepare_mish(device)
    _serve(torch.device(device))
    return chosen


def _serve(device: torch.device) -> bool:
    """Whether there are kernels for the pair that compute what they should."""
    kernels = choose(device).kernels
    if isinstance(kernels, CudaKernels) and device not in _wrong:
        try:
            _wrong[device] = _difference(device)
        except RuntimeError as error:
            _wrong[device] = str(error)
        if _wrong[device]:
            what = "batch norm and activation run one after the other"
            asked = "please report this line; model.norm_act=plain does not try them"
            say(f"{what} on {device}, slower: {_wrong[device]}; {asked}")
    return kernels is not None and not _wrong.get(device)


@torch.inference_mode(False)
@torch.enable_grad()
def _difference(device: torch.device) -> str:
    """What the pair computes on this device otherwise than PyTorch in fp64 on the CPU, in words, or an empty string."""
    shapes = ((2, 24, 4, 6), (3, 5, 3, 3))  # whole pieces of 16 bytes, and not
    layouts = (torch.contiguous_format, torch.channels_last)
    for dtype, act, shape, layout in product(_TOLERANCES, ACTIVATIONS.values(), shapes, layouts):
        numbers = torch.arange(2.0 * math.prod(shape), device="cpu").mul(1.7).sin().reshape(2, *shape)
        x, dy = (each.to(dtype).to(memory_format=layout) for each in numbers)
        options = (True, 0.1, 1e-3, act, 0.1)
        expected = _pass(_plain_pair, options, x.double(), dy.double())
        found = _pass(_NormAct.apply, options, x.to(device), dy.to(device))
        for name, value, wanted in zip(_RESULTS, found, expected, strict=True):
            error = ((value - wanted).abs().max() / wanted.abs().max()).item()
            if not error <= _TOLERANCES[dtype]:  # NaN is not
                case = f"activation {act}, {dtype}, {shape}, {layout}"
                return f"{name} is not PyTorch's by {error:.2g} of its largest value ({case})"
    return ""


def _plain_pair(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor,
    use_batch: bool, factor: float, eps: float, act: int, slope: float,
) -> Tensor:  # fmt: skip
    """As _NormAct.apply, by PyTorch's operators."""
    return _activation(nn.functional.batch_norm(x, mean, variance, weight, bias, use_batch, factor, eps), act, slope)


def _pass(function: Callable[..., Tensor], options: tuple, x: Tensor, dy: Tensor) -> list[Tensor]:
    """The _RESULTS of one pass forward and backward, in fp64 on the CPU."""
    kind: Any = {"dtype": torch.float64 if x.dtype == torch.float64 else torch.float32, "device": x.device}
    weight, bias = (torch.linspace(low, low + 1, x.shape[1], **kind) for low in (0.5, -0.5))
    running = (torch.zeros_like(weight), torch.ones_like(weight))
    leaves = [each.requires_grad_() for each in (x, weight, bias)]
    y = function(*leaves, *running, *options)
    return [each.detach().cpu().double() for each in (y, *torch.autograd.grad(y, leaves, dy), *running)]
