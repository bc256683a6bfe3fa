"""Run comparison/step_timing.py in a separate process: as a probe for the plan, or as an isolated measurement."""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison.job import run_module
from comparison.plan import Plan
from comparison.timing_record import TIMING

BATCHES = (  # prefixes of keys that set the shape of the batches
    "data.",
    "train.batch",
    "train.imgsz",
    "train.rect",
    "model.kind",
    "model.cfg",
)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a plan estimates its time from."""

    step_ms: dict[str, float]  # time of a training step by arm
    batches: tuple[int, int] = (0, 0)  # per epoch: training, validation
    start_s: float = 0.0  # start-up time of a run


def probe(plan: Plan, existing: Plan | None, *, rounds: int) -> Probe | None:
    """Time a few training steps of each arm; None for no rounds.

    Times in the ``existing`` plan of the folder are kept, so that a plan does not change by being timed again.
    """
    known = {} if existing is None else existing.step_ms
    if existing is not None and set(plan.acts) <= set(known):
        step_ms = {act: known[act] for act in plan.acts}
        return Probe(step_ms=step_ms, batches=existing.batches, start_s=existing.start_s)
    if rounds < 1 or steps_differ(plan):
        return None
    print(f"timing a training step of each {'arm' if plan.varies else 'activation'} ...", flush=True)
    start = time.monotonic()
    content = time_steps(plan, rounds=rounds)
    elapsed = time.monotonic() - start
    stepping = sum(sum(times) for times in content["times_ms"].values()) * content["block"] / 1000
    step_ms = {row["act"]: row["median_ms"] for row in content["rows"]}
    if plan.aa:
        step_ms = dict.fromkeys(plan.acts, *step_ms.values())
    if plan.baseline in known:  # relative to the known times, as the load of the machine may have changed
        scale = known[plan.baseline] / step_ms[plan.baseline]
        step_ms = {act: known.get(act, value * scale) for act, value in step_ms.items()}
    counts = content["batches_per_epoch"]
    return Probe(
        step_ms=step_ms,
        batches=(counts["train"], counts["val"]),
        start_s=max(0.0, round(elapsed - stepping, 1)),
    )


def time_steps(plan: Plan, *, rounds: int, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The content of a timing.json of the plan's arms that is not kept."""
    with tempfile.TemporaryDirectory() as folder:
        measure(plan, Path(folder), rounds=rounds, environment=environment)
        content = json.loads((Path(folder) / TIMING).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def schedule_in_equal_time(
    epochs: int, batches: int, step_ms: Mapping[str, float]
) -> tuple[dict[str, int], dict[str, int]]:
    """Epochs by arm that take as long as `epochs` of the fastest, and batches of the last one where it is shortened.

    ``batches``: per epoch. The time is planned to the nearest batch.
    """
    fastest = min(step_ms.values())
    totals = {act: max(1, round(epochs * batches * fastest / step)) for act, step in step_ms.items()}
    whole = {act: -(-total // batches) for act, total in totals.items()}
    last = {act: total - (whole[act] - 1) * batches for act, total in totals.items()}
    return whole, {act: number for act, number in last.items() if number < batches}


def steps_differ(plan: Plan) -> tuple[str, ...]:
    """The keys in which arms differ and for which all their steps cannot be timed on the same batches."""
    return tuple(key for key in plan.varies if key.startswith(BATCHES))


def measure(plan: Plan, folder: Path, *, rounds: int, environment: Mapping[str, str] | None = None) -> str:
    """Time the plan's arms, write timing.json and timing.csv into a folder, and return the table.

    `environment`: variables that the runs have besides those of this process.
    ValueError with the last line of the process if it fails.
    """
    if keys := steps_differ(plan):
        raise ValueError(f"a training step cannot be timed: the arms differ in {', '.join(keys)}, so their batches do")
    acts = plan.acts[:1] if plan.aa else plan.all_acts
    words = ["--cfg", plan.cfg, "--rounds", str(rounds), "--output", str(folder)]
    if plan.varies:
        for act in acts:
            words += ["--arm", act, *(f"{key}={json.dumps(value)}" for key, value in plan.arms[act].items())]
    else:
        words += ["--acts", *acts]
    if plan.overrides:
        words += ["--set", *(f"{key}={json.dumps(value)}" for key, value in plan.overrides.items())]
    error = "a training step cannot be timed"
    return run_module("comparison.step_timing", *words, error=error, environment=environment).rstrip()
