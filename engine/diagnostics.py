"""Diagnostics of a trained network on a few images: dead units, the gradient norm by stage, and the latency."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from core.device import synchronize
from core.types import Batch, DetectorModel, Targets
from models.blocks import AddAct, ConvAct, ConvNormAct

IMAGES = 8  # at most
WARM_UP, TIMED = 3, 20  # forward passes of the latency


@dataclass(frozen=True)
class Diagnostics:
    """Of the evaluated weights in float32, in evaluation mode, on the first validation images; stages as in the census.

    A unit is a channel of an activation layer. It is dead if its output is the same at every position of every image,
    so that it passes on no information and, unless it is constant by chance, no gradient.
    """

    images: int
    units: dict[str, int]  # by stage
    dead: dict[str, int]
    gradient_norm: dict[str, float]  # of the loss, over the parameters of the stage


def diagnose(model: DetectorModel, batch: Batch, *, images: int = IMAGES) -> Diagnostics:
    """The diagnostics of ``model`` on the first images of a batch. The model, its buffers and gradients are left alone.

    Nothing here is random, so a training that goes on afterwards is not changed.
    """
    device = next(model.parameters()).device
    probe = copy.deepcopy(model).float().eval().requires_grad_(True)
    units: dict[str, int] = defaultdict(int)
    dead: dict[str, int] = defaultdict(int)

    def count(stage: str, _module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        channels = output.detach().transpose(0, 1).flatten(1)  # (C, B x H x W)
        units[stage] += len(channels)
        dead[stage] += int((channels.amax(dim=1) == channels.amin(dim=1)).sum())

    for path, block in probe.named_modules():
        if isinstance(block, ConvNormAct | ConvAct | AddAct):
            # On the block, not on its activation: hooks there would prevent the fused operator.
            block.register_forward_hook(partial(count, _stage(path)))
    pixels = batch.images[:images].to(device).float() / 255
    targets = Targets(*(each[:images] for each in (batch.targets.boxes, batch.targets.labels, batch.targets.mask)))
    with torch.enable_grad():
        loss, _ = probe.loss(probe(pixels), targets.to(device))
        loss.backward()
    return Diagnostics(images=len(pixels), units=dict(units), dead=dict(dead), gradient_norm=_gradient_norms(probe))


@torch.no_grad()
def latency_ms(model: DetectorModel, batch: Batch, *, amp_dtype: torch.dtype | None = None) -> float:
    """Median time in ms from one image of a batch on the device to its decoded boxes, at batch 1, without NMS."""
    parameter, times = next(model.parameters()), []
    device = parameter.device
    was_training = model.training
    model.eval()
    for number in range(WARM_UP + TIMED):
        image = batch.images[number % len(batch.images)][None].to(device).to(parameter.dtype) / 255
        synchronize(device)
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
            outputs = model(image)
        model.decode(outputs)
        synchronize(device)
        times.append(1e3 * (time.perf_counter() - start))
    model.train(was_training)
    return statistics.median(times[WARM_UP:])


def _gradient_norms(model: nn.Module) -> dict[str, float]:
    squares: dict[str, float] = defaultdict(float)
    for path, parameter in model.named_parameters():
        if parameter.grad is not None:
            squares[_stage(path)] += float(parameter.grad.double().square().sum())
    return {stage: math.sqrt(value) for stage, value in squares.items()}


def _stage(path: str) -> str:
    return ".".join(path.split(".")[:2])
