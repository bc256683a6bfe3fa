"""How rough the output of a random network is over a plane, the author's picture of it as a number."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from studies.networks import random_network

SIDE = 10.0  # of the square of inputs from (0, 0): [0, 10]^2, as in exps/op_landscape.py of the author's repository
LINES, POINTS = 10, 4001


def roughness(function: Callable[[Tensor], Tensor], *, seed: int, lines: int = LINES, points: int = POINTS) -> float:
    """How often the slope of a function of the square changes by its own mean size, on the way of one side.

    SIDE times the sum, over random lines, of the total variation of the slope along the line, divided by the sum of the
    integrals of its absolute value. Twice a slope has twice of both, so the scale of the output does not matter, nor
    does a constant added to it.

    The slopes are exact, at ``points`` points per line. Between corners, ReLU's is constant: its variation is the sum
    of the jumps. ``function`` maps inputs (N, 2) to outputs (N, 1) in float64; NaN for a constant.
    """
    starts, ends = random_lines(seed, lines)
    length = (ends - starts).norm(dim=1)  # (lines,)
    direction = (ends - starts) / length.unsqueeze(1)  # (lines, 2)
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    inputs = starts.unsqueeze(1) + t.view(1, -1, 1) * (ends - starts).unsqueeze(1)  # (lines, points, 2)
    moves = direction.unsqueeze(1).expand_as(inputs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # PyTorch's own use of it
        slopes = torch.func.jvp(function, (inputs.flatten(0, 1),), (moves.flatten(0, 1),))[1]
    slopes = slopes.detach().view(lines, points)
    variation = slopes.diff(dim=1).abs().sum()
    travelled = (slopes.abs().mean(dim=1) * length).sum()
    return float(SIDE * variation / travelled)


def random_lines(seed: int, lines: int) -> tuple[Tensor, Tensor]:
    """Both ends (lines, 2) of chords of the square, each through a random point at a random angle."""
    rng = np.random.default_rng(seed)
    through, angle = rng.uniform(0, SIDE, (lines, 2)), rng.uniform(0, math.pi, lines)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    borders = np.stack(
        [(0 - through) / direction, (SIDE - through) / direction]
    )  # signed distances to the four borders
    back, ahead = borders.min(axis=0).max(axis=1), borders.max(axis=0).min(axis=1)
    starts, ends = (through + distance[:, None] * direction for distance in (back, ahead))
    return torch.from_numpy(starts), torch.from_numpy(ends)


def output_map(act: str, sizes: tuple[int, ...], seed: int, points: int) -> np.ndarray:
    """A random network's output on a grid of the square, (points, points), scaled to 0..1; the first input by row."""
    axis = torch.linspace(0, SIDE, points, dtype=torch.float64)
    with torch.no_grad():
        values = random_network(act, sizes, seed)(torch.cartesian_prod(axis, axis)).view(points, points)
    values = values - values.min()
    return (values / values.max()).numpy()
