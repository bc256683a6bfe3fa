"""Sets and tables of the measurements of class balance and of tiles: boxes against the scenes, counts, commands."""

import json
import math

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

import train
import val
from benchmarks import rare_class, tiles
from benchmarks.trainings import run_logged
from configs.cli import overrides
from data import synthetic
from data.scenes import CLASSES, draw_image


def test_a_rare_class_is_in_as_many_training_images_as_asked(tmp_path, capsys) -> None:
    words = ["--images", "20", "--rare", "3", "--val", "5", "--side", "48"]
    assert rare_class.main([*words, "--out", str(tmp_path / "rare")]) == 0
    synthetic.draw(tmp_path / "plain", train=60, val=5, test=1, side=48, seed=0, progress=False)
    drawn = json.loads((tmp_path / "plain/annotations/train.json").read_text())
    chosen = COCO(str(tmp_path / "rare/annotations/train_rare.json"))
    star = chosen.getCatIds(catNms=["star"])
    assert len(chosen.imgs) == 20 and len(chosen.getImgIds(catIds=star)) == 3
    for image in chosen.imgs:  # with all of its objects
        assert chosen.imgToAnns[image] == [each for each in drawn["annotations"] if each["image_id"] == image]
    files = [tmp_path / name / "annotations/val.json" for name in ("rare", "plain")]
    assert files[0].read_bytes() == files[1].read_bytes()
    for wrong in (["--rare", "21"], ["--images", "0"]):
        with pytest.raises(SystemExit):
            rare_class.main([*words, *wrong, "--out", str(tmp_path / "bad")])
        assert wrong[0] in capsys.readouterr().err and not (tmp_path / "bad").exists()


def test_too_few_images_with_the_class() -> None:
    images = [{"id": 1}, {"id": 2}]
    content = {"images": images, "annotations": [{"image_id": 1, "category_id": 6}], "categories": []}
    with pytest.raises(ValueError, match="expected 3"):
        rare_class.thinned(content, images=3, rare=2)


def test_objects_of_a_sheet_lie_where_their_pixels_are(tmp_path) -> None:
    tiles.draw_sheets(tmp_path, {"train": 2}, seed=3)
    coco = COCO(str(tmp_path / "annotations/train.json"))
    assert [each["name"] for each in coco.cats.values()] == list(CLASSES)
    scenes = [draw_image(160, 3, "train", 9 + cell) for cell in range(9)]
    assert len(coco.imgToAnns[2]) == sum(len(figures) for _, figures in scenes)
    sheet = cv2.imread(str(tmp_path / "images/train/0001.jpg"))[..., ::-1]
    assert sheet.shape == (672, 672, 3)
    found = iter(coco.imgToAnns[2])
    for cell, (scene, figures) in enumerate(scenes):
        row, column = divmod(cell, 3)
        height, width = scene.shape[:2]
        shown = sheet[224 * row :][:height, 224 * column :][:, :width].astype(float)
        assert np.abs(shown - scene).mean() < 12  # JPEG
        for figure, each in zip(figures, found, strict=False):
            mask = coco.annToMask(each)[224 * row :][:height, 224 * column :][:, :width] > 0
            assert each["category_id"] == 1 + figure.label
            assert (mask & figure.mask).sum() >= 0.9 * figure.mask.sum()  # outlines do not have the holes of rings
            rows, columns = (np.flatnonzero(figure.mask.any(axis)) for axis in (1, 0))
            left, top = columns[0] + 224 * column, rows[0] + 224 * row
            assert each["bbox"] == [left, top, np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_all_ways_train_for_as_many_steps() -> None:
    for name, images in (("whole", 40), ("large", 40), ("tiles", 640)):
        flags = tiles.flags_of(name, images, steps=240)
        steps = flags["epochs"] * math.ceil(images / flags["batch"])
        assert abs(steps - 240) <= 2 and 1 / 1.2 < flags["batch"] * flags["imgsz"] ** 2 / (16 * 224**2) < 1.2
    assert tiles.flags_of("whole", 40, steps=1)["epochs"] == 1


def test_the_benchmark_runs_commands_that_the_scripts_accept_and_reads_what_they_leave(tmp_path, monkeypatch) -> None:
    scored = {"large-s0": [0.30], "whole-s0": [0.10, 0.20], "tiles-s0": [0.50]}
    scored |= {"large-s1": [0.34], "whole-s1": [0.12, 0.22], "tiles-s1": [0.56]}

    def fake_training(command, folder, **_) -> None:
        options = overrides(train.parse(command[2:]))
        assert (options["run.name"], options["run.project"]) == (folder.name, str(folder.parent))
        assert options["train.imgsz"] == (672 if folder.name.startswith("large") else 224)
        folder.mkdir(exist_ok=True)
        record = {"times": {"train": 60.0}, "peak_memory_mib": 200.0, "last_epoch": {"step": 300}}
        (folder / "run.json").write_text(json.dumps(record))

    def fake_val(command, log) -> None:
        if "data.tile" in command:
            return run_logged(command, log)
        options = val.parse(command[2:])
        tiled = options.name == "tiled"
        assert options.tile == (224 if tiled else None) and options.data == str(tmp_path / "sheets/coco.yaml")
        score = scored[log.parent.name][-1 if tiled else 0]
        (log.parent / options.name).mkdir()
        numbers = {"numbers": {"mAP50-95": score, "AP_small": 0.25}, "speed_ms": {"a": 3.0, "b": 4.0}}
        (log.parent / options.name / "metrics.json").write_text(json.dumps(numbers))
        return None

    monkeypatch.setattr(tiles, "trained", fake_training)
    monkeypatch.setattr(tiles, "run_logged", fake_val)
    words = ["--out", str(tmp_path), "--sheets", "2", "--val", "1", "--seeds", "2", "--jobs", "2"]
    assert tiles.main(words) == 0
    lines = (tmp_path / "table.md").read_text().splitlines()[2:]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[2] for row in rows] == ["11.0, 1.4", "21.0, 1.4", "32.0, 2.8", "53.0, 4.2"]
    assert [row[4] for row in rows][:2] == ["", "+10.0 [+10.0, +10.0]"]
    reach = 12.706 * 2  # t of one degree of freedom; the differences are 40 and 44, the error of their mean 2
    assert rows[3][4] == f"+42.0 [{42 - reach:+.1f}, {42 + reach:+.1f}]" and rows[3][5:] == ["60", "200", "7"]
    monkeypatch.setattr(tiles, "run_logged", None)  # what was scored is not scored again
    assert tiles.main(words) == 0


def test_bad_numbers(capsys) -> None:
    with pytest.raises(SystemExit):
        tiles.parse(["--jobs", "0"])
    assert "--jobs" in capsys.readouterr().err
