"""The lines that a run prints: a summary before it, one line per epoch, a summary after it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.limits import MAX_DATA_WAIT_FRACTION
from core.metrics import FITNESS
from core.text import format_duration
from engine.loggers import EpochEnd, Logger, RunEnd, RunStart

SHOWN_METRICS = (FITNESS, "mAP50")
LONGEST_VALUE = 60  # characters of a config value


class Console(Logger):
    """Prints to stdout. What went wrong goes to stderr, by the script."""

    def start(self, run: RunStart) -> None:
        """Print the summary before the run."""
        self.epochs, self.loss_names = run.epochs, run.loss_names
        print(run.text, flush=True)

    def epoch(self, epoch: EpochEnd) -> None:
        """Print losses, mAP, speed, and the estimated time left."""
        row = epoch.row
        losses = "  ".join(f"{name} {row[f'train/{name}_loss']:.3f}" for name in self.loss_names)
        metrics = "".join(
            f"  {name} {_number(row[f'metrics/{name}'])}"
            for name in SHOWN_METRICS
            if row.get(f"metrics/{name}") is not None
        )
        contended = row.get("time_contended_s") or 0.0
        slowed = f"  (slowed by other processes for {format_duration(contended)})" if contended else ""
        print(
            f"epoch {row['epoch']}/{self.epochs}  {losses}{metrics}  {row['images_per_s']:.0f} images/s{slowed}  "
            f"left {format_duration(epoch.seconds_left)}",
            flush=True,
        )

    def end(self, run: RunEnd) -> None:
        """Print the summary after the run."""
        print(run.text, flush=True)


def start_summary(
    *,
    differs: Mapping[str, object],
    code: Mapping[str, object],
    device: str,
    operator: Mapping[str, str],
    census: str,
    parameters: int,
    gflops: float,
    imgsz: int,
    folder: str | os.PathLike,
    data: str,
) -> str:
    """The lines printed before a run: difference from the base config, code, device, Mish, size, activations."""
    changes = ", ".join(f"{key}={_shorten(value)}" for key, value in differs.items()) or "nothing"
    commit = f"commit {str(code['commit'])[:10]}" if code.get("commit") else "no git repository"
    dirty = ", with uncommitted changes" if code.get("dirty") else ""
    entries = [
        ("differs from yolo.yaml in", changes),
        ("code", f"{commit}{dirty}, sources {str(code.get('source_sha256', ''))[:10]}"),
        ("device", device),
        ("Mish", f"{operator['implementation']} ({operator['reason']})"),
        ("network", f"{parameters:,} parameters, {gflops:.1f} GFLOPs per image of {imgsz} x {imgsz}"),
        ("data", data),
        ("folder", os.fspath(folder)),
    ]
    return "\n".join([*_align(entries), "activations", *(f"  {line}" for line in census.splitlines())])


def end_summary(
    *,
    numbers: Mapping[str, float],
    times: Mapping[str, float],
    memory_mib: float,
    device: str,
    operator: Mapping[str, str],
    folder: Path,
    epoch: str,
    next_command: str,
    skipped: str = "",
) -> str:
    """The lines printed after a run.

    `numbers`: COCO's twelve by name; `times`: seconds for train, warmup, data, validation, saving; `epoch`: which
    weights the numbers belong to; `skipped`: data issues in one line, if any.
    """
    train, wait = times.get("train", 0.0), times.get("data", 0.0)
    others = ", ".join(
        f"{name} {format_duration(times[name])}" for name in ("warmup", "data", "validation", "saving") if name in times
    )
    pictures = sorted(path.name for path in folder.glob("*.png")) or ["none"]
    entries = [
        ("mAP50-95", f"{_number(numbers.get('mAP50-95'))}   mAP50 {_number(numbers.get('mAP50'))}   ({epoch})"),
        ("training time", format_duration(train) + (f"   (excluding {others})" if others else "")),
        ("peak memory", f"{memory_mib:.0f} MiB ({device})"),
        ("Mish", f"{operator['implementation']} ({operator['reason']})"),
        ("weights", ", ".join(str(folder / "weights" / name) for name in ("best.pt", "last.pt"))),
        ("pictures", f"{folder}{os.sep}: {', '.join(pictures)}"),
        *([("data", skipped)] if skipped else []),
        ("try next", next_command),
    ]
    lines = _align(entries)
    if train > 0 and wait > MAX_DATA_WAIT_FRACTION * train:
        lines.append(
            f"The training waited for data for {wait / train:.0%} of its step time, so its time says little about the "
            "network. More --workers or --cache ram may help."
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return f"{value:.3f}" if value is not None and value >= 0 else "-"


def _shorten(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def _align(entries: Sequence[tuple[str, str]]) -> list[str]:
    """Names and texts in two columns."""
    width = max(len(name) for name, _ in entries)
    return [f"{name:<{width}}  {text}" for name, text in entries]
