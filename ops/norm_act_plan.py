"""How calls of ops.norm_act run for one shape, layout, type and options: passes bound to all but addresses."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops.kernels import TYPES, Kernels, Pass


class Options(NamedTuple):
    """What a fused call computes: `use_batch` normalises by the statistics of x, and updates the running ones with
    momentum `factor`; `act` is one of ACTIVATIONS."""

    use_batch: bool
    factor: float
    eps: float
    act: int
    slope: float


class Passes(NamedTuple):
    """The four passes, bound to everything but addresses."""

    statistics: Pass
    forward: Pass
    reduce: Pass
    backward: Pass


class Plan:
    """How calls run for one shape, layout, type and options."""

    def __init__(
        self, kernels: Kernels, device: torch.device, dtype: torch.dtype, shape: torch.Size, last: bool,
        options: Options,
    ):  # fmt: skip
        self.kernels, self.device, self.dtype, self.shape, self.options = kernels, device, dtype, shape, options
        self.use_batch, self.channels = options.use_batch, shape[1]
        self.updates = not options.use_batch or options.factor != 0  # or reads them: the running statistics
        self.format = torch.channels_last if last else torch.contiguous_format

    # Made when they are first needed, in a direct call: no mode sees or replaces what they allocate.

    @functools.cached_property
    def new(self) -> Callable[..., Tensor]:
        """Allocates fp32 of a shape: the method of a tensor, which takes a third less time than torch.empty."""
        return torch.empty(0, dtype=torch.float32, device=self.device).new_empty

    @functools.cached_property
    def aligned(self) -> Passes:
        """The passes for arrays of x's shape that begin at multiples of ALIGNMENT."""
        return self._bind(aligned=True)

    @functools.cached_property
    def unaligned(self) -> Passes:
        """The passes for all others."""
        return self._bind(aligned=False)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """(outer, channels, inner) for the kernels."""
        batch, channels, height, width = self.shape
        if self.format == torch.channels_last:
            return batch * height * width, channels, 1
        return batch, channels, height * width

    def _bind(self, *, aligned: bool) -> Passes:
        outer, channels, inner = self.sizes
        use_batch, factor, eps, act, slope = self.options

        def bind(name: str, **numbers: Any) -> Pass:
            return self.kernels.bind(name, TYPES[self.dtype], outer, channels, inner, aligned, **numbers)

        forward = bind("norm_act_forward", eps=eps, act=act, slope=slope)  # first: its name has the group to load
        return Passes(
            bind("norm_statistics", factor=factor),
            forward,
            bind("norm_act_reduce", eps=eps, act=act, slope=slope),
            bind("norm_act_backward", eps=eps, count=outer * inner if use_batch else 0),
        )
