"""Options of detection and evaluation; each default value stands here once. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

MAX_WORKERS = 1024


@dataclass(frozen=True)
class NmsOptions:
    """Which boxes become detections.

    ``conf``: confidence threshold; ``iou``: NMS IoU threshold; ``max_det``: maximum number of detections per image;
    ``multi_label``: a box counts for every class above ``conf``, not only for its best; ``agnostic``: suppress across
    classes.
    """

    conf: float
    iou: float
    max_det: int
    multi_label: bool = False
    agnostic: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a threshold outside 0..1 or a number of detections below 1."""
        for name, value in (("conf", self.conf), ("iou", self.iou)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: found {value}, expected a number from 0 to 1")
        if self.max_det < 1:
            raise ValueError(f"max_det: found {self.max_det}, expected a whole number from 1 on")


@dataclass(frozen=True)
class PredictOptions:
    """Options of ``YOLO.predict`` and detect.py."""

    conf: float = 0.25
    iou: float | None = None  # None: the usual value for this kind of network
    max_det: int = 300
    classes: Sequence[int | str] | None = None
    imgsz: int | None = None  # None: the size the network was trained at
    batch: int = 1
    rect: bool = True
    agnostic: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a batch size below 1."""
        _require_range("batch", self.batch, 1, None)


@dataclass(frozen=True)
class EvalOptions:
    """Options of ``YOLO.val`` and val.py."""

    split: str = "val"
    batch: int = 16
    imgsz: int | None = None  # None: the size the network was trained at
    conf: float = 0.001  # low, as COCO's precision-recall curves need it
    iou: float | None = None  # None: the usual value for this kind of network
    max_det: int = 300
    rect: bool = True
    workers: int = 0
    single_cls: bool | None = None  # None: as in training
    strict_data: bool = False
    allow_skipped: bool = False  # or as in training

    def __post_init__(self) -> None:
        """Raise ValueError for a batch size below 1 or a number of workers out of range."""
        _require_range("batch", self.batch, 1, None)
        _require_range("workers", self.workers, 0, MAX_WORKERS)


class PredictKeywords(TypedDict, total=False):
    """Keyword arguments of ``YOLO.predict`` and ``YOLO.stream``: the fields of PredictOptions."""

    conf: float
    iou: float | None
    max_det: int
    classes: Sequence[int | str] | None
    imgsz: int | None
    batch: int
    rect: bool
    agnostic: bool


class EvalKeywords(TypedDict, total=False):
    """Keyword arguments of ``YOLO.val``: the fields of EvalOptions."""

    split: str
    batch: int
    imgsz: int | None
    conf: float
    iou: float | None
    max_det: int
    rect: bool
    workers: int
    single_cls: bool | None
    strict_data: bool
    allow_skipped: bool


def _require_range(name: str, value: int, low: int, high: int | None) -> None:
    if value < low or (high is not None and value > high):
        limits = f"{low} on" if high is None else f"{low} to {high}"
        raise ValueError(f"{name}: found {value}, expected a whole number from {limits}")
