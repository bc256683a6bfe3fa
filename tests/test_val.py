"""val.py: the numbers it prints are those of its files."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import val
from engine.evaluation.coco import BOX_DECIMALS
from tests.support.scripts import run
from yolo import YOLO

PICTURES = {"PR_curve.png", "F1_curve.png", "confusion_matrix.png", "confusion_matrix_normalized.png"}
SAMPLES = {"val_batch0_labels.jpg", "val_batch0_pred.jpg"}


@pytest.mark.slow
def test_the_headline_is_pycocotools_own(place: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its numbers come out again when pycocotools reads the written predictions."""
    assert run(val.main, "val.py", "--weights", place / "best.pt", "--conf-thres", 0.2, "--batch-size", 4) == 0
    out = capsys.readouterr().out
    folder = here / "runs/val/exp"
    assert {path.name for path in folder.iterdir()} == PICTURES | SAMPLES | {
        "predictions.json", "metrics.json", *(f"val_batch1_{kind}.jpg" for kind in ("labels", "pred")),
    }  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(place / "shapes/annotations/val.json")
        evaluation = COCOeval(truth, truth.loadRes(str(folder / "predictions.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    for (name, value), expected in zip(metrics["numbers"].items(), evaluation.stats, strict=True):
        assert value == (None if expected == -1 else expected)
        assert re.search(rf"^  {re.escape(name)} +{'-' if expected == -1 else f'{expected:.4f}'}$", out, re.M)
    assert metrics["images"] == 6 and set(metrics["speed_ms"]) == {"preprocess", "inference", "nms"}
    assert len(metrics["classes"]) == 6 and all(row["name"] in out for row in metrics["classes"])
    assert "results in runs/val/exp" in out


@pytest.mark.slow
def test_splits_data_and_square_images(place: Path, here: Path) -> None:
    arguments = ["--weights", place / "best.pt", "--data", place / "shapes.yaml", "--conf", 0.5, "--project", "out"]
    assert run(val.main, "val.py", *arguments, "--split", "test", "--no-rect", "--img", 64, "--max-det", 7) == 0
    predictions = json.loads((here / "out/exp/predictions.json").read_text())
    counts = {entry["image_id"]: 0 for entry in predictions}
    for entry in predictions:
        counts[entry["image_id"]] += 1
    assert len(counts) == 3 and max(counts.values()) == 7
    assert run(val.main, "val.py", *arguments, "--split", "train", "--single-cls", "--name", "one", "--errors") == 0
    assert {"errors.html", "errors.csv", "label_suspects.csv"} <= {path.name for path in (here / "out/one").iterdir()}
    assert len((here / "out/one/errors.csv").read_text().splitlines()) == 1 + 2
    assert len(json.loads((here / "out/one/metrics.json").read_text())["classes"]) == 1


@pytest.mark.slow
def test_tiles_are_scored_on_the_whole_images(place: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images no larger than a tile have the numbers of ordinary evaluation; others the boxes of `predict` in tiles."""
    arguments = ["--weights", place / "best.pt", "--conf", 0.2, "--exist-ok"]
    found = {}
    for name, tile in (("whole", []), ("large", ["--tile", 96]), ("small", ["--tile", 64])):
        assert run(val.main, "val.py", *arguments, "--name", name, *tile) == 0
        found[name] = [
            json.loads((here / f"runs/val/{name}/{file}.json").read_text()) for file in ("metrics", "predictions")
        ]
    assert found["large"][0]["numbers"] == found["whole"][0]["numbers"] != found["small"][0]["numbers"]
    model = YOLO(place / "best.pt", device="cpu")
    images = json.loads((place / "shapes/annotations/val.json").read_text())["images"]
    paths = [place / "shapes/images/val" / image["file_name"] for image in images]
    expected = model.predict(paths, conf=0.2, tile=64, imgsz=model.imgsz)
    assert {tuple(row["bbox"][:2]) for row in found["small"][1]} >= {
        (round(float(box[0]), BOX_DECIMALS), round(float(box[1]), BOX_DECIMALS))
        for result in expected
        for box in result.boxes[:1]
    }
    assert all(
        row["bbox"][0] + row["bbox"][2] <= image["width"] + 0.01
        for row in found["small"][1]
        for image in images
        if image["id"] == row["image_id"]
    )
    capsys.readouterr()
    assert run(val.main, "val.py", *arguments, "--tile", 64, "--single-cls") == 2
    assert "tile: the 6 classes of" in capsys.readouterr().err
