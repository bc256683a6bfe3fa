"""What the tests of the operators share: the CPU kernels, of each instruction set."""

import pytest
import torch

from ops import backend, build


@pytest.fixture
def kernels():
    """The CPU kernels; the test is skipped, with the reason, where nothing can build them."""
    choice = backend.choose(torch.device("cpu"))
    if build.cpp_compiler() is None and choice.kernels is None:
        pytest.skip(f"{choice.implementation}: {choice.reason}")
    assert choice.kernels is not None, choice.reason
    return choice.kernels


@pytest.fixture(params=build.INSTRUCTION_SETS)
def instructions(request, monkeypatch):
    """Each instruction set that this processor has, as the one that kernels are chosen for."""
    if build.cpp_compiler() is None:
        pytest.skip("no C++ compiler")
    sets = list(build.INSTRUCTION_SETS)
    if sets.index(request.param) < sets.index(build.instruction_set()):
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setattr(build, "instruction_set", lambda: request.param)
    monkeypatch.setattr(backend, "_chosen", {})
    choice = backend.choose(torch.device("cpu"))
    assert request.param in choice.implementation, choice.reason
    return request.param
