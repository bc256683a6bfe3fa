"""Programs take the data sets of other trainers as they are."""

import json
from pathlib import Path

import pytest
import yaml

import train
import val
from data.synthetic import draw
from data.tools import check
from engine.run_record import read_record
from tests.support.scripts import run
from tests.support.training import SMALL

pytestmark = pytest.mark.slow

SIDE = 64


def write_yolo(folder: Path) -> Path:
    """The drawn data set with YOLO labels instead of COCO's, as Ultralytics lays it out; returns the data YAML."""
    draw(folder, train=6, val=3, test=1, side=SIDE, seed=3, progress=False)
    for split in ("train", "val"):
        content = json.loads((folder / f"annotations/{split}.json").read_text())
        (folder / f"labels/{split}").mkdir(parents=True)
        for image in content["images"]:
            width, height = image["width"], image["height"]
            lines = []
            for each in content["annotations"]:
                if each["image_id"] == image["id"]:
                    x, y, w, h = each["bbox"]
                    centre, size = ((x + w / 2) / width, (y + h / 2) / height), (w / width, h / height)
                    lines.append(" ".join(f"{value:.8f}" for value in (each["category_id"] - 1, *centre, *size)))
            (folder / f"labels/{split}" / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
    names = {category["id"] - 1: category["name"] for category in content["categories"]}
    splits = {"train": "images/train", "val": "images/val", "test": "images/gone"}
    (folder / "ultra.yaml").write_text(yaml.safe_dump({"path": ".", **splits, "nc": len(names), "names": names}))
    return folder / "ultra.yaml"


@pytest.mark.usefixtures("no_pictures")
def test_a_yolo_set_is_trained_on_checked_and_evaluated_like_the_same_in_coco(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_yolo(tmp_path / "set")
    lines = (
        f"{split}: {{images: images/{split}, annotations: annotations/{split}.json}}\n" for split in ("train", "val")
    )
    (tmp_path / "coco.yaml").write_text("root: set\n" + "".join(lines))
    options = ["--imgsz", SIDE, "--batch", 3, "--workers", 0, "--no-amp", "--set", "run.loggers=[]"]
    losses = []
    for source in (data, tmp_path / "coco.yaml"):
        arguments = ["--cfg", SMALL, "--epochs", 1, "--data", source, *options, "--name", source.stem]
        assert run(train.main, "train.py", *arguments) == 0
        row = (tmp_path / f"runs/train/{source.stem}/results.csv").read_text().splitlines()[-1]
        losses.append([float(value) for value in row.split(",")[1:4]])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # the boxes are rounded, and there are no outlines
    err = capsys.readouterr().err
    assert err.count("converted to COCO") == 1 and err.count("images/gone") == 1
    assert set(read_record(tmp_path / "runs/train/ultra")["config"]["data"]) >= {"train", "val"}
    assert run(check.main, "data.check", data) == 0
    weights = tmp_path / "runs/train/ultra/weights/best.pt"
    weights = weights if weights.is_file() else weights.with_name("last.pt")
    assert run(val.main, "val.py", "--weights", weights, "--workers", 0) == 0
    assert run(val.main, "val.py", "--weights", weights, "--workers", 0, "--data", data, "--split", "test") == 2
    assert run(train.main, "train.py", "--resume", "runs/train/ultra/weights/last.pt") in (0, 2)
