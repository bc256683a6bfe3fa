"""Run folders as written by train.py, made without training, and reports on them."""

import csv
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison.plan import Plan, make_plan
from comparison.report import write_report
from comparison.runs import read_runs
from core.seal import seal_of

GAINS = {"relu": 0.0, "silu": 0.8, "mish": 2.5, "backbone=mish,neck=leaky_relu,head=a_name_that_is_long": 0.3}
ACTS = tuple(GAINS)
COLUMNS = (
    "epoch", "step", "metrics/mAP50", "metrics/mAP50-95", "metrics/AP_small", "metrics/AP_medium", "metrics/AP_large",
    "time_train_s", "time_warmup_s", "time_data_s", "time_val_s", "time_save_s", "images_per_s", "peak_memory_mib",
    "batches_crc32", "other_cores",
)  # fmt: skip


def write_run(
    folder: Path,
    *,
    act: str | Mapping[str, Any],
    seed: int,
    last: float,
    seconds: float = 10.0,
    epochs: int = 8,
    memory: float = 240.0,
    waited: float = 0.1,
    others: float = 0.0,
    small: bool = True,
    noise: float = 0.004,
    latency: float | None = 2.5,
) -> None:
    """A finished run: ``last`` is the mAP50-95 of its last epoch as a fraction, ``seconds`` the time of an epoch."""
    folder.mkdir(parents=True)
    draw = random.Random(f"{act}{seed}")
    name = act if isinstance(act, str) else act["name"]
    rows = []
    for epoch in range(1, epochs + 1):
        value = last * (1 - math.exp(-3 * epoch / epochs)) / (1 - math.exp(-3)) + draw.gauss(0, noise) * (
            epoch < epochs
        )
        value = max(value, 0.001)
        rows.append(
            {
                "epoch": epoch, "step": 40 * epoch, "metrics/mAP50": min(1.3 * value, 0.99), "metrics/mAP50-95": value,
                "metrics/AP_small": 0.6 * value if small else "", "metrics/AP_medium": value,
                "metrics/AP_large": min(1.1 * value, 1.0),
                "time_train_s": seconds * (1 + draw.gauss(0, 0.002)), "time_warmup_s": 2.0 if epoch == 1 else 0.0,
                "time_data_s": waited, "time_val_s": 1.0, "time_save_s": 0.2, "images_per_s": 600 / seconds,
                "peak_memory_mib": memory, "batches_crc32": 1000 * seed + epoch, "other_cores": others,
            }
        )  # fmt: skip
    with open(folder / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    record = _record(act, name, seed, epochs)
    record |= {"results": {"mAP50-95": max(row["metrics/mAP50-95"] for row in rows)}, "best_epoch": epochs}
    if latency is not None:
        record["latency"] = {"ms_per_image": latency, "imgsz": 160, "batch": 1}
    record["last_epoch"] = {key: value for key, value in rows[-1].items() if value != ""}
    seal(folder, record)


def seal(folder: Path, record: dict[str, Any]) -> None:
    """Write a run.json that is sealed with results.csv, if the run has one."""
    results = folder / "results.csv"
    if results.is_file():
        record["seal"] = seal_of(record, results.read_bytes())
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def edit_record(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a run.json and seal it again, as a run with these properties would have written it."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    change(record)
    seal(folder, record)


def declare(folder: Path, plan: Plan) -> None:
    """Let all runs of a folder name this plan and start when it was written."""

    def change(record: dict[str, Any]) -> None:
        record["config"]["run"] = {"plan": plan.reference}
        start = {key: record[key] for key in ("code", "machine", "device")}
        record["starts"] = [{**start, "time": plan.created}]

    for file in folder.glob("*/run.json"):
        edit_record(file.parent, change)


def write_failed(folder: Path, *, act: str, seed: int, reason: str) -> None:
    """A run that failed before its first epoch."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(_record(act, act, seed, 8)), encoding="utf-8")
    (folder / "failure.json").write_text(json.dumps({"act": act, "seed": seed, "reason": reason}), encoding="utf-8")


def write_unfinished(folder: Path, *, act: str, seed: int) -> None:
    """A run that has not ended."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(_record(act, act, seed, 8)), encoding="utf-8")


def _record(act: str | Mapping[str, Any], name: str, seed: int, epochs: int) -> dict[str, Any]:
    spec = {"name": act} if isinstance(act, str) else dict(act)
    census = [{"part": "backbone", "stage": "P3", "activation": name, "sites": 9, "implementation": "ops.norm_act"}]
    return {
        "format": 1,
        "config": {
            "model": {"act": spec, "size": "n", "backbone": {}, "neck": {}, "head": {}},
            "train": {"seed": seed, "epochs": epochs, "imgsz": 160, "batch": 16},
            "data": {"root": "datasets/shapes"},
        },
        "differs": {},
        "code": {"commit": None, "dirty": None, "source_sha256": "5e" * 32},
        "data": {"train": "aa" * 32, "val": "bb" * 32},
        "machine": {
            "cpu": "a processor",
            "threads": 2,
            "gpus": [],
            "python": "3.11.2",
            "packages": {"torch": "2.15.0"},
        },
        "device": "cpu, bf16",
        "operator": {"implementation": "cpu", "reason": "a reason"},
        "census": census,
        "initial_weights": f"{seed:064x}",
    }


def write_comparison(
    folder: Path,
    *,
    gains: Mapping[str, float],
    slower: Mapping[str, float] | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    sd: float = 0.5,
    level: float = 62.0,
    epochs: int = 8,
) -> None:
    """Runs of all activations (label -> gain in points) and seeds; `sd`: residual sd in points."""
    for act, gain in gains.items():
        for seed in seeds:
            noise = random.Random(f"{act} {seed}").gauss(0, sd) + random.Random(f"seed {seed}").gauss(0, 1)
            ratio = (slower or {}).get(act, 1.0) * (1 + random.Random(f"time {act} {seed}").gauss(0, 0.01))
            write_run(
                folder / f"{act}-s{seed}", act=act, seed=seed, last=(level + gain + noise) / 100, seconds=10 * ratio,
                memory=240 + 20 * gain, epochs=epochs,
            )  # fmt: skip


def plan_of(acts: Sequence[str], seeds: Sequence[int], **fields: Any) -> Plan:
    """A plan of these activations; the first is the baseline."""
    return make_plan(
        acts=tuple(acts), baseline=acts[0], seeds=tuple(seeds), cfg="yolo.yaml", arms={act: {} for act in acts},
        epochs=dict.fromkeys(acts, 8), **fields,
    )  # fmt: skip


def report_of(folder: Path, plan: Plan | None, *, allow: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """Write the report of a folder's runs; returns the text for the terminal and the content of report.json."""
    if plan is not None:
        declare(folder, plan)
    runs = read_runs([folder])
    text = write_report(folder, plan.as_compared(runs) if plan else runs, plan=plan, allow=allow)
    return text, json.loads((folder / "report.json").read_text(encoding="utf-8"))
