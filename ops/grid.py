"""Launch grids of the CUDA kernels of ops/norm_act.py (csrc/norm_act_cuda.cu), determined by the tensor's shape alone,
so that sums are equal on every GPU. Nothing here uses a GPU."""

import functools
import struct
from typing import NamedTuple

from torch import Tensor

THREADS, AT_ONCE = 256, 2  # same as in csrc/cuda_pieces.h and norm_act_cuda.cu
PIECES, ELEMENTS = 16, 64  # maximum width of a strip; csrc/norm_act_cuda.cu has room for 128 channels
BLOCKS = 1024  # of a sum; elementwise kernels use more if a block would exceed LARGEST elements
SMALLEST, LARGEST = 2048, 16384  # elements per block
MAX_SPLITS = 65535  # CUDA's limit of a grid's second dimension

POINTERS = (
    *("x", "dy", "out", "mean", "variance", "weight", "bias", "running_mean", "running_var"),
    *("by_weight", "by_bias", "partial"),
)
CALL = struct.Struct(f"@{len(POINTERS)}P6q8i3f0q")  # the struct Call of csrc/norm_act_cuda.cu


class Grid(NamedTuple):
    """Variant of a kernel's memory access, blocks (strips of channels, splits of values), and fields of a Call."""

    variant: str
    blocks: tuple[int, int]
    long: tuple[int, ...]
    short: tuple[int, ...]

    def call(
        self, *, count: int = 0, eps: float = 0.0, slope: float = 0.0, factor: float = 0.0, **tensors: Tensor | None
    ) -> bytes:
        """The Call of a kernel: tensors by their names in POINTERS, null for None and missing ones."""
        pointers = [0 if tensor is None else tensor.data_ptr() for tensor in map(tensors.get, POINTERS)]
        return CALL.pack(*pointers, *self.long, count, *self.short, eps, slope, factor)


def cut(outer: int, channels: int, inner: int, large: tuple[Tensor, ...], *, sums: bool) -> Grid:
    """The grid for x (outer, channels, inner), with inner = 1 for channels_last; `large`: all tensors of x's shape.

    Memory is accessed in pieces of 16 bytes if all tensors are aligned and rows consist of whole pieces.
    """
    width = 16 // large[0].element_size()
    if (channels if inner == 1 else inner) % width or any(tensor.data_ptr() % 16 for tensor in large):
        width = 1
    return _cut(outer, channels, inner, width, sums)


@functools.lru_cache(maxsize=4096)
def _cut(outer: int, channels: int, inner: int, width: int, sums: bool) -> Grid:
    if inner == 1:
        limit = PIECES if width > 1 else ELEMENTS
        across = channels // width
        columns = _up(across, _up(across, limit))
        strips = _up(across, columns)
        lanes, rows = THREADS // columns, 1
        planes, positions, plane_step, channel_step, step = 1, outer, 0, 1, channels
    else:
        columns, strips = 1, channels
        planes, positions, plane_step, channel_step, step = outer, inner // width, channels * inner, inner, width
        lanes = 8  # then doubled until a thread has at most two tiles of a plane and every thread has a plane
        while lanes < THREADS and (lanes * 2 * AT_ONCE < positions or THREADS // lanes > outer):
            lanes *= 2
        rows = THREADS // lanes
    elements = outer * channels * inner
    blocks = _up(elements, max(SMALLEST, min(LARGEST, elements // BLOCKS)))
    splits = min(_up(min(blocks, BLOCKS) if sums else blocks, strips), MAX_SPLITS)
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
    """The quotient rounded up."""
    return -(-number // by)
