"""How the studies train a classifier, or a detector on tensors in memory, by the trainer's steps; and its scores."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.device import place
from core.types import Batch, DetectorModel
from engine.clock import Clock
from engine.trainer import Trainer
from studies.digits import Split

EVALUATED = 500  # images at a time
Loss = Callable[[Tensor], Tensor]  # of the examples with these numbers (B,), a scalar


@dataclass(kw_only=True)
class _Trainer(Trainer):
    """The trainer of detectors, with another loss."""

    loss_of: Loss
    schedule: torch.optim.lr_scheduler.LRScheduler | None
    after_backward: Callable[[int], None] | None

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:  # type: ignore[override]  # numbers of examples
        loss = self.loss_of(batch)
        return loss, {"loss": loss.detach()}

    def update(self) -> None:
        if self.after_backward is not None:
            self.after_backward(self.state.step)
        super().update()
        if self.schedule is not None:
            self.schedule.step()


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
    """Minimise a loss by the trainer's steps, on the CPU in fp32; the model is left in evaluation mode.

    ``after_backward`` is called with the number of the step, when its gradients are there. Dropout draws from the
    global state of PyTorch, which is that of ``seed`` here, and put back afterwards.
    """
    device = place("cpu", amp="off", channels_last="off")
    trainer = _Trainer(
        model=cast(DetectorModel, model),  # of which the steps ask no more than its parameters
        forward=model,
        forward_name="",
        optimizer=optimizer,
        ema=None,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device_config=device,
        learning_rate=lambda step: optimizer.param_groups[0]["lr"],  # which the schedule sets
        clock=Clock(device.device),
        accumulate=1,
        clip=0.0,
        imgsz=0,
        multi_scale=0.0,
        seed=seed,
        loss_names=("loss",),
        loss_of=loss,
        schedule=schedule,
        after_backward=after_backward,
    )
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for chosen in batches:
            trainer.one_step(cast(Batch, chosen), weight=1, update=True)
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
