"""Score the weights that a finished run has kept once more, and compare them with what it recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.device import place
from core.options import NmsOptions
from core.text import one_line
from data import build_eval_loader
from engine.checkpoint import build_from_checkpoint, load_checkpoint
from engine.evaluation.evaluate import evaluate
from engine.evaluation.ground_truth import GroundTruth
from engine.setup import load_splits, prepare_operator

GPU_TOLERANCE = 2e-4  # a GPU may choose other convolution algorithms, which round differently
Row = Mapping[str, float | None]


def score_last(weights: Path) -> tuple[dict[str, float], str]:
    """The metrics of last.pt's weights on the run's validation images, by column of results.csv, and the device type.

    As in training: EMA weights, the run's precision, batch size and options. ValueError or OSError if that fails.
    """
    model, config, _ = build_from_checkpoint(weights)
    train, val = config.train, config.val
    device = place(train.device, amp=train.amp, channels_last=train.channels_last)
    prepare_operator(config, model, device)
    device.move(model)
    annotations = load_splits(config, verify=("train" if train.holdout else "val",), progress=False)["val"]
    loader = build_eval_loader(
        annotations,
        imgsz=train.imgsz or 0,
        batch=val.batch or 2 * train.batch,
        preprocess=model.preprocess,
        rect=val.rect,
        progress=False,
    )
    result = evaluate(
        model,
        loader,
        truth=GroundTruth.from_annotations(annotations),
        nms=NmsOptions(conf=val.conf, iou=val.iou or config.model.nms_iou, max_det=val.max_det, multi_label=True),
        amp_dtype=device.amp_dtype,
    )
    return result.stats.columns(), device.device.type


def verify(folder: Path, rows: Sequence[Row]) -> tuple[bool, str]:
    """Whether the weights of a finished run give the last of its ``rows`` of results.csv, and one line on it."""
    weights = folder / "weights" / "last.pt"
    try:
        kept = load_checkpoint(weights, kind="training")["state"]["rows"]
        scores, device = score_last(weights)
    except (OSError, ValueError) as error:
        return False, f"not verified: {one_line(error)}"
    if len(kept) != len(rows):
        return False, f"DIFFERS: results.csv has {len(rows)} epochs, last.pt {len(kept)}"
    for row, saved in zip(rows, kept, strict=True):
        for name in scores:
            if not _same(row.get(name), saved.get(name), 0.0):
                return False, f"DIFFERS: epoch {row['epoch']:g}, {name}: {_differ(row.get(name), saved.get(name))}"
    tolerance = 0.0 if device == "cpu" else GPU_TOLERANCE
    for name, value in scores.items():
        if not _same(rows[-1].get(name), value, tolerance):
            return False, f"DIFFERS: {name}: {_differ(rows[-1].get(name), value)} when scored again on this {device}"
    primary = "metrics/mAP50-95"
    return True, f"equal: mAP50-95 {scores[primary]:.6g} scored again, {rows[-1][primary]} in results.csv"


def _same(recorded: float | None, value: float | None, tolerance: float) -> bool:
    """Whether a field of results.csv, with six significant digits, stands for a value; COCO's -1 is an empty field."""
    if value is None or not value >= 0:
        return recorded is None
    return recorded is not None and abs(recorded - float(f"{value:.6g}")) <= tolerance


def _differ(recorded: float | None, value: float | None) -> str:
    return f"{recorded} in results.csv, {'nothing' if value is None else f'{value:.6g}'}"
