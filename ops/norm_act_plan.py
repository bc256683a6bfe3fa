"""How calls of ops.norm_act run for one shape, layout, type and options: passes bound to all but addresses."""

import functools
from typing import NamedTuple

import torch

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
    """The passes of a call, bound to everything but addresses."""

    forward: Pass  # preceded by the statistics of x if they are used
    reduce: Pass
    gradients: Pass  # reduce, and the gradient of x


class Plan:
    """How calls run for one shape, layout, type and options."""

    def __init__(
        self, kernels: Kernels, device: torch.device, dtype: torch.dtype, shape: torch.Size, strides: tuple[int, ...],
        options: Options,
    ):  # fmt: skip
        self.kernels, self.device, self.dtype, self.shape, self.options = kernels, device, dtype, shape, options
        self.empty, self.size, self.strides = kernels.empty, tuple(shape), strides
        self.use_batch, self.channels, self.count = options.use_batch, shape[1], shape.numel()
        self.updates = not options.use_batch or options.factor != 0  # or reads them: the running statistics
        self.format = _format(shape, strides)

    # Made when they are first needed, in a direct call.

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
        count = outer * inner if use_batch else 0

        def bind(*names: str) -> Pass:
            return self.kernels.bind(
                names, TYPES[self.dtype], outer, channels, inner, aligned,
                eps=eps, act=act, slope=slope, factor=factor, count=count,
            )  # fmt: skip

        return Passes(
            bind("norm_statistics", "norm_act_forward") if use_batch else bind("norm_act_forward"),
            bind("norm_act_reduce"),
            bind("norm_act_reduce", "norm_act_backward"),
        )


def _format(shape: torch.Size, strides: tuple[int, ...]) -> torch.memory_format | None:
    """The layout of a tensor (B, C, H, W) that the kernels support, None for any other."""
    for order, found in (((3, 2, 1, 0), torch.contiguous_format), ((1, 3, 2, 0), torch.channels_last)):
        expected = 1
        for dim in order:
            if shape[dim] != 1 and strides[dim] != expected:
                break
            expected *= shape[dim]
        else:
            return found
    return None
