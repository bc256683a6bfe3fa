"""Fine-tune a Darknet detector with its own and with other activations, and train it from scratch, at equal epochs.

    python -m studies.finetune_darknet --cfg yolo-fastest-1.1.cfg --weights yolo-fastest-1.1.weights --data bccd.yaml

Each arm is run with each seed by train.py in a separate folder; seeds are the outer loop, so that an interrupted study
contains complete seeds. If interrupted, rerun the same command to resume. It ends with a table: mean and standard
deviation over the seeds, EMA weights after the last epoch.
"""

import csv
import json
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from configs.cli import Parser, run_script
from core.files import write_text

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("mAP50-95", "mAP50")


def main(argv: Sequence[str] | None = None) -> int:
    """Train the missing runs and print the table; returns the exit code."""
    options = parse(argv)
    folder = Path(options.project)
    arms = arms_of(options)
    for seed in range(options.seeds):
        for arm, settings in arms.items():
            done = train(folder, f"{arm}-seed{seed}", [*settings, "--seed", str(seed)], options)
            if done:
                return done
    text = table({arm: [last_row(folder / f"{arm}-seed{seed}") for seed in range(options.seeds)] for arm in arms})
    print(text, flush=True)
    write_text(folder / "table.md", text + "\n")
    return 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m studies.finetune_darknet", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--cfg", required=True, metavar="X.CFG", help="network")
    add("--weights", required=True, metavar="X.WEIGHTS", help="pretrained weights")
    add("--data", required=True, metavar="YAML", help="data YAML")
    add("--act", default="mish", help="activation that replaces those of the cfg")
    add("--epochs", type=int, default=15, help="epochs of every run")
    add("--imgsz", type=int, default=224, help="image size in pixels")
    add("--batch", type=int, default=16, help="batch size")
    add("--lr", type=float, default=0.002, help="peak learning rate for fine-tuning")
    add("--lr-scratch", type=float, default=0.004, help="peak learning rate for training from scratch")
    add("--seeds", type=int, default=3, help="number of seeds")
    add("--project", default="runs/finetune_darknet", help="folder of the runs")
    options = parser.parse_args(argv)
    parser.require_positive(options, "epochs", "imgsz", "batch", "seeds")
    return options


def arms_of(options: Namespace) -> dict[str, list[str]]:
    """Arguments of train.py for each arm."""
    adamw = ["--optimizer", "adamw", "--lr"]
    start = ["--weights", options.weights, *adamw, str(options.lr)]
    return {
        "finetuned": start,
        f"finetuned-{options.act}": [*start, "--set", f"model.act={options.act}"],
        "scratch": [*adamw, str(options.lr_scratch)],
    }


def train(folder: Path, name: str, settings: list[str], options: Namespace) -> int:
    """Start or resume a run of train.py unless it is finished; returns its exit code."""
    if finished(folder / name):
        return 0
    last = folder / name / "weights/last.pt"
    words = ["--resume", str(last)]
    if not last.is_file():
        words = ["--cfg", options.cfg, "--data", options.data, "--project", str(folder), "--name", name, "--exist-ok"]
        words += ["--epochs", str(options.epochs), "--imgsz", str(options.imgsz), "--batch", str(options.batch)]
        words += settings
    print(f"{name} ...", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with open(folder / f"{name}.log", "a", encoding="utf-8") as log:
        run = [sys.executable, str(ROOT / "train.py"), *words]
        code = subprocess.run(run, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        print(f"{name}: train.py ended with {code}; see {log.name}", file=sys.stderr)
        return code
    row = last_row(folder / name)
    scores = ", ".join(f"{key} {row[key]:.3f}" for key in METRICS)
    print(f"{name}: {scores}, {time.monotonic() - begun:.0f} s", flush=True)
    return 0


def finished(run: Path) -> bool:
    """Whether a run is finished."""
    try:
        return "results" in json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def last_row(run: Path) -> dict[str, float]:
    """Metrics of a run's last epoch, and the total seconds of its epochs."""
    with open(run / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    spent = [float(row[name] or 0) for row in rows for name in row if name.startswith("time_")]
    return {key: float(rows[-1][f"metrics/{key}"] or 0) for key in METRICS} | {"seconds": sum(spent)}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Metrics by arm as a Markdown table."""
    count = len(next(iter(results.values())))
    lines = [f"| | {' | '.join(METRICS)} | time per run |", "|---" * (len(METRICS) + 2) + "|"]
    for arm, rows in results.items():
        cells = [spread([row[key] for row in rows]) for key in METRICS]
        seconds = statistics.fmean(row["seconds"] for row in rows)
        lines.append(f"| {arm} | {' | '.join(cells)} | {seconds:.0f} s |")
    return "\n".join([*lines, "", f"Mean ± standard deviation of {count} seeds, last epoch, EMA weights."])


def spread(values: list[float]) -> str:
    """Mean and standard deviation in points; a single value alone."""
    points = [100 * value for value in values]
    if len(points) < 2:
        return f"{points[0]:.1f}"
    return f"{statistics.fmean(points):.1f} ± {statistics.stdev(points):.1f}"


if __name__ == "__main__":
    run_script(main)
