"""What a run keeps in its checkpoints, and how it continues from last.pt."""

from __future__ import annotations

from dataclasses import asdict

import torch

from core.types import StateDict
from engine.checkpoint import rng_state, set_rng_state
from engine.setup import TrainSetup
from engine.trainer import State, Trainer


def weights_content(setup: TrainSetup, weights: dict[str, torch.Tensor]) -> StateDict:
    """A checkpoint for inference."""
    return {"kind": "weights", **_common_content(setup), "model": weights}


def training_content(setup: TrainSetup, trainer: Trainer, *, run_id: str) -> StateDict:
    """A checkpoint from which the run continues bit for bit."""
    return {
        "kind": "training",
        "run_id": run_id,
        **_common_content(setup),
        "model": trainer.model.state_dict(),
        "ema": trainer.ema.state_dict() if trainer.ema is not None else None,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "state": trainer.state.state_dict(),
        "clock": trainer.clock.state_dict(),
        "rng": rng_state(),
        "data_sha256": dict(setup.data_sha256),
        "images": setup.images,
    }


def _common_content(setup: TrainSetup) -> StateDict:
    return {
        "config": setup.config.model_dump(mode="json"),
        "names": list(setup.splits["train"].classes),
        "census": [asdict(row) for row in setup.census],
    }


def restore(setup: TrainSetup, trainer: Trainer, checkpoint: StateDict, *, skipped: str) -> None:
    """Set a trainer to the state in a checkpoint, and note it in the setup.

    ValueError if data or config are not those of the run; `skipped` says what could not be used of the data.
    """
    for split, sha256 in setup.data_sha256.items():
        if checkpoint["data_sha256"].get(split) != sha256:
            source = setup.splits[split].source
            raise ValueError(f"--resume: {source}: not the {split} annotations of the run (their SHA-256 differs)")
    _require_same_images(setup, checkpoint.get("images"), skipped=skipped)
    try:
        trainer.model.load_state_dict(checkpoint["model"])
        trainer.optimizer.load_state_dict(checkpoint["optimizer"])
        trainer.scaler.load_state_dict(checkpoint["scaler"])
        if trainer.ema is not None:
            trainer.ema.load_state_dict(checkpoint["ema"])
        trainer.state = State(**checkpoint["state"])
        trainer.clock.load_state_dict(checkpoint["clock"])
        set_rng_state(checkpoint["rng"])
    except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"--resume: the checkpoint does not fit its own config: {error}") from error
    setup.notes.append(f"resumed at epoch {trainer.state.epoch + 1}, batch {trainer.state.batch + 1}")


def _require_same_images(setup: TrainSetup, images: object, *, skipped: str) -> None:
    """Raise ValueError if a split has another number of usable images than in the checkpoint; None: not known."""
    for split, found in setup.images.items():
        before = images.get(split) if isinstance(images, dict) else None
        if before is not None and before != found:
            raise ValueError(
                f"--resume: {setup.splits[split].source}: {found} images of {split} can be used, {before} when "
                f"the run began{f' ({skipped})' if skipped else ''}; restore them, or start a new run "
                "with --weights LAST.PT"
            )
