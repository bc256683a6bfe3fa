"""Options of detection and evaluation; each default value stands here once. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypedDict

from core.arguments import ImageSize, fraction, image_size, switch, whole

Classes = int | str | Sequence[int | str]  # numbers or names
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
        _convert(self, conf=fraction, iou=fraction, max_det=partial(whole, low=1))


@dataclass(frozen=True)
class PredictOptions:
    """Options of ``YOLO.predict`` and detect.py."""

    conf: float = 0.25
    iou: float | None = None  # None: the usual value for this kind of network
    max_det: int = 300
    classes: Classes | None = None
    imgsz: ImageSize | None = None  # None: the size the network was trained at
    batch: int = 1
    rect: bool = True
    agnostic: bool = False
    workers: int | None = None  # threads that read images ahead; None: one per core, at most 8
    tile: int | None = None  # side of overlapping tiles in pixels, 0: that of the network's input; None: no tiles

    def __post_init__(self) -> None:
        """Raise ValueError for a value of another type or out of range."""
        _convert(self, imgsz=image_size, batch=partial(whole, low=1), workers=partial(whole, low=0, high=MAX_WORKERS))
        _convert(self, rect=switch, agnostic=switch, tile=partial(whole, low=0))


@dataclass(frozen=True)
class EvalOptions:
    """Options of ``YOLO.val`` and val.py."""

    split: str = "val"
    batch: int = 16
    imgsz: ImageSize | None = None  # None: the size the network was trained at
    conf: float = 0.001  # low, as COCO's precision-recall curves need it
    iou: float | None = None  # None: the usual value for this kind of network
    max_det: int = 300
    rect: bool = True
    workers: int | None = None  # processes that load ahead; None: data.workers.default_workers
    single_cls: bool | None = None  # None: as in training
    strict_data: bool = False
    allow_skipped: bool = False  # or as in training
    tile: int | None = None  # as for PredictOptions

    def __post_init__(self) -> None:
        """Raise ValueError for a value of another type or out of range."""
        _convert(self, imgsz=image_size, batch=partial(whole, low=1), workers=partial(whole, low=0, high=MAX_WORKERS))
        _convert(self, rect=switch, single_cls=switch, strict_data=switch, allow_skipped=switch)
        _convert(self, tile=partial(whole, low=0))


class PredictKeywords(TypedDict, total=False):
    """Keyword arguments of ``YOLO.predict`` and ``YOLO.stream``: the fields of PredictOptions."""

    conf: float
    iou: float | None
    max_det: int
    classes: Classes | None
    imgsz: ImageSize | None
    batch: int
    rect: bool
    agnostic: bool
    workers: int | None
    tile: int | None


class EvalKeywords(TypedDict, total=False):
    """Keyword arguments of ``YOLO.val``: the fields of EvalOptions."""

    split: str
    batch: int
    imgsz: ImageSize | None
    conf: float
    iou: float | None
    max_det: int
    rect: bool
    workers: int | None
    single_cls: bool | None
    strict_data: bool
    allow_skipped: bool
    tile: int | None


def _convert(options: object, **checks: Callable[[str, object], object]) -> None:
    """Replace each value that is not None by what its check makes of (name, value); ValueError if that refuses it."""
    for name, check in checks.items():
        value = getattr(options, name)
        if value is not None:
            object.__setattr__(options, name, check(name, value))
