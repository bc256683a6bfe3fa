"""Host time of the fast paths beside that of PyTorch's own operators, as ratios in one process, with a CUDA driver that
launches nothing and tensors of 64 values. The best of many short runs: other programs can only make a run longer."""

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ops import build, launch, norm_act
from ops.mish import Mish, mish
from tests.ops.cpu_stand_in import StandIn, choose_on_the_cpu, load_driver

REPEATS, CALLS = 120, 5
FUNCTIONS = ("DeviceGet", "DevicePrimaryCtxRetain", "CtxGetCurrent", "CtxSetCurrent", "ModuleLoadData")
FUNCTIONS += ("ModuleGetFunction", "LaunchKernelEx")


@pytest.fixture
def idle(request, pretended_gpu, tmp_path, monkeypatch) -> None:
    """Kernels that compute nothing, of a driver whose functions return at once, chosen for tensors on the CPU.

    Launches are made by C++, or with the parameter "Python" as without a compiler.
    """
    compiler = build.cpp_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    source, library = tmp_path / "idle.cpp", tmp_path / "idle.so"
    source.write_text("\n".join(f'extern "C" int cu{name}() {{ return 0; }}' for name in FUNCTIONS))
    build.compile_with([compiler, "-shared", "-fPIC", str(source), "-o", str(library)])
    load_driver(library, monkeypatch)
    if request.param == "Python":
        monkeypatch.setattr(launch, "_compiled", lambda: None)
    choose_on_the_cpu(StandIn(library), monkeypatch)


def ratio(ours: Callable[[], object], theirs: Callable[[], object]) -> float:
    """The least time of ours by the least of theirs, measured in turns."""
    best = [float("inf")] * 2
    for _ in range(REPEATS):
        for index, function in enumerate((ours, theirs)):
            begin = time.perf_counter()
            for _ in range(CALLS):
                function()
            best[index] = min(best[index], time.perf_counter() - begin)
    return best[0] / best[1]


def both_ways(function: Callable[[], torch.Tensor], grad: torch.Tensor) -> Callable[[], None]:
    return lambda: function().backward(grad)


LIMITS = {  # by what is called: where C++ makes the launches, and where Python does
    "pair both ways": (1.25, 1.4),
    "pair in evaluation": (0.85, 0.95),
    "Mish both ways": (1.55, 1.75),
    "Mish": (1.75, 2.6),
    "Mish, types in turn": (1.95, 2.9),
}


@pytest.mark.parametrize("idle", ["C++", "Python"], indirect=True)
@pytest.mark.parametrize("name", LIMITS)
def test_host_time(idle, request, name):
    limit = LIMITS[name][request.node.callspec.params["idle"] == "Python"]
    x = torch.randn(1, 16, 2, 2)
    other = x.bfloat16()
    leaf, grad = x.clone().requires_grad_(), torch.ones_like(x)
    norm, fixed, relu, act = nn.BatchNorm2d(16), nn.BatchNorm2d(16).eval(), nn.ReLU(), Mish()
    ours, theirs = {
        "pair both ways": (
            both_ways(lambda: norm_act.norm_act(leaf, norm, act), grad),
            both_ways(lambda: relu(norm(leaf)), grad),
        ),
        "pair in evaluation": (lambda: norm_act.norm_act(x, fixed, act), lambda: relu(fixed(x))),
        "Mish both ways": (both_ways(lambda: mish(leaf), grad), both_ways(lambda: F.mish(leaf), grad)),
        "Mish": (lambda: mish(x), lambda: F.mish(x)),
        "Mish, types in turn": (lambda: (mish(x), mish(other)), lambda: (F.mish(x), F.mish(other))),
    }[name]
    with torch.set_grad_enabled("both" in name):
        assert ratio(ours, theirs) <= limit
