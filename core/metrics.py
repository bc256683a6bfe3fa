"""Every metric of a run, defined once: its column, title, unit, direction and number of digits.

results.csv, the pictures of a run and comparisons of runs read this table; nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Panel = Literal["precision and recall", "mAP", "AP by size"]


@dataclass(frozen=True)
class Metric:
    """One number of an epoch or of an evaluation; ``key`` is its column in results.csv or its name in run.json."""

    key: str
    title: str
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    digits: int = 3  # after the point, in tables for people
    panel: Panel | None = None  # of results.png in which it is drawn
    compared: bool = False  # by compare.py, in points at the last epoch

    @property
    def name(self) -> str:
        """The key without its group: mAP50 of metrics/mAP50."""
        return self.key.rpartition("/")[2]


TIDE = {
    "Cls": "wrong class",
    "Loc": "poor localisation",
    "Both": "wrong class and poor localisation",
    "Dupe": "duplicate",
    "Bkg": "background detected",
    "Miss": "object missed",
}
"""TIDE's error kinds (Bolya et al., arXiv 2008.08115): each costs the AP50 that would be gained without them."""

COCO = (
    Metric("mAP50-95", "mAP50-95", better="higher"),
    Metric("mAP50", "mAP50", better="higher"),
    Metric("mAP75", "mAP75", better="higher"),
    Metric("AP_small", "AP small", better="higher"),
    Metric("AP_medium", "AP medium", better="higher"),
    Metric("AP_large", "AP large", better="higher"),
    Metric("AR1", "AR with 1 detection per image", better="higher"),
    Metric("AR10", "AR with 10 detections per image", better="higher"),
    Metric("AR100", "AR with 100 detections per image", better="higher"),
    Metric("AR_small", "AR small", better="higher"),
    Metric("AR_medium", "AR medium", better="higher"),
    Metric("AR_large", "AR large", better="higher"),
)
"""COCO's twelve numbers in COCO's order."""

FITNESS = "mAP50-95"  # decides which weights are best

EVALUATION = (
    Metric("metrics/precision", "precision (IoU 0.5, best F1)", better="higher", panel="precision and recall"),
    Metric("metrics/recall", "recall (IoU 0.5, best F1)", better="higher", panel="precision and recall"),
    Metric("metrics/mAP50", "mAP50", better="higher", panel="mAP", compared=True),
    Metric("metrics/mAP50-95", "mAP50-95", better="higher", panel="mAP", compared=True),
    Metric("metrics/mAP75", "mAP75", better="higher"),
    Metric("metrics/AP_small", "AP small", better="higher", panel="AP by size", compared=True),
    Metric("metrics/AP_medium", "AP medium", better="higher", panel="AP by size", compared=True),
    Metric("metrics/AP_large", "AP large", better="higher", panel="AP by size", compared=True),
)
"""Metrics of the evaluation after each epoch: COCO's by their names in `COCO`, precision and recall."""

LOSSES = {
    "box": "box loss (CIoU)",
    "obj": "objectness loss (BCE)",
    "cls": "class loss (BCE)",
    "dfl": "distribution focal loss",
}
"""Titles of loss terms, by default their names; ``loss_names`` of a model are the terms that it has."""

PROGRESS = (Metric("epoch", "epoch", digits=0), Metric("step", "optimizer step", digits=0))
COST = (
    Metric("lr", "learning rate", digits=6),
    Metric("time_train_s", "training", "s", "lower", 1),
    Metric("time_warmup_s", "warm-up", "s", "lower", 1),
    Metric("time_data_s", "waiting for data", "s", "lower", 1),
    Metric("time_val_s", "validation", "s", "lower", 1),
    Metric("time_save_s", "saving", "s", "lower", 1),
    Metric("time_contended_s", "steps slowed by other processes", "s", "lower", 1),
    Metric("images_per_s", "throughput", "images/s", "higher", 0),
    Metric("peak_memory_mib", "peak memory", "MiB", "lower", 0),
    Metric("other_cores", "CPU cores busy with other processes", "cores", "lower", 1),
    Metric("batches_crc32", "checksum of the batches", digits=0),
    Metric("val_crc32", "checksum of the validation batches", digits=0),
    Metric("step_median_s", "training step, median", "s", "lower", 4),
    Metric("energy_j", "energy", "J", "lower", 0),
)
"""Schedule, time and memory of an epoch."""


def loss_metrics(group: Literal["train", "val"], loss_names: Sequence[str]) -> tuple[Metric, ...]:
    """The loss columns of training or of validation, one per loss term."""
    return tuple(
        Metric(f"{group}/{name}_loss", LOSSES.get(name, f"{name} loss"), better="lower", digits=4)
        for name in loss_names
    )


def results_table(loss_names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of an epoch in the column order of results.csv."""
    return (
        *PROGRESS,
        *loss_metrics("train", loss_names),
        *EVALUATION,
        *loss_metrics("val", loss_names),
        *COST,
    )


BY_KEY = {metric.key: metric for metric in (*COCO, *results_table(tuple(LOSSES)))}
"""Every metric by its key."""
