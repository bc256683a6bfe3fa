"""Trainings of this project and of Ultralytics for benchmarks: a process each, kept once finished, and read back."""

import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peer import METRICS
from core.commands import ROOT


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished training: the numbers of its last weights, and mAP50-95 by epoch with the seconds until then."""

    data: str
    name: str  # of what was trained
    seed: int
    metrics: dict[str, float]
    seconds: float  # of the whole run
    training: float  # of these, without validation and saving; the peer's are not known apart
    curve: tuple[tuple[float, float], ...] = ()  # (seconds, mAP50-95); the peer's mAP is by its own validation

    def seconds_until(self, target: float) -> float | None:
        """When mAP50-95 first was at least the target; None if it never was."""
        return next((second for second, value in self.curve if value >= target), None)


def our_command(cfg: str, folder: Path, flags: Mapping[str, object], *more: str) -> list[str]:
    """The command line of train.py with these flags, for a run in a folder."""
    place = {"project": folder.parent.absolute(), "name": folder.name}
    return [sys.executable, str(ROOT / "train.py"), "--cfg", cfg, *_words({**flags, **place}), "--exist-ok", *more]


def peer_command(python: str, folder: Path, flags: Mapping[str, object]) -> list[str]:
    """The command line of benchmarks.peer with these flags, for a run in a folder."""
    return [sys.executable, "-m", "benchmarks.peer", *_words({**flags, "python": python, "out": folder})]


def _words(flags: Mapping[str, object]) -> list[str]:
    return [word for key, value in flags.items() for word in (f"--{key}", str(value))]


def trained(command: Sequence[str], folder: Path, *, data: str, name: str, seed: int) -> Run:
    """The run in a folder, by this command unless it is there already; ValueError if it fails.

    What the command prints goes into a file beside the folder.
    """
    if not _is_finished(folder):
        print(f"{folder}: training", flush=True)
        run_logged(command, folder.with_name(f"{folder.name}.log"))
    return read(folder, data=data, name=name, seed=seed)


def _is_finished(folder: Path) -> bool:
    record = folder / "run.json"
    ours = record.is_file() and "results" in json.loads(record.read_text(encoding="utf-8"))
    return ours or _is_peers(folder)


def _is_peers(folder: Path) -> bool:
    return (folder / "result.json").is_file()


def run_logged(command: Sequence[str], log: Path) -> None:
    """Run a command with its output in a file; ValueError with the last line if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"])[-1]
        raise ValueError(f"{log}: the training failed with exit code {done.returncode} ({last})")


def read(folder: Path, *, data: str, name: str, seed: int) -> Run:
    """A finished run from its files."""
    curve = []
    if _is_peers(folder):
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        metrics, seconds = result["metrics"]["last"], result["seconds"]["train_s"]
        training = seconds
        for row in _rows(folder / "train/results.csv"):
            curve.append((float(row["time"]), float(row["metrics/mAP50-95(B)"])))
    else:
        last = json.loads((folder / "run.json").read_text(encoding="utf-8"))["last_epoch"]
        metrics = {key: last.get(f"metrics/{key}", -1.0) for key in METRICS}
        seconds = training = 0.0
        for row in _rows(folder / "results.csv"):
            of_training = sum(float(row[f"time_{part}_s"]) for part in ("train", "warmup", "data"))
            training += of_training
            seconds += of_training + float(row["time_val_s"]) + float(row["time_save_s"])
            curve.append((seconds, float(row["metrics/mAP50-95"] or 0)))
    return Run(data=data, name=name, seed=seed, metrics=metrics, seconds=seconds, training=training, curve=tuple(curve))


def _rows(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as stream:
        return [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(stream)]


def with_sd(points: Sequence[float]) -> str:
    """The mean, and the standard deviation if there are several."""
    return f"{statistics.fmean(points):.1f}" + (f", {statistics.stdev(points):.1f}" if len(points) > 1 else "")
