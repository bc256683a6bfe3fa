"""The CUDA kernels as NVRTC compiles them, read as text: PTX, machine code, registers. No GPU is needed."""

import functools
import re
import subprocess
from pathlib import Path

import pytest

from ops import build


@functools.cache
def compiled(architecture: str, *, machine_code: bool) -> tuple[str, bytes]:
    """PTX and, if `machine_code`, the image of all kernels for a compute capability; skips the test without NVRTC."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
    source, *headers = ((build.SOURCES / name).read_bytes() for name in build.CUDA_SOURCES)
    name, *names = (name.encode() for name in build.CUDA_SOURCES)
    program = checked(nvrtc.nvrtcCreateProgram(source, name, len(names), headers, names))
    target = f"--gpu-architecture={'sm' if machine_code else 'compute'}_{architecture}"
    checked(nvrtc.nvrtcCompileProgram(program, 2, [target.encode(), b"--std=c++17"]))
    ptx = b" " * checked(nvrtc.nvrtcGetPTXSize(program))
    checked(nvrtc.nvrtcGetPTX(program, ptx))
    image = b" " * (checked(nvrtc.nvrtcGetCUBINSize(program)) if machine_code else 0)
    if machine_code:
        checked(nvrtc.nvrtcGetCUBIN(program, image))
    checked(nvrtc.nvrtcDestroyProgram(program))
    return ptx.decode().rstrip("\0"), image


def checked(result: tuple):
    """The value that a function of NVRTC returns beside its error code."""
    assert int(result[0]) == 0, result[0]
    return result[1] if len(result) == 2 else None


def entries(ptx: str) -> dict[str, str]:
    """The PTX of each kernel by its name."""
    return dict(re.findall(r"\.entry (\w+)\((.*?)\n\}", ptx, re.S))


def disassembled(image: bytes, folder: Path, *options: str) -> str:
    """What cuobjdump says of an image; skips the test without it (Triton, which PyTorch brings, has one)."""
    triton = pytest.importorskip("triton")
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not program.is_file():
        pytest.skip(f"no {program}")
    (folder / "image.cubin").write_bytes(image)
    command = [str(program), *options, str(folder / "image.cubin")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def registers(image: bytes, folder: Path) -> dict[str, int]:
    """Registers per thread of each kernel; fails if one spills registers to its stack."""
    text = disassembled(image, folder, "--dump-resource-usage")
    found = re.findall(r"Function (\w+):\s+REG:(\d+) STACK:(\d+).*? LOCAL:(\d+)", text)
    assert found and all(stack == local == "0" for _, _, stack, local in found)
    return {name: int(number) for name, number, _, _ in found}
