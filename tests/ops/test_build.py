"""Builds: once among many processes, never a wrong one, nothing in the way after a kill, else a reason."""

import ctypes
import multiprocessing
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ops import backend, build
from ops.mish import reference
from tests.ops.test_mish import derivative, second_derivative

ROOT = Path(__file__).parents[2]
TOLERANCES = {torch.float32: 5e-7, torch.float64: 1e-14, torch.float16: 1e-3, torch.bfloat16: 4e-3}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("YOLO_MISH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backend, "_chosen", {})
    build.version_of.cache_clear()
    yield tmp_path / "cache"
    monkeypatch.undo()
    build.version_of.cache_clear()


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Makes a stand-in for a compiler: it notes each call in a log and writes its version as the build."""

    def make(version: str = "1.0", *, seconds: float = 0, code: int = 0) -> Path:
        script, log = tmp_path / "stand-in", tmp_path / "log"
        script.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && echo "stand-in {version}" && exit 0\n'
            f'echo call >> "{log}"\nfor last; do :; done\necho partly > "$last"\nsleep {seconds}\n'
            f'[ {code} = 0 ] || {{ echo "no such luck" >&2; exit {code}; }}\necho "{version}" > "$last"\n'
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(script))
        build.version_of.cache_clear()
        return log

    return make


def test_many_first_uses_at_once_build_once(cache, compiler):
    log = compiler(seconds=0.5)
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        paths = {task.get(timeout=60) for task in [pool.apply_async(build.cpu_library) for _ in range(4)]}
    assert log.read_text() == "call\n" and len(paths) == 1 and paths.pop().read_text() == "1.0\n"


def test_a_killed_build_is_in_nobodys_way(cache, compiler):
    compiler(seconds=60)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        build.cpu_library()
        os._exit(0)
    deadline = time.monotonic() + 30
    while not list(cache.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(cache.glob("*.part"))
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    compiler(version="1.0")
    assert build.cpu_library().read_text() == "1.0\n" and not list(cache.glob("*.part"))


def test_a_build_of_another_making_is_never_taken(cache, compiler, monkeypatch, tmp_path):
    compiler("1.0")
    paths = [build.cpu_library()]
    assert build.cpu_library() == paths[0]
    compiler("2.0")
    paths.append(build.cpu_library())
    monkeypatch.setattr(torch, "__version__", "99.0")
    paths.append(build.cpu_library())
    monkeypatch.setattr(platform, "machine", lambda: "abacus")
    paths.append(build.cpu_library())
    monkeypatch.setattr(build, "CPU_FLAGS", (*build.CPU_FLAGS, "-g"))
    paths.append(build.cpu_library())
    paths.append(build.cpu_library("AVX2" if build.instruction_set() != "AVX2" else "baseline"))
    sources = tmp_path / "csrc"
    shutil.copytree(build.SOURCES, sources)
    (sources / "parallel.h").write_text("// another\n")
    monkeypatch.setattr(build, "SOURCES", sources)
    paths.append(build.cpu_library())
    assert len(set(paths)) == len(paths)


def test_without_a_compiler_a_build_by_any_is_taken(cache, compiler, monkeypatch):
    compiler("1.0")
    path = build.cpu_library()
    monkeypatch.setattr(build, "version_of", lambda program: None)
    assert build.cpu_library() == path
    monkeypatch.setattr(torch, "__version__", "99.0")
    with pytest.raises(build.Unavailable, match="compiler"):
        build.cpu_library()


def test_a_failing_compiler_and_a_folder_that_cannot_be_are_reasons(cache, compiler, monkeypatch, tmp_path, capsys):
    compiler(code=3)
    with pytest.raises(build.Unavailable, match="no such luck"):
        build.cpu_library()
    assert not list(cache.glob("*.part")) and not list(cache.glob("*.so"))
    compiler()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("YOLO_MISH_CACHE", str(tmp_path / "file"))
    with pytest.raises(build.Unavailable, match="YOLO_MISH_CACHE"):
        build.cpu_library()
    choice = backend.choose(torch.device("cpu"))
    assert choice.kernels is None and "YOLO_MISH_CACHE" in capsys.readouterr().err


def test_a_damaged_build_is_a_reason(cache, compiler):
    compiler()
    choice = backend.choose(torch.device("cpu"))  # the stand-in's build is no library
    assert choice.kernels is None and "cannot be loaded" in choice.reason


def test_an_import_builds_and_writes_nothing(cache, compiler):
    log = compiler()
    subprocess.run([sys.executable, "-c", "import ops.mish, ops.norm_act"], cwd=ROOT, check=True, timeout=120)
    assert not cache.exists() and not log.exists()


def test_the_plainest_instruction_set_computes_the_same(tmp_path):
    compiler = build.cpp_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = tmp_path / "baseline.so"
    build.compile_with([compiler, *build.CPU_FLAGS, str(build.SOURCES / "mish_cpu.cpp"), "-o", str(path)])
    run, threads = ctypes.CDLL(str(path)).mish_map, ctypes.c_void_p(backend._address_of_parallel_for())
    for dtype, tolerance in TOLERANCES.items():
        x = torch.linspace(-87.3, 30, 50_001).to(dtype)
        y = torch.empty_like(x)
        pointers = (ctypes.c_void_p(each.data_ptr()) for each in (x, x, y))
        assert run(backend.TYPES[dtype], 0, ctypes.c_int64(len(x)), *pointers, threads) == 0
        smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        torch.testing.assert_close(y.double(), reference(x), rtol=tolerance, atol=max(smallest, 1e-37))


# ------------------------------------------------------------------------------------------------------------ the GPUs
# No GPU is needed to compile for one. What the kernels compute is checked by running them on the processor.

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


@pytest.mark.parametrize("architecture", build.ARCHITECTURES)
def test_nvrtc_compiles_it_small(architecture, cache):
    try:
        path = build.nvrtc_image(architecture)
    except build.Unavailable as error:
        pytest.skip(str(error))
    sizes = kernel_sizes(path.read_bytes())
    assert len(sizes) == 24
    for kind, most in (MOST_INSTRUCTIONS_75 if architecture == "75" else MOST_INSTRUCTIONS).items():
        elements = 2 * 16 // {"float32": 4}.get(kind, 2) + 1  # two pieces of 16 bytes, and one of the tail
        for order in (0, 1):
            assert sizes[f"mish_{order}_{kind}_vector"] / 16 / elements <= most[order]  # 16 bytes an instruction


def test_nvcc_compiles_it_without_spills(cache):
    architectures = build.known_to_nvcc()
    if not architectures:
        pytest.skip("no nvcc")
    if build.cpp_compiler() is None:
        pytest.skip("nvcc needs a C++ compiler")
    targets = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in architectures]
    source, image = str(build.SOURCES / "mish_cuda.cu"), str(cache.parent / "image.fatbin")
    done = subprocess.run(
        ["nvcc", "-std=c++17", "-fatbin", "-Xptxas", "-v", *targets, source, "-o", image],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    report = done.stderr + done.stdout
    found = re.findall(r"Compiling entry function 'mish_(\d)_\w+' for 'sm_(\d+)'.*?Used (\d+) registers", report, re.S)
    assert len(found) == 24 * len(architectures)
    assert not re.search(r"[1-9]\d* bytes spill", report)
    for order, architecture, registers in found:
        assert int(registers) <= (64 if architecture == "75" or order == "2" else MOST_REGISTERS)


def test_the_cuda_kernels_computed_on_the_processor(tmp_path):
    """The .cu file compiled as C++, its blocks and threads run one after the other."""
    compiler = build.cpp_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    path = tmp_path / "emulated.so"
    source = str(Path(__file__).parent / "cuda_on_the_processor.cpp")
    build.compile_with(
        [compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-I", str(build.SOURCES), source, "-o", str(path)]
    )
    library = ctypes.CDLL(str(path))
    oracles = (reference, derivative, second_derivative)
    for dtype, tolerance in TOLERANCES.items():
        for count in (1, 7, 8, 4096, 4099, 10_000):
            values = torch.linspace(-9, 9, count).to(dtype)
            for way, x in (("vector", values), ("scalar", torch.cat([values[:1], values])[1:])):
                in_block = 2 * 256 * 16 // x.element_size() if way == "vector" else 256
                for order, oracle in enumerate(oracles):
                    g, out = torch.full_like(x, 0.5), torch.full((count + 8,), 77.0, dtype=dtype)
                    launch = getattr(library, f"launch_mish_{order}_{str(dtype).removeprefix('torch.')}_{way}")
                    pointers = (ctypes.c_void_p(each.data_ptr()) for each in (x, g, out))
                    launch(-(-count // in_block), *pointers, ctypes.c_longlong(count))
                    expected = oracle(x) * (0.5 if order else 1)
                    torch.testing.assert_close(out[:count].double(), expected, rtol=tolerance, atol=3e-7)
                    assert (out[count:] == 77).all()


class Driver:
    """A stand-in for the CUDA driver that notes the calls and answers success."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, arguments))
            return 0

        return call


def test_a_launch_names_kernel_grid_and_arguments(monkeypatch):
    kernels = object.__new__(backend.CudaKernels)
    kernels.index, kernels.functions, kernels.driver = 0, {}, Driver()
    kernels.context, kernels.module = ctypes.c_void_p(), ctypes.c_void_p(5)
    stream = type("Stream", (), {"cuda_stream": 9})
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: stream)
    monkeypatch.setattr(torch.cuda, "device", lambda index: __import__("contextlib").nullcontext())
    x = torch.zeros(10_001, dtype=torch.bfloat16)
    kernels.map(1, x, x, x)
    kernels.map(0, x[1:], x[1:], x[1:])
    launches = [arguments for name, arguments in kernels.driver.calls if name == "cuLaunchKernel"]
    assert list(kernels.functions) == ["mish_1_bfloat16_vector", "mish_0_bfloat16_scalar"]
    assert [[each.value for each in launch[1:8]] for launch in launches] == [
        [3, 1, 1, 256, 1, 1, 0],
        [40, 1, 1, 256, 1, 1, 0],
    ]
    assert launches[0][8].value == 9
