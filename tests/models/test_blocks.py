"""Blocks: shapes, folding, and that `conv` is all they know of activations."""

from functools import partial

import pytest
import torch
from torch import nn

from models.activations import parse_activation
from models.blocks import CSP, SPPF, Bottleneck, ConvNormAct

conv = partial(ConvNormAct, act=parse_activation("mish"))


def settle(module: nn.Module) -> nn.Module:
    """Give the norms statistics and scales that are not those of a new network."""
    generator = torch.Generator().manual_seed(1)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            for tensor, low, high in (
                (each.weight, 0.5, 1.5), (each.bias, -0.5, 0.5), (each.running_mean, -1, 1), (each.running_var, 0.2, 2)
            ):  # fmt: skip
                tensor.data.uniform_(low, high, generator=generator)
    return module.eval()


@pytest.mark.parametrize("kernel, stride", [(1, 1), (3, 1), (3, 2)])
def test_folding_keeps_the_function(kernel, stride):
    block = settle(conv(5, 7, kernel=kernel, stride=stride))
    x = torch.randn(2, 5, 12, 8)
    with torch.no_grad():
        folded = block.folded()
        torch.testing.assert_close(folded(x), block(x), rtol=1e-5, atol=1e-5)
        assert block(x).shape == (2, 7, 12 // stride, 8 // stride)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in folded.modules())


def test_the_block_is_convolution_norm_activation_in_this_order():
    block = settle(conv(3, 4))
    x = torch.randn(1, 3, 6, 6)
    y = block.conv(x)
    mean, var = (each.view(-1, 1, 1) for each in (block.norm.running_mean, block.norm.running_var))
    y = (y - mean) / (var + 1e-3).sqrt() * block.norm.weight.view(-1, 1, 1) + block.norm.bias.view(-1, 1, 1)
    torch.testing.assert_close(block(x), y * torch.tanh(torch.log1p(y.exp())), rtol=1e-4, atol=1e-5)


def test_composites_by_their_definitions():
    x = torch.randn(2, 8, 10, 10)
    csp = settle(CSP(8, 12, repeats=2, conv=conv))
    first, second = csp.split(x).chunk(2, dim=1)
    third = second + csp.bottlenecks[0].second(csp.bottlenecks[0].first(second))
    fourth = third + csp.bottlenecks[1].second(csp.bottlenecks[1].first(third))
    torch.testing.assert_close(csp(x), csp.merge(torch.cat((first, second, third, fourth), 1)))
    plain = settle(Bottleneck(8, shortcut=False, conv=conv))
    torch.testing.assert_close(plain(x), plain.second(plain.first(x)))
    sppf = settle(SPPF(8, 6, conv=conv))
    y = sppf.reduce(x)
    windows = [y] + [nn.functional.max_pool2d(y, size, 1, size // 2) for size in (5, 9, 13)]
    torch.testing.assert_close(sppf(x), sppf.merge(torch.cat(windows, 1)))


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_fusing_changes_neither_function_nor_state(training):
    plain, fused = settle(conv(5, 8)), settle(conv(5, 8, fuse=True))
    fused.load_state_dict(plain.state_dict())
    x = torch.randn(3, 5, 9, 9)
    results = []
    for block in (plain.train(training), fused.train(training)):
        y = block(x)
        y.square().mean().backward()
        results.append([y, *(each.grad for each in block.parameters()), *block.buffers()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_fused_block_is_compiled_and_exported_in_one_graph():
    block, x = settle(conv(3, 4, fuse=True)), torch.randn(2, 3, 8, 8)
    compiled = torch.compile(block, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), block(x), rtol=1e-4, atol=1e-5)
    exported = torch.export.export(block, (x,))
    torch.testing.assert_close(exported.module()(x), block(x), rtol=1e-4, atol=1e-5)
    assert "yolo" not in str(exported.graph)
