"""The detections of one image, and their output as picture, text, plain values or crops."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.text import printable
from data.sources import Frame
from engine.pictures.drawing import draw_detections, png, save_image

Record = dict[str, str | int | float | list[float]]
SUPERVISION = "supervision av defusedxml pydeprecate"  # what it needs that is not installed with this project


def without_opencv(packages: str) -> str:
    """How pip installs packages that depend on another build of OpenCV, in a message."""
    return f"pip install --no-deps {packages} (their opencv-python would overwrite the headless build that is here)"


@dataclass(frozen=True)
class Result:
    """The detections of one image, highest score first."""

    boxes: np.ndarray  # (n, 4) float32, xyxy in pixels of the image
    scores: np.ndarray  # (n,) float32
    labels: np.ndarray  # (n,) int64, positions in `names`
    names: list[str]
    frame: Frame  # the image (frame.image, RGB) and its source
    speed: dict[str, float]  # milliseconds for preprocess, inference and nms
    shape: tuple[int, int]  # height and width of the network's input
    track_ids: np.ndarray | None = None  # (n,) int64, -1 for a box without an id; None: not tracked

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def image(self) -> np.ndarray:
        """The original image (H, W, 3) uint8 RGB."""
        return self.frame.image

    @property
    def path(self) -> str:
        """File, URL or camera of the image; "array 0" for an array."""
        return self.frame.path

    @property
    def name(self) -> str:
        """Stem of the names of output files; frames of a video are numbered."""
        return f"{self.frame.name}_{self.frame.frame_index:06d}" if self.frame.is_video else self.frame.name

    def summary(self) -> str:
        """Counts by class, as in "2 circles, 1 star"."""
        counts = Counter(self.labels.tolist())
        parts = [f"{counts[k]} {printable(_plural(self.names[k], counts[k]))}" for k in sorted(counts)]
        return ", ".join(parts) or "(no detections)"

    def plot(self) -> np.ndarray:
        """A copy of the image, RGB, with boxes, class names and scores drawn in; small images are enlarged."""
        return draw_detections(self.image, self.boxes, self.labels, self.scores, self.names, track_ids=self.track_ids)

    def _repr_png_(self) -> bytes:
        """The picture in a notebook."""
        return png(self.plot())

    def records(self) -> list[Record]:
        """One dict per detection: image, (frame,) (track_id,) label, name, score and bbox: left, top, width, height in
        pixels."""
        where: Record = {"image": self.path}
        if self.frame.is_video:
            where["frame"] = self.frame.frame_index
        return [
            {
                **where,
                **({"track_id": number} if number >= 0 else {}),
                "label": label,
                "name": self.names[label],
                "score": round(score, 5),
                "bbox": [round(value, 3) for value in (left, top, right - left, bottom - top)],
            }
            for (left, top, right, bottom), score, label, number in zip(
                self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self._numbers(), strict=True
            )
        ]

    def to_dict(self) -> dict[str, object]:
        """Everything except the pixels, as plain values."""
        width, height = self.frame.size
        return {
            "image": self.path,
            "width": width,
            "height": height,
            "speed": dict(self.speed),
            "detections": self.records(),
        }

    def to_supervision(self) -> Any:
        """The detections as ``supervision.Detections``, for its annotators, trackers, zones and sinks.

        Class names are in ``data["class_name"]``. ValueError if supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ValueError(
                f"supervision is not installed: uv sync --extra supervision, or {without_opencv(SUPERVISION)}"
            ) from error
        names = np.array([self.names[label] for label in self.labels.tolist()], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32),
            confidence=self.scores.astype(np.float32),
            class_id=self.labels.astype(int),
            tracker_id=self.track_ids,
            data={"class_name": names},
        )

    def to_txt(self, *, save_conf: bool = False) -> str:
        """YOLO's text format, one line per detection: label, center x, center y, width, height, normalized.

        With ``save_conf`` the score is added; the track id, if objects are tracked, comes last, -1 for none.
        """
        width, height = self.frame.size
        lines = []
        for box, score, label, track in zip(
            self.boxes.astype(float), self.scores, self.labels, self._numbers(), strict=True
        ):
            left, top, right, bottom = box / (width, height, width, height)
            values = [
                (left + right) / 2,
                (top + bottom) / 2,
                right - left,
                bottom - top,
                *([score] if save_conf else []),
            ]
            number = "" if self.track_ids is None else f" {track}"
            lines.append(f"{label} " + " ".join(f"{value:.6g}" for value in values) + number + "\n")
        return "".join(lines)

    def _numbers(self) -> list[int]:
        """The track ids, -1 for a box without one."""
        return [-1] * len(self) if self.track_ids is None else self.track_ids.tolist()

    def save_txt(self, path: str | os.PathLike, *, save_conf: bool = False) -> None:
        """Write ``to_txt``; without detections, an empty file."""
        Path(path).write_text(self.to_txt(save_conf=save_conf), encoding="utf-8")

    def save(self, path: str | os.PathLike) -> None:
        """Write ``plot()``; the suffix names the format."""
        save_image(path, self.plot())

    def save_crops(self, folder: str | os.PathLike) -> list[Path]:
        """Write the image region of each detection to folder/CLASS/NAME.jpg; return the paths.

        Class names are made safe as folder names, so that none leads out of ``folder``.
        """
        written: list[Path] = []
        counts: Counter[int] = Counter()
        for box, label in zip(self.boxes, self.labels.tolist(), strict=True):
            left, top = np.floor(box[:2]).astype(int)
            right, bottom = np.ceil(box[2:]).astype(int)
            part = self.image[top:bottom, left:right]
            if not part.size:
                continue
            counts[label] += 1
            number = f"_{counts[label]}" if counts[label] > 1 else ""
            folder_name = safe_name(self.names[label], label, shared=self.names.count(self.names[label]) > 1)
            path = Path(folder) / folder_name / f"{self.name}{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(path, part)
            written.append(path)
        return written


def _plural(name: str, count: int) -> str:
    if count == 1 or not name[-1:].isascii() or not name[-1:].isalpha():
        return name
    return f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"


def safe_name(name: str, label: int, *, shared: bool = False) -> str:
    """A class name as a folder name, unique by class: letters, digits, space, dash.

    ``shared``: another class has this name too.
    """
    safe = re.sub(r"[^\w\- ]", "_", name).strip()[:60]  # at most 4 bytes each; file systems allow 255
    return name if safe and safe == name and not shared else f"{safe} ({label})"
