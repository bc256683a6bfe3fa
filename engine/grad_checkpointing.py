"""Gradient checkpointing (Chen et al., arXiv 1604.06174): less memory in training for one more forward pass.

Each block keeps its input only and is computed again in the backward pass. Losses, gradients and running statistics are
those of a training without it, bit for bit where the operators repeat their results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from core.types import DetectorModel, Outputs
from models.blocks import CSP, SPPF, ConvNormAct

BLOCKS = (nn.Sequential, CSP, SPPF, ConvNormAct)  # a stage of the backbone and a branch of the head are Sequential


def checkpointed(model: DetectorModel) -> Callable[[Tensor], Outputs]:
    """The forward pass of `model` with gradient checkpointing; the model itself is left as it is."""
    blocks = list(_outermost(model))

    def forward(images: Tensor) -> Outputs:
        # Within the call only: a copy of the model, such as the EMA, must not refer to the blocks of this one.
        with ExitStack() as stack:
            for block in blocks:
                stack.enter_context(_replaced(block))
            return model(images)

    return forward


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks that are in no other block."""
    for child in module.children():
        if isinstance(child, BLOCKS):
            yield child
        else:
            yield from _outermost(child)


@contextmanager
def _replaced(block: nn.Module) -> Iterator[None]:
    """Let a block's `forward` be checkpointed."""
    contexts = partial(_contexts, block)

    def forward(*inputs: Tensor) -> Tensor:
        # Stopping early would end before a random operator (rrelu) has filled the noise that its backward pass reads.
        with set_checkpoint_early_stop(False):
            output: Tensor = checkpoint(own, *inputs, use_reentrant=False, context_fn=contexts)
        return output

    own = block.forward
    block.__dict__["forward"] = forward
    try:
        yield
    finally:
        del block.__dict__["forward"]


def _contexts(block: nn.Module) -> tuple[nullcontext[None], _OtherBuffers]:
    return nullcontext(), _OtherBuffers(block)


class _OtherBuffers:
    """While a block is computed again, its norms update copies of their running statistics: the batch is in these."""

    def __init__(self, block: nn.Module) -> None:
        norms = (module for module in block.modules() if isinstance(module, nn.BatchNorm2d))
        self.kept = [(norm, dict(norm._buffers)) for norm in norms if norm.training]

    def __enter__(self) -> None:
        for norm, buffers in self.kept:
            norm._buffers.update({name: None if each is None else each.clone() for name, each in buffers.items()})

    def __exit__(self, *_: object) -> None:
        for norm, buffers in self.kept:
            norm._buffers.update(buffers)
