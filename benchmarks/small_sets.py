"""Train this project and Ultralytics on small data sets, with several seeds, and compare what they reach and how soon.

    python -m benchmarks.small_sets --python ~/peer/bin/python --data bccd.yaml raccoon.yaml --epochs 20 --imgsz 320

The runs alternate, and each is a separate process. Run the same command again to resume: finished runs are kept.
Both get the same images, image size, batch size, epochs and threads, no pretrained weights, and are scored by
pycocotools at the end. Without ``--python`` only this project is trained. Written to ``--out``: the run folders,
runs.csv with a row for each run, table.md, and curves.png with mAP50-95 by time.
"""

import argparse
import csv
import io
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.peer import METRICS, check_interpreter
from benchmarks.trainings import Run, our_command, peer_command, trained, with_sd
from configs.cli import Parser, run_script
from core.files import write_text

NAMES = ("ours", "peer")
COLOURS = {"ours": "tab:green", "peer": "tab:gray"}
SIZES = ("AP_small", "AP_medium", "AP_large")


def main(argv: list[str] | None = None) -> int:
    """Train what is missing; print and write the table."""
    from configs.schema import load

    options = parse(argv)
    for data in options.data:  # what is wrong is said before the first training
        load(options.cfg, {"data": data})
    if options.python:
        check_interpreter(options.python)
    out = Path(options.out)
    runs = []
    for seed in range(options.seeds):
        for data in options.data:
            for name in NAMES if options.python else NAMES[:1]:
                folder = out / Path(data).stem / f"{name}-s{seed}"
                command = command_of(name, data, seed, folder, options)
                runs.append(trained(command, folder, data=Path(data).stem, name=name, seed=seed))
    text = table(runs)
    write_text(out / "runs.csv", to_csv(runs))
    write_text(out / "table.md", text)
    draw(runs, out / "curves.png")
    print(text, end="")
    print(f"results in {out}")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.small_sets", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", required=True, nargs="+", metavar="YAML", help="data YAMLs of this project")
    add("--python", metavar="PATH", help="Python interpreter of an environment with ultralytics")
    add("--seeds", type=int, default=3, help="seeds 0, 1, ... of each")
    add("--cfg", default="yolo-mish.yaml", help="configuration of this project")
    add("--model", default="yolov8n", help="model of Ultralytics")
    add("--epochs", type=int, default=20, help="training epochs")
    add("--imgsz", type=int, default=320, help="image size in pixels")
    add("--batch", type=int, default=16, help="batch size")
    add("--threads", type=int, default=2, help="CPU threads of either")
    add("--workers", type=int, default=0, help="data loader workers of either")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of this project's runs")
    add("--out", default="runs/small_sets", metavar="DIR", help="folder of the results")
    options = parser.parse_args(argv)
    parser.require_positive(options, "seeds", "epochs", "imgsz", "batch", "threads")
    stems = [Path(data).stem for data in options.data]
    if len(set(stems)) < len(stems):
        parser.error(f"--data: {', '.join(options.data)}: expected files of different names, which name the folders")
    return options


def command_of(name: str, data: str, seed: int, folder: Path, options: argparse.Namespace) -> list[str]:
    """The command line that trains one of the two."""
    flags = {key: getattr(options, key) for key in ("imgsz", "batch", "epochs", "threads", "workers")}
    flags |= {"data": data, "seed": seed}
    if name == "peer":
        return peer_command(options.python, folder, {**flags, "model": options.model})
    return our_command(options.cfg, folder, flags, *(["--set", *options.set] if options.set else []))


def table(runs: Iterable[Run]) -> str:
    """A Markdown table with a row for each data set and the mean of their differences; AP in points."""
    runs = list(runs)
    lines = [
        "| data | seeds | mAP50-95: ours, sd | peer, sd | difference [95 % CI] | mAP50 | AP small, medium, large | "
        "time, ratio | time to the peer's mAP50-95, ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    gaps = []
    for data in dict.fromkeys(run.data for run in runs):
        ours, peer = ([run for run in runs if (run.data, run.name) == (data, name)] for name in NAMES)
        cells = [data, str(len(ours)), with_sd(_points(ours))]
        if peer:
            gap, interval = difference(_points(ours), _points(peer))
            gaps.append(gap)
            cells += [with_sd(_points(peer)), f"{gap:+.1f}{interval}"]
        else:
            cells += ["", ""]
        cells.append(_both(ours, peer, lambda group: _mean(group, "mAP50")))
        cells.append(_both(ours, peer, lambda group: ", ".join(_mean(group, size) for size in SIZES)))
        cells += _times(ours, peer)
        lines.append(f"| {' | '.join(cells)} |")
    if len(gaps) > 1:
        lines.append(f"\nMean of the differences: {statistics.fmean(gaps):+.1f} points; the least {min(gaps):+.1f}.")
    return "\n".join(lines) + "\n"


def difference(ours: Sequence[float], peer: Sequence[float]) -> tuple[float, str]:
    """The difference of two means, and its 95 % interval by Welch's t as text; empty with a single seed of one."""
    gap = statistics.fmean(ours) - statistics.fmean(peer)
    if min(len(ours), len(peer)) < 2:
        return gap, ""
    low, high = stats.ttest_ind(ours, peer, equal_var=False).confidence_interval()
    return gap, f" [{low:+.1f}, {high:+.1f}]"


def _points(runs: Sequence[Run], metric: str = "mAP50-95") -> list[float]:
    return [100 * run.metrics[metric] for run in runs]


def _mean(runs: Sequence[Run], metric: str) -> str:
    """The mean in points; a dash where COCO's -1 says that there are no such objects."""
    points = _points(runs, metric)
    return "–" if min(points) < 0 else f"{statistics.fmean(points):.1f}"


def _both(ours: Sequence[Run], peer: Sequence[Run], text: Callable[[Sequence[Run]], str]) -> str:
    return f"{text(ours)} against {text(peer)}" if peer else text(ours)


def _times(ours: Sequence[Run], peer: Sequence[Run]) -> tuple[str, str]:
    """The time of a whole run by the peer's, and the time until the peer's final mAP, as ratios of means."""
    if not peer:
        return "", ""
    theirs = statistics.fmean(run.seconds for run in peer)
    target = statistics.fmean(run.metrics["mAP50-95"] for run in peer)
    reached = [run.seconds_until(target) for run in ours]
    whole = f"{statistics.fmean(run.seconds for run in ours) / theirs:.2f}"
    known = [second for second in reached if second is not None]
    missed = f" ({len(reached) - len(known)} of {len(reached)} never)" if len(known) < len(reached) else ""
    return whole, (f"{statistics.fmean(known) / theirs:.2f}{missed}" if known else "never")


def draw(runs: Sequence[Run], file: Path) -> None:
    """mAP50-95 by time of all runs, a panel for each data set."""
    from engine.pictures.figures import new_figure, write_figure

    sets = list(dict.fromkeys(run.data for run in runs))
    figure = new_figure(3.6 * len(sets), 3.4)
    for panel, data in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        labelled = set()
        for run in runs:
            if run.data == data and run.curve:
                seconds, values = zip(*run.curve, strict=True)
                label = None if run.name in labelled else run.name
                labelled.add(run.name)
                colour = COLOURS[run.name]
                panel.plot([each / 60 for each in seconds], [100 * each for each in values], color=colour, label=label)
        panel.set(title=data, xlabel="minutes, validation included")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.axes[0].set_ylabel("mAP50-95, points")
    write_figure(figure, file)


def to_csv(runs: Iterable[Run]) -> str:
    """A row for each run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["data", "name", "seed", *METRICS, "seconds", "mAP50-95 by epoch"])
    for run in runs:
        values: list[Any] = [run.metrics[key] for key in METRICS]
        curve = " ".join(f"{second:.1f}:{value:.4f}" for second, value in run.curve)
        writer.writerow([run.data, run.name, run.seed, *values, f"{run.seconds:.1f}", curve])
    return text.getvalue()


if __name__ == "__main__":
    run_script(main)
