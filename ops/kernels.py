"""What the kernels of all devices share: element types, and the passes of the fused batch norm by name and arguments.

A pass is bound once to everything that stays the same from call to call (shape, type, activation, constants) and then
takes addresses only: a small network calls hundreds a step, and the host must not take longer than the device.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ops.grid import POINTERS

TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}  # same as in csrc/mish_cpu.cpp
NAMES = {
    number: str(dtype).removeprefix("torch.") for dtype, number in TYPES.items()
}  # part of the names of the CUDA kernels
ALIGNMENT = 16  # bytes: the pieces by which GPUs access memory

ARRAYS = POINTERS[:-1]  # all but the scratch memory
_NORM_ACT = ("mean", "variance", "weight", "bias", "eps", "act", "slope")
ARGUMENTS = {  # of the functions of csrc/norm_act_cpu.cpp after type and shape, by their names in ops/grid.py
    "norm_statistics": ("x", "mean", "variance", "running_mean", "running_var", "factor"),
    "norm_act_forward": ("x", *_NORM_ACT, "out"),
    "norm_act_reduce": ("x", "dy", *_NORM_ACT, "out", "by_weight", "by_bias"),
    "norm_act_backward": ("x", "mean", "variance", "weight", "by_weight", "by_bias", "eps", "count", "out"),
}

Map = Callable[[int, int, int], None]  # takes the addresses of x, g and the result
Pass = Callable[..., None]  # takes the addresses of ARRAYS in this order, 0 for those that are missing or unused


class Kernels(ABC):
    """Compiled kernels of one device; `name` and `origin` are for the user.

    `empty`, maps and passes are for callers that have seen to it that the device is the current one (`is_current`,
    `guard`).
    """

    name: str
    origin: str
    fused_types: tuple[torch.dtype, ...]  # of x in the passes of the batch norm
    # An uninitialised tensor by shape, strides and type, in less than half the time of torch.empty_like: no dispatcher.
    empty: Callable[[tuple[int, ...], tuple[int, ...], torch.dtype], Tensor]

    def is_current(self) -> bool:
        """Whether PyTorch's current device is this one."""
        return True

    def guard(self) -> AbstractContextManager[object]:
        """Makes this device the current one."""
        return nullcontext()

    @abstractmethod
    def bind_map(self, order: int, dtype: torch.dtype, count: int) -> Map:
        """mish(x), g mish'(x) or g mish''(x), for `order` 0, 1 or 2, over `count` values of a type, one at least."""

    def map(self, order: int, x: Tensor, g: Tensor, out: Tensor) -> None:
        """Bind a map and run it: dense tensors of the same layout and type."""
        self.bind_map(order, x.dtype, x.numel())(x.data_ptr(), g.data_ptr(), out.data_ptr())

    @abstractmethod
    def bind(
        self, names: Sequence[str], kind: int, outer: int, channels: int, inner: int, aligned: bool, **numbers: Any
    ) -> Pass:
        """Passes over x (outer, channels, inner), one after the other, with inner = 1 for channels_last, of the type
        `kind` of TYPES.

        `aligned`: the arrays of x's shape begin at multiples of ALIGNMENT. `numbers`: those of ARGUMENTS of the passes.
        """

    def call(
        self, name: str, kind: int, outer: int, channels: int, inner: int, *arguments: float | Tensor | None
    ) -> None:
        """Bind a pass and run it, for ARGUMENTS[name]: numbers, and tensors of this device or None."""
        given: dict[str, Any] = dict(zip(ARGUMENTS[name], arguments, strict=True))
        addresses = {key: address(given.pop(key)) for key in ARRAYS if key in given}
        large = (addresses.get(key, 0) for key in ("x", "dy", "out"))
        aligned = not any(each % ALIGNMENT for each in large)
        with self.guard():
            run = self.bind((name,), kind, outer, channels, inner, aligned, **given)
            run(*(addresses.get(key, 0) for key in ARRAYS))


def address(tensor: Tensor | None) -> int:
    """Where a tensor's values begin; 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


PLAIN_TENSORS = (Tensor, nn.Parameter)


def _other_dispatch_keys() -> int:
    """The bits of all dispatch keys but those that ordinary tensors on the CPU and on CUDA have."""
    names = ("CPU", "CUDA", "AutogradCPU", "AutogradCUDA", "AutocastCPU", "AutocastCUDA", "ADInplaceOrView")
    ordinary = 0
    for name in names:
        ordinary |= torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name)).raw_repr()
    return ~ordinary


_OTHERS = _other_dispatch_keys()


_dispatch_modes, _are_transforms_active = torch._C._len_torch_dispatch_stack, torch._C._are_functorch_transforms_active
_is_profiled, _keys = torch._C._autograd._profiler_enabled, torch._C._dispatch_keys


def is_direct(x: Tensor) -> bool:
    """Whether kernels may take the values of x without the dispatcher: x is an ordinary tensor, and no dispatch mode,
    profiler, transform or forward derivative is on that would have to see an operator."""
    return not (
        type(x) not in PLAIN_TENSORS
        or _dispatch_modes()
        or _are_transforms_active()
        or forward_ad._current_level >= 0
        or _is_profiled()
        or _keys(x).raw_repr() & _OTHERS  # batched, negative, zero, wrapped by a transform
    )


def is_like(grad: Tensor, x: Tensor) -> bool:
    """Whether a gradient has the type, device and shape of x, which hooks of saved tensors might have changed."""
    return grad.dtype is x.dtype and grad.get_device() == x.get_device() and grad.shape == x.shape


def demand_one_device(name: str, *arguments: object) -> None:
    """RuntimeError unless all tensors are on one device: for fake kernels, which run if any of them is on meta."""
    devices = {argument.device for argument in arguments if isinstance(argument, Tensor)}
    if len(devices) > 1:
        found = " and ".join(sorted(map(str, devices)))
        raise RuntimeError(f"yolo::{name} expects all tensors on one device, not on {found}")


def described(tensor: Tensor) -> str:
    """Shape, type and device, for error messages."""
    return f"{tuple(tensor.shape)} in {tensor.dtype} on {tensor.device}"
