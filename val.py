"""Evaluate a detector: ``python val.py --weights runs/train/exp/weights/best.pt``, on its training data or on --data.

Computes COCO's twelve numbers with pycocotools. Results go to runs/val/exp*/: predictions.json, metrics.json, curves,
the confusion matrix, and images with labels and predictions.
"""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.cli import Parser, add_view_flags, add_weights_flags, require_weights, run_script
from configs.foreign_flags import refuse_foreign_flags
from core.options import EvalOptions
from core.text import printable

if TYPE_CHECKING:
    from engine.evaluation.errors import Errors
    from engine.evaluation.evaluate import EvalResult

SHOWN_CLASSES = 20
MAX_NAME = 60  # characters of a class name in the table


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate as the command line says; returns the exit code."""
    arguments = parse(argv)

    from core.allocator import MODERATE, keep_freed_memory
    from core.files import check_run_name, increment_path, write_text
    from data.issues import list_issues, summarize_issues, write_issues
    from engine.evaluation.coco import write_predictions
    from engine.evaluation.errors import find_errors
    from engine.pictures.error_page import write_errors
    from engine.pictures.evaluation_plots import plot_evaluation
    from yolo import YOLO

    keep_freed_memory(MODERATE)
    check_run_name(arguments.name)  # before the evaluation
    model = YOLO(
        arguments.weights, cfg=arguments.cfg, names=arguments.names, device=arguments.device, half=arguments.half
    )
    print(model.describe(), flush=True)
    arguments.iou = model.iou if arguments.iou is None else arguments.iou
    result = model.val(
        arguments.data,
        split=arguments.split,
        batch=arguments.batch,
        imgsz=arguments.imgsz,
        conf=arguments.conf,
        iou=arguments.iou,
        max_det=arguments.max_det,
        rect=arguments.rect,
        workers=arguments.workers,
        single_cls=arguments.single_cls or None,
        strict_data=arguments.strict_data,
        allow_skipped=arguments.allow_skipped,
        tile=arguments.tile,
    )
    print(report(result, verbose=arguments.verbose), flush=True)
    issues = list_issues({arguments.split: result.truth.issues})
    folder = increment_path(arguments.project, arguments.name, arguments.exist_ok)
    write_predictions(folder / "predictions.json", result.predictions, result.truth)
    write_text(folder / "metrics.json", json.dumps(metrics(result, arguments), indent=1) + "\n")
    write_issues(folder, issues)
    plot_evaluation(folder, result)
    if arguments.errors:
        errors = find_errors(result.truth, result.predictions, confidence=result.stats.confidence)
        print(error_table(errors))
        write_errors(folder, errors, result.truth, title=f"Errors on {arguments.split}: {arguments.weights}")
    if issues:
        print(summarize_issues(issues, [result.truth.skipped]))
    print(f"results in {folder}", flush=True)
    return 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="val.py", description=__doc__)
    add = parser.add_argument
    add_weights_flags(parser)
    add(
        "--data",
        metavar="YAML",
        help="data YAML, by path or by name in configs/data/, or a folder; default: the data of the training run",
    )
    add("--split", default=EvalOptions.split, choices=("val", "test", "train"), help="split to evaluate on")
    add("--batch", "--batch-size", type=int, default=EvalOptions.batch, help="batch size; does not change the numbers")
    add("--conf", "--conf-thres", type=float, default=EvalOptions.conf, help="confidence threshold")
    add("--max-det", type=int, default=EvalOptions.max_det, help="maximum number of detections per image")
    add_view_flags(parser, rect=EvalOptions.rect)
    add("--single-cls", action="store_true", help="treat all classes as one class; default: as in training")
    add("--strict-data", action="store_true", help="stop at the first damaged image or annotation")
    add(
        "--allow-skipped",
        action="store_true",
        help="evaluate even if more than half of the images or annotations cannot be used",
    )
    add("--device", default="auto", help="auto, cpu, cuda, a GPU number, or mps (never run by this project's tests)")
    add("--half", action="store_true", help="compute in fp16, on a GPU only")
    add(
        "--workers",
        type=int,
        default=EvalOptions.workers,
        help="number of processes that load ahead; 0: load in the main process; default: one per core, at most 8",
    )
    add("--errors", action="store_true", help="also write errors.html: error kinds, the worst images, doubtful labels")
    add("--verbose", action="store_true", help=f"list all classes even if there are more than {SHOWN_CLASSES}")
    add("--project", default="runs/val", help="parent folder of the runs")
    add("--name", default="exp", help="name of the run; a number is appended if it exists")
    add("--exist-ok", action="store_true", help="write into an existing run folder")
    refuse_foreign_flags(parser, "val.py")
    arguments = parser.parse_args(argv)
    arguments.weights = require_weights(parser, arguments.weights)
    return arguments


def report(result: EvalResult, *, verbose: bool) -> str:
    """The printed report: the twelve numbers, the table by class, the speed, and notes."""
    stats = result.stats
    lines = [f"COCO's numbers by {stats.backend}, {stats.images} images, {stats.instances} objects"]
    lines += [f"  {name:<10}{number(value)}" for name, value in stats.numbers.items()]
    lines.append(f"precision {stats.precision:.3f}, recall {stats.recall:.3f} at confidence {stats.confidence:.3f}")
    lines += ["", *table(result, len(stats.per_class) if verbose else SHOWN_CLASSES), ""]
    lines.append("time per image: " + ", ".join(f"{value:.2f} ms {part}" for part, value in result.speed.items()))
    return "\n".join([*lines, *(f"note: {note}" for note in stats.notes)])


def table(result: EvalResult, most: int) -> list[str]:
    """One line per class; if there are more than ``most``, those with the most objects."""
    rows = result.stats.per_class
    width = min(max(5, *(len(row.name) for row in rows)), MAX_NAME) if rows else 5
    lines = [f"{'class':<{width}}  images  objects  mAP50-95   mAP50  precision  recall"]
    shown = rows if len(rows) <= most else sorted(rows, key=lambda row: -row.instances)[:most]
    for row in shown:
        name = printable(row.name)[:width]
        values = f"{number(row.ap):>8}  {number(row.ap50):>6}  {number(row.precision):>9}  {number(row.recall):>6}"
        lines.append(f"{name:<{width}}  {row.images:>6}  {row.instances:>7}  {values}")
    if len(shown) < len(rows):
        lines.append(f"and {len(rows) - len(shown)} more classes: --verbose lists all")
    return lines


def error_table(errors: Errors) -> str:
    """TIDE's error kinds, one line each."""
    lines = ["mAP50 lost to each kind of error (TIDE), in points"]
    return "\n".join([*lines, *(f"  {kind:<11}{100 * gain:>6.2f}" for kind, gain in errors.gains.items()), ""])


def number(value: float) -> str:
    """Four decimals, or a dash if undefined (COCO's -1)."""
    return f"{value:.4f}" if value >= 0 else "-"


def metrics(result: EvalResult, arguments: Namespace) -> dict[str, object]:
    """The content of metrics.json: numbers, classes, speed and arguments; null if undefined."""
    stats = result.stats

    def defined(value: object) -> object:
        return None if isinstance(value, float) and not value >= 0 else value

    return {
        "numbers": {name: defined(value) for name, value in stats.numbers.items()},
        **({"numbers_at_max_det": stats.at_max_det} if stats.at_max_det else {}),
        "precision": defined(stats.precision),
        "recall": defined(stats.recall),
        "confidence": stats.confidence,
        "images": stats.images,
        "objects": stats.instances,
        "classes": [{key: defined(value) for key, value in dataclasses.asdict(row).items()} for row in stats.per_class],
        "speed_ms": {part: defined(value) for part, value in result.speed.items()},
        "backend": stats.backend,
        "notes": list(stats.notes),
        "arguments": vars(arguments),
    }


if __name__ == "__main__":
    run_script(main)
