"""How the studies train a network in plain PyTorch, and its scores."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studies.digits import Split

EVALUATED = 500  # images at a time
Loss = Callable[[Tensor], Tensor]  # of the examples with these numbers (B,), a scalar


def train(
    model: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Tensor],
    *,
    seed: int,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    after_backward: Callable[[int], None] | None = None,
) -> None:
    """Minimise a loss; the model is left in evaluation mode.

    ``after_backward`` is called with the number of the step, when its gradients are there. Dropout draws from the
    global state of PyTorch, which is that of ``seed`` here, and put back afterwards.
    """
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step, chosen in enumerate(batches):
            optimizer.zero_grad()
            loss(chosen).backward()
            if after_backward is not None:
                after_backward(step)
            optimizer.step()
            if schedule is not None:
                schedule.step()
    model.eval()


def batches(count: int, size: int, *, steps: int, seed: int, drop_rest: bool = True) -> Iterator[Tensor]:
    """The numbers of the examples of each batch, (``size``,) below ``count``, each example once in an epoch.

    What is left of an epoch is left out, or makes a smaller batch.
    """
    generator = torch.Generator().manual_seed(seed)

    def epochs() -> Iterator[Tensor]:
        while True:
            order = torch.randperm(count, generator=generator)
            yield from order[: count // size * size if drop_rest else count].split(size)

    return islice(epochs(), steps)


def cross_entropy(model: nn.Module, data: Split) -> Loss:
    """The loss of a classifier."""
    return lambda chosen: F.cross_entropy(model(data.images[chosen]), data.labels[chosen])


def nesterov(model: nn.Module, lr: float) -> torch.optim.SGD:
    """SGD with Nesterov momentum 0.9 and weight decay 5e-4."""
    return torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True)


@torch.no_grad()
def scores(model: nn.Module, data: Split) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in %, in evaluation mode."""
    model.eval()
    logits = torch.cat([model(images) for images in data.images.split(EVALUATED)]).double()
    loss = float(F.cross_entropy(logits, data.labels))
    return loss, 100 * float((logits.argmax(dim=1) == data.labels).double().mean())
