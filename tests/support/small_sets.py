"""Small data sets for the tests of data/, made on the spot."""

import json
from pathlib import Path

import cv2
import numpy as np


def write_coco(folder: Path, images: dict[str, tuple[int, int]], annotations: list[dict], categories=None) -> Path:
    """Write noise images (name: (width, height)) and an annotation file; return its path."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    records = []
    for number, (name, (width, height)) in enumerate(images.items(), 1):
        cv2.imwrite(str(folder / "images" / name), rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        records.append({"id": number, "file_name": name, "width": width, "height": height})
    categories = categories or [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": records, "annotations": annotations, "categories": categories}))
    return path


def box(identity: int, image: int, bbox: list, category: int = 3, **more) -> dict:
    """One annotation."""
    return {"id": identity, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}
