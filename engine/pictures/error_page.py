"""Where a detector is wrong, as files: a page of the worst images beside their labels, and tables for a spreadsheet."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import cv2
import numpy as np

from core.files import write_text
from core.metrics import TIDE
from core.progress import progress_bar
from core.templates import data_uri, templates
from core.text import printable
from data.image import ImageError, read_image
from engine.evaluation.errors import IGNORED, KINDS, RIGHT, SUSPECTS, Errors, ImageErrors
from engine.evaluation.ground_truth import GroundTruth
from engine.pictures.drawing import draw_boxes

WORST = 100  # images on the page
MOST_SUSPECTS = 100  # labels on the page; all are in the table
SIDE = 480  # pixels, of the longer side of a picture on the page
QUALITY = 82  # of JPEG
COLORS = {
    RIGHT: (0, 158, 115),
    "missed": (213, 40, 0),
    "class": (204, 121, 167),
    "location": (230, 159, 0),
    "both": (136, 34, 85),
    "duplicate": (86, 180, 233),
    "background": (240, 228, 66),
    IGNORED: (150, 150, 150),
}


def write_errors(folder: Path, errors: Errors, truth: GroundTruth, *, title: str, progress: bool = True) -> None:
    """Write errors.html, errors.csv (an image a row) and label_suspects.csv into a folder."""
    write_text(folder / "errors.csv", _csv(_image_rows(errors, truth)))
    suspects = _suspect_rows(errors, truth)
    write_text(folder / "label_suspects.csv", _csv(suspects))
    shown = [image for image in errors.images[:WORST] if image.errors]
    figures = [
        {
            "name": printable(_name(truth, image.index)),
            "f1": image.f1,
            "counts": {kind: image.counts[kind] for kind in (RIGHT, *KINDS)},
            "picture": _picture(image, truth),
        }
        for image in progress_bar(shown, "drawing errors", show=progress)
    ]
    environment = templates(Path(__file__).parent)
    environment.filters["cell"] = printable
    counts = {kind: sum(image.counts[kind] for image in errors.images) for kind in KINDS}
    page = environment.get_template("errors.html").render(
        title=title,
        confidence=errors.confidence,
        images=len(errors.images),
        flawless=sum(not image.errors for image in errors.images),
        kinds=[(kind, TIDE[short], 100 * errors.gains[kind], counts[kind]) for kind, short in KINDS.items()],
        colors={kind: "#{:02x}{:02x}{:02x}".format(*color) for kind, color in COLORS.items()},
        figures=figures,
        suspects=suspects[1 : MOST_SUSPECTS + 1],
        all_suspects=len(errors.suspects),
    )
    write_text(folder / "errors.html", page)


def _name(truth: GroundTruth, index: int) -> str:
    return Path(truth.path_of(index)).name


def _image_rows(errors: Errors, truth: GroundTruth) -> list[list[object]]:
    rows: list[list[object]] = [["image_id", "file", "f1", "objects", RIGHT, *KINDS]]
    for image in errors.images:
        counts = [image.counts[kind] for kind in (RIGHT, *KINDS)]
        identity = truth.image_ids[image.index]
        rows.append([identity, truth.path_of(image.index), round(image.f1, 4), len(image.objects), *counts])
    return rows


def _suspect_rows(errors: Errors, truth: GroundTruth) -> list[list[object]]:
    rows: list[list[object]] = [["file", "suspicion", "label", "detected", "score", "left", "top", "right", "bottom"]]
    for each in errors.suspects:
        box = [round(float(value), 1) for value in each.box]
        rows.append(
            [_name(truth, each.index), SUSPECTS[each.kind], each.label or "", each.detected, round(each.score, 3), *box]
        )
    return rows


def _csv(rows: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _picture(image: ImageErrors, truth: GroundTruth) -> str:
    """The objects and the detections of an image side by side, as a data URI; empty if the file cannot be read now."""
    try:
        pixels = read_image(truth.path_of(image.index))
    except (ImageError, OSError):
        return ""
    scale = SIDE / max(pixels.shape[:2])
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    names = truth.names
    states = [RIGHT if found else "missed" for found in image.found]
    left = draw_boxes(
        pixels,
        image.objects * scale,
        captions=[names[label] for label in image.object_labels],
        colors=[COLORS[state] for state in states],
        order=np.argsort(image.found, kind="stable"),
    )
    right = draw_boxes(
        pixels,
        image.detections * scale,
        captions=[f"{names[label]} {score:.2f}" for label, score in zip(image.labels, image.scores, strict=True)],
        colors=[COLORS[kind] for kind in image.kinds],
        order=np.argsort([kind == RIGHT for kind in image.kinds], kind="stable"),
    )
    gap = np.full((left.shape[0], 8, 3), 255, np.uint8)
    both = cv2.cvtColor(np.hstack([left, gap, right]), cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode(".jpg", both, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return data_uri(content.tobytes(), "jpeg")
