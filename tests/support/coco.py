"""Ground truth and predictions for tests of the evaluation, from COCO dictionaries."""

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.annotations import Annotations
from data.coco import read_coco
from engine.evaluation.ground_truth import GroundTruth


def read_annotations(content: dict[str, Any]) -> Annotations:
    """A COCO dictionary through the reader of data/; file names are added if missing."""
    named = [
        {"file_name": f"{number}.jpg", **image} if isinstance(image, dict) and "id" in image else image
        for number, image in enumerate(content["images"])
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps({**content, "images": named}))
        return read_coco(path, folder, progress=False)


def ground_truth(content: dict[str, Any], *, image_ids: Iterable[int | str] | None = None) -> GroundTruth:
    """The ground truth of a COCO dictionary, restricted to some images if given."""
    annotations = read_annotations(content)
    if image_ids is not None:
        wanted = set(image_ids)
        annotations = annotations.without([k for k, i in enumerate(annotations.image_ids) if i not in wanted])
    return GroundTruth.from_annotations(annotations)


def prediction_rows(entries: Sequence[dict[str, Any]], truth: GroundTruth) -> np.ndarray:
    """COCO result dictionaries as an (n, 7) array."""
    rows = [
        [truth.key_of[entry["image_id"]], *entry["bbox"], entry["score"], entry["category_id"]] for entry in entries
    ]
    return np.array(rows, np.float64).reshape(-1, 7)
