"""Fused norm and activation on a GPU, against PyTorch's modules; skipped without a GPU."""

import copy
import os
import threading

import pytest
import torch
from torch import Tensor, nn

from models.activations import parse_activation
from models.blocks import ConvNormAct
from ops import first_use
from ops.first_use import difference
from ops.groups import pairs
from ops.mish import Mish, reference
from tests.ops.test_mish import derivative
from tests.ops.test_norm_act import (
    ACTIVATIONS,
    OPTIONS,
    check_derivatives,
    check_far_from_zero,
    compare,
    fused,
    images,
    norm_of,
    plain,
    run,
)

DEVICE = torch.device("cuda:0")
TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 1.2e-2, torch.float16: 1.5e-3}

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use")


@pytest.fixture(autouse=True)
def tried(gpu_kernels, monkeypatch):
    """Skip the check before first use."""
    monkeypatch.setattr(first_use, "difference", lambda device, group: "")
    monkeypatch.setattr(first_use, "_tried", set())
    monkeypatch.setattr(first_use, "wrong", {})


def on_gpu(*shape: int, **options) -> Tensor:
    return images(*shape, **options).to(DEVICE)


def norm_there(channels: int, **options) -> nn.BatchNorm2d:
    return norm_of(channels, **options).to(DEVICE)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_check_before_first_use_passes(gpu_kernels, capsys):
    for group in pairs():
        assert difference(DEVICE, group) == ""


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_results_match_the_modules(name, dtype, channels_last, training):
    small = () if dtype.itemsize == 2 else ((4, 24, 1, 1), (2, 1100, 3, 3))  # g in 16 bits and few values: dx cancels
    for shape in ((2, 5, 7, 9), (3, 16, 20, 20), (1, 1, 70, 80), (8, 64, 80, 80), *small):
        x, norm = on_gpu(*shape, channels_last=channels_last, dtype=dtype), norm_there(shape[1]).train(training)
        compare(x, norm, ACTIVATIONS[name](), tolerance=TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_tensors_not_aligned_to_16_bytes(dtype):
    whole = on_gpu(1, 1, 1, 3 * 16 * 20 * 20 + 1, dtype=dtype)
    x = whole.flatten()[1:].view(3, 16, 20, 20)
    compare(x, norm_there(16), Mish(), tolerance=TOLERANCES[dtype])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_the_norm(options):
    for training in (True, False):
        compare(on_gpu(3, 6, 5, 4), norm_there(6, **options).train(training), Mish())


def test_values_far_from_zero_keep_their_variance():
    check_far_from_zero(DEVICE)


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous"])
def test_results_are_bit_reproducible(channels_last):
    x, norm = on_gpu(16, 48, 80, 80, channels_last=channels_last, dtype=torch.bfloat16), norm_there(48)
    results = [run(fused, x, copy.deepcopy(norm), Mish()) for _ in range(5)]
    assert all(same(results[0], other) for other in results[1:])


def test_several_streams_at_once():
    x, norm = on_gpu(8, 32, 80, 80, channels_last=True), norm_there(32)
    expected = run(fused, x, copy.deepcopy(norm), Mish())
    torch.cuda.synchronize()
    streams, results = [torch.cuda.Stream(DEVICE) for _ in range(4)], []
    for stream in streams * 3:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            results.append(run(fused, x, copy.deepcopy(norm), Mish()))
    torch.cuda.synchronize()
    assert all(same(expected, other) for other in results)


def test_in_another_thread():
    x, norm, found = on_gpu(4, 16, 20, 20), norm_there(16), []
    thread = threading.Thread(target=lambda: found.append(run(fused, x, copy.deepcopy(norm), nn.SiLU())))
    thread.start()
    thread.join()
    assert same(found[0], run(fused, x, norm, nn.SiLU()))


def test_frozen_parts_and_second_derivatives():
    check_derivatives(DEVICE)


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["mish", "relu", "silu"])
def test_a_block_under_autocast(name, dtype, channels_last):
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    results = []
    first = ConvNormAct(8, 24, kernel=3, act=parse_activation(name), fuse=True).to(DEVICE, memory_format=layout)
    for block, fuse in ((first, True), (copy.deepcopy(first), False)):
        block.fuse = fuse
        x = on_gpu(4, 8, 20, 20, channels_last=channels_last).requires_grad_()
        with torch.autocast(DEVICE.type, dtype=dtype):
            y = block(x)
        assert y.dtype == dtype and (y.grad_fn.name() == "_NormActBackward") == fuse
        y.float().square().mean().backward()
        results.append((y, x.grad, *(each.grad for each in block.parameters()), *block.norm.buffers()))
    for found, expected in zip(*results, strict=True):
        scale = expected.detach().abs().max().item() + 1e-12
        torch.testing.assert_close(found.double() / scale, expected.double() / scale, rtol=0, atol=3e-2)


def test_in_a_graph():
    x, norm = on_gpu(4, 16, 20, 20, channels_last=True), norm_there(16)
    fused(x.clone().requires_grad_(), norm, Mish())
    graph, leaf = torch.cuda.CUDAGraph(), x.clone().requires_grad_()
    with torch.cuda.graph(graph):
        (slope,) = torch.autograd.grad(fused(leaf, norm, Mish()).square().sum(), leaf)
    with torch.no_grad():
        leaf.mul_(0.5)
    graph.replay()
    again = leaf.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(plain(again, norm, Mish()).square().sum(), again)
    torch.testing.assert_close(slope, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU only")
def test_on_a_gpu_that_is_not_the_current_one():
    compare(images(3, 16, 20, 20).to("cuda:1"), norm_of(16).to("cuda:1"), Mish())


def test_arrays_elsewhere_are_refused():
    x, there, here = on_gpu(2, 4, 5, 5), torch.ones(4, device=DEVICE), torch.ones(4)
    with pytest.raises(RuntimeError, match="contiguous and on cuda:0"):
        torch.ops.yolo.norm_act_forward(x, there, there, here, None, 1e-3, 0, 0.0)


@pytest.mark.skipif(os.environ.get("YOLO_TEST_LARGE") != "1", reason="needs 20 GB of GPU memory: YOLO_TEST_LARGE=1")
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous"])
def test_more_elements_than_fit_an_int_large(channels_last):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.empty(5, 64, 2592, 2592, dtype=torch.bfloat16, device=DEVICE, memory_format=layout).normal_()
    assert x.numel() > 2**31
    norm = norm_there(64)
    y = fused(x.requires_grad_(), norm, Mish())
    y.backward(torch.ones_like(y))
    for c in (0, 63):
        own = x.detach()[:, c].double()
        z = (own - own.mean()) / (own.var(unbiased=False) + norm.eps).sqrt() * norm.weight[c] + norm.bias[c]
        torch.testing.assert_close(y.detach()[:, c].double(), reference(z), rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(norm.bias.grad[c].double(), derivative(z).sum(), rtol=1e-4, atol=0)
