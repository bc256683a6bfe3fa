"""COCO's twelve numbers on many generated scenes, held against pycocotools run on the same JSON by itself."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.evaluation.coco import STAT_NAMES, coco_stats
from tests.support.coco import ground_truth

SCENES = 4  # of each kind
KINDS = {
    "mixed": {},
    "crowds": {"crowd": 0.5},
    "ties": {"scores": 3},
    "one class": {"classes": 1},
    "many classes": {"classes": 9},
    "poor detector": {"spread": 0.4, "hit": 0.3},
    "more than a hundred boxes": {"objects": 150, "images": 2},
}


def scene(
    seed: int,
    *,
    images: int = 8,
    objects: int = 8,
    classes: int = 3,
    crowd: float = 0.1,
    per_object: int = 2,
    spread: float = 0.1,
    scores: int = 1000,
    hit: float = 0.85,
) -> tuple[dict[str, Any], np.ndarray]:
    """Ground truth as COCO's dictionary, and detections (n, 7): image, x, y, w, h, score, category."""
    rng = np.random.default_rng(seed)
    category_ids = rng.permutation(np.arange(1, 4 * classes))[:classes].tolist()
    image_ids = rng.permutation(np.arange(1, 10 * images))[:images].tolist()
    annotations: list[dict[str, Any]] = []
    rows: list[list[float]] = []
    for image in image_ids:
        for _ in range(rng.integers(0, objects + 1)):
            x, y = rng.integers(0, 300, 2).tolist()
            w, h = np.exp(rng.uniform(np.log(5), np.log(250), 2)).round(2).tolist()  # small, medium and large
            category = int(rng.choice(category_ids))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": [x, y, w, h],
                 "area": w * h * rng.uniform(0.4, 1.0), "iscrowd": int(rng.random() < crowd)}
            )  # fmt: skip
            for _ in range(rng.integers(0, per_object + 1)):
                box = np.array([x, y, w, h]) + rng.normal(0, spread, 4) * [w, h, w, h]
                box[2:] = np.maximum(box[2:], 1)
                label = category if rng.random() < hit else int(rng.choice(category_ids))
                rows.append([image, *box.round(3), rng.integers(1, scores + 1) / scores, label])
    truth = {
        "images": [{"id": image, "file_name": f"{image}.jpg", "width": 640, "height": 640} for image in image_ids],
        "categories": [{"id": identity, "name": f"class {identity}"} for identity in category_ids],
        "annotations": annotations,
    }
    return truth, np.array(rows, np.float64).reshape(-1, 7)


def by_pycocotools(truth: dict[str, Any], detections: np.ndarray) -> np.ndarray:
    """Its twelve numbers, from its own reading of the two."""
    results = [
        {"image_id": int(row[0]), "bbox": row[1:5].tolist(), "score": float(row[5]), "category_id": int(row[6])}
        for row in detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pycocotools", "fast"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_twelve_numbers_equal_those_of_pycocotools(kind: str, backend: str) -> None:
    compared = 0
    for seed in range(SCENES):
        truth, detections = scene(seed, **KINDS[kind])
        if not truth["annotations"] or not len(detections):
            continue
        numbers = coco_stats(ground_truth(truth), detections, backend=backend).numbers
        np.testing.assert_allclose(
            [numbers[name] for name in STAT_NAMES], by_pycocotools(truth, detections), rtol=0, atol=1e-12
        )
        compared += 1
    assert compared >= SCENES // 2
