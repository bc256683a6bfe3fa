"""The isolated timing in the folder of a comparison, as its report shows it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison import wording
from comparison.checks import MAX_OTHER_CORES
from comparison.fingerprint import run_settings
from comparison.journal import timings
from comparison.runs import Run
from comparison.summary import Timing, TimingRow
from core.seal import SEAL, seal_of

TIMING = "timing.json"


def read_timing(path: Path, runs: Sequence[Run] = ()) -> Timing:
    """The isolated timing that comparison/step_timing.py left in the folder of these runs, if any.

    ValueError if it is damaged or was changed.
    """
    if not path.is_file():
        return Timing()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(
            TimingRow(
                act=str(row["act"]),
                norm_act=str(row.get("norm_act", "")),
                implementation=str(row.get("implementation", "")),
                median_ms=float(row["median_ms"]),
                ratio=float(row["ratio"]),
                low=float(row["low"]),
                high=float(row["high"]),
            )
            for row in content["rows"]
        )
        if any(not 0 < row.low <= row.ratio <= row.high or not row.median_ms > 0 for row in rows):
            raise ValueError("a time is not positive, or a ratio is outside its interval")
        if SEAL in content and content[SEAL] != seal_of(content, b""):
            raise ValueError("changed after it was written (the seal does not match)")
        cores = None if content.get("other_cores") is None else float(content["other_cores"])
        doubts = wording.captions.timing_doubts(sealed=SEAL in content, unlike=_unlike(content, runs))
        counts = cores is not None and cores <= MAX_OTHER_CORES and not doubts
        return Timing(
            words=wording.captions.timing_setting(content),
            load=" ".join(
                [wording.captions.timing_load(cores), *doubts, *wording.captions.timed_again(timings(path)[0])]
            ),
            excluded=cores is not None and cores > MAX_OTHER_CORES,
            rows=rows,
            rounds=_rounds(content) if counts else {},
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: {error}"
            if isinstance(error, ValueError)
            else f"{path}: expected rows of act, norm_act, median_ms, ratio, low, high: {error}"
        ) from error


def _rounds(content: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """The times of the activations that were timed in one form."""
    times = content.get("times_ms") or {}
    return {row["act"]: tuple(map(float, times[row["act"]])) for row in content["rows"] if row["act"] in times}


def _unlike(content: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    """In what the setting of an isolated timing differs from that of the runs, as far as both record it."""
    same = next((run_settings(run) for run in runs if run.status == "finished"), {})
    code = content.get("code")
    measured = {
        "device": content.get("device"),
        "config.train.imgsz": content.get("imgsz"),
        "config.train.batch": content.get("batch"),
        "code": code.get("source_sha256") if isinstance(code, Mapping) else None,
        "machine.cpu": (content.get("machine") or {}).get("cpu"),
    }
    return [
        key.removeprefix("config.train.")
        for key, value in measured.items()
        if value is not None and key in same and same[key] != value
    ]
