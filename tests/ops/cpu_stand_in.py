"""CudaKernels for tensors on the CPU, whose driver and images are a library."""

import functools
import operator
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ops import backend, cuda, first_use

_threads = torch.get_num_threads


class StandIn(cuda.CudaKernels):
    """The kernels of a library. What asks PyTorch about its GPU calls a function in C as well, of something else."""

    empty = staticmethod(torch._C._dynamo.guards._empty_strided_cpu)  # type: ignore[attr-defined]

    def __init__(self, library: Path):
        super().__init__(lambda group: library, 0)
        self.device = torch.device("cpu")

    def is_current(self) -> bool:
        return _threads() > self.index

    @staticmethod
    def _stream_of(index: int) -> Callable[[], int]:
        return functools.partial(operator.index, 9)


def load_driver(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ops/cuda.py take a library for the CUDA driver."""
    driver = cuda._driver
    monkeypatch.setattr(cuda, "_driver", lambda: driver(str(library)))


def choose_on_the_cpu(kernels: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose kernels for tensors on the CPU, as if all groups had passed their comparison."""
    choice = backend.Choice(kernels.name, kernels.origin, kernels)
    monkeypatch.setattr(backend, "_chosen", {torch.device("cpu"): choice})
    monkeypatch.setattr(first_use, "difference", lambda device, group: "")
    monkeypatch.setattr(first_use, "wrong", {})
    monkeypatch.setattr(first_use, "_tried", set())
