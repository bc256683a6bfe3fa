"""Resuming a run: which checkpoint ``--resume`` names, what may be changed, and the config of the resumed run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.loading import CONFIGS
from configs.schema import Config, Data, Run, flatten, load
from core.distributed import from_main, remembered_folder
from core.files import check_run_name
from core.types import StateDict
from data.synthetic import read_stamp
from engine.checkpoint import load_checkpoint
from engine.run_record import read_record
from engine.setup import adapt_config

NEWEST = "newest"
MAY_CHANGE = (
    "train.device",
    "train.workers",
    "train.threads",
    "train.save_minutes",
    "train.grad_checkpointing",
)  # do not change the result but for rounding
RUN_FOLDER = ("run.project", "run.name", "run.exist_ok")  # a resumed run stays in its folder


@dataclass(frozen=True)
class Resumed:
    """A run to be continued."""

    config: Config
    checkpoint: StateDict
    path: Path  # of the checkpoint
    folder: Path | None  # of the run; None: not known, so it goes on in a new one
    moved: bool = False  # the data are at another place than in the checkpoint


def resume(name: str, *, cfg: str | None, overrides: Mapping[str, object]) -> Resumed:
    """Load the run whose checkpoint or folder is ``name``, or the newest one below runs/train.

    Raises ValueError if the run is finished, or if ``cfg`` and ``overrides`` differ from it in more than MAY_CHANGE and
    the place of its data.
    """
    path = from_main(lambda: find_checkpoint(name))
    checkpoint = load_checkpoint(path, kind="training")
    config = Config.model_validate(checkpoint["config"])
    folder = own_folder(path, checkpoint)
    if is_finished(folder, checkpoint, config):
        raise ValueError(f"{path}: the run is finished ({config.train.epochs} epochs), there is nothing to resume")
    _refuse_changes(checkpoint, cfg, overrides, new_folder=folder is None)
    changes = {key.removeprefix("train."): value for key, value in overrides.items() if key in MAY_CHANGE}
    updates: dict[str, object] = {"train": config.train.model_copy(update=changes)}
    data = _data(path, config, overrides, own=folder is not None)
    if folder is None:
        updates["run"] = config.run.model_copy(update=_new_place(config, overrides))
    updated = config.model_copy(update={**updates, "data": data})
    return Resumed(updated, checkpoint, path, folder, moved=data != config.data)


def restarted() -> Resumed | None:
    """The run that earlier processes of the same launcher began, if it has started these in their place.

    Ends this process, successfully, if they have finished the run.
    """
    folder = remembered_folder()
    if folder is None:
        return None
    if "results" in read_record(Path(folder)):
        raise SystemExit(0)
    return resume(folder, cfg=None, overrides={})


def find_checkpoint(name: str) -> Path:
    """The checkpoint that ``--resume`` names by file or run folder; for NEWEST, the newest last.pt below runs/train."""
    if name != NEWEST:
        path = Path(name)
        return path / "weights" / "last.pt" if path.is_dir() else path
    candidates = sorted(Path("runs/train").glob("*/weights/last.pt"), key=lambda path: path.stat().st_mtime)
    if not candidates:
        raise FileNotFoundError("--resume: no runs/train/*/weights/last.pt; name the checkpoint to resume from")
    return candidates[-1]


def own_folder(path: Path, checkpoint: StateDict) -> Path | None:
    """The folder of a run if ``path`` is its weights/last.pt and its run.json has the checkpoint's run id.

    None for any other place: files there are not the run's, or newer than the checkpoint. The file or its folder may
    be a link to another disk. A checkpoint without an id, of an earlier version, must have the config and the data of
    run.json.
    """
    places = (path.resolve(), Path(os.path.abspath(path)))
    folders = [place.parent.parent for place in places if place.parts[-2:] == ("weights", "last.pt")]
    return next((folder for folder in folders if _is_of(folder, checkpoint)), None)


def _is_of(folder: Path, checkpoint: StateDict) -> bool:
    """Whether the run.json of a folder is that of the checkpoint's run."""
    try:
        record: object = read_record(folder)
    except (OSError, ValueError):
        return False
    if not isinstance(record, dict) or not isinstance(record.get("starts", []), list):
        return False
    if checkpoint.get("run_id") is not None:
        return bool(record.get("id") == checkpoint["run_id"])
    configs = _unchangeable(record.get("config")), _unchangeable(checkpoint["config"])
    return bool(record.get("data") == checkpoint["data_sha256"] and configs[0] == configs[1])


def _unchangeable(config: object) -> Mapping[str, object]:
    """The settings, by dotted key, that a resume does not change."""
    leaves = flatten(config) if isinstance(config, Mapping) else {}
    return {key: value for key, value in leaves.items() if key not in MAY_CHANGE}


def is_finished(folder: Path | None, checkpoint: StateDict, config: Config) -> bool:
    """Whether a run has its final results; one killed just before them is resumed to get them.

    Without its folder: whether all epochs are trained.
    """
    if folder is None:
        return bool(checkpoint["state"]["epoch"] >= (config.train.epochs or 0))
    return "results" in read_record(folder)


def _refuse_changes(
    checkpoint: StateDict, cfg: str | None, overrides: Mapping[str, object], *, new_folder: bool
) -> None:
    """Raise ValueError if a setting is to be changed that changes the result."""
    requested = dict(overrides)
    if cfg is not None:
        adapted, _ = adapt_config(load(cfg, overrides), classes=len(checkpoint["names"]))
        requested = flatten(adapted.model_dump(mode="json"))
    may_change = [*MAY_CHANGE, *(RUN_FOLDER if new_folder or cfg is not None else ())]
    original = flatten(checkpoint["config"])
    changed = {
        key: value
        for key, value in requested.items()
        if key not in may_change
        and original.get(key) != value
        # The annotations of --data are compared once they are read.
        and not ("data" in overrides and key.partition(".")[0] == "data")
    }
    if changed:
        listed = ", ".join(f"{key}={value} (the run has {original.get(key)})" for key, value in changed.items())
        raise ValueError(f"--resume continues a run with its own settings; they cannot be changed to {listed}")


def _data(path: Path, config: Config, overrides: Mapping[str, object], *, own: bool) -> Data:
    """The data of the resumed run: those of --data, else those of the checkpoint."""
    if "data" in overrides:
        given = {key: value for key, value in overrides.items() if key.partition(".")[0] == "data"}
        # Without it, a data set without a validation split is refused.
        return load(CONFIGS / "yolo.yaml", {**given, "train.holdout": config.train.holdout}).data
    if own or config.data.embedded is None or read_stamp(config.data.root) is not None:
        return config.data
    # Never draw it at the path in a checkpoint from elsewhere, which must not decide where files are written.
    here = load(CONFIGS / "yolo.yaml").data
    if here.embedded != config.data.embedded:
        raise ValueError(f"{path}: its data set {config.data.root} is not on this machine; give --data")
    return here


def _new_place(config: Config, overrides: Mapping[str, object]) -> dict[str, object]:
    """Project and name of the new folder of a run: the usual ones, since a checkpoint must not decide about paths.

    ValueError for --exist-ok, which asks for an old one.
    """
    if overrides.get("run.exist_ok"):
        raise ValueError("--resume: a checkpoint from elsewhere goes on in a new folder; leave --exist-ok out")
    usual, name = Run(), config.run.name
    try:
        check_run_name(name)
    except ValueError:
        name = usual.name
    return {
        "project": overrides.get("run.project", usual.project),
        "name": overrides.get("run.name", name),
        "exist_ok": False,
    }


@contextlib.contextmanager
def naming_data_flag(resumed: Resumed | None) -> Iterator[None]:
    """Add to an error about missing data that a resumed run can be told where they are now."""
    try:
        yield
    except FileNotFoundError as error:
        if resumed is None:
            raise
        raise FileNotFoundError(f"{error}; if the data were moved, add --data NEW.yaml to --resume") from error
