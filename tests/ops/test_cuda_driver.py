"""What ops/cuda.py asks of the CUDA driver: contexts, threads and handles, with a driver that only keeps account."""

import ctypes
import threading
from pathlib import Path

import pytest
import torch

from ops import build, cuda, groups
from ops.launch import config
from tests.ops.cpu_stand_in import StandIn, load_driver

PRIMARY, GREEN = 11, 22


class Driver:
    """A context for each thread; a launch needs the primary one."""

    def __init__(self):
        self.thread, self.calls = threading.local(), []

    @property
    def current(self) -> int | None:
        return getattr(self.thread, "current", None)

    def cuDeviceGet(self, device, index) -> int:
        return 0

    def cuDevicePrimaryCtxRetain(self, context, device) -> int:
        context._obj.value = PRIMARY
        return 0

    def cuCtxGetCurrent(self, context) -> int:
        self.calls.append("get")
        context._obj.value = self.current
        return 0

    def cuCtxSetCurrent(self, context) -> int:
        self.calls.append("set")
        self.thread.current = context.value
        return 0

    def cuModuleLoadData(self, module, image) -> int:
        assert self.current == PRIMARY
        return 0

    def cuModuleGetFunction(self, function, module, name) -> int:
        function._obj.value = hash(name) & 0xFFFF
        return 0

    def cuLaunchKernelEx(self, *arguments) -> int:
        self.calls.append("launch")
        return 0 if self.current == PRIMARY else 201 if self.current is None else 400

    def cuGetErrorString(self, code, text) -> int:
        return 0


@pytest.fixture
def driver(pretended_gpu, monkeypatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(cuda, "_driver", lambda: driver)
    return driver


@pytest.fixture
def kernels(driver, tmp_path) -> StandIn:
    (tmp_path / "image").write_bytes(b"image")
    return StandIn(tmp_path / "image")


def launch(kernels: StandIn) -> None:
    x = torch.ones(8)
    kernels.map(0, x, x, x)


def test_the_handles_of_a_group_are_fetched_when_it_is_loaded(kernels):
    assert set(kernels.functions) == set(groups.MISH.kernels) and len(kernels.functions) == 24
    for group in groups.pairs():
        kernels.load(group)
    assert set(kernels.functions) == set(groups.EVERYTHING.kernels) and len(kernels.functions) == 116


def test_the_launch_configuration_is_that_of_cuda_h(tmp_path):
    """Its bytes, read back by a program that includes the header of PyTorch's CUDA packages."""
    headers = sorted(Path(torch.__file__).parent.parent.glob("nvidia/*/include/cuda.h"))
    compiler = build.cpp_compiler()
    if not headers or compiler is None:
        pytest.skip("no cuda.h or no C++ compiler")
    fields = ("gridDimX", "gridDimY", "gridDimZ", "blockDimX", "blockDimY", "blockDimZ", "sharedMemBytes")
    fields += ("hStream", "attrs", "numAttrs")
    written = "; ".join(f"out[{i}] = (unsigned long long)config->{name}" for i, name in enumerate(fields))
    (tmp_path / "read.cpp").write_text(f"""#include <cuda.h>
        extern "C" int read(const CUlaunchConfig* config, unsigned long long* out) {{
          {written};
          return int(sizeof *config);
        }}""")
    library = tmp_path / "read.so"
    include = str(headers[-1].parent)
    build.compile_with([compiler, "-shared", "-fPIC", "-I", include, str(tmp_path / "read.cpp"), "-o", str(library)])
    out, packed = (ctypes.c_ulonglong * len(fields))(), config(2**31 - 1, 65535, 2**40)
    assert ctypes.CDLL(str(library)).read(packed, out) == len(packed)
    assert list(out) == [2**31 - 1, 65535, 1, 256, 1, 1, 0, 2**40, 0, 0]


def test_a_thread_is_looked_at_once(kernels, driver):
    launch(kernels)
    driver.calls.clear()
    launch(kernels)
    assert driver.calls == ["launch"]


def test_a_thread_without_a_context_gets_the_primary_one(kernels, driver):
    found = []
    thread = threading.Thread(target=lambda: (launch(kernels), found.append(driver.current)))
    thread.start()
    thread.join()
    assert found == [PRIMARY]


def test_a_green_context_is_restored(kernels, driver):
    for _ in range(2):
        driver.thread.current = GREEN
        kernels._launcher.thread.entered = False
        launch(kernels)
        assert driver.current == GREEN
    launch(kernels)
    assert driver.current == GREEN


def test_a_context_that_was_changed_later_is_noticed_and_restored(kernels, driver):
    launch(kernels)
    driver.thread.current = GREEN
    launch(kernels)
    assert driver.current == GREEN
    driver.thread.current = None
    launch(kernels)
    assert driver.current == PRIMARY


COMPILED = """
static thread_local long current;
static int launched;
extern "C" int cuDeviceGet(int*, int) { return 0; }
extern "C" int cuDevicePrimaryCtxRetain(long* context, int) { *context = 11; return 0; }
extern "C" int cuCtxGetCurrent(long* context) { *context = current; return 0; }
extern "C" int cuCtxSetCurrent(long context) { current = context; return 0; }
extern "C" int cuModuleLoadData(void*, void*) { return 0; }
extern "C" int cuModuleGetFunction(long* function, long, const char*) { *function = 5; return 0; }
extern "C" int cuLaunchKernelEx(void*, long, void**, void**) { launched++; return current == 11 ? 0 : 400; }
extern "C" int launches() { return launched; }
"""


def test_launches_by_cpp_see_every_change_of_the_context(pretended_gpu, tmp_path, monkeypatch):
    compiler = build.cpp_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    (tmp_path / "driver.cpp").write_text(COMPILED)
    build.compile_with([compiler, "-shared", "-fPIC", str(tmp_path / "driver.cpp"), "-o", str(tmp_path / "driver.so")])
    load_driver(tmp_path / "driver.so", monkeypatch)
    kernels = StandIn(tmp_path / "driver.so")
    assert kernels._launcher.launch_all != kernels._launcher._launch_all
    driver = kernels.driver
    for number, (before, after) in enumerate(((GREEN, GREEN), (PRIMARY, PRIMARY), (GREEN, GREEN), (0, PRIMARY)), 1):
        driver.cuCtxSetCurrent(before)
        launch(kernels)
        current = ctypes.c_long()
        driver.cuCtxGetCurrent(ctypes.byref(current))
        assert current.value == after and driver.launches() == number  # none in another context


def test_loading_restores_a_green_context(driver, tmp_path):
    (tmp_path / "image").write_bytes(b"image")
    driver.thread.current = GREEN
    StandIn(tmp_path / "image")
    assert driver.current == GREEN


def test_errors_are_named(kernels):
    with pytest.raises(build.Unavailable, match="cuLaunchKernelEx failed: error 701"):
        kernels._check("cuLaunchKernelEx", 701)
    for code in (700, 702, 716, 719):
        with pytest.raises(RuntimeError, match="launched earlier") as raised:
            kernels._check("cuLaunchKernelEx", code)
        assert not isinstance(raised.value, build.Unavailable)
