"""The first use in a process: in a user's context, during a capture, after a failure of another kernel, by any name of
the device, and on systems without kernels. The CUDA driver is emulated."""

import contextlib
import platform
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ops import backend, build, first_use, grid, norm_act
from ops.groups import EVERYTHING, MISH, Group, pairs
from ops.kernels import NAMES, TYPES
from ops.mish import Mish, mish, prepare
from tests.support.processes import ROOT

CPU = torch.device("cpu")
DIFFERENCE = first_use.difference
RELU = {"dtype": torch.float32, "memory_format": torch.channels_last, "activations": [nn.ReLU]}


@pytest.fixture
def untried(emulated, monkeypatch) -> backend.CudaKernels:
    """The emulated kernels as on a GPU in a new process, compared on one small shape."""
    monkeypatch.setattr(first_use, "difference", DIFFERENCE)
    monkeypatch.setattr(first_use, "SHAPES", dict.fromkeys(first_use.SHAPES, ((2, 8, 2, 4),)))
    return emulated


def block() -> tuple[nn.BatchNorm2d, torch.Tensor]:
    return nn.BatchNorm2d(8), torch.randn(2, 8, 4, 4, requires_grad=True)


def test_first_use_inside_a_checkpoint(untried, capsys):
    norm, x = block()
    checkpoint(lambda x: norm_act.norm_act(x, norm, Mish()), x, use_reentrant=False).sum().backward()
    assert first_use._tried and x.grad is not None and capsys.readouterr().err == ""


def test_first_use_under_hooks_of_saved_tensors(untried):
    norm, x = block()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.shape) or each, lambda each: each):
        norm_act.norm_act(x, norm, Mish())
    assert first_use._tried and max(shape.numel() for shape in kept) == x.numel() and len(kept) == 4


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_first_use_in_other_contexts(untried, context):
    norm, x = block()
    with context():
        norm_act.norm_act(x, norm, Mish())
    assert first_use._tried and not first_use.wrong


def test_first_use_during_a_capture_is_refused_and_nothing_is_kept(untried, monkeypatch):
    norm, x = block()
    with monkeypatch.context() as capturing:
        capturing.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        with pytest.raises(RuntimeError, match=r'call ops.norm_act.prepare\("cpu"\) before the capture'):
            norm_act.norm_act(x, norm, Mish())
        assert not first_use._tried
        capturing.setattr(backend, "_chosen", {})
        capturing.setattr(torch.cuda, "is_available", lambda: True)
        with pytest.raises(RuntimeError, match=r'call ops.mish.prepare\("cuda:0"\) before the capture'):
            prepare("cuda:0")
        assert backend._chosen == {}
    y = norm_act.norm_act(x, norm, Mish())
    assert y.grad_fn.name() == "_NormActBackward"


def test_prepared_kernels_ask_the_driver_for_nothing_but_launches(emulated, monkeypatch):
    norm, x = block()
    norm_act.prepare("cpu")
    prepared = norm_act.norm_act(x, norm, Mish())  # this thread's context is known from here on
    monkeypatch.setattr(emulated, "_call", lambda name, *arguments: pytest.fail(f"{name} while a graph is captured"))
    for act in (nn.SiLU(), nn.ReLU(), nn.LeakyReLU(), Mish()):
        y = norm_act.norm_act(x, norm, act)
        y.sum().backward()
    mish(x.double()).sum().backward()
    torch.testing.assert_close(y, prepared)


def test_each_group_is_compared_on_several_strips_and_splits():
    for group in pairs():
        number = next(kind for kind, name in NAMES.items() if name == group.type)
        width = 16 // next(dtype.itemsize for dtype, kind in TYPES.items() if kind == number)
        for layout in first_use.LAYOUTS[group.variant]:
            divided = False
            for batch, channels, height, planes in first_use.SHAPES[group.variant]:
                sizes = (batch, channels, height * planes)
                if layout == torch.channels_last:
                    sizes = (batch * height * planes, channels, 1)
                found = grid.cut(*sizes, width=width, sums=True, sms=132)
                assert found.variant == group.variant
                divided = divided or min(found.blocks) > 1
            assert divided


def test_a_call_loads_and_compares_its_own_group_once(untried, monkeypatch):
    compared = []
    monkeypatch.setattr(first_use, "difference", lambda device, group: compared.append(group) or "")
    norm, x = block()
    for act in (nn.ReLU(), nn.ReLU(), nn.SiLU()):
        norm_act.norm_act(x, norm, act).sum().backward()
    norm_act.norm_act(x.to(memory_format=torch.channels_last), norm, nn.ReLU())
    norm_act.norm_act(torch.randn(2, 8, 3, 3), norm, nn.ReLU())
    used = [("along", 1), ("along", 2), ("across", 1), ("scalar", 1)]
    assert compared == [Group("float32", *each) for each in used]
    assert untried._groups == {MISH, *compared}


def test_prepare_loads_what_a_run_needs_and_everything_by_default(untried, monkeypatch):
    monkeypatch.setattr(first_use, "difference", lambda device, group: "")
    norm_act.prepare("cpu", **RELU)
    assert untried._groups == {MISH, Group("float32", "across", 1)}
    norm_act.prepare("cpu", **{**RELU, "memory_format": torch.contiguous_format, "activations": [nn.GELU, Mish]})
    assert untried._groups == {MISH} | {
        Group("float32", *each) for each in (("across", 1), ("along", 0), ("scalar", 0))
    }
    norm_act.prepare("cpu")
    assert untried._groups == {MISH, EVERYTHING, *pairs()}


def test_a_group_cannot_be_loaded_during_a_capture(emulated, monkeypatch):
    norm, x = block()
    norm_act.norm_act(x, norm, nn.ReLU())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    norm_act.norm_act(x, norm, nn.ReLU())
    with pytest.raises(RuntimeError, match=r'call ops.norm_act.prepare\("cpu"\) before the capture'):
        norm_act.norm_act(x, norm, nn.SiLU())
    with pytest.raises(RuntimeError, match=r"float32-along-2 of cpu cannot be loaded while a CUDA graph is captured"):
        torch.ops.yolo.norm_act_forward(x.detach(), *[torch.ones(8)] * 4, 1e-3, 2, 0.0)
    assert emulated._groups == {MISH, Group("float32", "along", 1)}


@pytest.mark.parametrize("code", [700, 719])
def test_a_failure_of_an_earlier_kernel_is_named_and_switches_nothing_off(untried, monkeypatch, code, capsys):
    norm, x = block()
    with monkeypatch.context() as failing:
        failing.setattr(untried._launcher, "launch_all", lambda call: code)
        with pytest.raises(RuntimeError, match=rf"a kernel launched earlier .*\(CUDA error {code},") as raised:
            norm_act.norm_act(x, norm, Mish())
        assert not isinstance(raised.value, build.Unavailable) and not first_use._tried
        with pytest.raises(RuntimeError, match=f"CUDA error {code}"):
            mish(x)
    assert norm_act.norm_act(x, norm, Mish()).grad_fn.name() == "_NormActBackward" and capsys.readouterr().err == ""


def test_a_launch_with_too_many_resources_is_the_launchs_own_error(untried, monkeypatch, capsys):
    monkeypatch.setattr(untried._launcher, "launch_all", lambda call: 701)
    norm, x = block()
    assert norm_act.fusion(norm, nn.ReLU(), "cpu", x.dtype) is not None  # not known yet
    assert norm_act.norm_act(x, norm, nn.ReLU()).grad_fn.name() == "ReluBackward0"
    assert "cuLaunchKernelEx failed" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pair", "Mish"])
def test_a_device_that_is_not_the_current_one_is_made_so(emulated, monkeypatch, kind):
    """As of a tensor on cuda:1 while cuda:0 is current: memory and launches would go to the wrong GPU."""
    current, allocate, launch_all = [], emulated.empty, emulated._launcher.launch_all

    @contextlib.contextmanager
    def guard():
        current.append(1)
        yield
        current.pop()

    monkeypatch.setattr(emulated, "is_current", lambda: bool(current))
    monkeypatch.setattr(emulated, "guard", guard)
    monkeypatch.setattr(emulated, "empty", lambda *given: allocate(*given) if current else pytest.fail("elsewhere"))
    monkeypatch.setattr(
        emulated._launcher, "launch_all", lambda call: launch_all(call) if current else pytest.fail("elsewhere")
    )
    norm_act._plan.cache_clear()
    norm, x = block()
    act = Mish()
    y = norm_act.norm_act(x, norm, act) if kind == "pair" else mish(x)
    y.backward(torch.ones_like(y))
    leaf = x.detach().clone().requires_grad_()
    expected = nn.functional.mish(nn.BatchNorm2d(8)(leaf)) if kind == "pair" else nn.functional.mish(leaf)
    expected.backward(torch.ones_like(y))
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, leaf.grad, rtol=1e-4, atol=1e-5)
    assert not current


# ------------------------------------------------------------------------------------------------- names and systems


def test_a_gpu_has_one_key(monkeypatch):
    loaded = []
    monkeypatch.setattr(backend, "_chosen", {})
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(backend, "_choose", lambda *device: loaded.append(device) or backend.Choice("some", "reason"))
    for name in ("cuda", "cuda:1", "cuda"):
        assert backend.choose(torch.device(name)).implementation == "some"
        assert backend.expect(torch.device(name)).reason == "reason"
    assert [each[:2] for each in loaded] == [("cuda", 1)] and list(backend._chosen) == [torch.device("cuda:1")]
    assert backend.exact(torch.device("cpu:0")) == CPU
    monkeypatch.setattr(first_use, "wrong", {torch.device("cuda:1"): "wrong"})
    assert norm_act.fusion(nn.BatchNorm2d(2), Mish(), "cuda", torch.float32) is None


def test_rocm_and_windows_say_at_once_what_they_get(monkeypatch, capsys):
    monkeypatch.setattr(backend, "_chosen", {})
    monkeypatch.setattr(torch.version, "hip", "7.1")
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    norm = nn.BatchNorm2d(2)
    for kind, reason in (("cuda:0", "ROCm"), ("cpu", "Windows")):
        device = torch.device(kind)
        expected = backend.expect(device)
        assert expected.implementation == "torch.nn.functional.mish" and reason in expected.reason
        assert norm_act.fusion(norm, Mish(), device, torch.float32) is None
        assert backend.choose(device) == expected
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and reason in said


def test_mps_gets_a_line_once(monkeypatch, capsys):
    monkeypatch.setattr(backend, "_chosen", {})
    for _ in range(2):
        assert backend.choose(torch.device("mps")).implementation == "torch.nn.functional.mish"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "on mps, slower: no custom kernel for mps" in said


@pytest.mark.slow
def test_an_import_under_another_default_device(kernels):
    """As in a script that begins with torch.set_default_device("cuda")."""
    code = (
        "import torch; torch.set_default_device('meta')\n"
        "from ops.mish import Mish; from ops.norm_act import norm_act\n"
        "norm = torch.nn.BatchNorm2d(8, device='cpu')\n"
        "y = norm_act(torch.ones(2, 8, 4, 4, device='cpu'), norm, Mish()); y.sum().backward()\n"
        "print(y.grad_fn.name(), norm.num_batches_tracked.item())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["_NormActBackward", "1"], done.stderr
