"""Mish on a GPU; skipped without one."""

import os
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ops import backend
from ops.mish import mish, reference
from tests.ops.test_mish import derivative, every_value, first, layouts, second_derivative, sweep, ulps

# Error of the derivative in fp32, 2^-23: its terms of about 0.5 cancel near x = -1.19, where fp16 has smaller units.
DERIVATIVE_ERROR = 1.2e-7

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use"),
    pytest.mark.usefixtures("gpu_kernels"),
]


def within(found: Tensor, expected: Tensor, *, ulp: float, absolute: float) -> Tensor:
    """Where `found` is off the float64 `expected` by at most `ulp` units in the last place and `absolute`."""
    info = torch.finfo(found.dtype)
    unit = torch.exp2(torch.floor(torch.log2(expected.abs().clamp_min(info.tiny)))) * info.eps
    return (found.double() - expected).abs() <= ulp * unit + absolute


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_value_is_rounded_once(dtype):
    x = every_value(dtype).cuda()
    for found, expected, absolute in ((mish(x), reference(x), 0.0), (first(x), derivative(x), DERIVATIVE_ERROR)):
        inside = (x.double() > -87.3) & (expected.abs() <= torch.finfo(dtype).max)
        assert within(found, expected, ulp=0.52, absolute=absolute)[inside].all()
        outside = x.double() <= -87.3
        assert not outside.any() or (found.double() - expected)[outside].abs().max() <= 1.2e-36


def test_fp32_over_all_exponents():
    x = sweep().cuda()
    y, expected = mish(x), reference(x)
    inside = x > -87.3
    assert ulps(y, expected)[inside].max() <= 11
    assert (y.double() - expected)[~inside].abs().max() <= 1.2e-36
    assert (first(x).double() - derivative(x)).abs().max() <= 4e-7


def test_fp64_and_the_second_derivative():
    x = torch.linspace(-30, 30, 4001, dtype=torch.float64, device="cuda", requires_grad=True)
    torch.testing.assert_close(mish(x).detach(), reference(x.detach()), rtol=1e-14, atol=1e-15)
    (once,) = torch.autograd.grad(mish(x).sum(), x, create_graph=True)
    (twice,) = torch.autograd.grad(once.sum(), x)
    torch.testing.assert_close(twice, second_derivative(x.detach()), rtol=1e-12, atol=1e-13)


def test_special_values():
    x = torch.tensor([-torch.inf, torch.inf, -0.0, 0.0, torch.nan], device="cuda")
    for dtype in backend.TYPES:
        y, slope = mish(x.to(dtype)).cpu(), first(x.to(dtype)).cpu()
        assert y[:4].tolist() == [0, torch.inf, 0, 0] and y[4].isnan() and slope[4].isnan()
        assert torch.signbit(y[:4]).tolist() == [True, False, True, False]
        torch.testing.assert_close(slope[:4], torch.tensor([0, 1, 0.6, 0.6], dtype=dtype))


@pytest.mark.parametrize("name", layouts())
@pytest.mark.parametrize("dtype", list(backend.TYPES), ids=str)
def test_layouts(name, dtype):
    x = layouts(dtype)[name].cuda() if name not in ("unaligned", "strided") else layouts(dtype)["contiguous"].cuda()
    x = {"unaligned": lambda: x.flatten()[1:], "strided": lambda: x[:, :, ::2, 1::3]}.get(name, lambda: x)()
    y = mish(x)
    assert y.shape == x.shape and y.stride() == F.mish(x).stride()
    torch.testing.assert_close(y, F.mish(x), rtol=1e-2 if dtype.itemsize == 2 else 1e-5, atol=1e-6)


def test_it_runs_in_the_current_stream_and_in_autograds_threads():
    x = torch.linspace(-5, 5, 10_000_000, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        y = x * 2
        for _ in range(3):
            y = mish(y)
    torch.cuda.current_stream().wait_stream(stream)
    torch.testing.assert_close(y, F.mish(F.mish(F.mish(x * 2))), rtol=1e-5, atol=1e-6)
    found = []
    leaf = x[:1000].clone().requires_grad_()
    thread = threading.Thread(target=lambda: found.append(torch.autograd.grad(mish(leaf).sum(), leaf)[0]))
    thread.start()
    thread.join()
    torch.testing.assert_close(found[0].double(), derivative(leaf.detach()), rtol=1e-5, atol=1e-6)


def test_in_a_graph():
    x = torch.linspace(-5, 5, 1000, device="cuda")
    mish(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = mish(x)
    x.mul_(0.5)
    graph.replay()
    torch.testing.assert_close(y, F.mish(x), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")
def test_on_a_gpu_that_is_not_the_current_one():
    x = torch.linspace(-5, 5, 1000, device="cuda:1")
    torch.testing.assert_close(mish(x), F.mish(x), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(os.environ.get("YOLO_TEST_LARGE") != "1", reason="needs 13 GB of GPU memory: YOLO_TEST_LARGE=1")
def test_more_elements_than_fit_an_int():
    x = torch.empty(2**31 + 11, dtype=torch.bfloat16, device="cuda").normal_()
    y = mish(x)
    for part in (slice(0, 1000), slice(2**31 - 500, None)):
        torch.testing.assert_close(y[part].double(), reference(x[part]), rtol=8e-3, atol=1e-6)
