"""val.py: the numbers it prints are those of its files, and bad input is refused in one line."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import val
from tests.checkpoints import write_checkpoint, write_data
from tests.scripts import run, tree

PICTURES = {"PR_curve.png", "F1_curve.png", "confusion_matrix.png", "confusion_matrix_normalized.png"}
SAMPLES = {"val_batch0_labels.jpg", "val_batch0_pred.jpg"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("val")
    data = write_data(folder)
    categories = json.loads((folder / "shapes/annotations/val.json").read_text())["categories"]
    names = [category["name"] for category in categories]
    write_checkpoint(folder / "best.pt", data, names)
    write_checkpoint(folder / "other.pt", data, [*names[:-1], "arrows"])
    write_checkpoint(folder / "fewer.pt", data, names[:-1])
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


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


def test_splits_data_and_square_images(place: Path, here: Path) -> None:
    arguments = ["--weights", place / "best.pt", "--data", place / "shapes.yaml", "--conf", 0.5, "--project", "out"]
    assert run(val.main, "val.py", *arguments, "--split", "test", "--no-rect", "--img", 64, "--max-det", 7) == 0
    predictions = json.loads((here / "out/exp/predictions.json").read_text())
    counts = {entry["image_id"]: 0 for entry in predictions}
    for entry in predictions:
        counts[entry["image_id"]] += 1
    assert len(counts) == 3 and max(counts.values()) == 7
    assert run(val.main, "val.py", *arguments, "--split", "train", "--single-cls", "--name", "one") == 0
    assert len(json.loads((here / "out/one/metrics.json").read_text())["classes"]) == 1


CASES = {
    "no weights": ("", "--weights is needed.*train.py"),
    "weights missing": ("--weights none.pt", "none.pt"),
    "weights truncated": ("--weights short.pt", "short.pt"),
    "weights are another file": ("--weights data.yaml", "data.yaml"),
    "classes differ in a name": ("--weights other.pt", "class 5 is 'star' there and 'arrows'"),
    "classes differ in number": ("--weights fewer.pt", "6 classes.*have 5"),
    "data missing": ("--weights W --data none.yaml", "none.yaml"),
    "data with a misspelt key": ("--weights W --data misspelt.yaml", "vall.*val"),
    "data is not YAML": ("--weights W --data broken.yaml", "broken.yaml"),
    "data without the split": ("--weights W --data data.yaml --split test", "test.*train, val"),
    "annotations missing": ("--weights W --data away.yaml", "away.json"),
    "annotations are not COCO": ("--weights W --data list.yaml", "list.json"),
    "annotations are not JSON": ("--weights W --data text.yaml", "text.json"),
    "no images": ("--weights W --data vacant.yaml", "vacant.json"),
    "split misspelt": ("--weights W --split vall", "vall"),
    "side not divisible": ("--weights W --imgsz 100", "imgsz.*100.*96"),
    "batch zero": ("--weights W --batch 0", "batch"),
    "batch not a number": ("--weights W --batch many", "many"),
    "workers negative": ("--weights W --workers=-1", "workers"),
    "conf above one": ("--weights W --conf 2", "conf.*2"),
    "iou above one": ("--weights W --iou 45", "iou.*45"),
    "max-det zero": ("--weights W --max-det 0", "max_det"),
    "device not there": ("--weights W --device cuda:9", "cuda:9"),
    "half on a CPU": ("--weights W --half --device cpu", "half.*GPU"),
    "flag unknown": ("--weights W --bach 4", "--bach"),
    "flag without a meaning": ("--weights W --augment", "--augment"),
    "name leads out": ("--weights W --name ../up", "../up"),
    "project is a file": ("--weights W --project data.yaml", "data.yaml"),
}


def write_data_files(folder: Path, place: Path) -> None:
    """Data YAMLs with one fault each, and what they name."""
    annotations = {"list": "[1, 2]", "text": "hello", "vacant": '{"images": [], "annotations": [], "categories": []}'}
    for name, text in annotations.items():
        (folder / f"{name}.json").write_text(text)
    good = {"images": str(place / "shapes/images/val"), "annotations": str(place / "shapes/annotations/val.json")}
    for name in ("away", *annotations):
        split = {**good, "annotations": f"{name}.json"}
        (folder / f"{name}.yaml").write_text(json.dumps({"train": good, "val": split}))
    (folder / "data.yaml").write_text(json.dumps({"train": good, "val": good}))
    (folder / "misspelt.yaml").write_text(json.dumps({"train": good, "val": good, "vall": good}))
    (folder / "broken.yaml").write_text("train: {images: [")


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str, place: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_data_files(here, place)
    weights = (place / "best.pt").read_bytes()
    (here / "short.pt").write_bytes(weights[: len(weights) // 2])
    for name in ("other.pt", "fewer.pt"):
        shutil.copy(place / name, here / name)
    before = tree(here)
    line, expected = CASES[case]
    arguments = [str(place / "best.pt") if word == "W" else word for word in line.split()]
    assert run(val.main, "val.py", *arguments) == 2
    err = capfd.readouterr().err
    assert err.startswith("val.py: error: ") and err.count("\n") == 1 and "Traceback" not in err
    assert re.search(expected, err), err
    assert tree(here) == before
