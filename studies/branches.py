"""A branching and a branch-free form of the same activation in the same loop (branches.cpp), compiled when used."""

import ctypes
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ops.build import INSTRUCTION_SETS, SOURCES, Unavailable, compile_with, cpp_compiler, instruction_set

FUNCTIONS = {"relu": 0.0, "leaky_relu": 0.0, "mish": 20.0}  # with the bound between their two formulas
FORMS = ("free", "if", "jump")
SIGNS = ("random", "sorted", "ordinary")  # of the distance to the bound; ordinary: normal, for mish all below its bound
COMMON = ("-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", f"-I{SOURCES}")

Kernel = Callable[[Tensor, Tensor, int], None]


@cache
def kernels(vectorised: bool) -> dict[tuple[str, str], Kernel]:
    """The loops by function and form: (x, y, repeats) with fp32 tensors (N,). Raises Unavailable without a compiler."""
    compiler = cpp_compiler()
    if compiler is None:
        raise Unavailable("no C++ compiler")
    flags = ("-O3", *INSTRUCTION_SETS[instruction_set()]) if vectorised else ("-O2", "-fno-tree-vectorize")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "branches.so"
        compile_with([compiler, *COMMON, *flags, str(Path(__file__).with_suffix(".cpp")), "-o", str(path)])
        library = ctypes.CDLL(str(path))  # stays loaded without its file
    return {(name, form): _kernel(getattr(library, f"{name}_{form}")) for name in FUNCTIONS for form in FORMS}


def _kernel(function: Callable[..., None]) -> Kernel:
    def run(x: Tensor, y: Tensor, repeats: int) -> None:
        pointers = (ctypes.c_void_p(each.data_ptr()) for each in (x, y))
        function(*pointers, ctypes.c_long(x.numel()), ctypes.c_int(repeats))

    return run


def inputs(name: str, signs: str, count: int, *, seed: int) -> Tensor:
    """Inputs (count,) of a function: on both sides of its bound in random order, or first those below; or ordinary."""
    normal = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    if signs == "ordinary":
        return normal
    return FUNCTIONS[name] + (normal.sort().values if signs == "sorted" else normal)
