"""What an export is asked for; each default value stands here once. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypedDict

from core.arguments import ImageSize, fraction, image_size, shown, switch, whole
from core.options import PredictOptions
from core.text import did_you_mean

MishForm = Literal["formula", "op"]
MISH_FORMS: tuple[MishForm, ...] = ("formula", "op")
MIN_OPSET, MAX_OPSET = 18, 23  # the exporter writes 18 and converts; ONNX Runtime reads later ones, untested here


@dataclass(frozen=True)
class ExportOptions:
    """Options of ``YOLO.export`` and export.py.

    ``imgsz``: (height, width) or a side, None for that of the weights; ``dynamic``: any batch and any multiple of the
    stride; ``half``: fp16; ``int8``: quantised; ``opset``: of ONNX; ``mish``: the algebraic formula, or the operator
    of the target, None for the faster one; ``nms``: suppression inside the file, with ``conf``, ``iou`` (None: the
    network's) and ``max_det``; ``calibration``: number of training images to quantise by.
    """

    imgsz: ImageSize | None = None
    dynamic: bool = False
    half: bool = False
    int8: bool = False
    opset: int = MIN_OPSET
    mish: MishForm | None = None
    nms: bool = False
    conf: float = PredictOptions.conf
    iou: float | None = None
    max_det: int = PredictOptions.max_det
    calibration: int = 128

    def __post_init__(self) -> None:
        """Raise ValueError for a value of another type or out of range."""
        checks: dict[str, Callable[[str, object], object]] = {
            "imgsz": image_size,
            "conf": fraction,
            "iou": fraction,
            "max_det": partial(whole, low=1),
            "calibration": partial(whole, low=1, high=10_000),
            "opset": partial(whole, low=MIN_OPSET, high=MAX_OPSET),
            **dict.fromkeys(("dynamic", "half", "int8", "nms"), switch),
        }
        for name, check in checks.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check(name, value))
        if self.mish is not None and self.mish not in MISH_FORMS:
            hint = did_you_mean(str(self.mish), MISH_FORMS)
            raise ValueError(f"mish: found {shown(self.mish)}{hint}; expected one of {', '.join(MISH_FORMS)}")
        if self.half and self.int8:
            raise ValueError("half and int8 exclude each other: choose one precision")

    @property
    def precision(self) -> Literal["fp32", "fp16", "int8"]:
        """The precision of the file."""
        return "int8" if self.int8 else "fp16" if self.half else "fp32"


class ExportKeywords(TypedDict, total=False):
    """Keyword arguments of ``YOLO.export``: the fields of ExportOptions."""

    imgsz: ImageSize | None
    dynamic: bool
    half: bool
    int8: bool
    opset: int
    mish: MishForm | None
    nms: bool
    conf: float
    iou: float | None
    max_det: int
    calibration: int
