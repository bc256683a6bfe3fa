"""Shared fixtures: CPU kernels, a build cache, and CUDA kernels emulated on the CPU."""

import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ops import backend, build
from ops.launch import HEAD
from tests.ops.cpu_stand_in import StandIn, choose_on_the_cpu, load_driver


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with emulated kernels are slow ones: compiling the emulator takes longer than all of them."""
    for item in items:
        if "emulator" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def no_recent_calls(monkeypatch) -> None:
    """`mish` remembers calls of the kernels that were chosen when they were made: a test may choose others."""
    monkeypatch.setattr("ops.mish._known_by_shape", {})


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for this test."""
    monkeypatch.setenv("YOLO_MISH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(backend, "_chosen", {})
    build.version_of.cache_clear()
    yield tmp_path / "cache"
    monkeypatch.undo()
    build.version_of.cache_clear()


@pytest.fixture
def kernels():
    """The CPU kernels; skips the test, with the reason, if they cannot be built."""
    choice = backend.choose(torch.device("cpu"))
    if build.cpp_compiler() is None and choice.kernels is None:
        pytest.skip(f"{choice.implementation}: {choice.reason}")
    assert choice.kernels is not None, choice.reason
    return choice.kernels


@pytest.fixture(params=build.INSTRUCTION_SETS)
def instructions(request, monkeypatch):
    """Each instruction set of this CPU, as the one for which kernels are chosen."""
    if build.cpp_compiler() is None:
        pytest.skip("no C++ compiler")
    sets = list(build.INSTRUCTION_SETS)
    if sets.index(request.param) < sets.index(build.instruction_set()):
        pytest.skip(f"this CPU has no {request.param}")
    monkeypatch.setattr(build, "instruction_set", lambda: request.param)
    monkeypatch.setattr(backend, "_chosen", {})
    choice = backend.choose(torch.device("cpu"))
    assert request.param in choice.implementation, choice.reason
    return request.param


class EmulatedKernels(StandIn):
    """The emulated kernels, with the names of those that were launched."""

    def __init__(self, library: Path):
        super().__init__(library)
        self.launched: set[str] = set()
        self._launcher.launch_all, self._make = self._record, self._launcher.launch_all

    def _record(self, call: bytes) -> int:
        names = {each.value: name for name, each in self.functions.items()}
        launches = self._launcher.prepared[call[: HEAD.size]].launches
        self.launched |= {names[function.value] for _, kernels in launches for function, *_ in kernels}
        return self._make(call)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory) -> Path:
    """The library that replaces the CUDA driver and the image; skips if it cannot be built."""
    compiler = build.cpp_compiler()
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C++ compiler, or not on Linux")
    path = tmp_path_factory.mktemp("emulated") / "driver.so"
    source = str(Path(__file__).parent / "cuda_on_the_cpu.cpp")
    build.compile_with(
        [compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-I", str(build.SOURCES), source, "-o", str(path)]
    )
    return path


@pytest.fixture
def pretended_gpu(monkeypatch) -> None:
    """What ops/cuda.py asks PyTorch about a GPU, answered without one."""
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(multi_processor_count=132))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


@pytest.fixture
def emulated(pretended_gpu, emulator, monkeypatch) -> EmulatedKernels:
    """These kernels, loaded like those of a GPU and chosen for tensors on the CPU."""
    load_driver(emulator, monkeypatch)
    kernels = EmulatedKernels(emulator)
    choose_on_the_cpu(kernels, monkeypatch)
    return kernels


@pytest.fixture
def gpu_kernels(monkeypatch) -> None:
    """Force the CUDA kernels on the GPU; skip the test, with the reason, if they are unavailable."""
    monkeypatch.setattr(backend, "_chosen", {})
    monkeypatch.setenv("YOLO_MISH", "cuda")
    try:
        backend.choose(torch.device("cuda:0"))
    except ValueError as error:
        pytest.skip(str(error))
