"""Resuming a run: which checkpoint ``--resume`` names, what may be changed, and the config of the resumed run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import Config, flatten, load
from core.types import StateDict
from engine.checkpoint import load_checkpoint
from engine.setup import adapt_config

NEWEST = "newest"
MAY_CHANGE = ("train.device", "train.workers", "train.save_minutes")  # do not change the result
RUN_FOLDER = ("run.project", "run.name", "run.exist_ok")  # a resumed run stays in its folder


@dataclass(frozen=True)
class Resumed:
    """A run to be continued."""

    config: Config
    checkpoint: StateDict
    folder: Path


def resume(name: str, *, cfg: str | None, overrides: Mapping[str, Any]) -> Resumed:
    """Load the run whose checkpoint or folder is ``name``, or the newest one below runs/train.

    Raises ValueError if the run is finished, or if ``cfg`` and ``overrides`` differ from it in more than MAY_CHANGE.
    """
    path = find_checkpoint(name)
    checkpoint = load_checkpoint(path, kind="training")
    config = Config.model_validate(checkpoint["config"])
    if is_finished(path):
        raise ValueError(f"{path}: the run is finished ({config.train.epochs} epochs), there is nothing to resume")
    requested = dict(overrides)
    if cfg is not None:
        adapted, _ = adapt_config(load(cfg, overrides), classes=len(checkpoint["names"]))
        requested = flatten(adapted.model_dump(mode="json"))
    ignored = MAY_CHANGE if cfg is None else (*MAY_CHANGE, *RUN_FOLDER)
    original = flatten(checkpoint["config"])
    changed = {k: value for k, value in requested.items() if k not in ignored and original.get(k) != value}
    if changed:
        listed = ", ".join(f"{key}={value} (the run has {original.get(key)})" for key, value in changed.items())
        raise ValueError(f"--resume continues a run with its own settings; they cannot be changed to {listed}")
    changes = {key.removeprefix("train."): value for key, value in overrides.items() if key in MAY_CHANGE}
    train = config.train.model_copy(update=changes)
    return Resumed(config.model_copy(update={"train": train}), checkpoint, path.resolve().parents[1])


def find_checkpoint(name: str) -> Path:
    """The checkpoint that ``--resume`` names by file or run folder; for NEWEST, the newest last.pt below runs/train."""
    if name != NEWEST:
        path = Path(name)
        return path / "weights" / "last.pt" if path.is_dir() else path
    candidates = sorted(Path("runs/train").glob("*/weights/last.pt"), key=lambda path: path.stat().st_mtime)
    if not candidates:
        raise FileNotFoundError("--resume: no runs/train/*/weights/last.pt; name the checkpoint to resume from")
    return candidates[-1]


def is_finished(checkpoint: Path) -> bool:
    """Whether the run of a checkpoint has its final results; one killed just before them is resumed to get them."""
    try:
        record = json.loads((checkpoint.resolve().parents[1] / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "results" in record
