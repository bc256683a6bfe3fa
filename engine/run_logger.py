"""What a run leaves behind: its folder, results.csv, run.json, TensorBoard events, and the lines on the console.

Files are written beside their place and renamed (core/files.py).
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from core.files import write_text
from core.limits import MAX_DATA_WAIT_FRACTION
from core.text import format_duration
from engine.machine import fingerprint, machine

LONGEST_NAME = 200  # bytes of a folder's name; file systems take 255, and a number may be added

COLUMNS = (
    "epoch", "step", "train/box_loss", "train/obj_loss", "train/cls_loss", "train/dfl_loss",
    "metrics/precision", "metrics/recall", "metrics/mAP50", "metrics/mAP50-95", "metrics/mAP75",
    "metrics/AP_small", "metrics/AP_medium", "metrics/AP_large",
    "val/box_loss", "val/obj_loss", "val/cls_loss", "val/dfl_loss", "lr",
    "time_train_s", "time_warmup_s", "time_data_s", "time_val_s", "time_save_s", "images_per_s", "peak_memory_mib",
    "other_cores", "batches_crc32",
)  # fmt: skip
"""Columns of results.csv in their order; a row may bring further ones, which are added at the end.

Of the losses a run has obj (a Darknet network's) or dfl.
"""


# ------------------------------------------------------------------------------------------------------------- folders


def check_run_name(name: str) -> None:
    """ValueError where a run's name leads out of its project, or is none that a folder can have."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise ValueError(f"run name {name!r}: expected a plain folder name; where it lies is said by the project")
    if not name.isprintable() or any(len(os.fsencode(part)) > LONGEST_NAME for part in parts):
        raise ValueError(f"run name {name[:40]!r}...: expected printable text of at most {LONGEST_NAME} bytes")


def increment_path(project: str | os.PathLike, name: str = "exp", exist_ok: bool = False) -> Path:
    """Make and return the folder project/name, or project/name2, name3, ... where it is taken and not `exist_ok`.

    The folder is claimed by making it, so two runs started at once get two folders.
    """
    check_run_name(name)
    first = Path(project) / name
    number = 1
    while True:
        folder = first if number == 1 else first.with_name(f"{first.name}{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=exist_ok)
        except NotADirectoryError as error:
            raise ValueError(f"{folder.parent} cannot be made: a file stands in the way") from error
        except FileExistsError as error:
            if not folder.parent.is_dir():
                raise ValueError(f"{folder.parent} is a file; expected a folder for the runs") from error
            if exist_ok:
                raise ValueError(f"{folder} is a file; expected a run folder") from error
            number += 1
            continue
        return folder


# ------------------------------------------------------------------------------------------------------------- results


class Results:
    """results.csv: one row an epoch. The whole file is written anew each time, so it is never cut off in a row."""

    def __init__(self, path: str | os.PathLike, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        """`rows`: those of the epochs before, as a checkpoint holds them; they replace what the file has."""
        self.path = Path(path)
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]
        if self.rows:
            self._write()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add the row of one epoch; a row of the same epoch is replaced."""
        self.rows = [old for old in self.rows if old.get("epoch") != row.get("epoch")] + [dict(row)]
        self._write()

    def _write(self) -> None:
        further = {name: None for row in self.rows for name in row if name not in COLUMNS}
        others = "dfl_loss" if any("train/obj_loss" in row for row in self.rows) else "obj_loss"
        columns = [*(name for name in COLUMNS if not name.endswith(others)), *further]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([[_cell(name, row.get(name)) for name in columns] for row in self.rows])
        write_text(self.path, text.getvalue())


def _cell(name: str, value: Any) -> str:
    """A value as text: six significant digits; empty where there is none or COCO has nothing to average (-1)."""
    if value is None or (name.startswith("metrics/") and value == -1):
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


# ------------------------------------------------------------------------------------------------------------ run.json


def write_run(path: str | os.PathLike, record: Mapping[str, Any]) -> None:
    """Write run.json: numbers (null where not finite), texts, lists, dictionaries, paths, tensors, dataclasses."""
    write_text(path, json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def update_run(path: str | os.PathLike, **values: Any) -> None:
    """Set keys of an existing run.json, such as the results at the end of the run."""
    write_run(path, {**json.loads(Path(path).read_text(encoding="utf-8")), **values})


def run_record(
    *,
    config: Mapping[str, Any],
    differs: Mapping[str, Any],
    data_hash: Any,
    census: Sequence[Any],
    operator: Mapping[str, str],
    device: str,
    **more: Any,
) -> dict[str, Any]:
    """What run.json holds from the start: config and its difference from the base, code, data, machine, census.

    `operator`: which Mish runs and why, as {"implementation": ..., "reason": ...}.
    """
    return {
        "format": 1,
        "config": dict(config),
        "differs": dict(differs),
        "code": fingerprint(),
        "data": data_hash,
        "machine": machine(),
        "device": device,
        "operator": dict(operator),
        "census": list(census),
        **more,
    }


def _plain(value: Any) -> Any:
    """The value as what JSON knows; raises TypeError for anything else."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    raise TypeError(f"run.json: {type(value).__name__} {value!r} is no plain value")


# --------------------------------------------------------------------------------------------------------- TensorBoard


class TensorBoard:
    """TensorBoard events in the run folder: the numbers of each row, and the learnable activation parameters."""

    def __init__(self, folder: str | os.PathLike, *, first_step: int | None = None) -> None:
        """`first_step`: on resume, the epoch from which on earlier events no longer count."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import, so only where it is wanted

        self.writer = SummaryWriter(os.fspath(folder), purge_step=first_step)

    def row(self, row: Mapping[str, Any], step: int) -> None:
        """Write every number of a results row; undefined ones are left out."""
        for name, value in row.items():
            if (
                isinstance(value, (int, float))
                and _cell(name, value)
                and name not in ("epoch", "step", "batches_crc32")
            ):
                self.writer.add_scalar(name if "/" in name else f"run/{name}", value, step)
        self.writer.flush()

    def activations(self, parameters: Mapping[str, torch.Tensor], step: int) -> None:
        """Write learnable activation parameters: single values as curves, several as mean and histogram."""
        for name, value in parameters.items():
            values = value.detach().float().cpu()
            self.writer.add_scalar(f"activation/{name}", values.mean().item(), step)
            if values.numel() > 1:
                self.writer.add_histogram(f"activation/{name}", values, step)

    def close(self) -> None:
        """Write out what is pending."""
        self.writer.close()


# ------------------------------------------------------------------------------------------------------------- console


def start_banner(
    *,
    differs: Mapping[str, Any],
    code: Mapping[str, Any],
    device: str,
    operator: Mapping[str, str],
    census: str,
    parameters: int,
    gflops: float | None,
    side: int,
    folder: str | os.PathLike | None = None,
    data: str | None = None,
) -> str:
    """The lines printed before a run: what differs from the base, code, device, Mish, activations, size."""
    changes = ", ".join(f"{key}={_brief(value)}" for key, value in differs.items()) or "nothing"
    commit = "no git repository" if not code.get("commit") else f"commit {code['commit'][:10]}"
    state = ", with uncommitted changes" if code.get("dirty") else ""
    cost = "" if gflops is None else f", {gflops:.1f} GFLOPs for one image of {side} x {side}"
    entries = [
        ("differs from yolo.yaml in", changes),
        ("code", f"{commit}{state}, sources {str(code.get('source_sha256', ''))[:10]}"),
        ("device", device),
        ("Mish", f"{operator['implementation']} ({operator['reason']})"),
        ("network", f"{parameters:,} parameters{cost}"),
    ]
    entries += [("data", data)] if data else []
    entries += [("folder", os.fspath(folder))] if folder is not None else []
    return "\n".join([*_columns(entries), "activations", *(f"  {line}" for line in census.splitlines())])


def end_summary(
    *,
    stats: Mapping[str, float],
    times: Mapping[str, float],
    memory_mib: float,
    device: str,
    operator: Mapping[str, str],
    folder: str | os.PathLike,
    epoch: str,
    next_command: str,
    skipped: str = "",
) -> str:
    """The lines printed after a run. `stats`: COCO's numbers by name; `times`: seconds for train, warmup, data,
    validation, saving; `epoch`: which weights these numbers belong to, `skipped`: what of the data was not used, in
    words."""
    folder = Path(folder)
    train, wait = times.get("train", 0.0), times.get("data", 0.0)
    others = ", ".join(
        f"{name} {format_duration(times[name])}" for name in ("warmup", "data", "validation", "saving") if name in times
    )
    pictures = sorted(path.name for path in folder.glob("*.png")) or ["none"]
    entries = [
        ("mAP50-95", f"{_number(stats.get('mAP50-95'))}   mAP50 {_number(stats.get('mAP50'))}   ({epoch})"),
        ("training time", format_duration(train) + (f"   (apart from it: {others})" if others else "")),
        ("peak memory", f"{memory_mib:.0f} MiB ({device})"),
        ("Mish", f"{operator['implementation']} ({operator['reason']})"),
        ("weights", ", ".join(str(folder / "weights" / name) for name in ("best.pt", "last.pt"))),
        ("pictures", f"{folder}{os.sep}: {', '.join(pictures)}"),
        *([("data", skipped)] if skipped else []),
        ("try next", next_command),
    ]
    lines = _columns(entries)
    if train > 0 and wait > MAX_DATA_WAIT_FRACTION * train:
        lines.append(
            f"The training waited for data {wait / train:.0%} of its step time: its time says little about the "
            "network. More --workers or --cache ram may help."
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) or value < 0 else f"{value:.3f}"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."


def _columns(entries: Sequence[tuple[str, str]]) -> list[str]:
    """Names and texts as aligned lines."""
    width = max(len(name) for name, _ in entries)
    return [f"{name:<{width}}  {text}" for name, text in entries]
