"""Detections in the formats of other programs, read by those programs where they are installed."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from data.sources import Frame
from engine.detection_files import DetectionFiles
from engine.detections import Result

NAMES = ["circle", "star, big"]


def result(path: str, item: int, *, video: bool = False) -> Result:
    """Two detections in an image of 40 x 20 pixels."""
    frame = Frame(np.zeros((20, 40, 3), np.uint8), Path(path).stem, path, item, frame_index=7, is_video=video)
    boxes = np.array([[4, 2, 14, 7], [0, 0, 40, 20]], np.float32)
    return Result(boxes, np.array([0.75, 0.5], np.float32), np.array([1, 0]), NAMES, frame, {}, (32, 32))


def written(folder: Path, *results: Result, **what: bool) -> Path:
    with DetectionFiles(folder, "run", pictures=False, model="best.pt", **what) as files:
        for each in results:
            files.add(each)
    return folder / "run"


def test_coco_is_read_by_pycocotools(tmp_path: Path) -> None:
    folder = written(tmp_path, result("a/b.jpg", 0), result("clip.mp4", 1, video=True), coco=True)
    assert [path.name for path in folder.iterdir()] == ["coco.json"]
    data = COCO(folder / "coco.json")
    assert [each["name"] for each in data.loadCats(data.getCatIds())] == NAMES
    assert [each["file_name"] for each in data.loadImgs([1, 2])] == ["a/b.jpg", "clip_000007.jpg"]
    (first, second) = data.loadAnns(data.getAnnIds(imgIds=[1]))
    assert first["bbox"] == [4, 2, 10, 5] and first["area"] == 50 and first["score"] == 0.75
    assert (first["category_id"], second["category_id"]) == (2, 1) and second["bbox"] == [0, 0, 40, 20]
    assert len(data.getAnnIds()) == 4


def test_csv(tmp_path: Path) -> None:
    import csv

    with open(
        written(tmp_path, result("a.jpg", 0), result("c.mp4", 1, video=True), table=True) / "detections.csv"
    ) as f:
        rows = list(csv.DictReader(f))
    assert rows[0] == {
        "image": "a.jpg", "frame": "", "label": "1", "name": "star, big", "score": "0.75", "x_min": "4.0",
        "y_min": "2.0", "x_max": "14.0", "y_max": "7.0",
    }  # fmt: skip
    assert len(rows) == 4 and rows[2]["frame"] == "7"


def test_label_studio(tmp_path: Path) -> None:
    (task,) = json.loads((written(tmp_path, result("a.jpg", 0), label_studio=True) / "label_studio.json").read_text())
    assert task["data"] == {"image": "a.jpg"}
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == "best.pt" and prediction["score"] == 0.625
    first = prediction["result"][0]
    assert first["value"] == {
        "x": 10, "y": 10, "width": 25, "height": 25, "rotation": 0, "rectanglelabels": ["star, big"],
    }  # fmt: skip
    assert (first["original_width"], first["original_height"], first["score"]) == (40, 20, 0.75)


def test_supervision() -> None:
    supervision = pytest.importorskip("supervision", reason="uv sync --extra supervision")
    found = result("a.jpg", 0).to_supervision()
    assert isinstance(found, supervision.Detections) and len(found) == 2
    assert found.xyxy.tolist() == [[4, 2, 14, 7], [0, 0, 40, 20]] and found.class_id.tolist() == [1, 0]
    assert found["class_name"].tolist() == ["star, big", "circle"] and found.confidence.tolist() == [0.75, 0.5]
    assert found.with_nms(0.9).area.tolist() == [50, 800]


def test_supervision_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ValueError, match="uv sync --extra supervision"):
        result("a.jpg", 0).to_supervision()
