"""The CUDA kernels, loaded and launched through the C interface of the CUDA driver, which every CUDA machine has.

They are loaded by groups (ops/groups.py): Mish at once, those of the fused pair when they are first asked for.
"""

import ctypes
import functools
import struct
import sys
import threading
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ops.build import Unavailable
from ops.grid import POINTERS, THREADS, cut, variant_of
from ops.groups import MISH, SUMS, Group
from ops.kernels import ALIGNMENT, NAMES, TYPES, Kernels, Pass

PIECES = 2  # same as in csrc/mish_cuda.cu
# Errors of a kernel that ran before, of whatever library, after which nothing runs in the process any more
# (cuda.h; 701, too few resources for a launch, is among their numbers but is the launch's own).
LOST = (214, 700, 702, 709, 710, *range(714, 720))
OTHER_CONTEXT = (201, 400)  # what a launch returns if the thread's context is not that of the kernel

_addresses = struct.Struct(f"@{len(POINTERS)}P").pack
_four_addresses = struct.Struct("@4P").pack
_pointer = functools.lru_cache(maxsize=256)(ctypes.c_void_p)  # of a stream, of which there are few
_Four = ctypes.c_int64 * 4  # the arguments of a kernel mish_*: three addresses and a number


class _Thread(threading.local):
    entered = False  # whether this thread has been seen with PyTorch's context


class CudaKernels(Kernels):
    """The kernels of one GPU."""

    fused_types = (torch.float32, torch.bfloat16, torch.float16)

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
        self._thread = _Thread()
        device = ctypes.c_int()
        with torch.cuda.device(index):
            torch.cuda.current_stream(index)
            self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), device)
        self.load(MISH)
        self.origin = f"build {next(iter(self._modules)).stem}"
        self._maps = {  # by order, type and alignment: the kernel, and how many elements a block of it writes
            (order, dtype, aligned): (
                self.functions[f"mish_{order}_{NAMES[TYPES[dtype]]}_{'vector' if aligned else 'scalar'}"],
                THREADS * PIECES * ALIGNMENT // dtype.itemsize if aligned else THREADS,
            )
            for order, dtype, aligned in product(range(3), TYPES, (True, False))
        }

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
                    self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(image))
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

    def map(self, order: int, x: Tensor, g: Tensor, out: Tensor) -> None:
        """As Kernels.map, in the current stream of the tensors' GPU."""
        first, second, third, count = x.data_ptr(), g.data_ptr(), out.data_ptr(), x.numel()
        function, per_block = self._maps[order, x.dtype, not (first | second | third) % ALIGNMENT]
        values = _Four(first, second, third, count)
        at = ctypes.addressof(values)
        self._launch(_four_addresses(at, at + 8, at + 16, at + 24), (function, -(-count // per_block), 1))

    def bind(self, name: str, kind: int, outer: int, channels: int, inner: int, aligned: bool, **numbers: Any) -> Pass:
        """As Kernels.bind; the pass runs in the current stream of the GPU."""
        sums, act = name in SUMS, numbers.pop("act", None)
        grid = cut(outer, channels, inner, width=_width(kind, aligned), sums=sums, sms=self.sms)
        if sums:
            numbers.setdefault("count", outer * inner)
        constants = grid.numbers(**numbers)
        kernel = f"{name if act is None else f'{name}_{act}'}_{NAMES[kind]}_{grid.variant}"
        if kernel not in self.functions:  # those without an activation are in the groups of all activations
            self.load(self.group(kind, channels, inner, aligned, act or 0))
        launches = [(self.functions[kernel], *grid.blocks)]
        launch = self._launch
        if not sums:

            def run(*arrays: int) -> None:
                call = ctypes.c_char_p(_addresses(*arrays, 0) + constants)
                launch(ctypes.byref(call), *launches)  # one argument, the struct Call

            return run
        launches.append((self.functions[f"{name}_end"], channels, 1))
        size = (2 * grid.blocks[1] + 1) * channels  # two sums per split and channel, and the offset of the first
        new = torch.empty(0, dtype=torch.float32, device=self.device).new_empty

        def run_sums(*arrays: int) -> None:
            partial = new(size)
            call = ctypes.c_char_p(_addresses(*arrays, partial.data_ptr()) + constants)
            launch(ctypes.byref(call), *launches)

        return run_sums

    def _launch(self, places: object, *launches: tuple[ctypes.c_void_p, int, int]) -> None:
        """Launch kernels (function, grid x, grid y) one after the other in the current stream.

        `places`: the addresses of their arguments. The driver copies the arguments before this returns.
        """
        if not self._is_current():
            with torch.cuda.device(self.index):
                return self._launch(places, *launches)
        previous = None if self._thread.entered else self._enter()
        try:
            stream, launch = _pointer(self._stream()), self.driver.cuLaunchKernel
            for function, x, y in launches:  # Python's int is passed as int: only addresses need a type
                code = launch(function, x, y, 1, THREADS, 1, 1, 0, stream, places, None)
                if code:
                    if code in OTHER_CONTEXT and previous is None:  # it was changed after the thread was first seen
                        previous = self._enter()
                        code = launch(function, x, y, 1, THREADS, 1, 1, 0, stream, places, None)
                    self._check("cuLaunchKernel", code)
        finally:
            if previous is not None:
                self._leave(previous)

    def _is_current(self) -> bool:
        return torch._C._cuda_getDevice() == self.index

    def _stream(self) -> int:
        return torch._C._cuda_getCurrentRawStream(
            self.index
        )  # torch.cuda.current_stream creates an object on each call

    def _enter(self) -> ctypes.c_void_p | None:
        """Make PyTorch's context current: an autograd thread may have none, a user's thread a green context.

        Returns the context that was current instead, for `_leave`.
        """
        current = ctypes.c_void_p()
        self._call("cuCtxGetCurrent", ctypes.byref(current))
        if current.value != self.context.value:
            self._call("cuCtxSetCurrent", self.context)
        foreign = current.value is not None and current.value != self.context.value
        self._thread.entered = not foreign
        return current if foreign else None

    def _leave(self, previous: ctypes.c_void_p | None) -> None:
        if previous is not None:
            self._call("cuCtxSetCurrent", previous)

    def _function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        self._call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return function

    def _call(self, name: str, *arguments: object) -> None:
        self._check(name, getattr(self.driver, name)(*arguments))

    def _check(self, name: str, code: int) -> None:
        """Raise for an error of the driver: Unavailable, or RuntimeError if it is that of an earlier kernel."""
        if code == 0:
            return
        text = ctypes.c_char_p()
        self.driver.cuGetErrorString(code, ctypes.byref(text))
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
        return ctypes.CDLL(path)
    except OSError as error:
        raise Unavailable(f"the CUDA driver cannot be loaded ({error})") from error


def refuse_in_capture(what: str, prepare: str) -> None:
    """RuntimeError if a CUDA graph is being captured, during which nothing can be loaded or compared."""
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"{what} cannot be loaded while a CUDA graph is captured: call {prepare} before the capture")
