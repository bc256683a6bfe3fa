"""Grids of the fused CUDA kernels: every element once, and how they fill GPUs, computed for YOLO's own shapes."""

import itertools

import pytest

from ops import grid
from tests.ops.device_code import compiled, registers

ALL = [(batch, channels, side) for batch in (16, 64)
       for channels, side in ((16, 320), (32, 160), (64, 80), (128, 40), (256, 20))]  # fmt: skip
GPUS = {"A100": (108, "80", 2048), "RTX 4090": (128, "89", 1536), "H200": (132, "90", 2048)}  # SMs, sm_, threads of one


def cut(shape: tuple[int, int, int], *, last: bool, sums: bool, sms: int) -> grid.Grid:
    """The grid of a 16-bit tensor (B, C, side, side)."""
    batch, channels, side = shape
    sizes = (batch * side * side, channels, 1) if last else (batch, channels, side * side)
    return grid.cut(*sizes, width=8, sums=sums, sms=sms)


def rounds_and_share(found: grid.Grid, sms: int) -> tuple[float, float]:
    """Rounds of as many blocks as the GPU holds, and the work as a share of what whole rounds of full blocks do."""
    planes, plane_span, _, positions, _ = found.long
    _, _, _, lanes, rows, _, span, _ = found.short
    strips, splits = found.blocks
    work = strips * -(-planes // rows) * -(-positions // lanes)
    rounds = strips * splits / (sms * grid.BLOCKS)
    return rounds, work / (sms * grid.BLOCKS * -(-rounds // 1) * (plane_span // rows) * (span // lanes))


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("gpu", GPUS)
def test_no_round_is_nearly_empty(gpu, last):
    sms = GPUS[gpu][0]
    for shape, sums in itertools.product(ALL, (True, False)):
        rounds, share = rounds_and_share(cut(shape, last=last, sums=sums, sms=sms), sms)
        assert rounds / -(-rounds // 1) >= (0.64 if rounds <= 1 else 0.78), (shape, sums, rounds)
        assert share >= 0.64, (shape, sums, share)
        if not sums and last and shape[0] == 64 and shape[2] > 20:
            assert share >= 0.94, (shape, share)


def test_sums_depend_on_the_shape_alone():
    for shape, last in itertools.product(ALL, (True, False)):
        assert len({cut(shape, last=last, sums=True, sms=sms) for sms in (1, 40, 108, 132, 160)}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("gpu", GPUS)
def test_registers_leave_enough_loads_in_flight(gpu, tmp_path):
    """40 KiB per SM are what an H200 needs (computed: 4.3 TB/s for 1.2 us, over 132 SMs)."""
    _, architecture, threads = GPUS[gpu]
    for name, number in registers(compiled(architecture, machine_code=True)[1], tmp_path).items():
        if name.startswith("norm") and name.endswith(("along", "across")):
            resident = min(65536 // (-(-number // 8) * 8 * grid.THREADS), threads // grid.THREADS)
            assert resident >= grid.BLOCKS, (name, number)
            assert resident * grid.THREADS * 64 >= 40 * 1024  # test_cuda_accesses.py: four loads of 16 bytes


def test_grids_cover_every_element_and_large_tensors_fill_a_large_gpu():
    """By counting, for tensors too large for emulation."""
    shapes = [(8, 16, 320 * 320), (8 * 320 * 320, 16, 1), (16, 64, 6400), (16 * 6400, 64, 1), (2**20, 3, 2**12)]
    shapes += [(2**33, 8, 1), (8, 512, 100), (800, 2048, 1), (1, 1, 7), (1, 5000, 64), (65536, 3, 3)]
    for (outer, channels, inner), width, sms in itertools.product(shapes, (1, 4, 8), (grid.SMS, (132,), (28,))):
        if (channels if inner == 1 else inner) % width:
            continue
        found = grid._cut(outer, channels, inner, width, sms)
        planes, plane_span, plane_step, positions, channel_step = found.long
        _, step, columns, lanes, rows, parts, span, splits = found.short
        strips = found.blocks[0]
        in_piece = width if found.variant == "across" else 1
        assert strips * columns * in_piece >= channels > (strips - 1) * columns * in_piece
        assert (
            planes * positions * width * (channels // in_piece if inner == 1 else channels) == outer * channels * inner
        )
        assert columns * lanes * rows <= grid.THREADS < 2 * columns * lanes * rows and columns * in_piece <= 128
        plane_parts = splits // parts
        assert (parts - 1) * span < positions <= parts * span and span < 2**31 and parts * plane_parts == splits
        assert (plane_parts - 1) * plane_span < planes <= plane_parts * plane_span
        assert found.blocks[1] == splits <= 65535 and strips < 2**31
        if outer * channels * inner >= 2**22:
            most = grid.ROUNDS * grid.BLOCKS * max(sms)
            assert 0.6 * grid.BLOCKS * min(sms) <= strips * splits <= most + strips
        steps = {plane_step: planes, step: positions} | ({channel_step: channels} if inner > 1 else {})
        assert max((size - 1) * each for each, size in steps.items()) < outer * channels * inner
