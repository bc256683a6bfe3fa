"""The CUDA kernels, loaded and launched through the C interface of the CUDA driver, which every CUDA machine has.

They are loaded by groups (ops/groups.py): Mish at once, those of the fused pair when they are first asked for.
"""

import ctypes
import functools
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from ctypes import byref, c_char_p
from pathlib import Path
from typing import Any

import torch

from ops.build import Unavailable
from ops.grid import POINTERS, THREADS, cut, variant_of
from ops.groups import MISH, SUMS, Group
from ops.kernels import ALIGNMENT, ARGUMENTS, NAMES, TYPES, Kernels, Map, Pass
from ops.launch import INVALID_CONTEXT, Launcher

PIECES = 2  # same as in csrc/mish_cuda.cu
# Errors of a kernel that ran before, of whatever library, after which nothing runs in the process any more
# (cuda.h; 701, too few resources for a launch, is among their numbers but is the launch's own).
MISALIGNED = ALIGNMENT - 1
LOST = (214, 700, 702, 709, 710, *range(714, 720))
OTHER_CONTEXT = (INVALID_CONTEXT, 400)  # what a launch returns if the thread's context is not that of the kernel

# Without CUDA, PyTorch does not have them.
_device: Callable[[], int] = getattr(torch._C, "_cuda_getDevice", int)
_raw_stream: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", int)

_pack_map = struct.Struct("@4P").pack  # the stream, and the addresses that csrc/mish_cuda.cu takes
_pack_pass = struct.Struct(f"@{1 + len(POINTERS)}P").pack  # those of csrc/norm_act_cuda.cu
COUNT = struct.Struct("@q")  # what follows the three addresses in the struct Map of csrc/mish_cuda.cu


class CudaKernels(Kernels):
    """The kernels of one GPU."""

    fused_types = (torch.float32, torch.bfloat16, torch.float16)
    # As in the code that torch.compile generates.
    empty = staticmethod(torch._C._dynamo.guards._empty_strided_cuda)  # type: ignore[attr-defined]

    def __init__(self, image_of: Callable[[Group], Path], index: int):
        """Load the kernels of Mish into PyTorch's context on this GPU; Unavailable on failure.

        `image_of` gives the image of a group for this GPU, or raises Unavailable.
        """
        self.name = "ops.mish, CUDA kernel by NVRTC"
        self.index, self.device = index, torch.device("cuda", index)
        self.sms = torch.cuda.get_device_properties(index).multi_processor_count
        self.driver = _driver()
        self.context = ctypes.c_void_p()
        self.functions: dict[str, ctypes.c_void_p] = {}
        self._image_of = image_of
        self._modules: dict[Path, ctypes.c_void_p] = {}
        self._groups: set[Group] = set()
        self._stream = self._stream_of(index)
        device = ctypes.c_int()
        with torch.cuda.device(index):
            torch.cuda.current_stream(index)
            self._call("cuDeviceGet", byref(device), ctypes.c_int(index))
            self._call("cuDevicePrimaryCtxRetain", byref(self.context), device)
        self._launcher = Launcher(self.driver, self.context.value or 0)
        self.load(MISH)
        self.origin = f"build {next(iter(self._modules)).stem}"

    @staticmethod
    def _stream_of(index: int) -> Callable[[], int]:
        """Returns the current stream; torch.cuda.current_stream creates an object on each call."""
        return functools.partial(_raw_stream, index)

    def load(self, group: Group) -> None:
        """Build a group of kernels if necessary and load it, once; Unavailable on failure.

        RuntimeError while a CUDA graph is captured, which forbids it.
        """
        if group in self._groups:
            return
        refuse_in_capture(f"the kernels {group.name} of {self.device}", f'ops.norm_act.prepare("{self.device}")')
        path = self._image_of(group)
        with torch.cuda.device(self.index):
            previous = self._enter()
            try:
                if path not in self._modules:
                    module, image = ctypes.c_void_p(), path.read_bytes()  # with a zero at the end, which PTX needs
                    self._call("cuModuleLoadData", byref(module), c_char_p(image))
                    self._modules[path] = module
                # All of them now: the driver may load a kernel when it is asked for, which a capture forbids.
                functions = {name: self._function(self._modules[path], name) for name in group.kernels}
                self.functions.update(functions)
            finally:
                self._leave(previous)
        self._groups.add(group)

    def group(self, kind: int, channels: int, inner: int, aligned: bool, act: int) -> Group:
        """The group that `bind` takes for these arguments."""
        return Group(NAMES[kind], variant_of(channels, inner, _width(kind, aligned)), act)

    def bind_map(self, order: int, dtype: torch.dtype, count: int) -> Map:
        """As Kernels.bind_map, in the current stream of the GPU."""
        name = f"mish_{order}_{NAMES[TYPES[dtype]]}"
        constants = COUNT.pack(count)
        in_vectors, in_scalars = (
            self._launcher.prepare([(constants, [(self.functions[f"{name}_{variant}"], -(-count // per_block), 1)])], 3)
            for variant, per_block in (("vector", THREADS * PIECES * ALIGNMENT // dtype.itemsize), ("scalar", THREADS))
        )
        by_vectors, by_scalars, pack = in_vectors.head, in_scalars.head, _pack_map
        launch_all, stream, retry = self._launcher.launch_all, self._stream, self._retry

        def run(x: int, g: int, out: int) -> None:
            call = (by_scalars if (x | g | out) & MISALIGNED else by_vectors) + pack(stream(), x, g, out)
            if code := launch_all(call):
                retry(code, call)

        run.launches = in_vectors, in_scalars  # type: ignore[attr-defined]  # kept as long as their heads are used
        return run

    def bind(
        self, names: Sequence[str], kind: int, outer: int, channels: int, inner: int, aligned: bool, **numbers: Any
    ) -> Pass:
        """As Kernels.bind; the passes run in the current stream of the GPU."""
        act, launches, scratch = numbers.pop("act", None), [], 0
        for name in names:
            sums, width = name in SUMS, _width(kind, aligned)
            grid = cut(outer, channels, inner, width=width, sums=sums, sms=self.sms)
            with_act = f"{name}_{act}" if "act" in ARGUMENTS[name] else name
            kernel = f"{with_act}_{NAMES[kind]}_{grid.variant}"
            if kernel not in self.functions:  # those without an activation are in the groups of all activations
                self.load(self.group(kind, channels, inner, aligned, act or 0))
            kernels = [(self.functions[kernel], *grid.blocks)]
            if sums:  # two per split and channel, and the offset of the first
                kernels.append((self.functions[f"{name}_end"], channels, 1))
                scratch = max(scratch, (2 * grid.blocks[1] + 1) * channels)
            launches.append((grid.numbers(**({"count": outer * inner} if sums else {}) | numbers), kernels))
        prepared, empty, size = self._launcher.prepare(launches, len(POINTERS)), self.empty, (scratch,)
        launch_all, stream, retry = self._launcher.launch_all, self._stream, self._retry

        def run(*arrays: int, partial: int = 0) -> None:
            call = prepared.head + _pack_pass(stream(), *arrays, partial)
            if code := launch_all(call):
                retry(code, call)

        def run_sums(*arrays: int) -> None:
            partial = empty(size, (1,), torch.float32)
            run(*arrays, partial=partial.data_ptr())

        return run_sums if scratch else run

    def _retry(self, code: int, call: bytes) -> None:
        """After launches that returned an error: once more, in PyTorch's context, if another one was current."""
        if code in OTHER_CONTEXT:
            previous = self._enter()
            try:
                code = self._launcher.launch_all(call)
            finally:
                self._leave(previous)
        self._check("cuLaunchKernelEx", code)

    def is_current(self) -> bool:
        """As Kernels.is_current."""
        return _device() == self.index

    def guard(self) -> AbstractContextManager[object]:
        """As Kernels.guard."""
        return torch.cuda.device(self.index)

    def _enter(self) -> ctypes.c_void_p | None:
        """Make PyTorch's context current: an autograd thread may have none, a user's thread a green context.

        Returns the context that was current instead, for `_leave`.
        """
        current = ctypes.c_void_p()
        self._call("cuCtxGetCurrent", byref(current))
        if current.value != self.context.value:
            self._call("cuCtxSetCurrent", self.context)
        foreign = current.value is not None and current.value != self.context.value
        self._launcher.thread.entered = True
        return current if foreign else None

    def _leave(self, previous: ctypes.c_void_p | None) -> None:
        if previous is not None:
            self._call("cuCtxSetCurrent", previous)
            self._launcher.thread.entered = False

    def _function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        self._call("cuModuleGetFunction", byref(function), module, name.encode())
        return function

    def _call(self, name: str, *arguments: object) -> None:
        self._check(name, getattr(self.driver, name)(*arguments))

    def _check(self, name: str, code: int) -> None:
        """Raise for an error of the driver: Unavailable, or RuntimeError if it is that of an earlier kernel."""
        if code == 0:
            return
        text = c_char_p()
        self.driver.cuGetErrorString(code, byref(text))
        said = (text.value or b"error %d" % code).decode()
        if code in LOST:
            raise RuntimeError(
                f"a kernel launched earlier in this process failed: {said} (CUDA error {code}, seen by {name});"
                " CUDA_LAUNCH_BLOCKING=1 shows which"
            )
        raise Unavailable(f"{name} failed: {said}")


def _width(kind: int, aligned: bool) -> int:
    """Elements of a piece."""
    itemsize = next(dtype.itemsize for dtype, number in TYPES.items() if number == kind)
    return ALIGNMENT // itemsize if aligned else 1


def _driver(path: str = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1") -> ctypes.CDLL:
    """The CUDA driver; Unavailable if it cannot be loaded."""
    try:
        driver = ctypes.CDLL(path)
        driver.cuLaunchKernelEx  # noqa: B018 - AttributeError before CUDA 11.8
    except (OSError, AttributeError) as error:
        raise Unavailable(f"the CUDA driver cannot be loaded ({error})") from error
    return driver


def refuse_in_capture(what: str, prepare: str) -> None:
    """RuntimeError if a CUDA graph is being captured, during which nothing can be loaded or compared."""
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"{what} cannot be loaded while a CUDA graph is captured: call {prepare} before the capture")
