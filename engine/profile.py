"""Time of a training step by part, measured with synchronization on copies of model and optimizer."""

import copy
import statistics
import time

import torch

from core.device import synchronize
from core.types import DetectorModel, Outputs
from data.loader import TrainLoader
from engine.trainer import Trainer


def profile_steps(trainer: Trainer, loader: TrainLoader, count: int) -> str:
    """Run ``count`` steps on copies of model and optimizer; return a table of the median milliseconds of each part."""
    devices = [trainer.device_config.device] if trainer.device_config.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # random activations must draw the same numbers afterwards
        return _profile(trainer, loader, count)


def _profile(trainer: Trainer, loader: TrainLoader, count: int) -> str:
    model: DetectorModel
    model, optimizer = copy.deepcopy((trainer.model, trainer.optimizer))
    model.train()
    parts: dict[str, list[float]] = {name: [] for name in ("to device", "forward", "loss", "backward", "optimizer")}

    def lap(name: str, since: float) -> float:
        synchronize(trainer.device_config.device)
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
        with trainer.device_config.autocast():
            outputs: Outputs = model(images)
        moment = lap("forward", moment)
        loss, _ = model.loss(outputs, targets)
        moment = lap("loss", moment)
        loss.backward()
        moment = lap("backward", moment)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        lap("optimizer", moment)
    medians = {name: 1000 * statistics.median(values) for name, values in parts.items() if values}
    whole = sum(medians.values())
    lines = [f"  {name:<10} {value:8.1f} ms {100 * value / whole:5.1f} %" for name, value in medians.items()]
    return "\n".join([f"time of a step by part (median of {len(parts['loss'])}, synchronized):", *lines])
