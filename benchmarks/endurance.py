"""Memory growth in long runs: ``python -m benchmarks.endurance --batches 100000 --steps 2000 --out endurance.png``.

Draws loader batches and, concurrently, trains on small images; records memory (anonymous and shared) and open files.
Fails if one of them grows by more than its margin.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from configs.cli import run_script

SAMPLES = 200
MARGINS = {"memory, MiB": 20.0, "shared memory, MiB": 4.0, "open files": 2.0}


def process_usage() -> dict[str, float]:
    """Anonymous and shared memory of this process and its children, and the open files of this process.

    File-backed pages are left out: libraries are shared with other processes, which would change the result.
    """
    memory = shared = 0
    for process in [os.getpid(), *children()]:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss_Anon:"):
                memory += int(line.split()[1])
            elif line.startswith("Pss_Shmem:"):
                shared += int(line.split()[1])
    return {
        "memory, MiB": memory / 1024,
        "shared memory, MiB": shared / 1024,
        "open files": len(os.listdir("/proc/self/fd")),
    }


def children() -> list[int]:
    """Process ids of the data workers."""
    return [int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()]


def write_data(folder: Path) -> Path:
    """Draw 60 small images; returns the data YAML."""
    from data.synthetic import draw

    draw(folder / "shapes", train=40, val=20, test=0, side=64, seed=0, progress=False)
    splits = "".join(f"{s}: {{images: images/{s}, annotations: annotations/{s}.json}}\n" for s in ("train", "val"))
    (folder / "shapes.yaml").write_text(f"root: shapes\n{splits}", encoding="utf-8")
    return folder / "shapes.yaml"


def loader_batches(data: Path, count: int) -> list[tuple[int, dict[str, float]]]:
    """Draw batches of two from two workers, which decode and augment every image."""
    from configs.schema import load
    from data import build_train_loader, load_dataset

    config = load("yolo-mish.yaml", {"data": str(data)})
    options: dict[str, Any] = {"imgsz": 64, "batch": 2, "seed": 0, "workers": 2, "cache": "off", "pin_memory": False}
    loader = build_train_loader(
        load_dataset(config.data, "train"), augment=config.augment, mosaic_until=None, **options
    )
    seen: list[tuple[int, dict[str, float]]] = []
    done = 0
    while done < count:
        for _ in loader:
            done += 1
            if done % max(1, count // SAMPLES) == 0:
                seen.append((done, process_usage()))
            if done == count:
                break
    return seen


def training_steps(data: Path, count: int, folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Train with validation, checkpoints and TensorBoard after every ten steps."""
    import train
    from engine.loggers import EpochEnd
    from engine.loggers.tensorboard_events import TensorBoard

    seen: list[tuple[int, dict[str, float]]] = []
    log_epoch = TensorBoard.epoch

    def watched(self: TensorBoard, epoch: EpochEnd) -> None:
        log_epoch(self, epoch)
        seen.append((epoch.row["step"], process_usage()))

    epochs = -(-count // 10)
    options = ["--imgsz", "64", "--batch", "4", "--epochs", str(epochs), "--workers", "2", "--project", str(folder)]
    with mock.patch.object(TensorBoard, "epoch", watched):
        if train.main(["--cfg", "yolo-mish.yaml", "--data", str(data), *options]):
            raise ValueError("the training did not end well")
    return seen


def grown(seen: list[tuple[int, dict[str, float]]]) -> list[str]:
    """Quantities whose median over the last quarter exceeds that of the second by more than the margin."""
    quarter = len(seen) // 4
    wrong = []
    for name in seen[0][1]:
        values = [usage[name] for _, usage in seen]
        growth = float(np.median(values[-quarter:]) - np.median(values[quarter : 2 * quarter]))
        print(
            f"  {name:<20} {values[0]:8.1f} initially, {values[-1]:8.1f} finally, second to last quarter {growth:+.1f}"
        )
        if growth > MARGINS[name]:
            wrong.append(f"{name} grew by {growth:.1f}")
    return wrong


def plot(path: Path, parts: dict[str, list[tuple[int, dict[str, float]]]]) -> None:
    """One row of panels per part."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), dpi=110, layout="constrained")
    axes = figure.subplots(2, 4, squeeze=False)
    for row, (title, seen) in zip(axes, parts.items(), strict=True):
        for axis, name in zip(row, MARGINS, strict=True):
            if name not in seen[0][1]:
                axis.set_axis_off()
                continue
            values = [usage[name] for _, usage in seen]
            axis.plot([count for count, _ in seen], values, color="#0072B2")
            axis.set(xlabel=title, ylabel=name, ylim=(0, 1.2 * max(values) or 1))
            axis.grid(alpha=0.3)
    figure.savefig(path)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=100_000, help="loader batches")
    parser.add_argument("--steps", type=int, default=2_000, help="training steps")
    parser.add_argument("--out", type=Path, default=Path("endurance.png"), help="plot")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as side_by_side:
        data = write_data(Path(name))
        training = side_by_side.submit(training_steps, data, arguments.steps, Path(name))
        loading = side_by_side.submit(loader_batches, data, arguments.batches)
        parts = {"training steps": training.result(), "loader batches": loading.result()}
    wrong = []
    for title, seen in parts.items():
        print(f"{seen[-1][0]} {title}")
        wrong += grown(seen)
    plot(arguments.out, parts)
    print("; ".join(wrong) or "nothing grew", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


if __name__ == "__main__":
    run_script(main)
