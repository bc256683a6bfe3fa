"""Export, score and time the runs of a comparison: ``compare.py --deploy`` runs this in processes of its own.

The weights of the last epoch of each run are exported into its folder deployed/, scored by the evaluator of val.py, and
written down in its deployed.json. With --latency, the files of all runs for one target are then timed side by side, in
rounds of random order; times taken beside other processes are excluded, as in training. What is there is kept.
"""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from configs.cli import Parser, run_script

if TYPE_CHECKING:
    from comparison.runs import Run
    from deploy.runtime import Runtime
    from yolo import YOLO

ROUNDS, BLOCK = 30, 2  # of the latency: turns of each file, and timed runs in a turn
CHECKED = 8  # images of the comparison with PyTorch
KEPT = ("score", "overlap", "expected", "found", "pairs", "unexplained")  # of that comparison


def main(argv: Sequence[str] | None = None) -> int:
    """Export and score what is left, or time it."""
    from comparison.integrity import check_runs
    from comparison.plan import read_plan
    from comparison.runner import read_outcome

    arguments = parse(argv)
    plan = read_plan(arguments.folder)
    if plan is None:
        raise ValueError(f"{arguments.folder}: not the folder of a comparison")
    runs = [run for run in read_outcome(plan, arguments.folder) if run.status == "finished"]
    check_runs(runs)
    runs.sort(key=lambda run: run.seed)  # whole seeds first
    if arguments.latency:
        time_files(arguments.folder, runs, arguments.latency, arguments)
    else:
        for run in runs:
            export_run(run, arguments)
    return 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m comparison.deploy_runs", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("folder", type=Path, help="folder of a comparison")
    add("--targets", nargs="+", default=[], help="formats of export.py")
    add("--latency", metavar="TARGET", help="time the files of this format")
    add("--int8", action="store_true", help="also quantised, for the formats that support it")
    add("--threads", type=int, default=1, help="threads of the runtimes")
    add("--split", default="val", help="split to score on")
    add("--rounds", type=int, default=ROUNDS, help="rounds of the latency")
    return parser.parse_args(argv)


def precisions(target: str, *, int8: bool) -> Iterator[str]:
    """The precisions that are measured for a target."""
    from deploy.targets import find_target

    yield "fp32"
    if int8 and "int8" in find_target(target).can:
        yield "int8"


# ----------------------------------------------------------------------------------------------------------- the files


def export_run(run: Run, arguments: Namespace) -> None:
    """Export what is not in the deployed.json of a run, score it, and add it there."""
    from comparison.deployment import DEPLOYED, file_key, read_deployed
    from comparison.scores import WEIGHTS, scores_seal
    from core.files import file_sha256, write_text
    from core.seal import SEAL
    from engine.machine import fingerprint
    from yolo import YOLO

    weights = run.folder / WEIGHTS
    about: dict[str, Any] = {"format": 1, "split": arguments.split, "epoch": run.rows[-1]["epoch"]}
    about["weights_sha256"] = file_sha256(weights)
    content: dict[str, Any] = read_deployed(run) or {**about, "files": {}}
    if other := [key for key, value in about.items() if content.get(key) != value]:
        raise ValueError(f"{run.folder / DEPLOYED}: written for another {other[0]}; remove it to measure again")
    model = None
    for target in arguments.targets:
        for precision in precisions(target, int8=arguments.int8):
            key = file_key(target, precision)
            if "sha256" in content["files"].get(key, {}):
                continue
            model = model or YOLO(weights, device="cpu")
            try:
                row = export_one(model, run.folder, target, precision, arguments)
                score = f"mAP50-95 {row['metrics']['metrics/mAP50-95']:.4f}"
            except (ValueError, FloatingPointError) as error:  # the target cannot, an outcome of the activation
                row, score = {"error": str(error)}, str(error)
            content["files"][key] = row | {"code": fingerprint()}
            content[SEAL] = scores_seal(run, content)
            write_text(run.folder / DEPLOYED, json.dumps(content, indent=1) + "\n")
            print(f"{run.folder.name}: {key}: {score}", flush=True)


def export_one(model: YOLO, folder: Path, target: str, precision: str, arguments: Namespace) -> dict[str, Any]:
    """Export the network to a target and measure the file."""
    from comparison.scores import WEIGHTS
    from data import load_dataset
    from deploy.export import default_path, export_file
    from deploy.images import read_images
    from deploy.latency import peak_memory_mib
    from deploy.options import ExportOptions
    from yolo import YOLO

    options = ExportOptions(int8=precision == "int8")
    config, place = model.config, folder / "deployed"
    place.mkdir(exist_ok=True)

    def images_of(split: str, count: int) -> list[Any]:
        return read_images(load_dataset(config.data, split, verify=False, progress=False, allow_skipped=True), count)

    exported = export_file(
        model.exportable(options, has_data=True),
        target,
        options,
        images=images_of("val", CHECKED),
        calibration=images_of("train", options.calibration) if options.int8 else (),
        output=place / default_path(WEIGHTS, target, options).name,
        say=lambda line: None,
    )
    deployed = YOLO(exported.path, device="cpu")
    runtime = deployed.device_text.partition(",")[0]
    deployed.config = config  # with the paths of the data, which files leave out
    val = config.val
    result = deployed.val(
        split=arguments.split, conf=val.conf, iou=val.iou, max_det=val.max_det, rect=False, workers=0, progress=False
    )
    metrics = {name: value if value >= 0 else None for name, value in result.stats.columns().items()}
    if metrics["metrics/mAP50-95"] is None:
        raise ValueError("mAP50-95 is undefined on this split: it has no objects")
    parity = exported.parity
    sha256, size = identify(exported.path)
    return {
        "runtime": runtime,
        "file": exported.path.relative_to(folder).as_posix(),
        "sha256": sha256,
        "bytes": size,
        "peak_memory_mib": round(peak_memory_mib(exported.path, threads=arguments.threads), 1),
        "metrics": metrics,
        "mish": exported.metadata.mish,
        "calibration": options.calibration if options.int8 else None,
        "parity": None if parity is None else {name: asdict(parity)[name] for name in KEPT},
    }


def identify(path: Path) -> tuple[str, int]:
    """The SHA-256 of an exported file, or of the names and hashes of a folder's files, and the number of bytes."""
    from core.files import file_sha256

    if path.is_file():
        return file_sha256(path), path.stat().st_size
    files = sorted(each for each in path.iterdir() if each.is_file())
    text = "".join(f"{each.name} {file_sha256(each)}\n" for each in files)
    return hashlib.sha256(text.encode()).hexdigest(), sum(each.stat().st_size for each in files)


# --------------------------------------------------------------------------------------------------------- the latency


def time_files(folder: Path, runs: Sequence[Run], target: str, arguments: Namespace) -> None:
    """Time the files of all runs for a target side by side; write them into latency.json.

    Nothing is done if latency.json has these files, undisturbed; a disturbed measurement is made again.
    """
    from comparison.checks import MAX_OTHER_CORES
    from comparison.deployment import LATENCY, file_key, label, read_deployed, read_latency
    from core.files import write_text
    from core.seal import SEAL, seal_of
    from deploy.runtime import open_runtime
    from deploy.targets import find_target
    from engine.machine import fingerprint, machine

    paths: dict[str, Path] = {}
    hashes: dict[str, str] = {}
    for run in runs:
        files: Mapping[str, Any] = read_deployed(run).get("files", {})
        for precision in ("fp32", "int8"):
            row = files.get(file_key(target, precision), {})
            if "sha256" in row:
                name = label(run, precision)
                paths[name], hashes[name] = run.folder / row["file"], row["sha256"]
    content: dict[str, Any] = read_latency(folder) or {"format": 1, "targets": {}}
    known = content["targets"].get(target, {})
    cores = known.get("other_cores")
    same = {name: each["sha256"] for name, each in known.get("files", {}).items()} == hashes
    if not paths or (same and known["threads"] == arguments.threads and cores is not None and cores <= MAX_OTHER_CORES):
        return
    for name, path in paths.items():
        if not path.exists() or identify(path)[0] != hashes[name]:
            raise ValueError(f"{path}: missing or changed since it was scored; remove the deployed.json of its run")
    print(f"timing {len(paths)} files in {find_target(target).title}, {arguments.threads} threads ...", flush=True)
    runtimes = {name: open_runtime(path, threads=arguments.threads) for name, path in paths.items()}
    times, load = time_side_by_side(runtimes, rounds=arguments.rounds)
    content["targets"][target] = {
        "runtime": next(iter(runtimes.values())).description,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "block": BLOCK,
        "code": fingerprint(),
        "machine": machine(),
        "other_cores": load,
        "files": {name: {"sha256": hashes[name], "times_ms": times[name]} for name in paths},
    }
    content[SEAL] = seal_of(content, b"")
    write_text(folder / LATENCY, json.dumps(content, indent=1) + "\n")


def time_side_by_side(runtimes: Mapping[str, Runtime], *, rounds: int) -> tuple[dict[str, list[float]], float | None]:
    """Milliseconds by file, a value for each round, and the mean cores that other processes used; None if unknown."""
    from comparison.checks import contention
    from deploy.latency import WARMUP, measure
    from engine.contention import OtherProcesses

    others, loads, marks = OtherProcesses(), [], [perf_counter()]

    def end_of_round() -> None:
        loads.append(others.cores())
        marks.append(perf_counter())

    times = measure(runtimes, rounds=rounds, block=BLOCK, end_of_round=end_of_round)
    seconds = [later - sooner for sooner, later in pairwise(marks)]
    load = contention(loads[WARMUP:], seconds[WARMUP:])
    return times, None if load is None else load[0]


if __name__ == "__main__":
    run_script(main)
