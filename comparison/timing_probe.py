"""Runs comparison/step_timing.py in a process of its own: as a probe for the plan, or as an isolated measurement."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from comparison.job import ROOT
from comparison.plan import Plan

TIMING = "timing.json"


def probe(plan: Plan, before: Plan | None, *, rounds: int) -> dict[str, Any]:
    """The fields of a plan that a probe gives: times of a step and of a process's start, batches of an epoch.

    What ``before``, the plan in the folder, knows is kept, so that a plan does not change by being timed again.
    """
    known = {} if before is None else before.step_ms
    if before is not None and set(plan.acts) <= set(known):
        own = {act: known[act] for act in plan.acts}
        return {"step_ms": own, "batches": before.batches, "start_s": before.start_s}
    if rounds < 1:
        return {}
    print("timing a step of each activation ...", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        measure(plan, Path(place), rounds=rounds)
        content = json.loads((Path(place) / TIMING).read_text(encoding="utf-8"))
    whole = time.monotonic() - begun
    stepping = sum(sum(times) for times in content["times_ms"].values()) * content["block"] / 1000
    found = {row["act"]: row["median_ms"] for row in content["rows"]}
    if plan.same:
        found = dict.fromkeys(plan.acts, *found.values())
    if plan.baseline in known:  # in units of the times before, as the machine may be busier or idler now
        scale = known[plan.baseline] / found[plan.baseline]
        found = {act: known.get(act, own * scale) for act, own in found.items()}
    counts = content["batches_per_epoch"]
    batches = (counts["train"], counts["val"])
    return {"step_ms": found, "batches": batches, "start_s": max(0.0, round(whole - stepping, 1))}


def measure(plan: Plan, folder: Path, *, rounds: int) -> str:
    """Time the plan's activations, write timing.json and timing.csv into a folder, and return the table.

    ValueError with what the process said where it fails.
    """
    acts = [*plan.acts, *plan.added_acts]
    settings = [f"{key}={json.dumps(value)}" for key, value in plan.overrides.items()]
    words = [sys.executable, "-m", "comparison.step_timing", "--cfg", plan.cfg, "--rounds", str(rounds)]
    words += ["--output", str(folder), "--acts", *(acts[:1] if plan.same else acts)]
    words += ["--set", *settings] if settings else []
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise ValueError(f"a step cannot be timed: {said[-1].partition('error: ')[2] or said[-1]}")
    return done.stdout.rstrip()
