"""Choice of compiled kernels, and the library of CPU kernels.

`choose(device)` decides once per process and device: the CPU library or the CUDA kernels (ops/build.py), else PyTorch's
Mish, with a line that gives the reason. ``YOLO_MISH=eager|torch|cpu|cuda`` forces one of them and is an error if it is
unavailable.
"""

import ctypes
import functools
import os
import platform
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ops import build
from ops.build import Unavailable, say
from ops.cuda import CudaKernels, refuse_in_capture
from ops.kernels import ARRAYS, TYPES, Kernels, Map, Pass

FORCED = ("eager", "torch", "cpu", "cuda")


@dataclass(frozen=True)
class Choice:
    """What runs on a device: `kernels` if compiled ones are used, `eager` if the three-op formula was requested."""

    implementation: str
    reason: str
    kernels: Kernels | None = None
    eager: bool = False


def forced() -> str:
    """The backend that $YOLO_MISH requests, or an empty string; ValueError for an unknown one."""
    requested = os.environ.get("YOLO_MISH", "")
    if requested and requested not in FORCED:
        raise ValueError(f"YOLO_MISH={requested}: expected one of {', '.join(FORCED)}, or nothing")
    return requested


_chosen: dict[torch.device, Choice] = {}  # once per process and device


def choose(device: torch.device) -> Choice:
    """What runs Mish on this device, built and loaded on first use.

    ValueError if a forced backend is unavailable, or for a GPU that is not there; RuntimeError on first use while a
    CUDA graph is captured.
    """
    choice = _chosen.get(device)
    if choice is None:
        device = exact(device)
        choice = _chosen.get(device)
    if choice is None:
        choice = _chosen[device] = _choose(device.type, device.index, forced())
    return choice


def exact(device: torch.device) -> torch.device:
    """The device as tensors name theirs: `cuda` is the current GPU, by its index, and `cpu:0` is `cpu`."""
    if device == torch.device("cuda"):  # without an index
        return torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_initialized() else 0)
    return torch.device("cpu") if device.type == "cpu" else device


def unsupported(kind: str) -> str:
    """Why there is no custom kernel for this kind of device on this machine, or an empty string."""
    if kind == "cuda" and torch.version.hip:
        return "the kernels are for NVIDIA GPUs, and this PyTorch is for AMD's (ROCm)"
    if kind == "cpu" and platform.system() == "Windows":
        return "the CPU kernel is not built on Windows"
    return "" if kind in BACKENDS else f"no custom kernel for {kind}"


def _choose(kind: str, index: int | None, requested: str) -> Choice:
    if requested == "eager":
        return Choice("x tanh(softplus(x))", "YOLO_MISH=eager", eager=True)
    if requested == "torch":
        return Choice("torch.nn.functional.mish", "YOLO_MISH=torch")
    if kind == "meta":  # whatever is forced: such tensors have no values, and networks are measured with them
        return Choice("torch.nn.functional.mish", "tensors on meta have no values")
    if requested and requested != kind:
        raise ValueError(f"YOLO_MISH={requested}: the tensor is on {kind}; expected {requested}")
    reason = unsupported(kind)
    if not reason:
        if kind == "cuda" and torch.cuda.is_available():
            refuse_in_capture(f"the Mish kernel of cuda:{index}", f'ops.mish.prepare("cuda:{index}")')
        try:
            kernels = BACKENDS[kind](index)
        except Unavailable as error:
            reason = str(error)
        else:
            return Choice(kernels.name, f"YOLO_MISH={requested}" if requested else kernels.origin, kernels)
    if requested:
        raise ValueError(f"YOLO_MISH={requested}: {reason}")
    if kind in (*BACKENDS, "mps"):
        say(f"Mish runs as torch.nn.functional.mish on {kind}, slower: {reason}")
    return Choice("torch.nn.functional.mish", reason)


def expect(device: torch.device) -> Choice:
    """What `choose` returns, or is expected to return; builds and loads nothing."""
    device = exact(device)
    requested, chosen = forced(), _chosen.get(device)
    if chosen is not None:
        return chosen
    if not requested and unsupported(device.type):
        return Choice("torch.nn.functional.mish", unsupported(device.type))
    if device.type == "cuda" and requested in ("", "cuda"):
        here = "" if torch.cuda.is_available() else "; this PyTorch sees no GPU"
        return Choice("ops.mish, CUDA kernel", f"NVRTC builds it on first use{here}")
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

_pack_map = struct.Struct("@2iq4P").pack  # the struct Map of csrc/mish_cpu.cpp
_pack_addresses = struct.Struct(f"@{len(ARRAYS)}P").pack
_CONSTANTS = struct.Struct("@P4q2i3f0q")  # what follows the addresses in the struct Call of csrc/norm_act_cpu.cpp


class CpuKernels(Kernels):
    """The CPU library, called through ctypes, which releases the GIL during calls.

    A call takes one argument, a packed struct: ctypes needs more time for several than to pack them.
    """

    fused_types = (torch.float32, torch.bfloat16)
    # As in the code that torch.compile generates.
    empty = staticmethod(torch._C._dynamo.guards._empty_strided_cpu)  # type: ignore[attr-defined]

    def __init__(self, path: Path, instructions: str):
        """Load the library; Unavailable on failure."""
        self.name = f"ops.mish, CPU kernel, {instructions}"
        self.origin = f"build {path.stem}"
        try:
            self.library = ctypes.CDLL(str(path))
            self.library.mish_map  # noqa: B018 - AttributeError if it is another library
            self.parallel_for = _address_of_parallel_for()
        except (OSError, AttributeError) as error:
            raise Unavailable(f"{path} cannot be loaded ({error})") from error

    def bind_map(self, order: int, dtype: torch.dtype, count: int) -> Map:
        """As Kernels.bind_map."""
        function, kind, threads = self.library.mish_map, TYPES[dtype], self.parallel_for

        def run(x: int, g: int, out: int) -> None:
            code = function(_pack_map(kind, order, count, x, g, out, threads))
            if code != 0:
                raise RuntimeError(f"mish_map of the CPU library failed with code {code}")

        return run

    def bind(
        self, names: Sequence[str], kind: int, outer: int, channels: int, inner: int, aligned: bool, **numbers: Any
    ) -> Pass:
        """As Kernels.bind; the alignment does not matter."""
        count, act = numbers.get("count", 0), numbers.get("act", 0)
        floats = (numbers.get(key, 0.0) for key in ("eps", "slope", "factor"))
        constants = _CONSTANTS.pack(self.parallel_for, outer, channels, inner, count, kind, act, *floats)
        functions = [getattr(self.library, name) for name in names]

        def run(*arrays: int) -> None:
            call = _pack_addresses(*arrays) + constants
            for function in functions:
                code = function(call)
                if code != 0:
                    raise RuntimeError(f"{function.__name__} of the CPU library failed with code {code}")

        return run


def _address_of_parallel_for() -> int:
    """torch_parallel_for of PyTorch's stable C interface (2.10 and later), which uses PyTorch's own threads."""
    name = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(sys.platform, "libtorch_cpu.so")
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
    return ctypes.cast(library.torch_parallel_for, ctypes.c_void_p).value or 0


def _cpu(index: int | None) -> CpuKernels:
    return CpuKernels(build.cpu_library(), build.instruction_set())


# ----------------------------------------------------------------------------------------------------------- the GPUs


def _cuda(index: int | None) -> CudaKernels:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (index or 0) >= count:
        name = "cuda" if index is None else f"cuda:{index}"
        raise ValueError(f"{name}: PyTorch {torch.__version__} sees {count} CUDA GPUs")
    index = torch.cuda.current_device() if index is None else index
    return CudaKernels(functools.partial(build.cuda_image, _architecture(index)), index)


def _architecture(index: int) -> str:
    major, minor = torch.cuda.get_device_capability(index)
    return f"{major}{minor}"


Loader = Callable[[int | None], "CpuKernels | CudaKernels"]
BACKENDS: dict[str, Loader] = {"cpu": _cpu, "cuda": _cuda}  # by device type
