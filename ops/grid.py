"""How the CUDA kernels of ops/norm_act.py cut up a tensor (csrc/norm_act_cuda.cu): by its shape alone, so that sums are
the same on every GPU. Nothing here touches one."""

import functools
import struct
from typing import NamedTuple

from torch import Tensor

THREADS, AT_ONCE = 256, 2  # as in csrc/cuda_pieces.h and norm_act_cuda.cu
PIECES, ELEMENTS = 16, 64  # most that a strip has side by side; csrc/norm_act_cuda.cu has room for 128 channels
BLOCKS = 1024  # of a sum; others have more where a block would get over LARGEST elements
SMALLEST, LARGEST = 2048, 16384  # elements of a block
MOST_SPLITS = 65535  # as CUDA has it for a grid's second number

POINTERS = (
    *("x", "dy", "out", "mean", "variance", "weight", "bias", "running_mean", "running_var"),
    *("by_weight", "by_bias", "partial"),
)
CALL = struct.Struct(f"@{len(POINTERS)}P6q8i3f0q")  # the struct Call of csrc/norm_act_cuda.cu


class Grid(NamedTuple):
    """Kernel's way, blocks (strips of channels, splits of their values), and what a Call holds of both."""

    way: str
    blocks: tuple[int, int]
    long: tuple[int, ...]
    short: tuple[int, ...]

    def call(
        self, *, count: int = 0, eps: float = 0.0, slope: float = 0.0, factor: float = 0.0, **tensors: Tensor | None
    ) -> bytes:
        """The Call of a kernel: the tensors by their names in POINTERS, those that are missing or None as null."""
        found = map(tensors.get, POINTERS)
        pointers = [0 if tensor is None else tensor.data_ptr() for tensor in found]
        return CALL.pack(*pointers, *self.long, count, *self.short, eps, slope, factor)


def cut(outer: int, channels: int, inner: int, large: tuple[Tensor, ...], *, sums: bool) -> Grid:
    """The grid for x (outer, channels, inner), with inner = 1 for channels_last; `large`: all tensors of x's shape.

    Pieces of 16 bytes are moved where all of them are aligned and rows hold whole pieces.
    """
    width = 16 // large[0].element_size()
    if (channels if inner == 1 else inner) % width or any(tensor.data_ptr() % 16 for tensor in large):
        width = 1
    return _cut(outer, channels, inner, width, sums)


@functools.lru_cache(maxsize=4096)
def _cut(outer: int, channels: int, inner: int, width: int, sums: bool) -> Grid:
    if inner == 1:
        most = PIECES if width > 1 else ELEMENTS
        across = channels // width
        columns = _up(across, _up(across, most))
        strips = _up(across, columns)
        lanes, rows = THREADS // columns, 1
        planes, positions, plane_step, channel_step, step = 1, outer, 0, 1, channels
    else:
        columns, strips = 1, channels
        planes, positions, plane_step, channel_step, step = outer, inner // width, channels * inner, inner, width
        lanes = 8  # then up to where a thread has two tiles of a plane, or where no thread is without a plane
        while lanes < THREADS and (lanes * 2 * AT_ONCE < positions or THREADS // lanes > outer):
            lanes *= 2
        rows = THREADS // lanes
    elements = outer * channels * inner
    blocks = _up(elements, max(SMALLEST, min(LARGEST, elements // BLOCKS)))
    splits = min(_up(min(blocks, BLOCKS) if sums else blocks, strips), MOST_SPLITS)
    plane_span = _up(planes, rows * min(splits, _up(planes, rows))) * rows
    plane_parts = _up(planes, plane_span)
    tile = AT_ONCE * lanes
    span = _up(positions, tile * max(1, splits // plane_parts)) * tile
    parts = _up(positions, span)
    return Grid(
        "scalar" if width == 1 else "across" if inner == 1 else "along",
        (strips, parts * plane_parts),
        (planes, plane_span, plane_step, positions, channel_step),
        (channels, step, columns, lanes, rows, parts, span, parts * plane_parts),
    )


def _up(number: int, by: int) -> int:
    """The quotient, rounded up."""
    return -(-number // by)
