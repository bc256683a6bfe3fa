"""The four operators of the fused batch norm and activation (yolo::norm_statistics, norm_act_forward, norm_act_reduce,
norm_act_backward): their schemas, kernels and fake kernels.

They serve dispatch modes and direct callers, so they check what they are given; ops/norm_act.py runs the same passes
without the dispatcher where nothing observes it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ops.backend import choose
from ops.groups import ACTS
from ops.kernels import TYPES, demand_one_device, described, is_like

_LIBRARY = torch.library.Library("yolo", "FRAGMENT")


def layout(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """x in a layout that the kernels support (x itself if possible), and its shape as (outer, channels, inner)."""
    batch, channels, height, width = x.shape
    if x.is_contiguous():
        return x, (batch, channels, height * width)
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous(), (batch, channels, height * width)
    return x, (batch * height * width, channels, 1)


def in_layout_of(x: Tensor, grad: Tensor) -> Tensor:
    """grad in the layout of x."""
    return grad if grad.stride() == x.stride() else torch.empty_like(x).copy_(grad)


def _statistics(
    x: Tensor, running_mean: Tensor | None, running_var: Tensor | None, factor: float
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel; the running statistics are updated with momentum `factor`."""
    _check("norm_statistics", x, running_mean=running_mean, running_var=running_var)
    _demand((running_mean is None) == (running_var is None), "norm_statistics", "both running statistics or neither")
    x, shape = layout(x)
    mean, variance = _channels(x), _channels(x)
    _call("norm_statistics", x, shape, x, mean, variance, running_mean, running_var, factor)
    return mean, variance


def _forward(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None,
    eps: float, act: int, slope: float,
) -> Tensor:  # fmt: skip
    """act((x - mean) / sqrt(variance + eps) weight + bias)."""
    _check("norm_act_forward", x, mean=mean, variance=variance, weight=weight, bias=bias)
    _demand(0 <= act < ACTS, "norm_act_forward", f"an activation from 0 to {ACTS - 1}, not {act}")
    x, shape = layout(x)
    y = torch.empty_like(x)
    _call("norm_act_forward", x, shape, x, mean, variance, weight, bias, eps, act, slope, y)
    return y


def _reduce(
    grad: Tensor, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None,
    eps: float, act: int, slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of the activation's input, of weight and of bias."""
    _check("norm_act_reduce", x, grad, mean=mean, variance=variance, weight=weight, bias=bias)
    _demand(0 <= act < ACTS, "norm_act_reduce", f"an activation from 0 to {ACTS - 1}, not {act}")
    x, shape = layout(x)
    g, by_weight, by_bias = torch.empty_like(x), _channels(x), _channels(x)
    parameters = (mean, variance, weight, bias, eps, act, slope)
    _call("norm_act_reduce", x, shape, x, in_layout_of(x, grad), *parameters, g, by_weight, by_bias)
    return g, by_weight, by_bias


def _backward(
    g: Tensor, x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, by_weight: Tensor, by_bias: Tensor,
    eps: float, count: int,
) -> None:  # fmt: skip
    """Turn g of `_reduce` into the gradient of x in place. `count`: values per channel, 0 for fixed statistics."""
    arrays = {"mean": mean, "variance": variance, "weight": weight, "by_weight": by_weight, "by_bias": by_bias}
    _check("norm_act_backward", x, g, **arrays)
    x, shape = layout(x)
    _demand(g.stride() == x.stride(), "norm_act_backward", "g in the memory layout of x")
    _demand(count >= 0, "norm_act_backward", f"a count of values, not {count}")
    _call("norm_act_backward", x, shape, x, mean, variance, weight, by_weight, by_bias, eps, count, g)


def _check(name: str, x: Tensor, like: Tensor | None = None, **arrays: Tensor | None) -> None:
    """RuntimeError unless x (B, C, H, W) is of a fused type, `like` like x, and the others one fp32 value a channel."""
    kernels = choose(x.device).kernels
    if kernels is None:
        raise RuntimeError(f"yolo::{name} has no kernel on {x.device}")
    fits = x.dim() == 4 and x.numel() > 0 and x.dtype in kernels.fused_types
    _demand(fits, name, f"x (B, C, H, W) in {' or '.join(map(str, kernels.fused_types))}, not {described(x)}")
    if like is not None and not is_like(like, x):
        _demand(False, name, f"a gradient like x, {described(x)}, not {described(like)}")
    for key, array in arrays.items():
        right = array is None or (
            array.shape == x.shape[1:2] and array.dtype == torch.float32 and array.device == x.device
        )
        if array is not None and not (right and array.is_contiguous()):
            wanted = f"{key} contiguous and on {x.device}, with {x.shape[1]} values in torch.float32"
            _demand(False, name, f"{wanted}, not {described(array)}")


def _demand(given: bool, name: str, expected: str) -> None:
    if not given:
        raise RuntimeError(f"yolo::{name} expects {expected}")


def _call(name: str, x: Tensor, shape: tuple[int, int, int], *arguments: Tensor | float | None) -> None:
    kernels = choose(x.device).kernels
    assert kernels is not None  # _check has raised
    kernels.call(name, TYPES[x.dtype], *shape, *arguments)


def _fake_of(x: Tensor) -> Tensor:
    return torch.empty_like(layout(x)[0])


def _channels(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1], dtype=torch.float32)


def _register(schema: str, kernel: Callable[..., object], fake: Callable[..., object]) -> torch._ops.OpOverload:
    """Define an operator yolo::NAME with one kernel for CPU and CUDA; `fake` gives its results on fake tensors."""
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema.partition("(")[0]
    for device in ("CPU", "CUDA"):
        _LIBRARY.impl(name, kernel, device)

    def checked_fake(*arguments: object) -> object:
        demand_one_device(name, *arguments)
        return fake(*arguments)

    torch.library.register_fake(f"yolo::{name}", checked_fake, lib=_LIBRARY)
    operator: torch._ops.OpOverload = getattr(torch.ops.yolo, name).default
    return operator


_NORM = "Tensor mean, Tensor variance, Tensor? weight, Tensor? bias, float eps"
STATISTICS = _register(
    "norm_statistics(Tensor x, Tensor(a!)? running_mean, Tensor(b!)? running_var, float factor) -> (Tensor, Tensor)",
    _statistics,
    lambda x, *_: (_channels(x), _channels(x)),
)
FORWARD = _register(
    f"norm_act_forward(Tensor x, {_NORM}, int act, float slope) -> Tensor",
    _forward,
    lambda x, *_: _fake_of(x),
)
REDUCE = _register(
    f"norm_act_reduce(Tensor grad, Tensor x, {_NORM}, int act, float slope) -> (Tensor, Tensor, Tensor)",
    _reduce,
    lambda grad, x, *_: (_fake_of(x), _channels(x), _channels(x)),
)
BACKWARD = _register(
    "norm_act_backward(Tensor(a!) g, Tensor x, Tensor mean, Tensor variance, Tensor? weight, Tensor by_weight, "
    "Tensor by_bias, float eps, int count) -> ()",
    _backward,
    lambda *_: None,
)
