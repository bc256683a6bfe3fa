"""Training images per second, beside Ultralytics: ``python -m benchmarks.loader --python PATH --data bccd.yaml``.

Turns of both loaders alternate in one run, each in its own process, with one thread and the default augmentation of
each: mosaic, affine, hue, saturation and value, flips and the rare transforms of albumentations, which must be
installed in the other environment too. Processor time is that of the process and its workers, and means the same on a
busy machine; wall-clock time does not. ``--python`` names an interpreter with ultralytics, as for ``benchmarks.peer``;
without it, our loader is measured alone. The first turn of each row, in which images are decoded or workers start, is
not counted. A turn has several epochs, as Ultralytics' workers prepare batches of the next one ahead of it.

This file imports nothing of this project at its top: the other interpreter runs it too.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SERVE = "--serve"  # the first argument of such a process
ANSWER = "turn: "  # Ultralytics prints other lines
Row = dict[str, Any]  # imgsz, cache, workers
Loader = Callable[[Row], Iterable[Any]]


def ours(data: str, batch: int) -> Loader:
    """Our training loader by row; a batch is a Batch."""
    from configs.schema import load
    from core.allocator import keep_freed_memory
    from data import build_train_loader, load_dataset

    keep_freed_memory()  # as train.py does
    config = load("yolo.yaml", {"data": data})
    annotations = load_dataset(config.data, "train", progress=False)
    options: dict[str, Any] = {"batch": batch, "augment": config.augment, "progress": False}
    return lambda row: build_train_loader(annotations, **row, **options)


def theirs(data: str, batch: int) -> Loader:
    """Ultralytics' training loader by row; a batch is a dictionary."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_dataloader, build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    section = check_det_dataset(data)

    def make(row: Row) -> Iterable[Any]:
        options = {"task": "detect", "imgsz": row["imgsz"], "cache": row["cache"] == "ram"}
        dataset = build_yolo_dataset(get_cfg(overrides=options), section["train"], batch, section, mode="train")
        return build_dataloader(dataset, batch, row["workers"], shuffle=True, device="cpu")

    return make


def serve(side: str, data: str, batch: int) -> None:
    """Answer each row on stdin with the images, seconds and processor time of its epochs."""
    import cv2
    import psutil
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    make = {"ours": ours, "theirs": theirs}[side](data, batch)
    process = psutil.Process()
    current: Row | None = None
    loader: Iterable[Any] | None = None

    def processor_time() -> float:
        # Of the children only those alive: those that ended are in the parent's own children_user.
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def wait_for_workers() -> None:
        # Ultralytics' workers prepare batches of the next epoch: as many before a measurement as after it.
        while any(each.status() == psutil.STATUS_RUNNING for each in process.children(recursive=True)):
            time.sleep(0.05)

    for line in sys.stdin:
        row = json.loads(line)
        epochs = row.pop("epochs")
        if row != current:
            loader = None  # ends the workers
            current, loader = row, make(row)
        wait_for_workers()
        start, before = time.perf_counter(), processor_time()
        images = 0
        for _ in range(epochs):
            images += sum(len(item["img"] if isinstance(item, dict) else item.images) for item in loader or ())
        seconds = time.perf_counter() - start
        wait_for_workers()
        spent = {"images": images, "seconds": seconds, "processor": processor_time() - before}
        print(ANSWER + json.dumps(spent), flush=True)


class Side:
    """A process that measures one of the two loaders."""

    def __init__(self, python: str, side: str, *, data: str, batch: int):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1]) if side == "ours" else ""
        command = [python, str(Path(__file__).absolute()), SERVE, side, data, str(batch)]
        self.side = side
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def turn(self, row: Row, epochs: int) -> dict[str, float]:
        """The images, seconds and processor time of so many epochs; ValueError if the process ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps({**row, "epochs": epochs}), file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith(ANSWER):
                return json.loads(line[len(ANSWER) :])
        raise ValueError(f"the process that measures {self.side} ended with exit code {self.process.wait()}")


def measure(sides: list[Side], row: Row, rounds: int, epochs: int) -> list[list[dict[str, float]]]:
    """By round, a turn of each side, after one that is not counted."""
    return [[side.turn(row, epochs) for side in sides] for _ in range(rounds + 1)][1:]


def report(row: Row, found: list[list[dict[str, float]]]) -> str:
    """A line of the table: processor time per image and images per second of each side, and the medians of ratios."""
    parts = [row["imgsz"], row["cache"], row["workers"]]
    for key, digits, invert in (("processor", 2, False), ("seconds", 0, True)):
        each = [[(e["images"] / e[key] if invert else e[key] / e["images"] * 1e3) for e in r] for r in found]
        parts += [f"{statistics.median(column):.{digits}f}" for column in zip(*each, strict=True)]
        if len(each[0]) == 2:
            ratios = [(a / b if invert else b / a) for a, b in each]
            parts.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return f"| {' | '.join(map(str, parts))} |"


def main(argv: list[str] | None = None) -> int:
    """Print a table of all rows."""
    from benchmarks.peer import check_interpreter, convert
    from configs.cli import Parser

    parser = Parser(prog="python -m benchmarks.loader", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--python", metavar="PATH", help="Python interpreter of an environment with ultralytics and albumentations")
    add("--data", required=True, metavar="YAML", help="data YAML of this project")
    add("--imgsz", type=int, nargs="+", default=[320, 640], help="image sizes in pixels")
    add("--cache", nargs="+", choices=("off", "ram"), default=["off", "ram"], help="where images are kept")
    add("--workers", type=int, nargs="+", default=[0, 2], help="data loader workers")
    add("--batch", type=int, default=16, help="batch size")
    add("--rounds", type=int, default=3, help="turns of each side that are counted")
    add("--epochs", type=int, default=5, help="epochs of a turn")
    options = parser.parse_args(argv)
    if options.python:
        print(f"Ultralytics {check_interpreter(options.python)}")
    with tempfile.TemporaryDirectory() as folder:
        sides = [Side(sys.executable, "ours", data=options.data, batch=options.batch)]
        if options.python:
            converted, _ = convert(options.data, Path(folder) / "data", copy=False)
            sides.append(Side(options.python, "theirs", data=str(converted), batch=options.batch))
        names = [side.side for side in sides] + ["ratio"] * (len(sides) - 1)
        columns = ["imgsz", "cache", "workers", *(f"{name}, ms" for name in names), *(f"{n}, images/s" for n in names)]
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
        for imgsz, cache, workers in itertools.product(options.imgsz, options.cache, options.workers):
            row = {"imgsz": imgsz, "cache": cache, "workers": workers}
            print(report(row, measure(sides, row, options.rounds, options.epochs)), flush=True)
        for side in sides:
            side.process.communicate()  # ends its input, and with that the process
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == [SERVE]:
        serve(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        from configs.cli import run_script

        run_script(main)
