"""The split of a training step by part, measured with synchronisation, on copies so that the run is untouched."""

import copy
import statistics
import time
from typing import Any

import torch

from core.device import synchronize
from engine.trainer import Trainer


def profile_steps(trainer: Trainer, loader: Any, count: int) -> str:
    """Run ``count`` steps on a copy of model and optimiser; return a table of the median milliseconds of each part."""
    devices = [trainer.placement.device] if trainer.placement.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # an activation that draws at random must not draw otherwise afterwards
        return _profile(trainer, loader, count)


def _profile(trainer: Trainer, loader: Any, count: int) -> str:
    model, optimizer = copy.deepcopy((trainer.model, trainer.optimizer))
    model.train()
    parts: dict[str, list[float]] = {name: [] for name in ("to device", "forward", "loss", "backward", "optimizer")}

    def lap(name: str, since: float) -> float:
        synchronize(trainer.placement.device)
        now = time.perf_counter()
        parts[name].append(now - since)
        return now

    loader.set_position(trainer.state.epoch, trainer.state.batch)
    for number, batch in enumerate(loader):
        if number == count:
            break
        moment = time.perf_counter()
        images, targets = trainer.prepare(batch)
        moment = lap("to device", moment)
        with trainer.placement.autocast():
            outputs = model(images)
        moment = lap("forward", moment)
        loss, _ = model.loss(outputs, targets)  # type: ignore[operator]
        moment = lap("loss", moment)
        loss.backward()
        moment = lap("backward", moment)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        lap("optimizer", moment)
    medians = {name: 1000 * statistics.median(values) for name, values in parts.items() if values}
    whole = sum(medians.values())
    lines = [f"  {name:<10} {value:8.1f} ms {100 * value / whole:5.1f} %" for name, value in medians.items()]
    return "\n".join([f"a step by part (median of {len(parts['loss'])}, synchronised):", *lines])
