"""NVRTC, the compiler for CUDA that PyTorch's own packages bring, through ctypes: one way on Linux and Windows."""

import ctypes
import functools
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch


class NvrtcError(RuntimeError):
    """NVRTC is missing or has failed; the message tells the user why."""


@functools.cache
def library() -> ctypes.CDLL:
    """The library, from where PyTorch has it: on Windows beside its own, on Linux in a package of NVIDIA.

    Raises NvrtcError if there is none.
    """
    beside = Path(torch.__file__).parent / "lib"
    try:
        for path in sorted([*beside.glob("nvrtc64_*.dll"), *beside.glob("libnvrtc.so*")]):
            if ".alt." not in path.name:
                return ctypes.CDLL(str(path))
        pathfinder = importlib.import_module("cuda.pathfinder")
        return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("nvrtc").abs_path)
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: the finder has found no library
        raise NvrtcError(f"NVRTC is neither in {beside} nor in a package of NVIDIA ({error})") from error


def version() -> str:
    """For example `NVRTC 13.0`."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return f"NVRTC {major.value}.{minor.value}"


@functools.cache
def architectures() -> tuple[int, ...]:
    """The compute capabilities that it compiles for, for example 90, in ascending order."""
    count = ctypes.c_int()
    _call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    numbers = (ctypes.c_int * count.value)()
    _call("nvrtcGetSupportedArchs", numbers)
    return tuple(sorted(numbers))


def compile_source(sources: Mapping[str, str], options: Sequence[str], *, ptx: bool) -> bytes:
    """PTX or machine code of the first source by name, which includes the others.

    Raises NvrtcError with the beginning of the compiler's output.
    """
    (name, text), *headers = [(name.encode(), text.encode()) for name, text in sources.items()]
    strings = ctypes.c_char_p * len(headers)
    program = ctypes.c_void_p()
    included, names = strings(*(text for _, text in headers)), strings(*(name for name, _ in headers))
    _call("nvrtcCreateProgram", ctypes.byref(program), text, name, len(headers), included, names)
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if library().nvrtcCompileProgram(program, len(options), given):
            said = " ".join(_read("ProgramLog", program).decode(errors="replace").rstrip("\0").split())
            raise NvrtcError(f"NVRTC failed: {said[:400]}")
        return _read("PTX" if ptx else "CUBIN", program)
    finally:
        library().nvrtcDestroyProgram(ctypes.byref(program))


def _read(what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    _call(f"nvrtcGet{what}", program, text)
    return text.raw


def _call(name: str, *arguments: object) -> None:
    code = getattr(library(), name)(*arguments)
    if code:
        raise NvrtcError(f"{name} failed with code {code}")
