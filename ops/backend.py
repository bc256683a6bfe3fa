"""Choice and invocation of compiled kernels: the only code that handles pointers, threads and streams.

`choose(device)` decides once per process and device, in this order: the CPU library (ops/build.py); on a GPU the image
built ahead of time, one built now by nvcc, one built now by NVRTC; else PyTorch's Mish, with a line that gives the
reason. ``YOLO_MISH=eager|torch|cpu|cuda|nvrtc`` forces one of them and is an error if it is unavailable.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.allocator import keep_freed_memory
from ops import build
from ops.build import Unavailable, say
from ops.grid import THREADS, cut

TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}  # same as in csrc/mish_cpu.cpp
NAMES = {
    number: str(dtype).removeprefix("torch.") for dtype, number in TYPES.items()
}  # part of the names of the CUDA kernels
FORCED = ("eager", "torch", "cpu", "cuda", "nvrtc")
PIECES = 2  # same as in csrc/mish_cuda.cu


@dataclass(frozen=True)
class Choice:
    """What runs on a device: `kernels` if compiled ones are used, `eager` if the three-op formula was requested."""

    implementation: str
    reason: str
    kernels: "CpuKernels | CudaKernels | None" = None
    eager: bool = False


def forced() -> str:
    """The backend that $YOLO_MISH requests, or an empty string; ValueError for an unknown one."""
    requested = os.environ.get("YOLO_MISH", "")
    if requested and requested not in FORCED:
        raise ValueError(f"YOLO_MISH={requested}: expected one of {', '.join(FORCED)}, or nothing")
    return requested


_chosen: dict[torch.device, Choice] = {}  # once per process and device


def choose(device: torch.device) -> Choice:
    """What runs Mish on this device, built and loaded on first use. ValueError if a forced backend is unavailable."""
    choice = _chosen.get(device)
    if choice is None:
        choice = _chosen[device] = _choose(device.type, device.index, forced())
    return choice


def _choose(kind: str, index: int | None, requested: str) -> Choice:
    if requested == "eager":
        return Choice("x tanh(softplus(x))", "YOLO_MISH=eager", eager=True)
    if requested == "torch":
        return Choice("torch.nn.functional.mish", "YOLO_MISH=torch")
    backends = [name for name, (device, _) in BACKENDS.items() if device == kind]
    if requested and requested not in backends:
        raise ValueError(f"YOLO_MISH={requested}: the tensor is on {kind}; expected {BACKENDS[requested][0]}")
    reasons = []
    for backend in (requested,) if requested else backends:
        try:
            kernels = BACKENDS[backend][1](index)
        except Unavailable as error:
            reasons.append(str(error))
        else:
            return Choice(kernels.name, f"YOLO_MISH={requested}" if requested else kernels.origin, kernels)
    if requested:
        raise ValueError(f"YOLO_MISH={requested}: {'; '.join(reasons)}")
    reason = "; ".join(reasons) or f"no custom kernel for {kind}"
    if backends:
        say(f"Mish runs as torch.nn.functional.mish on {kind}, slower: {reason}")
    return Choice("torch.nn.functional.mish", reason)


def expect(device: torch.device) -> Choice:
    """What `choose` returns, or is expected to return; builds and loads nothing."""
    requested, chosen = forced(), _chosen.get(device)
    if chosen is not None:
        return chosen
    if device.type == "cuda" and requested in ("", "cuda", "nvrtc"):
        return Choice("ops.mish, CUDA kernel", "nvcc or NVRTC builds it on first use")
    if device.type != "cpu" or requested not in ("", "cpu"):
        return _choose(device.type, device.index, requested)
    name = f"ops.mish, CPU kernel, {build.instruction_set()}"
    try:
        return Choice(name, f"build {build.cpu_library(may_build=False).stem}")
    except Unavailable as error:
        if build.cpp_compiler() is None:
            return Choice("torch.nn.functional.mish", str(error))
        return Choice(name, f"{build.cpp_compiler()} builds it on first use")


def dense(x: Tensor) -> tuple[Tensor, Tensor]:
    """The tensor in a dense layout (itself if possible), and an empty one of the same layout."""
    like = torch.empty_like(x)  # keeps the strides of dense tensors only, including permuted ones
    if like.stride() != x.stride():
        x = torch.empty_like(like).copy_(x)
    return x, like


# ------------------------------------------------------------------------------------------------------------- the CPU


class CpuKernels:
    """The CPU library, called through ctypes, which releases the GIL during calls."""

    def __init__(self, path: Path, instructions: str):
        """Load the library; Unavailable on failure."""
        self.name = f"ops.mish, CPU kernel, {instructions}"
        self.origin = f"build {path.stem}"
        try:
            self.library = ctypes.CDLL(str(path))
            self.parallel_for = _address_of_parallel_for()
        except (OSError, AttributeError) as error:
            raise Unavailable(f"{path} cannot be loaded ({error})") from error
        pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
        kind, shape = ctypes.c_int, (number, number, number)
        norm, act = (*[pointer] * 4, real), (ctypes.c_int, real)
        for name, arguments in {
            "mish_map": (kind, ctypes.c_int, number, *[pointer] * 3),
            "norm_statistics": (kind, *shape, *[pointer] * 5, real),
            "norm_act_forward": (kind, *shape, pointer, *norm, *act, pointer),
            "norm_act_reduce": (kind, *shape, *[pointer] * 2, *norm, *act, *[pointer] * 3),
            "norm_act_backward": (kind, *shape, *[pointer] * 6, real, number, pointer),
        }.items():
            getattr(self.library, name).argtypes = (*arguments, pointer)
            getattr(self.library, name).restype = ctypes.c_int32

    def call(self, name: str, *arguments: float | Tensor | None) -> None:
        """Call a function of the library with numbers and dense CPU tensors; None is passed as null."""
        plain = [value.data_ptr() if isinstance(value, Tensor) else value for value in arguments]
        code = getattr(self.library, name)(*plain, self.parallel_for)
        if code != 0:
            raise RuntimeError(f"{name} of the CPU library failed with code {code}")

    def map(self, order: int, x: Tensor, g: Tensor, out: Tensor) -> None:
        """Write mish(x), g mish'(x) or g mish''(x) to `out`; all dense and of the same layout and type."""
        self.call("mish_map", TYPES[x.dtype], order, x.numel(), x, g, out)


def _address_of_parallel_for() -> int | None:
    """torch_parallel_for of PyTorch's stable C interface (2.10 and later), which uses PyTorch's own threads."""
    name = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(sys.platform, "libtorch_cpu.so")
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
    return ctypes.cast(library.torch_parallel_for, ctypes.c_void_p).value


def _cpu(index: int | None) -> CpuKernels:
    kernels = CpuKernels(build.cpu_library(), build.instruction_set())
    keep_freed_memory(256 << 20)  # otherwise new memory pages for results cost as much as the kernels
    return kernels


# ----------------------------------------------------------------------------------------------------------- the GPUs


_NORM_ACT = ("mean", "variance", "weight", "bias", "eps", "act", "slope")
_ARGUMENTS = {  # of the functions of csrc/norm_act_cpu.cpp after type and shape, by their names in ops/grid.py
    "norm_statistics": ("x", "mean", "variance", "running_mean", "running_var", "factor"),
    "norm_act_forward": ("x", *_NORM_ACT, "out"),
    "norm_act_reduce": ("x", "dy", *_NORM_ACT, "out", "by_weight", "by_bias"),
    "norm_act_backward": ("x", "mean", "variance", "weight", "by_weight", "by_bias", "eps", "count", "out"),
}
_SUMS = ("norm_statistics", "norm_act_reduce")  # a second kernel completes their sums


class CudaKernels:
    """A GPU image, loaded and launched through the C interface of the CUDA driver, which every CUDA machine has."""

    def __init__(self, image: Path, index: int, maker: str):
        """Load the image into PyTorch's context on this GPU; Unavailable on failure."""
        self.name = f"ops.mish, CUDA kernel by {maker}"
        self.origin = f"build {image.stem}"
        self.index = index
        self.driver = _driver()
        self.functions: dict[str, ctypes.c_void_p] = {}
        self.context, self.module = ctypes.c_void_p(), ctypes.c_void_p()
        device = ctypes.c_int()
        with torch.cuda.device(index):
            torch.cuda.current_stream(index)
            self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), device)
            self._enter()
            self._call("cuModuleLoadData", ctypes.byref(self.module), ctypes.c_char_p(image.read_bytes()))

    def map(self, order: int, x: Tensor, g: Tensor, out: Tensor) -> None:
        """As CpuKernels.map, in the current stream of the tensors' GPU."""
        pointers, count = (x.data_ptr(), g.data_ptr(), out.data_ptr()), x.numel()
        aligned = not any(pointer % 16 for pointer in pointers)
        per_block = THREADS * PIECES * 16 // x.element_size() if aligned else THREADS  # elements
        name = f"mish_{order}_{NAMES[TYPES[x.dtype]]}_{'vector' if aligned else 'scalar'}"
        arguments = (*map(ctypes.c_void_p, pointers), ctypes.c_longlong(count))
        addresses = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        self._launch(name, (-(-count // per_block), 1), addresses)

    def call(
        self, name: str, kind: int, outer: int, channels: int, inner: int, *arguments: float | Tensor | None
    ) -> None:
        """As CpuKernels.call, for the functions of csrc/norm_act_cpu.cpp, in the current stream of the tensors' GPU."""
        given: dict[str, Any] = dict(zip(_ARGUMENTS[name], arguments, strict=True))
        act = f"_{given.pop('act')}" if "act" in given else ""
        large, sums = tuple(given[key] for key in ("x", "dy", "out") if key in given), name in _SUMS
        grid = cut(outer, channels, inner, large, sums=sums)
        if sums:  # two sums per split and channel, and the offset of the first per channel
            size = (2 * grid.blocks[1] + 1) * channels
            given["partial"] = torch.empty(size, dtype=torch.float32, device=large[0].device)
            given.setdefault("count", outer * inner)
        addresses = ctypes.byref(ctypes.c_char_p(grid.call(**given)))  # one argument, the struct Call
        self._launch(f"{name}{act}_{NAMES[kind]}_{grid.variant}", grid.blocks, addresses)
        if sums:
            self._launch(f"{name}_end", (channels, 1), addresses)

    def _launch(self, name: str, grid: tuple[int, int], addresses: object) -> None:
        """Launch a kernel in the current stream; `addresses` is an array of the addresses of its arguments."""
        if not self._is_current():
            with torch.cuda.device(self.index):
                return self._launch(name, grid, addresses)
        self._enter()
        function = self.functions.get(name)
        if function is None:
            function = ctypes.c_void_p()
            self._call("cuModuleGetFunction", ctypes.byref(function), self.module, name.encode())
            self.functions[name] = function
        self._call("cuLaunchKernel", function, *grid, 1, THREADS, 1, 1, 0, self._stream(), addresses, None)

    def _is_current(self) -> bool:
        return torch.cuda.current_device() == self.index

    def _stream(self) -> int:
        return torch._C._cuda_getCurrentRawStream(
            self.index
        )  # torch.cuda.current_stream creates an object on each call

    def _enter(self) -> None:
        """Make PyTorch's context current: an autograd thread may not have one yet."""
        current = ctypes.c_void_p()
        self._call("cuCtxGetCurrent", ctypes.byref(current))
        if current.value != self.context.value:
            self._call("cuCtxSetCurrent", self.context)

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self.driver, name)(*arguments)
        if code != 0:
            text = ctypes.c_char_p()
            self.driver.cuGetErrorString(code, ctypes.byref(text))
            raise Unavailable(f"{name} failed: {(text.value or b'error %d' % code).decode()}")


def _driver(path: str = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1") -> ctypes.CDLL:
    """The CUDA driver; Unavailable if it cannot be loaded."""
    try:
        driver = ctypes.CDLL(path)
    except OSError as error:
        raise Unavailable(f"the CUDA driver cannot be loaded ({error})") from error
    pointer, number = ctypes.c_void_p, ctypes.c_uint
    driver.cuLaunchKernel.argtypes = (pointer, *[number] * 7, pointer, pointer, pointer)
    return driver


def _cuda(index: int | None) -> CudaKernels:
    """Kernels by nvcc: from the image built ahead of time, or from one built now for this GPU."""
    index = torch.cuda.current_device() if index is None else index
    ahead = build.find_ahead()
    if ahead is not None:
        try:
            return CudaKernels(ahead, index, "nvcc, ahead of time")
        except Unavailable as error:
            say(f"{ahead} does not support this GPU ({error})")
    return CudaKernels(build.nvcc_image([_architecture(index)]), index, "nvcc")


def _nvrtc(index: int | None) -> CudaKernels:
    index = torch.cuda.current_device() if index is None else index
    return CudaKernels(build.nvrtc_image(_architecture(index)), index, "NVRTC")


def _architecture(index: int) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    return f"{major}{minor}"


Loader = Callable[[int | None], "CpuKernels | CudaKernels"]
# Device type and loader, in the order of preference.
BACKENDS: dict[str, tuple[str, Loader]] = {"cpu": ("cpu", _cpu), "cuda": ("cuda", _cuda), "nvrtc": ("cuda", _nvrtc)}
