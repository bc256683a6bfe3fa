"""The forward pass of a training step: eager, compiled (`train.compile`), or replayed as a CUDA graph (`train.graphs`).

Both need one shape of batch and are made ready before the first step, so that no timed step compiles or captures. A
batch of another shape, such as the last one of an epoch, runs eagerly; loss and optimizer always do. The model keeps
its parameters and buffers, so checkpoints, EMA and resuming do not depend on how the pass runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from core.device import DeviceConfig, out_of_memory
from core.text import one_line
from core.types import DetectorModel, Outputs
from engine.grad_checkpointing import checkpointed
from engine.optim import hold_frozen

TOLERANCE = 0.02  # relative difference of outputs and gradients from those of the eager pass, in bf16
VARYING = "train.multi_scale changes the shape of the batches"

Forward = Callable[[Tensor], Outputs]


@dataclass(frozen=True)
class FixedShape:
    """Batches of `shape` through `fast`, all others through `eager`."""

    fast: Forward
    eager: Forward
    shape: tuple[int, int, int, int]

    def __call__(self, images: Tensor) -> Outputs:
        """The outputs of the network for images (B, 3, H, W)."""
        return (self.fast if images.shape == self.shape else self.eager)(images)


def training_forward(
    model: DetectorModel,
    device: DeviceConfig,
    *,
    shape: tuple[int, int, int, int],
    compiled: bool = False,
    graphs: str = "auto",
    accumulate: int = 1,
    multi_scale: float = 0.0,
    checkpointing: bool = False,
) -> tuple[Forward, str]:
    """The forward pass of `train.compile`, `train.graphs` and `train.grad_checkpointing`, ready to run, and its name,
    empty for the eager pass.

    With `graphs` "auto", a capture that fails or computes something else is reported in the name, and the pass is not
    captured. ValueError if what is requested is impossible.
    """
    options = {"accumulate": accumulate, "multi_scale": multi_scale}
    refuse_impossible(device, compiled=compiled, graphs=graphs, checkpointing=checkpointing, **options)
    if checkpointing:
        return checkpointed(model), "gradient checkpointing"
    why_not = _no_graphs(device, **options)
    graphed = graphs == "on" or (graphs == "auto" and not compiled and not why_not)
    if not compiled and not graphed:
        return model, ""

    forward: Forward = torch.compile(model) if compiled else model
    sample = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    sample = sample.to(device.device, memory_format=device.memory_format)
    model.train()
    hold_frozen(model)
    if graphed:
        try:
            replay = capture(model, forward, device, sample)
        except RuntimeError as error:
            if graphs == "on":
                raise ValueError(f"train.graphs=on: {one_line(error)}") from error
            return model, f"no CUDA graph ({one_line(error)})"
        return FixedShape(replay, model, shape), "torch.compile in a CUDA graph" if compiled else "CUDA graph"
    with _unchanged(model, device):
        try:
            _pass(model, forward, device, sample)
        except RuntimeError as error:  # of the compiler, or because there is none
            if out_of_memory(error):
                raise
            reason = one_line(error).partition(" Set TORCHDYNAMO_VERBOSE")[0]  # advice for PyTorch's developers
            raise ValueError(f"train.compile: {reason}; without --compile the same is trained eagerly") from error
    return FixedShape(forward, model, shape), "torch.compile"


def refuse_impossible(
    device: DeviceConfig,
    *,
    compiled: bool,
    graphs: str,
    checkpointing: bool,
    multi_scale: float,
    accumulate: float = 1,
) -> None:
    """Raise ValueError for forms of the forward pass that cannot be; without `accumulate`, before the data is known."""
    if compiled and multi_scale:
        raise ValueError(f"train.compile: {VARYING}; set train.multi_scale=0")
    if graphs == "on" and (why_not := _no_graphs(device, accumulate=accumulate, multi_scale=multi_scale)):
        raise ValueError(f"train.graphs=on: {why_not}")
    if checkpointing and (compiled or graphs == "on"):
        raise ValueError("train.grad_checkpointing: not with train.compile or train.graphs=on; leave one of them out")


def _no_graphs(device: DeviceConfig, *, accumulate: float, multi_scale: float) -> str:
    """Why the pass cannot be a CUDA graph, empty if it can."""
    if multi_scale:
        return VARYING
    if device.device.type != "cuda":
        return f"CUDA graphs need a GPU, the device is {device.device.type}"
    if accumulate > 1:  # autograd keeps the graph's gradient buffers as .grad, which the next replay overwrites
        return "gradients are accumulated over several batches (train.nominal_batch)"
    return ""


def capture(model: nn.Module, forward: Forward, device: DeviceConfig, sample: Tensor) -> Forward:
    """Forward and backward of images like `sample` as CUDA graphs; the model's state is left as it was.

    RuntimeError if they cannot be captured, or if a replay on other images differs from the eager pass.
    """
    with _unchanged(model, device):
        with _autocast(device):
            network = torch.cuda.make_graphed_callables(_Network(model, forward), (sample,))
        graphed = cast(Forward, network)  # annotated as returning any module or callable
        other = torch.rand_like(sample)
        with _unchanged(model, device):
            expected = _pass(model, model, device, other)
        difference = max(
            float((one - two).norm() / two.norm())
            for one, two in zip(_pass(model, graphed, device, other), expected, strict=True)
        )
    if not difference <= TOLERANCE:  # also true for NaN
        raise RuntimeError(f"a replay differs from the eager pass by {difference:.2g}")
    return graphed


class _Network(nn.Module):
    """The network within a module whose `forward` make_graphed_callables may replace."""

    def __init__(self, model: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model, self._call = model, forward

    def forward(self, images: Tensor) -> Outputs:
        return self._call(images)


def _pass(model: nn.Module, forward: Forward, device: DeviceConfig, images: Tensor) -> tuple[Tensor, Tensor]:
    """The outputs, and the gradients of the parameters for the outputs' mean squares, each as one vector."""
    with _autocast(device):
        outputs = forward(images)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss = torch.stack([output.float().square().mean() for output in outputs]).sum()
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return _flat([output.detach() for output in outputs]), _flat([each for each in gradients if each is not None])


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.float().flatten() for tensor in tensors])


def _autocast(device: DeviceConfig) -> torch.autocast:
    """The autocast of the run without its cache of weights, which a graph would go on reading."""
    dtype = device.amp_dtype
    return torch.autocast(device.device.type, dtype=dtype, enabled=dtype is not None, cache_enabled=False)


@contextmanager
def _unchanged(model: nn.Module, device: DeviceConfig) -> Iterator[None]:
    """Restore the buffers of the model (running statistics) and the random state afterwards."""
    before = [buffer.clone() for buffer in model.buffers()]
    try:
        with torch.random.fork_rng([device.device.index or 0] if device.device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)
