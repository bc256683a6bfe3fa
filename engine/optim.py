"""Optimizer, learning-rate schedule and freezing."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from engine.muon import Muon, orthogonal_kernels


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: kernels with weight decay; norms, biases and activation parameters without.

    Raises RuntimeError unless every trainable parameter is in a group exactly once.
    """
    decayed = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.weight.ndim > 1}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kernels = [parameter for parameter in trainable if id(parameter) in decayed]
    others = [parameter for parameter in trainable if id(parameter) not in decayed]
    seen = [id(parameter) for parameter in kernels + others]
    if len(seen) != len(set(seen)) or len(seen) != len(trainable):
        raise RuntimeError("a parameter is missing from the optimizer or duplicate")
    return [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def muon_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """The groups of `parameter_groups`, with the kernels that Muon moves apart from the other kernels."""
    kernels, others = parameter_groups(model, weight_decay=weight_decay)
    chosen = orthogonal_kernels(model)
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for each in kernels["params"]:
        parts[id(each) in chosen].append(each)
    return [{**kernels, "params": part, "orthogonal": orthogonal} for orthogonal, part in parts.items()] + [others]


def build_optimizer(
    model: nn.Module,
    *,
    name: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    amp_dtype: torch.dtype | None = None,
) -> torch.optim.Optimizer:
    """Return Muon or AdamW (arXiv 1711.05101), whose beta1 is ``momentum``, or SGD with Nesterov momentum.

    `amp_dtype`: of autocast, None without it.
    """
    groups = (muon_groups if name == "muon" else parameter_groups)(model, weight_decay=weight_decay)
    if not any(group["params"] for group in groups):
        raise ValueError("train.freeze leaves no parameter to train")
    if name == "muon":
        return Muon(groups, lr=lr, beta1=momentum, amp_dtype=amp_dtype)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)


def learning_rate(
    kind: str, *, total_steps: int, warmup_steps: int, lr: float, lr_final: float
) -> Callable[[int], float]:
    """Return the learning rate as a function of the step: linear warm-up, then decay to lr * lr_final."""

    def decay(progress: float) -> float:
        if kind == "linear":
            return 1 - progress
        if kind == "flat_cosine":  # flat for half of the run, then cosine, as RTMDet (arXiv 2212.07784)
            progress = max(0.0, 2 * progress - 1)
        return (1 + math.cos(math.pi * progress)) / 2

    def at(step: int) -> float:
        if step < warmup_steps:
            return lr * (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return lr * (lr_final + (1 - lr_final) * decay(progress))

    return at


def freeze(model: nn.Module, parts: Iterable[str]) -> list[str]:
    """Freeze the named modules (``backbone``, ``neck.N3``, ...); return the names of the frozen parameters.

    ``hold_frozen`` keeps the statistics of their batch norms. Raises ValueError for an unknown name.
    """
    frozen = []
    for part in parts:
        matches = [(name, p) for name, p in model.named_parameters() if name == part or name.startswith(part + ".")]
        if not matches:
            known = [name for name, _ in model.named_children()]
            raise ValueError(
                f"train.freeze: {part!r} is not a module of the network, expected one of {', '.join(known)}"
            )
        for name, parameter in matches:
            parameter.requires_grad_(False)
            frozen.append(name)
    return frozen


def hold_frozen(model: nn.Module) -> None:
    """Put batch norms without trainable parameters in eval mode, which keeps their statistics."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and not any(p.requires_grad for p in module.parameters()):
            module.eval()
