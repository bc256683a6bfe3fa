"""How sharp a loss is around its parameters: the Hessian's largest eigenvalue, and the loss some way off.

A loss is a function without arguments that evaluates the model as it is, in evaluation mode: batch norm uses the
statistics of training, so that the loss is a function of the parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

Loss = Callable[[], Tensor]
Direction = list[Tensor]  # a tensor per parameter


def largest_eigenvalue(loss: Loss, model: nn.Module, *, seed: int, tolerance: float = 1e-3) -> float:
    """The largest eigenvalue of the Hessian of a loss by Lanczos' method, to a relative `tolerance`."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    size = sum(each.numel() for each in parameters)
    gradient = torch.cat([each.flatten() for each in torch.autograd.grad(loss(), parameters, create_graph=True)])

    def product(vector: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(vector.reshape(-1)).to(gradient.dtype)
        parts = torch.autograd.grad(gradient, parameters, v, retain_graph=True)
        return torch.cat([each.flatten() for each in parts]).double().numpy()

    start = np.random.default_rng(seed).normal(size=size)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    return float(eigsh(operator, 1, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)[0])


def filter_normalised(model: nn.Module, generator: torch.Generator) -> Direction:
    """A random direction, normal, with the norm of each filter that of the filter's weights (arXiv 1712.09913, sec. 4).

    Zero for biases and batch norm, as there.
    """
    direction = []
    for weights in model.parameters():
        if weights.dim() < 2:
            direction.append(torch.zeros_like(weights))
            continue
        drawn = torch.randn(weights.shape, generator=generator, dtype=torch.float64).to(weights.dtype)
        norms = weights.detach().flatten(1).norm(dim=1) / drawn.flatten(1).norm(dim=1)
        direction.append(drawn * norms.view(-1, *[1] * (weights.dim() - 1)))
    return direction


@torch.no_grad()
def loss_along(loss: Loss, model: nn.Module, directions: Sequence[Direction], steps: Sequence[float]) -> float:
    """The loss with the parameters moved by these multiples of directions; the model is as before afterwards."""
    with _moved(model, directions, steps):
        return float(loss())


def mean_rise(
    loss: Loss, model: nn.Module, radii: Sequence[float], *, directions: int, seed: int
) -> dict[float, float]:
    """The mean rise of the loss at each radius over random filter-normalised directions."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        start = float(loss())
    drawn = [filter_normalised(model, generator) for _ in range(directions)]
    return {
        radius: float(np.mean([loss_along(loss, model, [each], [radius]) - start for each in drawn]))
        for radius in radii
    }


def plane(loss: Loss, model: nn.Module, steps: Sequence[float], *, seed: int) -> list[list[float]]:
    """The loss on a plane of two filter-normalised directions, (len(steps), len(steps)); the first changes by row."""
    generator = torch.Generator().manual_seed(seed)
    pair = [filter_normalised(model, generator) for _ in range(2)]
    return [[loss_along(loss, model, pair, (a, b)) for b in steps] for a in steps]


@contextmanager
def _moved(model: nn.Module, directions: Sequence[Direction], steps: Sequence[float]) -> Iterator[None]:
    before = [each.detach().clone() for each in model.parameters()]
    for direction, step in zip(directions, steps, strict=True):
        for weights, change in zip(model.parameters(), direction, strict=True):
            weights.add_(change, alpha=step)
    try:
        yield
    finally:
        for weights, value in zip(model.parameters(), before, strict=True):
            weights.copy_(value)
