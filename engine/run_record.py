"""run.json: what a run is made of (config, code, data, machine) and its results."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.files import write_text
from engine.machine import fingerprint, machine
from models.census import CensusRow


def write_run(path: str | os.PathLike, record: Mapping[str, object]) -> None:
    """Write run.json; values may be numbers (null if not finite), text, lists, mappings, paths, arrays, dataclasses."""
    write_text(path, json.dumps(_plain(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def update_run(path: str | os.PathLike, **values: object) -> None:
    """Set keys of an existing run.json, such as the results at the end of a run."""
    write_run(path, {**json.loads(Path(path).read_text(encoding="utf-8")), **values})


def run_record(
    *,
    config: Mapping[str, object],
    differs: Mapping[str, object],
    data_hash: Mapping[str, str],
    census: Sequence[CensusRow],
    operator: Mapping[str, str],
    device: str,
    **more: object,
) -> dict[str, object]:
    """The content of run.json at the start of a run.

    `differs`: difference of the config from the base; `operator`: which Mish implementation runs and why, as
    {"implementation": ..., "reason": ...}.
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
