"""Random raw outputs and targets for the tests of assignment and loss."""

from collections.abc import Sequence

import torch

from core.types import Targets

STRIDES = (8, 16, 32)


def scene(
    counts: list[int],
    *,
    side: int = 96,
    classes: int = 3,
    bins: int = 16,
    seed: int = 0,
    smallest: float = 3.0,
    strides: Sequence[int] = STRIDES,
) -> tuple[list[torch.Tensor], Targets]:
    """Raw maps for images of `side` and, for each image, as many boxes as `counts` says, some partly outside."""
    generator = torch.Generator().manual_seed(seed)
    batch, most = len(counts), max(counts)
    maps = [
        torch.randn(batch, 4 * bins + classes, side // stride, side // stride, generator=generator) * 1.5
        for stride in strides
    ]
    centre = torch.rand(batch, most, 2, generator=generator) * side
    half = (torch.rand(batch, most, 2, generator=generator) ** 2 * side + smallest) / 2
    mask = torch.arange(most) < torch.tensor(counts).unsqueeze(-1)
    boxes = torch.cat((centre - half, centre + half), dim=-1).clamp(-2, side + 2) * mask.unsqueeze(-1)
    labels = torch.randint(0, classes, (batch, most), generator=generator) * mask
    return maps, Targets(boxes, labels, mask)
