"""A cache of builds, and the CUDA kernels computed on the processor: ops/backend.py over cuda_on_the_processor.cpp."""

import contextlib
import sys
from pathlib import Path

import pytest
import torch

from ops import backend, build, norm_act


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of this test's own."""
    monkeypatch.setenv("YOLO_MISH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backend, "_chosen", {})
    build.version_of.cache_clear()
    yield tmp_path / "cache"
    monkeypatch.undo()
    build.version_of.cache_clear()


class EmulatedKernels(backend.CudaKernels):
    """CudaKernels for tensors on the CPU: all but what asks PyTorch for its GPU."""

    def __init__(self, library: Path):
        super().__init__(library, 0, "nobody")

    def _is_current(self) -> bool:
        return True

    def _stream(self) -> int:
        return 9


@pytest.fixture(scope="session")
def emulator(tmp_path_factory) -> Path:
    """The library that stands for the CUDA driver and for the image; skips where it cannot be made."""
    compiler = build.cpp_compiler()
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C++ compiler, or not on Linux")
    path = tmp_path_factory.mktemp("emulated") / "driver.so"
    source = str(Path(__file__).parent / "cuda_on_the_processor.cpp")
    build.compile_with(
        [compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-I", str(build.SOURCES), source, "-o", str(path)]
    )
    return path


@pytest.fixture
def emulated(emulator, monkeypatch) -> EmulatedKernels:
    """Those kernels, loaded as a GPU's are and chosen for tensors on the CPU."""
    driver = backend._driver
    monkeypatch.setattr(backend, "_driver", lambda: driver(str(emulator)))
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: None)
    kernels, cpu = EmulatedKernels(emulator), torch.device("cpu")
    monkeypatch.setattr(backend, "_chosen", {cpu: backend.Choice(kernels.name, kernels.origin, kernels)})
    monkeypatch.setattr(norm_act, "_wrong", {cpu: ""})
    return kernels
