"""Simulated comparisons with known truth: runs drawn at random, in memory or as run folders, and analysed."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from comparison.analysis import analyse
from comparison.plan import Plan, make_plan, read_plan
from comparison.runs import FAILURE, Run, read_runs, run_name
from comparison.summary import Outcome
from core.seal import SEAL, seal_of

ROOT = Path(__file__).resolve().parents[1]
ACTS = ("relu", "leaky_relu", "silu", "mish", "gelu", "elu", "hardswish", "softplus")
# t(3); 3 % drop by 10 sigma; baseline with three times the variance; the last candidate with a multiple of the sd
NOISES = ("normal", "t3", "fall", "baseline", "candidate x2", "candidate x4", "candidate x10")
SIGMA = 0.6  # mAP points
SEEDS_SD = 1.0  # mAP points: sd of the seed effect
TIME_SD = 0.01  # sd of the log of a run's time
CURVE = (0.60, 0.85, 1.0)  # fraction of the final mAP, by epoch
EPOCH_SD = 0.5  # sigma: additional sd of earlier epochs
STEPS = 20
SCATTER = (1, 2, 4, 10)  # sd of the last candidate in units of the others'


@dataclass(frozen=True, kw_only=True)
class Design:
    """A kind of comparison to simulate."""

    acts: int  # including the baseline
    seeds: int
    noise: str = "normal"
    missing: float = 0.0  # fraction of runs that fail
    effect: float = 0.0  # sigma: true differences of the candidates, with alternating sign

    @property
    def effects(self) -> NDArray[np.float64]:
        """True differences from the baseline in mAP points, starting with 0 for the baseline."""
        signs = np.array([0, *(1 - 2 * (number % 2) for number in range(self.acts - 1))])
        return SIGMA * self.effect * signs


def residuals(design: Design, generator: np.random.Generator) -> NDArray[np.float64]:
    """Residuals of the runs in mAP points, shape (activations, seeds)."""
    shape = (design.acts, design.seeds)
    if design.noise == "t3":
        return SIGMA * generator.standard_t(3, shape) / math.sqrt(3)
    drawn = SIGMA * generator.standard_normal(shape)
    if design.noise == "fall":
        drawn -= 10 * SIGMA * (generator.random(shape) < 0.03)
    if design.noise == "baseline":
        drawn[0] *= math.sqrt(3)
    if design.noise.startswith("candidate"):
        drawn[-1] *= float(design.noise.removeprefix("candidate x"))
    return drawn


def draw_runs(design: Design, generator: np.random.Generator, *, folder: Path = Path()) -> list[Run]:
    """The runs of a comparison, as they would be read from `folder`."""
    points = 40 + design.effects[:, None] + SEEDS_SD * generator.standard_normal(design.seeds)
    points = points + residuals(design, generator)
    earlier = EPOCH_SD * SIGMA * generator.standard_normal((design.acts, design.seeds, len(CURVE)))
    earlier[..., -1] = 0
    courses = points[..., None] * CURVE + earlier
    seconds = 100 * np.exp(TIME_SD * generator.standard_normal((design.acts, design.seeds)))
    lost = generator.random((design.acts, design.seeds)) < design.missing
    return [
        _run(folder, ACTS[act], seed, courses[act, seed], float(seconds[act, seed]), failed=bool(lost[act, seed]))
        for act in range(design.acts)
        for seed in range(design.seeds)
    ]


def _run(folder: Path, act: str, seed: int, course: NDArray[np.float64], seconds: float, *, failed: bool) -> Run:
    """A run with all that the analysis and the checks of a report read."""
    rows = tuple(
        {
            "epoch": epoch,
            "step": STEPS * epoch,
            "metrics/mAP50-95": round(0.01 * points, 6),
            "time_train_s": round(seconds / len(course), 4),
            "time_warmup_s": 0.0,
            "time_data_s": 0.1,
            "time_val_s": 1.0,
            "time_save_s": 0.1,
            "images_per_s": round(16 * STEPS * len(course) / seconds, 3),
            "step_median_s": round(seconds / len(course) / STEPS, 6),
            "peak_memory_mib": 500.0,
            "batches_crc32": 1000 * seed + epoch,
            "other_cores": 0.0,
        }
        for epoch, points in enumerate(course.tolist(), 1)
    )
    record = _record(act, seed, epochs=len(course))
    run = Run(folder=folder / run_name(act, seed), act=act, seed=seed, status="finished", record=record, rows=rows)
    if failed:
        return replace(run, status="failed", reason="simulated failure", rows=rows[:1])
    record["results"] = {"AP": rows[-1]["metrics/mAP50-95"]}
    record |= {"best_epoch": len(rows), "last_epoch": dict(rows[-1]), "peak_memory_mib": 500.0}
    record["times"] = {"train": seconds, "warmup": 0.0, "data": 0.3, "validation": 3.0, "saving": 0.3}
    record["latency"] = {"ms_per_image": 5.0, "imgsz": 320, "batch": 1}
    return run


def _record(act: str, seed: int, *, epochs: int) -> dict[str, object]:
    """The content of run.json at the start of a run."""
    model = {"kind": "yolo", "size": "n", "act": {"name": act}, "norm_act": "plain"}
    return {
        "format": 1,
        "config": {"model": model, "train": {"seed": seed, "epochs": epochs, "batch": 16, "imgsz": 320}},
        "differs": {"model.act.name": act},
        "code": {"commit": None, "dirty": None, "source_sha256": "simulated"},
        "data": {"train": "simulated", "val": "simulated"},
        "machine": {"cpu": "simulated", "threads": 1, "gpus": [], "packages": {}, "environment": {}},
        "device": "cpu",
        "operator": {"implementation": "none", "reason": "simulated"},
        "census": [],
        "batches_per_epoch": STEPS,
        "skipped": 0,
        "initial_weights": f"simulated {seed}",
    }


@lru_cache(maxsize=1)
def plan_of(design: Design) -> Plan:
    """The plan of the comparison, which assumes the true residual sd."""
    acts = ACTS[: design.acts]
    return make_plan(
        acts=acts,
        baseline=acts[0],
        seeds=tuple(range(design.seeds)),
        cfg="yolo.yaml",
        arms={act: {"model.act": act} for act in acts},
        epochs=dict.fromkeys(acts, len(CURVE)),
        sigma_assumed=SIGMA / 100,
    )


def write_run(run: Run, plan: Plan) -> None:
    """Write run.json, which names the plan and is sealed, results.csv and, for a failed run, failure.json."""
    run.folder.mkdir(parents=True)
    lines = [run.rows[0], *(row.values() for row in run.rows)]
    text = "".join(",".join(map(str, line)) + "\n" for line in lines)
    (run.folder / "results.csv").write_text(text, encoding="utf-8")
    start = {"time": plan.created, **{key: run.record[key] for key in ("code", "machine", "device")}}
    config = {**run.record["config"], "run": {"plan": plan.reference}}
    record = {**run.record, "config": config, "starts": [start]}
    if run.status == "finished":
        record[SEAL] = seal_of(record, text.encode())
    (run.folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    if run.status == "failed":
        failure = {"act": run.act, "seed": run.seed, "reason": run.reason}
        (run.folder / FAILURE).write_text(json.dumps(failure), encoding="utf-8")


def through_folders(design: Design, generator: np.random.Generator, *, folder: Path) -> Outcome:
    """Draw a comparison, write its run folders and its plan, read them back, and analyse them."""
    plan_of(design).write(folder)
    for run in draw_runs(design, generator, folder=folder):
        write_run(run, plan_of(design))
    plan = read_plan(folder)
    runs = read_runs([folder])
    return analyse(runs if plan is None else plan.as_compared(runs), plan)[0]


def in_memory(design: Design, generator: np.random.Generator) -> Outcome:
    """Draw and analyse a comparison without files."""
    return analyse(draw_runs(design, generator), plan_of(design))[0]


def check_command(folder: Path, outcome: Outcome) -> None:
    """Have compare.py write the report of the folder; RuntimeError if its verdicts are not those of the analysis."""
    command = [sys.executable, "compare.py", "--report", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for key, verdicts in (("verdicts", outcome.verdicts), ("time_verdicts", outcome.time_verdicts)):
        expected = {act: asdict(verdict) for act, verdict in verdicts.items()}
        if report[key] != expected:
            raise RuntimeError(f"{folder / 'report.json'}: {key} are {report[key]}, expected {expected}")
