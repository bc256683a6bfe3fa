"""Detections in the formats of other programs: COCO and Label Studio. Plain values, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.detections import Result

CSV_COLUMNS = ("image", "frame", "label", "name", "score", "x_min", "y_min", "x_max", "y_max")


def csv_rows(result: Result) -> list[tuple[object, ...]]:
    """The rows of a result under CSV_COLUMNS: corners in pixels; the frame is empty for images."""
    frame = result.frame.frame_index if result.frame.is_video else ""
    return [
        (result.path, frame, label, result.names[label], round(score, 5), *(round(value, 3) for value in box))
        for box, score, label in zip(result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True)
    ]


def add_to_coco(content: dict[str, list[dict[str, Any]]], result: Result) -> None:
    """Add a result to a COCO data set, {} at first: images, categories (from 1 on) and annotations with their scores.

    FiftyOne, CVAT and other readers of COCO take it; `score` is an attribute of the annotations. A frame of a video has
    the name of its output file.
    """
    if not content:
        names = [{"id": label + 1, "name": name} for label, name in enumerate(result.names)]
        content |= {"images": [], "categories": names, "annotations": []}
    width, height = result.frame.size
    image = len(content["images"]) + 1
    name = f"{result.name}.jpg" if result.frame.is_video else result.path
    content["images"].append({"id": image, "file_name": name, "width": width, "height": height})
    for (left, top, right, bottom), score, label in zip(
        result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True
    ):
        box = [round(value, 3) for value in (left, top, right - left, bottom - top)]
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "image_id": image,
                "category_id": label + 1,
                "bbox": box,
                "area": round(box[2] * box[3], 3),
                "iscrowd": 0,
                "score": round(score, 5),
            }
        )


def label_studio_task(result: Result, *, model: str) -> dict[str, Any]:
    """A task of Label Studio with predictions, for an interface with an Image `image` and RectangleLabels `label`.

    Boxes are in percent of the image. `data.image` is the path as given: Label Studio reads it through its local
    storage or needs an address instead.
    """
    width, height = result.frame.size
    scale = (100 / width, 100 / height)
    found = []
    for (left, top, right, bottom), score, label in zip(
        result.boxes.tolist(), result.scores.tolist(), result.labels.tolist(), strict=True
    ):
        value = {
            "x": left * scale[0],
            "y": top * scale[1],
            "width": (right - left) * scale[0],
            "height": (bottom - top) * scale[1],
            "rotation": 0,
            "rectanglelabels": [result.names[label]],
        }
        found.append(
            {
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": value,
                "score": score,
            }
        )
    return {
        "data": {"image": result.path},
        "predictions": [{"model_version": model, "score": _mean(result.scores.tolist()), "result": found}],
    }


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores) if scores else 0.0
