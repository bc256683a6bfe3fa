"""Read run folders of train.py for a comparison: activation, seed, status, metrics.

Only the files of a run matter (run.json, results.csv, failure.json), so runs started by hand count as well.
"""

import csv
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

PARTS = ("backbone", "neck", "head")
ACTIVATION_KEYS = ("model.act", *(f"model.{part}.act" for part in PARTS), *(f"model.{part}.stages" for part in PARTS))
SCORES = "scores.json"  # on the split of a plan that names another than val
FAILURE = "failure.json"  # written by the runner into the folder of a failed run
MAX_BYTES = 1 << 28  # of run.json
PRECISION = 1e-5  # relative: results.csv has six significant digits
MAX_SLUG = 100  # characters


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of train.py."""

    folder: Path
    act: str  # label of the arm, by default its activation: "mish", "swish(learnable=true)", "backbone=mish,neck=relu"
    seed: int
    status: Literal["finished", "failed", "unfinished"]
    reason: str = ""  # why it failed, one line
    diverged: bool = False  # it failed because the loss was not finite: an outcome of the network, not of the machine
    earlier_failures: tuple[str, ...] = ()  # the reasons of failed attempts before a retry
    record: Mapping[str, Any]  # run.json, {} if missing
    rows: tuple[Mapping[str, float | None], ...]  # results.csv, one row per epoch
    varies: tuple[str, ...] = ACTIVATION_KEYS  # config keys in which the arms of its comparison differ
    scores: Mapping[str, Any] = field(default_factory=dict)  # scores.json, {} if missing

    @property
    def split(self) -> str:
        """The split that its metrics are measured on: that of its scores, otherwise val."""
        return str(self.scores.get("split")) if self.scores else "val"

    def with_scores(self, scores: Mapping[str, Any]) -> "Run":
        """The run with other scores; {} for those of the validation images in its rows."""
        return replace(self, scores=scores)

    def last(self, column: str) -> float | None:
        """A metric of the last epoch, as a fraction: on the split of its scores, otherwise on val."""
        value = self.scores["metrics"].get(column) if self.scores else self.rows[-1].get(column)
        return None if value is None else float(value)


def read_run(folder: Path) -> Run:
    """Read a run folder. FileNotFoundError if it is not one, ValueError if its files are damaged or incomplete."""
    folder = Path(folder)
    failure, file = folder / FAILURE, folder / "run.json"
    if not file.is_file() and not failure.is_file():
        missing = "" if folder.is_dir() else "; the folder does not exist"
        raise FileNotFoundError(f"{folder}: not a run folder, expected a run.json as written by train.py{missing}")
    record = _read_json(file) if file.is_file() else {}
    failed = _read_json(failure) if failure.is_file() and "results" not in record else {}
    try:
        if record:
            config = record["config"]
            arm = config.get("run") or {}
            act, seed = arm.get("arm") or activation_label(config["model"]), config["train"]["seed"]
            varies = tuple(map(str, arm["varies"])) if arm.get("arm") else ACTIVATION_KEYS
        else:
            act, seed, varies = failed["act"], failed["seed"], ACTIVATION_KEYS
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: run.json has no activation or no seed; it was not written by train.py") from error
    if not isinstance(act, str) or not isinstance(seed, int):
        raise ValueError(f"{folder}: the seed is {seed!r}, expected an integer")
    rows = read_rows(folder / "results.csv")
    status: Literal["finished", "failed", "unfinished"]
    status = "finished" if "results" in record else "failed" if failed else "unfinished"
    if status == "finished" and not rows:
        raise ValueError(f"{folder}: run.json belongs to a finished run, but results.csv has no row")
    reason = str(failed.get("reason", ""))
    scores = _read_json(folder / SCORES) if (folder / SCORES).is_file() else {}
    if scores and not isinstance(scores.get("metrics"), dict):
        raise ValueError(f"{folder / SCORES}: no metrics; expected those of a split, as written by compare.py")
    return Run(
        folder=folder,
        act=act,
        seed=seed,
        status=status,
        reason=reason,
        diverged=status == "failed" and "diverged" in record,
        earlier_failures=tuple(str(_read_json(each).get("reason", "")) for each in earlier_failures(folder)),
        record=record,
        rows=rows,
        varies=varies,
        scores=scores,
    )


def earlier_failures(folder: Path) -> list[Path]:
    """The records of failed attempts that were retried, in order."""
    return sorted(folder.glob("failure-*.json"), key=lambda path: (len(path.name), path.name))


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """The runs in these folders, each a run folder or a folder of run folders."""
    return [read_run(each) for folder in folders for each in run_folders(Path(folder))]


def run_folders(folder: Path) -> list[Path]:
    """The run folders in a folder, or the folder itself if it is one. FileNotFoundError if there are none."""
    if _is_run(folder):
        return [folder]
    folders = sorted(each for each in folder.iterdir() if _is_run(each)) if folder.is_dir() else []
    if not folders:
        why = "it contains none" if folder.is_dir() else "the folder does not exist"
        raise FileNotFoundError(f"{folder}: expected a run folder or a folder of run folders (run.json); {why}")
    return folders


def _is_run(folder: Path) -> bool:
    return (folder / "run.json").is_file() or (folder / FAILURE).is_file()


def _read_json(file: Path) -> dict[str, Any]:
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file}: {file.stat().st_size} bytes, too large for a run record")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON, the file is truncated or damaged: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected a mapping, found a {type(content).__name__}")
    return content


def read_rows(file: Path) -> tuple[dict[str, float | None], ...]:
    """The rows of a results.csv, None for an empty field; () without the file. ValueError if it is damaged."""
    if not file.is_file():
        return ()
    rows: list[dict[str, float | None]] = []
    with open(file, encoding="utf-8", newline="") as stream:
        try:
            for number, row in enumerate(csv.DictReader(stream, strict=True), 2):
                if None in row or None in row.values():
                    raise ValueError(f"line {number} does not have as many fields as the header")
                rows.append({name: float(text) if text else None for name, text in row.items()})
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{file}: not a results.csv, or truncated: {error}") from error
    if rows and "epoch" not in rows[0]:
        raise ValueError(f"{file}: no column 'epoch'; it was not written by train.py")
    return tuple(rows)


# --------------------------------------------------------------------------------------------------------------- labels


def activation_label(model: Mapping[str, Any]) -> str:
    """The label of the activations in a config's `model` section: one name, or one per part, or one per stage.

    It depends on what each activation layer gets, not on where the config says so. A Darknet network without `act` has
    those of its cfg, and is labelled with the name of that file.
    """
    default = model.get("act") or Path(model["cfg"]).name
    parts = {part: _section(model, part).get("act") or default for part in PARTS}
    stages = {
        f"{part}.{name}": stage["act"]
        for part in PARTS
        for name, stage in sorted((_section(model, part).get("stages") or {}).items())
        if stage.get("act") and spec_label(stage["act"]) != spec_label(parts[part])
    }
    labels = {where: spec_label(spec) for where, spec in (parts | stages).items()}
    if len(set(labels.values())) == 1:
        return labels["backbone"]
    return ",".join(f"{where}={label}" for where, label in labels.items())


def _section(model: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    return model.get(part) or {}


def spec_label(spec: str | Mapping[str, Any]) -> str:
    """An activation with its parameters, as in swish(beta=1.0, learnable=true)."""
    if isinstance(spec, str):
        return spec
    given = ", ".join(f"{key}={_value(value)}" for key, value in sorted(spec.items()) if key != "name")
    return f"{spec['name']}({given})" if given else str(spec["name"])


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(float(value)) if isinstance(value, int | float) else str(value)


def slug(label: str) -> str:
    """A label as part of a folder name: no spaces or brackets, different for different labels."""
    plain = re.sub(r"[^\w.=+-]", "", label.replace(", ", "_").replace(",", "+").replace("(", "_"), flags=re.ASCII)
    if len(plain) > MAX_SLUG:
        return f"{plain[:MAX_SLUG]}-{zlib.crc32(label.encode()):08x}"
    return plain


def run_name(label: str, seed: int) -> str:
    """The folder name of a run of a comparison, as in mish-s0."""
    return f"{slug(label)}-s{seed}"


def by_key(runs: Sequence[Run]) -> dict[tuple[str, int], Run]:
    """The runs by activation and seed. ValueError if two runs have the same activation and seed."""
    keyed: dict[tuple[str, int], Run] = {}
    for run in runs:
        other = keyed.setdefault((run.act, run.seed), run)
        if other is not run:
            raise ValueError(f"{other.folder} and {run.folder} are both {run.act} with seed {run.seed}; leave one out")
    return keyed
