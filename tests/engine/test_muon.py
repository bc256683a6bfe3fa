"""Muon against PyTorch's, which moves matrices only, against singular values, and with checkpoints."""

import copy

import pytest
import torch
from torch import nn

from engine import muon
from engine.muon import Muon, orthogonal_kernels, orthogonalised
from engine.optim import build_optimizer


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.Conv2d(8, 4, 1)
    )


def set_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(3, 8, 40), (2, 40, 8), (1, 16, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_singular_values_follow_the_polynomial_and_vectors_stay(shape, dtype) -> None:
    left, _, right = torch.linalg.svd(
        torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False
    )
    values = torch.logspace(0, -4, left.shape[-1], dtype=torch.float64)
    expected = values / values.norm()
    for _ in range(muon.ITERATIONS):
        a, b, c = muon.COEFFICIENTS
        expected = a * expected + b * expected**3 + c * expected**5
    found = orthogonalised(left * values.float() @ right, dtype)
    inner = (left.mT @ found @ right.mT).double()  # diagonal if the singular vectors are the same
    tolerance = 0.05 if dtype is torch.bfloat16 else 1e-4
    assert torch.allclose(inner, torch.diag_embed(expected).expand_as(inner), atol=tolerance)
    assert not orthogonalised(torch.zeros(1, 3, 4)).any()


@pytest.mark.parametrize("kernel", [1, 3])
def test_steps_are_those_of_pytorch_of_the_kernel_as_a_matrix(kernel: int) -> None:
    weight = torch.randn(6, 5, kernel, kernel, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.flatten(1).clone())
    mine = Muon(
        [{"params": [ours], "orthogonal": True, "weight_decay": 0.1}], lr=0.01, beta1=0.9, amp_dtype=torch.bfloat16
    )
    oracle = torch.optim.Muon(
        [theirs], lr=0.01, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw", ns_steps=muon.ITERATIONS
    )
    for step in range(4):
        gradient = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step + 1))
        ours.grad, theirs.grad = gradient.clone(), gradient.flatten(1).clone()
        mine.step()
        oracle.step()
        assert torch.allclose(ours.flatten(1), theirs, atol=2e-4)  # bf16, whose rounding follows the order of sums
    assert (ours - weight).abs().max() > 0.01


def test_what_is_no_matrix_moves_as_with_adamw() -> None:
    """Depthwise kernels, predictions, norms and biases; and nothing without a gradient."""
    models = {name: network() for name in ("muon", "adamw")}
    optimizers = {
        name: build_optimizer(model, name=name, lr=0.01, momentum=0.9, weight_decay=0.1)
        for name, model in models.items()
    }
    before = {name: parameter.detach().clone() for name, parameter in models["muon"].named_parameters()}
    for seed in range(3):
        for name, model in models.items():
            set_gradients(model, seed)
            model[1].bias.grad = None
            optimizers[name].step()
    (matrices,) = [
        name for name, each in models["muon"].named_parameters() if id(each) in orthogonal_kernels(models["muon"])
    ]
    assert matrices == "0.weight"
    for (name, ours), theirs in zip(models["muon"].named_parameters(), models["adamw"].parameters(), strict=True):
        assert torch.equal(ours, theirs) == (name != matrices), name
        assert torch.equal(ours, before[name]) == (name == "1.bias")


def test_a_resumed_or_copied_optimizer_goes_on_bit_for_bit() -> None:
    model = network()
    optimizer = build_optimizer(model, name="muon", lr=0.01, momentum=0.9, weight_decay=0.1)
    set_gradients(model, 0)
    optimizer.step()
    resumed = copy.deepcopy(model)
    other = build_optimizer(resumed, name="muon", lr=1.0, momentum=0.5, weight_decay=0.0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    copied, last = copy.deepcopy((model, optimizer))
    for seed in (1, 2):
        for network_, each in ((model, optimizer), (resumed, other), (copied, last)):
            set_gradients(network_, seed)
            each.step()
    for others in (resumed, copied):
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), others.parameters(), strict=True))


def test_memory_formats_do_not_matter() -> None:
    models = [network(), network().to(memory_format=torch.channels_last)]
    for model in models:
        optimizer = build_optimizer(model, name="muon", lr=0.01, momentum=0.9, weight_decay=0.1)
        for seed in (0, 1):
            set_gradients(model, seed)
            optimizer.step()
    assert all(torch.allclose(a, b) for a, b in zip(*(each.parameters() for each in models), strict=True))


def test_a_step_with_infinite_gradients_is_left_out_by_a_scaler() -> None:
    model = network()
    optimizer = build_optimizer(model, name="muon", lr=0.01, momentum=0.9, weight_decay=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    before = [each.detach().clone() for each in model.parameters()]
    for infinite in (True, False):
        scaler.scale(model(torch.ones(2, 3, 5, 5)).sum()).backward()
        if infinite:
            model[3].bias.grad[0] = float("inf")
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        moved = [not torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True)]
        assert any(moved) == (not infinite)
