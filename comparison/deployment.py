"""Where the trained networks run after export: what compare.py --deploy measured, as the report shows it.

Each run has a deployed.json: mAP, size and memory of its exported files. The folder of the comparison has a
latency.json, for latencies are those of all files side by side. ``comparison.deploy_runs`` writes both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from comparison import wording
from comparison.checks import MAX_OTHER_CORES
from comparison.job import run_module
from comparison.run_metrics import MetricSpec, make_metric
from comparison.runs import Run
from comparison.scores import scores_seal
from comparison.statistics import Difference, compare
from comparison.summary import POINTS, PRIMARY, Metric, Outcome, Place, RunKey
from core.seal import SEAL, seal_of

DEPLOYED, LATENCY = "deployed.json", "latency.json"
BASE = "fp32"
Key = tuple[str, str]
"""Target and precision, as in onnx and int8."""


def measure(folder: Path, targets: Sequence[str], *, int8: bool, threads: int, split: str) -> None:
    """Export, score and time the finished runs of a comparison, as far as that is left to do, in separate processes.

    ValueError with the last line of the process if it fails.
    """
    words = [str(folder), "--threads", str(threads), "--split", split, *["--int8"] * int8]
    for stage in (["--targets", *targets], *(["--latency", target] for target in targets)):
        run_module("comparison.deploy_runs", *words, *stage, error="--deploy", show=True)


def label(run: Run, precision: str) -> str:
    """A file of a run in latency.json."""
    return f"{run.folder.name} {precision}"


def file_key(target: str, precision: str) -> str:
    """A file in the deployed.json of its run."""
    return f"{target} {precision}"


def read_deployed(run: Run) -> dict[str, Any]:
    """The deployed.json of a run, {} without one. ValueError if it is damaged, was changed, or is of another run."""
    content = _read(run.folder / DEPLOYED)
    if content and content.get(SEAL) != scores_seal(run, content):
        raise ValueError(f"{run.folder / DEPLOYED}: changed after it was written, or of another run (see its seal)")
    return content


def read_latency(folder: Path) -> dict[str, Any]:
    """The latency.json of a comparison, {} without one. ValueError if it is damaged or was changed."""
    content = _read(folder / LATENCY)
    if content and content.get(SEAL) != seal_of(content, b""):
        raise ValueError(f"{folder / LATENCY}: changed after it was written (the seal does not match)")
    return content


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content[_TABLES[path.name]], dict):
            raise TypeError
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged; remove it, and --deploy writes it again") from error
    assert isinstance(content, dict)
    return content


_TABLES = {DEPLOYED: "files", LATENCY: "targets"}


def read_places(folder: Path, runs: Sequence[Run], outcome: Outcome, *, split: str) -> tuple[Place, ...]:
    """The runtimes and precisions in which these runs were measured, in the order of their measurement.

    ValueError if a file is damaged or changed, or is of another split.
    """
    seeds = set(outcome.seeds)
    runs = [run for run in runs if run.status == "finished" and run.act in outcome.acts and run.seed in seeds]
    found = {(run.act, run.seed): read_deployed(run) for run in runs}
    by_key = {(run.act, run.seed): run for run in runs}
    keys: dict[str, None] = {}
    for place, content in found.items():
        if content and content.get("split") != split:
            raise ValueError(f"{by_key[place].folder / DEPLOYED}: measured on {content.get('split')}, expected {split}")
        keys |= dict.fromkeys(content.get("files", ()))
    times = read_latency(folder).get("targets", {}) if keys else {}
    order = sorted(keys, key=lambda key: (list(keys).index(file_key(key.split()[0], BASE)), key != BASE))
    try:
        return tuple(_place(key, by_key, found, times, outcome) for key in order)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: a {DEPLOYED} or {LATENCY} lacks what a report needs: {error!r}") from error


def _place(
    key: str,
    runs: Mapping[RunKey, Run],
    found: Mapping[RunKey, Mapping[str, Any]],
    times: Mapping[str, Mapping[str, Any]],
    outcome: Outcome,
) -> Place:
    target, precision = key.split()
    files = {place: content["files"][key] for place, content in found.items() if key in content.get("files", {})}
    missing = tuple(f"{act}, seed {seed}: {each['error']}" for (act, seed), each in files.items() if "error" in each)
    files = {place: each for place, each in files.items() if "error" not in each}
    timed = times.get(target, {})
    cores = timed.get("other_cores")
    counts = cores is not None and cores <= MAX_OTHER_CORES
    latencies: dict[RunKey, float | None] = {}
    for place, each in files.items():
        row = timed.get("files", {}).get(label(runs[place], precision), {})
        if counts and row and row["sha256"] == each["sha256"]:
            latencies[place] = median(row["times_ms"])
    loss: Metric | None = None
    losses: dict[str, Difference] = {}
    if precision != BASE:
        other = file_key(target, BASE)
        pairs = {
            place: (_points(each), _points(found[place]["files"][other]))
            for place, each in files.items()
            if "error" not in found[place]["files"].get(other, {"error": ""})
        }
        loss, losses = _losses(pairs, precision, outcome)

    def metric(what: str, title: str, unit: str, values: Mapping[RunKey, float | None], how: Any = None) -> Metric:
        return make_metric(_spec(what, title, unit, how), values, outcome.acts, outcome.alpha)

    return Place(
        runtime=next((str(each["runtime"]) for each in files.values()), target),
        precision=precision,
        threads=int(timed.get("threads", 0)),
        score=metric("score", "mAP50-95", POINTS, {k: _points(each) for k, each in files.items()}, "difference"),
        latency=metric("latency", "latency", "ms", latencies, "ratio"),
        size=metric("size", "size", "MB", {k: each["bytes"] / 1e6 for k, each in files.items()}),
        memory=metric("memory", "peak memory", "MiB", {k: each["peak_memory_mib"] for k, each in files.items()}),
        load=wording.captions.timing_load(cores) if timed else "Latency was not measured.",
        loss=loss,
        losses=losses,
        missing=missing,
    )


def _spec(key: str, title: str, unit: str, compared: Any) -> MetricSpec:
    return MetricSpec(key=key, title=title, unit=unit, value=lambda _: None, compared=compared)


def _points(file: Mapping[str, Any]) -> float:
    return 100 * float(file["metrics"][PRIMARY])


def _losses(
    pairs: Mapping[RunKey, tuple[float, float]], precision: str, outcome: Outcome
) -> tuple[Metric, dict[str, Difference]]:
    """What a precision changes in the mAP, paired by run: compared between activations, and of each by itself.

    The intervals of the latter are simultaneous by Bonferroni.
    """
    values: dict[RunKey, float | None] = {place: low - full for place, (low, full) in pairs.items()}
    spec = _spec("loss", f"mAP50-95, {precision} minus {BASE}", POINTS, "difference")
    metric = make_metric(spec, values, outcome.acts, outcome.alpha)
    own = {}
    for act in outcome.acts:
        both = {seed: pair for (name, seed), pair in pairs.items() if name == act}
        if both:
            arms = {
                BASE: {seed: full for seed, (_, full) in both.items()},
                precision: {seed: low for seed, (low, _) in both.items()},
            }
            compared = compare(arms, baseline=BASE, alpha=outcome.alpha / len(outcome.acts))
            own[act] = compared.differences[precision]
    return metric, own
