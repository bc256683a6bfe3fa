"""Train some steps, in one process or as one of several: python -m tests.support.steps_together OUT KEY=VALUE ...

Rank 0 writes to OUT the losses of each step, the weights, those of the average, and the checksum of each epoch.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from configs.cli import parse_setting
from configs.schema import load
from core.distributed import all_sum, is_main, joined, share
from core.types import Batch, Outputs
from engine.setup import TrainSetup, build, build_trainer
from engine.trainer import Trainer

SMALL = Path(__file__).with_name("small.yaml")


def steps(settings: dict[str, Any], *, shards: int = 1, setup: TrainSetup | None = None) -> dict[str, Any]:
    """Train `train.epochs`; with `shards`, each batch is passed on in so many shares, each with its own statistics."""
    setup = build(load(SMALL, settings)) if setup is None else setup
    trainer, losses, checksums = build_trainer(setup), [], []
    if shards > 1:
        trainer.forward = lambda images: in_shards(trainer, images, shards)
    one_step = trainer.one_step

    def observed(batch: Batch, **options: Any) -> torch.Tensor:
        terms = one_step(batch, **options)
        losses.append(all_sum(terms))
        return terms

    trainer.one_step = observed  # type: ignore[method-assign]
    while trainer.state.epoch < setup.epochs:
        trainer.one_epoch(
            setup.train_loader,
            title="",
            count=len(setup.train_loader),
            on_batch=lambda number, batch: None,
            save=lambda: None,
            save_seconds=1e9,
        )
        checksums.append(trainer.state.batches_crc32)
        trainer.state.close_epoch()
    assert trainer.ema is not None
    return {
        "losses": torch.stack(losses),
        "weights": trainer.model.state_dict(),
        "average": trainer.ema.model.state_dict(),
        "checksums": checksums,
        "steps": trainer.state.step,
    }


def in_shards(trainer: Trainer, images: torch.Tensor, shards: int) -> Outputs:
    """The outputs of the shares of a batch, one after the other; the running statistics are those after the first."""
    parts, kept = [], None
    for number in range(shards):
        places = share(len(images), number, shards)
        if len(places):
            parts.append(trainer.model(images[places.start : places.stop]))
        if kept is None:
            kept = [buffer.clone() for buffer in trainer.model.buffers()]
    assert kept is not None
    for buffer, value in zip(trainer.model.buffers(), kept, strict=True):
        buffer.copy_(value)
    return [torch.cat(maps) for maps in zip(*parts, strict=True)]


if __name__ == "__main__":
    with joined():
        result = steps(dict(map(parse_setting, sys.argv[2:])))
        if is_main():
            torch.save(result, sys.argv[1])
