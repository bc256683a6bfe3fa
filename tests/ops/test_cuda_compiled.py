"""The CUDA kernels without a GPU: compiled by both compilers, and Mish emulated on the CPU.

By NVRTC for the oldest and the newest architecture, by nvcc for that of an H200, or with YOLO_TEST_LARGE=1 for all.
"""

import itertools
import os
import re
import shutil
import subprocess

import pytest
import torch

from ops import build
from ops.groups import EVERYTHING
from ops.kernels import NAMES
from ops.mish import reference
from tests.ops.test_build import TOLERANCES
from tests.ops.test_mish import derivative, second_derivative

pytestmark = pytest.mark.slow

MOST_REGISTERS = 40  # of the 65,536 for 1,536 threads or more; sm_75 has at most 1,024, and 64 for each
# Instructions an element in the vector kernels, forward and backward. PyTorch's own have 58 and 89 (bf16, sm_90).
MOST_INSTRUCTIONS = {"float32": (28, 32), "bfloat16": (20, 25), "float16": (20, 25)}
MOST_INSTRUCTIONS_75 = {"float32": (28, 32), "bfloat16": (30, 35), "float16": (24, 28)}  # which has no pairs to round


def kernel_sizes(image: bytes) -> dict[str, int]:
    """Bytes of machine code of each kernel: the sections .text.NAME of an ELF file."""
    offset = int.from_bytes(image[40:48], "little")
    size, count, names_at = (int.from_bytes(image[at : at + 2], "little") for at in (58, 60, 62))
    headers = [image[offset + i * size : offset + (i + 1) * size] for i in range(count)]
    places = [
        (int.from_bytes(h[:4], "little"), *(int.from_bytes(h[a : a + 8], "little") for a in (24, 32))) for h in headers
    ]
    start = places[names_at][1]
    names = [image[start + name : image.index(b"\0", start + name)].decode() for name, _, _ in places]
    return {name[6:]: place[2] for name, place in zip(names, places, strict=True) if name.startswith(".text.")}


MISH = [f"mish_{order}_{name}_{way}" for order in range(3) for name in NAMES.values() for way in ("vector", "scalar")]
VARIANTS, FUSED_TYPES = ("along", "across", "scalar"), ("float32", "float16", "bfloat16")
PASSES = [
    "norm_statistics",
    "norm_act_backward",
    *(f"norm_act_{each}_{act}" for each in ("forward", "reduce") for act in range(4)),
]
PAIR = [f"{name}_{kind}_{variant}" for name in PASSES for kind in FUSED_TYPES for variant in VARIANTS]
ENDS = ["norm_statistics_end", "norm_act_reduce_end"]
# Instructions of the fused vector kernels with Mish, fp32 and 16 bits: about 300, and a loop of 8 to 32 elements.
MOST_OF_A_PASS = {
    "norm_statistics": (450, 580),
    "norm_act_forward_0": (720, 1050),
    "norm_act_reduce_0": (680, 960),
    "norm_act_backward": (570, 680),
}


@pytest.mark.parametrize("architecture", ["75", "120"])
def test_nvrtc_compiles_it_small(architecture, cache):
    try:
        path = build.nvrtc_image(f"sm_{architecture}", EVERYTHING)
    except build.Unavailable as error:
        pytest.skip(str(error))
    sizes = kernel_sizes(path.read_bytes())
    assert sorted(sizes) == sorted([*MISH, *PAIR, *ENDS]) == sorted(EVERYTHING.kernels)
    for name, instructions in MOST_OF_A_PASS.items():
        for kind, variant in itertools.product(FUSED_TYPES, ("along", "across")):
            assert sizes[f"{name}_{kind}_{variant}"] / 16 <= instructions[kind != "float32"]
    for kind, most in (MOST_INSTRUCTIONS_75 if architecture == "75" else MOST_INSTRUCTIONS).items():
        elements = 2 * 16 // {"float32": 4}.get(kind, 2) + 1  # two pieces of 16 bytes, and one of the tail
        for order in (0, 1):
            assert sizes[f"mish_{order}_{kind}_vector"] / 16 / elements <= most[order]  # 16 bytes an instruction


def known_to_nvcc() -> list[str]:
    """The architectures built ahead of time that the installed nvcc supports."""
    if shutil.which("nvcc") is None:
        return []
    done = subprocess.run(["nvcc", "--list-gpu-arch"], capture_output=True, text=True, timeout=60, check=True)
    return [number for number in build.ARCHITECTURES if f"compute_{number}" in done.stdout.split()]


def test_nvcc_compiles_it_without_spills(cache):
    everything = os.environ.get("YOLO_TEST_LARGE") == "1"
    architectures = [each for each in known_to_nvcc() if everything or each == "90"]
    if not architectures:
        pytest.skip("no nvcc")
    if build.cpp_compiler() is None:
        pytest.skip("nvcc needs a C++ compiler")
    targets = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in architectures]
    source, image = str(build.SOURCES / "kernels.cu"), str(cache.parent / "image.fatbin")
    done = subprocess.run(
        ["nvcc", "-std=c++17", "--threads=0", "-fatbin", "-Xptxas", "-v", *targets, source, "-o", image],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    report = done.stderr + done.stdout
    found = re.findall(r"Compiling entry function '(\w+)' for 'sm_(\d+)'.*?Used (\d+) registers", report, re.S)
    assert len(found) == len([*MISH, *PAIR, *ENDS]) * len(architectures)
    assert not re.search(r"[1-9]\d* bytes (spill|stack frame)", report)
    for name, architecture, registers in found:
        most = 64 if architecture == "75" or name.startswith("mish_2") else MOST_REGISTERS
        if name.startswith("norm"):
            most = 80  # three blocks of 256 threads at a time
        assert int(registers) <= most


def test_mish_cuda_kernels_emulated_on_the_cpu(emulated):
    oracles = (reference, derivative, second_derivative)
    for dtype, tolerance in TOLERANCES.items():
        for count in (1, 7, 8, 4096, 4099, 10_000):
            values = torch.linspace(-9, 9, count).to(dtype)
            for x in (values, torch.cat([values[:1], values])[1:]):
                for order, oracle in enumerate(oracles):
                    g, out = torch.full_like(x, 0.5), torch.full((count + 8,), 77.0, dtype=dtype)
                    emulated.map(order, x, g, out[:count])
                    expected = oracle(x) * (0.5 if order else 1)
                    torch.testing.assert_close(out[:count].double(), expected, rtol=tolerance, atol=3e-7)
                    assert (out[count:] == 77).all()
    assert len(emulated.functions) == len(MISH)  # aligned ones and others
