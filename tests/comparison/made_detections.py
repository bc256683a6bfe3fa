"""Stored detections of made-up runs: noisy boxes around random objects, as a run writes them."""

import contextlib
import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from core.files import write_text
from engine.loggers.results_csv import write_rows
from tests.comparison.made_runs import edit_record

KEY = "metrics/mAP50-95"
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def objects(images: int, *, seed: int = 0) -> dict[str, Any]:
    """Images with up to four objects of two classes, some of them crowds."""
    random = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    for image in range(images):
        for _ in range(random.integers(0, 5)):
            left, top, width, height = random.uniform([0, 0, 20, 20], [60, 60, 40, 40]).round(2).tolist()
            category = int(random.choice([3, 3, 7]))
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": f"i{image}", "category_id": category,
                    "bbox": [left, top, width, height], "area": width * height, "iscrowd": int(random.random() < 0.1),
                }
            )  # fmt: skip
    return {"images": [{"id": f"i{k}"} for k in range(images)], "annotations": annotations, "categories": CATEGORIES}


def detections(truth: Mapping[str, Any], *, jitter: float, seed: int) -> list[dict[str, Any]]:
    """Detections: each object with shifted edges at times, and false ones; all scores differ."""
    random = np.random.default_rng(seed)
    found = []
    for each in truth["annotations"]:
        if random.random() < 0.85:
            box = (np.array(each["bbox"]) + random.normal(0, jitter, 4)).clip(1).round(3).tolist()
            found.append({**{key: each[key] for key in ("image_id", "category_id")}, "bbox": box, "score": 0.0})
    for image in truth["images"]:
        for _ in range(2):
            box = random.uniform([0, 0, 20, 20], [60, 60, 40, 40]).round(3).tolist()
            found.append(
                {"image_id": image["id"], "category_id": int(random.choice([3, 7])), "bbox": box, "score": 0.0}
            )
    scores = random.permutation(len(found)) / (len(found) + 1)
    return [{**each, "score": round(float(score), 5)} for each, score in zip(found, scores, strict=True)]


def coco_map(
    truth: Mapping[str, Any], found: Sequence[Mapping[str, Any]], chosen: Sequence[int] | None = None
) -> float:
    """mAP50-95 by pycocotools of a data set that holds the `chosen` images, repeated ones as images of their own."""
    chosen = range(len(truth["images"])) if chosen is None else chosen
    names = [truth["images"][place]["id"] for place in chosen]
    copies = {
        key: [
            {**each, "image_id": number, "id": 0}
            for number, name in enumerate(names, 1)
            for each in rows
            if each["image_id"] == name
        ]
        for key, rows in (("objects", truth["annotations"]), ("found", found))
    }
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "images": [{"id": number, "width": 100, "height": 100} for number in range(1, len(names) + 1)],
            "annotations": [{**each, "id": number} for number, each in enumerate(copies["objects"], 1)],
            "categories": truth["categories"],
        }
        reference.createIndex()
        run = COCOeval(reference, reference.loadRes(copies["found"]), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


def store(folder: Path, truth: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> None:
    """Store these detections in a run folder as the last validation of the run."""
    write_text(folder / "ground_truth.json", json.dumps(truth))
    write_text(folder / "predictions_last.json", json.dumps(found))
    value = coco_map(truth, found)
    edit_rows(folder, lambda row: {**row, KEY: value}, last=True)

    def change(record: dict[str, Any]) -> None:
        for name in ("predictions_last", "ground_truth"):
            record[f"{name}_sha256"] = hashlib.sha256((folder / f"{name}.json").read_bytes()).hexdigest()

    edit_record(folder, change)


def edit_rows(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], *, last: bool = False) -> None:
    """Change the rows of a results.csv, or its last one, and seal the run again."""
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    rows = [change(row) if not last or number == len(rows) - 1 else row for number, row in enumerate(rows)]
    write_rows(folder / "results.csv", rows, list(rows[0]))
    edit_record(folder, lambda record: record["last_epoch"].update({KEY: rows[-1][KEY]}))


def add_detections(folder: Path, *, jitter: float, seed: int, images: int = 12, data_seed: int = 0) -> None:
    """Store made-up detections in a run folder."""
    truth = objects(images, seed=data_seed)
    store(folder, truth, detections(truth, jitter=jitter, seed=seed))
