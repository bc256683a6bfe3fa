"""Run and check entries of the speedrun: ``python -m speedrun speedrun/records/*.yaml --track shapes``.

Every entry is trained with every seed, alternating with the other entries, and each run is a separate process. Run
the same command again to resume: finished runs are kept. An entry is valid if the mean mAP50-95 of its last weights is
above the target with p < 0.01.
"""

import argparse
import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from benchmarks.peer import check_interpreter
from benchmarks.trainings import Run, our_command, peer_command, trained
from configs.cli import Parser, run_script
from configs.loading import flatten
from core.files import write_text

ALPHA = 0.01
FIXED = ("data", "val", "weights", "train.imgsz", "train.device", "train.threads", "train.holdout", "train.val")
PEER = "Ultralytics YOLOv8n"


@dataclass(frozen=True, kw_only=True)
class Track:
    """A data set, the size of its images, the mAP50-95 to reach, and the epochs that the peer gets."""

    data: str  # the name that --data replaces
    imgsz: int
    target: float
    peer_epochs: int


TRACKS = {
    "shapes": Track(data="shapes.yaml", imgsz=160, target=0.60, peer_epochs=30),
    "bccd": Track(data="bccd.yaml", imgsz=320, target=0.56, peer_epochs=24),
}


def main(argv: list[str] | None = None) -> int:
    """Train what is missing; print the table and write it with the raw runs."""
    options = parse(argv)
    track, out = TRACKS[options.track], Path(options.out) / options.track
    data = options.data or track.data
    for entry in options.entries:
        require_rules(entry, data)
    if options.python:
        check_interpreter(options.python)
    names = [Path(entry).stem for entry in options.entries] + ([PEER] if options.python else [])
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for seed in range(options.seeds):
        for name, entry in zip(names, [*options.entries, None], strict=False):
            folder = out / name.replace(" ", "-") / f"s{seed}"
            command = command_of(entry, track, data, seed, folder, options.python)
            runs[name].append(trained(command, folder, data=options.track, name=name, seed=seed))
    text = table(runs, track.target)
    write_text(out / "table.md", text)
    write_text(out / "runs.csv", to_csv(runs))
    print(text, end="")
    print(f"results in {out}")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m speedrun", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "entries",
        nargs="+",
        metavar="YAML",
        help="configurations of the entries; the first is what times are relative to",
    )
    add("--track", choices=TRACKS, default="shapes", help="data set and target")
    add("--data", metavar="YAML", help="data YAML of the track, where it is not the embedded one")
    add("--seeds", type=int, default=6, help="seeds 0, 1, ... of each entry, 3 or more")
    add(
        "--python",
        metavar="PATH",
        help=f"interpreter of an environment with ultralytics: runs {PEER} beside the entries",
    )
    add("--out", default="runs/speedrun", metavar="DIR", help="folder of the results")
    options = parser.parse_args(argv)
    if options.seeds < 3:
        parser.error(f"--seeds: found {options.seeds}, expected 3 or more, which a test of the mean needs")
    stems = [Path(entry).stem for entry in options.entries]
    if len(set(stems)) < len(stems):
        parser.error(f"{', '.join(stems)}: expected entries of different names")
    return options


def require_rules(entry: str, data: str) -> None:
    """ValueError if an entry's configuration changes what the rules fix."""
    from configs.schema import load

    config, base = (flatten(load(name, {"data": data}).model_dump(mode="json")) for name in (entry, "yolo.yaml"))
    for key, value in config.items():
        if base.get(key) != value and any(key == fixed or key.startswith(fixed + ".") for fixed in FIXED):
            raise ValueError(f"{entry}: {key}: found {value}; the rules fix it at {base.get(key)}")


def command_of(entry: str | None, track: Track, data: str, seed: int, folder: Path, python: str | None) -> list[str]:
    """The command line of a run on two threads; without an entry, of the peer."""
    flags: dict[str, object] = {"data": data, "imgsz": track.imgsz, "seed": seed, "threads": 2}
    if entry is None:
        return peer_command(str(python), folder, {**flags, "epochs": track.peer_epochs})
    return our_command(entry, folder, flags, "--noval")


def table(runs: Mapping[str, Sequence[Run]], target: float) -> str:
    """A Markdown table of the entries; times relative to the first."""
    lines = [
        f"Target: mAP50-95 {target:.2f}.\n",
        "| entry | seeds | mAP50-95, sd | p | valid | training time, s | of the first's |",
        "|---|---|---|---|---|---|---|",
    ]
    first = statistics.median(run.training for run in next(iter(runs.values())))
    for name, of_seeds in runs.items():
        values = [run.metrics["mAP50-95"] for run in of_seeds]
        p = p_value(values, target)
        seconds = statistics.median(run.training for run in of_seeds)
        sd = statistics.stdev(values)
        lines.append(
            f"| {name} | {len(values)} | {statistics.fmean(values):.3f}, {sd:.3f} | {p:.2g} | "
            f"{'yes' if p < ALPHA else 'no'} | {seconds:.0f} | {seconds / first:.2f} |"
        )
    return "\n".join(lines) + "\n"


def p_value(values: Sequence[float], target: float) -> float:
    """Of the one-sided t test that the mean is not above the target; 0 or 1 without any spread."""
    if max(values) == min(values):
        return float(values[0] <= target)
    return float(stats.ttest_1samp(values, target, alternative="greater").pvalue)


def to_csv(runs: Mapping[str, Sequence[Run]]) -> str:
    """A row for each run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["entry", "seed", "mAP50-95", "mAP50", "training_s"])
    for name, of_seeds in runs.items():
        for run in of_seeds:
            writer.writerow([name, run.seed, run.metrics["mAP50-95"], run.metrics["mAP50"], f"{run.training:.2f}"])
    return text.getvalue()


if __name__ == "__main__":
    run_script(main)
