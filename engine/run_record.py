"""run.json: what a run is made of (config, code, data, machine) and its results."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from core.files import write_text
from core.seal import SEAL, seal_of
from engine.machine import fingerprint, machine
from models.census import CensusRow


def write_run(path: str | os.PathLike, record: Mapping[str, object]) -> None:
    """Write run.json; values may be numbers (null if not finite), text, lists, mappings, paths, arrays, dataclasses."""
    write_text(path, json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_record(folder: Path) -> dict[str, Any]:
    """The content of a run folder's run.json."""
    record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return record


def update_run(path: str | os.PathLike, **values: object) -> None:
    """Set keys of an existing run.json, such as the results at the end of a run."""
    write_run(path, {**json.loads(Path(path).read_text(encoding="utf-8")), **values})


def finish_run(folder: Path, **values: object) -> None:
    """Set the results in run.json and seal it together with results.csv, in one write."""
    record = {**read_record(folder), **_plain(values)}
    write_run(folder / "run.json", {**record, SEAL: seal_of(record, (folder / "results.csv").read_bytes())})


def start_entry(
    *, device: str, epoch: int, batch: int, processes: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Where and when a process starts or resumes a run, at this epoch and batch (both from 1).

    `processes`: of several that train together, `world_size`, `backend`, `sync_bn` and `machines`.
    """
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "epoch": epoch,
        "batch": batch,
        "code": fingerprint(),
        "machine": machine(),
        "device": device,
        **({} if processes is None else {"processes": processes}),
    }


def run_record(
    *,
    config: Mapping[str, object],
    differs: Mapping[str, object],
    data_hash: Mapping[str, str],
    census: Sequence[CensusRow],
    operator: Mapping[str, str],
    start: Mapping[str, object],
    **more: object,
) -> dict[str, object]:
    """The content of run.json at the start of a run; `start` is its first `start_entry`.

    `differs`: difference of the config from the base; `operator`: which Mish implementation runs and why, as
    {"implementation": ..., "reason": ...}.
    """
    return {
        "format": 1,
        "config": dict(config),
        "differs": dict(differs),
        "code": start["code"],
        "data": data_hash,
        "machine": start["machine"],
        "device": start["device"],
        "starts": [start],
        "operator": dict(operator),
        "census": list(census),
        **more,
    }


def convolutions_sha256(model: nn.Module) -> str:
    """SHA-256 over the convolution weights, by name: equal for networks that differ in their activations only."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            digest.update(name.encode())
            digest.update(module.weight.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """The value in JSON types; raises TypeError if it has none."""
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
    raise TypeError(f"run.json: {type(value).__name__} {value!r} has no JSON form")
