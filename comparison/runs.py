"""Run folders as train.py leaves them, read for a comparison: which activation, which seed, how it ended, its numbers.

A comparison knows runs by their files alone (run.json, results.csv, failure.json), so runs made by hand count as well.
"""

import csv
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTS = ("backbone", "neck", "head")
FAILURE = "failure.json"  # written by the runner beside what a failed run has left
MOST_BYTES = 1 << 28  # of a file that is read whole
LONGEST_SLUG = 100


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of train.py."""

    folder: Path
    act: str  # label of the activation: "mish", "swish(beta=1.0, learnable=true)", "backbone=mish,neck=relu,head=relu"
    seed: int
    status: str  # "finished", "failed" or "unfinished"
    reason: str = ""  # of a failed one, one line
    record: Mapping[str, Any]  # run.json, {} where there is none
    rows: tuple[Mapping[str, float | None], ...]  # results.csv: one an epoch


def read_run(folder: Path) -> Run:
    """Read a run folder. FileNotFoundError where it is none, ValueError where its files are no run's or are cut off."""
    folder = Path(folder)
    failure, file = folder / FAILURE, folder / "run.json"
    if not file.is_file() and not failure.is_file():
        there = "" if folder.is_dir() else "; there is no such folder"
        raise FileNotFoundError(f"{folder}: no run folder, expected a run.json in it, as train.py writes{there}")
    record = _read_json(file) if file.is_file() else {}
    outcome = _read_json(failure) if failure.is_file() and "results" not in record else {}
    try:
        if record:
            act, seed = activation_label(record["config"]["model"]), record["config"]["train"]["seed"]
        else:
            act, seed = outcome["act"], outcome["seed"]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: run.json says neither activation nor seed; it is not train.py's") from error
    if not isinstance(act, str) or not isinstance(seed, int):
        raise ValueError(f"{folder}: the seed is {seed!r}, expected a whole number")
    rows = read_rows(folder / "results.csv")
    status = "finished" if "results" in record else "failed" if outcome else "unfinished"
    if status == "finished" and not rows:
        raise ValueError(f"{folder}: run.json is that of a finished run, but results.csv has no row")
    reason = str(outcome.get("reason", ""))
    return Run(folder=folder, act=act, seed=seed, status=status, reason=reason, record=record, rows=rows)


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """The runs in these folders, each a run folder or one that holds run folders; by activation and seed as found."""
    return [read_run(each) for folder in folders for each in run_folders(Path(folder))]


def run_folders(folder: Path) -> list[Path]:
    """The run folders that a folder holds, or itself where it is one. FileNotFoundError where there is none."""
    if _is_run(folder):
        return [folder]
    found = sorted(each for each in folder.iterdir() if _is_run(each)) if folder.is_dir() else []
    if not found:
        there = "it holds none" if folder.is_dir() else "there is no such folder"
        raise FileNotFoundError(f"{folder}: expected a run folder or a folder of run folders (run.json); {there}")
    return found


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file() or (folder / FAILURE).is_file()


def _read_json(file: Path) -> dict[str, Any]:
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file}: {file.stat().st_size} bytes, no run's record is as large")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON, the file is cut off or damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected a mapping, found a {type(content).__name__}")
    return content


def read_rows(file: Path) -> tuple[dict[str, float | None], ...]:
    """The rows of a results.csv, None for an empty cell; () where there is no file yet. ValueError for other text."""
    if not file.is_file():
        return ()
    rows: list[dict[str, float | None]] = []
    with open(file, encoding="utf-8", newline="") as stream:
        try:
            for number, row in enumerate(csv.DictReader(stream, strict=True), 2):
                if None in row or None in row.values():
                    raise ValueError(f"line {number} has another number of cells than the head")
                rows.append({name: float(text) if text else None for name, text in row.items()})
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{file}: not a results.csv, or cut off: {error}") from error
    if rows and "epoch" not in rows[0]:
        raise ValueError(f"{file}: there is no column 'epoch'; it is not train.py's")
    return tuple(rows)


# --------------------------------------------------------------------------------------------------------------- labels


def activation_label(model: Mapping[str, Any]) -> str:
    """The activations of a config's `model` section in one word: one for all, or one a part, or further ones a stage.

    What a part gets is written out, wherever the config says it, so two configs with equal sites have one label.
    """
    parts = {part: _section(model, part).get("act") or model["act"] for part in PARTS}
    stages = {
        f"{part}.{name}": stage["act"]
        for part in PARTS
        for name, stage in sorted((_section(model, part).get("stages") or {}).items())
        if stage.get("act") and spec_label(stage["act"]) != spec_label(parts[part])
    }
    labels = {place: spec_label(spec) for place, spec in (parts | stages).items()}
    if len(set(labels.values())) == 1:
        return labels["backbone"]
    return ",".join(f"{place}={label}" for place, label in labels.items())


def _section(model: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    return model.get(part) or {}


def spec_label(spec: str | Mapping[str, Any]) -> str:
    """An activation with its parameters, as in swish(beta=1.0, learnable=true)."""
    if isinstance(spec, str):
        return spec
    given = ", ".join(f"{key}={_value(value)}" for key, value in sorted(spec.items()) if key != "name")
    return f"{spec['name']}({given})" if given else str(spec["name"])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(float(value)) if isinstance(value, int | float) else str(value)


def slug(label: str) -> str:
    """A label as part of a folder's name: no space or bracket, another label another slug."""
    plain = re.sub(r"[^\w.=+-]", "", label.replace(", ", "_").replace(",", "+").replace("(", "_"), flags=re.ASCII)
    if len(plain) > LONGEST_SLUG:
        return f"{plain[:LONGEST_SLUG]}-{zlib.crc32(label.encode()):08x}"
    return plain


def cell_name(label: str, seed: int) -> str:
    """The folder's name of a run of a comparison, as in mish-s0."""
    return f"{slug(label)}-s{seed}"


# ---------------------------------------------------------------------------------------------------------------- cells


def by_cell(runs: Sequence[Run]) -> dict[tuple[str, int], Run]:
    """The runs by activation and seed. ValueError where two are of the same activation and seed."""
    cells: dict[tuple[str, int], Run] = {}
    for run in runs:
        other = cells.setdefault((run.act, run.seed), run)
        if other is not run:
            raise ValueError(f"{other.folder} and {run.folder} are both {run.act} with seed {run.seed}; leave one out")
    return cells


def activations(runs: Sequence[Run]) -> list[str]:
    """The labels in the order in which they come."""
    return list(dict.fromkeys(run.act for run in runs))


def seeds(runs: Sequence[Run]) -> list[int]:
    """The seeds, in order."""
    return sorted({run.seed for run in runs})


def same_seed(runs: Sequence[Run]) -> Iterator[tuple[int, list[Run]]]:
    """The runs of each seed."""
    for seed in seeds(runs):
        yield seed, [run for run in runs if run.seed == seed]
