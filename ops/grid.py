"""Launch grids of the CUDA kernels of ops/norm_act.py (csrc/norm_act_cuda.cu). Nothing here uses a GPU.

Those of sums are determined by the tensor's shape alone, so that sums are equal on every GPU; those of the elementwise
passes by the number of the GPU's multiprocessors (SMs) as well.
"""

import functools
import struct
from collections.abc import Iterator
from typing import NamedTuple

THREADS, BLOCKS = 256, 3  # of a block, and blocks that an SM runs at a time; as in csrc/cuda_pieces.h, norm_act_cuda.cu
PIECES, ELEMENTS = 16, 64  # maximum width of a strip; csrc/norm_act_cuda.cu has room for 128 channels
PER_PLANE = 4  # pieces of a plane that a thread processes at most, while there are planes enough for all threads
SMS = (108, 128, 132)  # of an A100, an RTX 4090, and an H100 or H200: sums are divided to suit all of them
ROUNDS = 8  # at most as many times the blocks that a GPU runs at a time
START = 4  # what a block costs before and after its loops, in pieces per thread; an estimate, not measured

POINTERS = (
    *("x", "dy", "out", "mean", "variance", "weight", "bias", "running_mean", "running_var"),
    *("by_weight", "by_bias", "partial"),
)
NUMBERS = struct.Struct("@6q8i3f0q")  # what follows the POINTERS in the struct Call of csrc/norm_act_cuda.cu


class Grid(NamedTuple):
    """Variant of a kernel's memory access, blocks (strips of channels, splits of values), and fields of a Call."""

    variant: str
    blocks: tuple[int, int]
    long: tuple[int, ...]
    short: tuple[int, ...]

    def numbers(self, *, count: int = 0, eps: float = 0.0, slope: float = 0.0, factor: float = 0.0) -> bytes:
        """The Call of a kernel after its pointers."""
        return NUMBERS.pack(*self.long, count, *self.short, eps, slope, factor)


def cut(outer: int, channels: int, inner: int, *, width: int, sums: bool, sms: int) -> Grid:
    """The grid for x (outer, channels, inner), with inner = 1 for channels_last, on a GPU with `sms` multiprocessors.

    `width`: elements of a piece of 16 bytes, if all arrays of x's shape are aligned; memory is accessed in pieces if
    rows consist of whole ones.
    """
    if variant_of(channels, inner, width) == "scalar":
        width = 1
    return _cut(outer, channels, inner, width, SMS if sums else (sms,))


def variant_of(channels: int, inner: int, width: int) -> str:
    """The variant of a kernel's memory access; arguments as for `cut`."""
    if width == 1 or (channels if inner == 1 else inner) % width:
        return "scalar"
    return "across" if inner == 1 else "along"


@functools.lru_cache(maxsize=4096)
def _cut(outer: int, channels: int, inner: int, width: int, sms: tuple[int, ...]) -> Grid:
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
        lanes = 8
        while lanes < THREADS and (lanes * PER_PLANE < positions or THREADS // lanes > outer):
            lanes *= 2
        rows = THREADS // lanes
    plane_rows, position_rows = _split(_up(planes, rows), _up(positions, lanes), strips, sms)
    plane_span, span = plane_rows * rows, position_rows * lanes
    parts = _up(positions, span)
    splits = parts * _up(planes, plane_span)
    return Grid(
        variant_of(channels, inner, width),
        (strips, splits),
        (planes, plane_span, plane_step, positions, channel_step),
        (channels, step, columns, lanes, rows, parts, span, splits),
    )


def _split(planes: int, positions: int, strips: int, sms: tuple[int, ...]) -> tuple[int, int]:
    """Planes and positions of a block, both in multiples of what its threads process side by side.

    Blocks run in rounds of as many as a GPU has room for. The choice minimises the rounds times the length of a block,
    on the GPU of `sms` for which that is furthest from the minimum, so that no last round is nearly empty.
    """

    def cost(block: tuple[int, int]) -> float:
        blocks = strips * _up(planes, block[0]) * _up(positions, block[1])
        return max(_up(blocks, number * BLOCKS) * number * (block[0] * block[1] + START) for number in sms)

    candidates = _candidates(planes, positions, strips, sms)
    return min(candidates, key=cost)  # of equal ones the first, with the fewest blocks


def _candidates(planes: int, positions: int, strips: int, sms: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    wholes = {max(1, rounds * number * BLOCKS // strips) for rounds in range(1, ROUNDS + 1) for number in sms}
    for splits in sorted(wholes):
        block = _up(planes, splits)
        yield block, _up(positions, max(1, splits // _up(planes, block)))


def _up(number: int, by: int) -> int:
    """The quotient rounded up."""
    return -(-number // by)
