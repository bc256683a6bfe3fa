"""What an exported file says about itself: one JSON text, kept in the place that its format has for such texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

KEY = "yolo-mish"  # under which a file keeps the text
FORMAT = 1

Precision = Literal["fp32", "fp16", "int8"]
Outputs = Literal["boxes", "heads", "detections"]


@dataclass(frozen=True)
class NmsDefaults:
    """Thresholds of the suppression: those built into the file (`inside`), or those that its detections need."""

    conf: float
    iou: float
    max_det: int
    inside: bool = False


@dataclass(frozen=True)
class Metadata:
    """An exported network: interface, origin, and the configuration from which readers rebuild pre- and postprocessing.

    `outputs`: boxes (B, A, 4) and scores (B, A, classes); the raw maps of the heads; or detections (n, 6). `weights`:
    name and SHA-256 of the checkpoint, and SHA-256 of its tensors. `project`: the code that exported.
    """

    target: str
    names: list[str]
    stride: int
    imgsz: tuple[int, int]  # height, width; of a dynamic file the default
    dynamic: bool  # whether batch, height and width are free (with NMS inside, height and width)
    precision: Precision
    outputs: Outputs
    mish: str  # the form of Mish layers: formula or op; empty without any
    nms: NmsDefaults
    preprocess: dict[str, Any]
    census: list[dict[str, Any]]
    weights: dict[str, str]
    names_from: str | None  # of Darknet weights, which hold neither class names nor the data they were trained on
    config: dict[str, Any]
    project: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str | None] = field(default_factory=dict)
    format: int = FORMAT

    def describe_size(self) -> str:
        """Height and width in words."""
        return f"{self.imgsz[0]}x{self.imgsz[1]} ({'or other' if self.dynamic else 'fixed'})"

    def to_json(self) -> str:
        """The text to keep in a file."""
        return msgspec.json.encode(self).decode()


def parse_metadata(text: str | bytes | None, path: object) -> Metadata:
    """The metadata of the text in a file; ValueError if it is missing, damaged or of another version."""
    if not text:
        raise ValueError(f"{path}: has no metadata of this project; expected a file that export.py wrote")
    try:
        found = msgspec.json.decode(text, type=Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: its metadata are damaged, or of another version: {error}") from error
    if found.format != FORMAT:
        raise ValueError(f"{path}: its metadata have format {found.format}, expected {FORMAT}; export it again")
    if not found.names or found.stride < 1 or min(found.imgsz) < 1:
        raise ValueError(f"{path}: its metadata are damaged: no class names, or sizes below 1")
    return found


def describe_preprocess(kind: str, *, letter_box: bool) -> dict[str, Any]:
    """How an image becomes the input, for programs that read the file without this project; `letter_box`: of a cfg."""
    common = {"input": "images", "layout": "NCHW", "channels": "RGB", "type": "float32", "range": [0, 1]}
    if kind == "darknet" and not letter_box:
        return {**common, "resize": "stretch", "interpolation": "bilinear"}
    grey, method = (128, "bilinear") if kind == "darknet" else (114, "area when shrinking, bilinear when enlarging")
    return {**common, "resize": "letterbox, centred", "fill": grey, "interpolation": method}
