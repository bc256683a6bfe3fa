"""The embedded data set: reproducible, complete or absent, with tight boxes and useful statistics."""

import errno
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data import scenes
from data import synthetic as shapes
from data.coco import read_coco
from data.verify import verify_images

SMALL = {"train": 24, "val": 6, "test": 4, "side": 96, "seed": 3}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes") / "set"
    assert shapes.draw(root, **SMALL, progress=False)
    return root


def test_it_is_a_valid_coco_folder(drawn):
    for split in scenes.SPLITS:
        found = read_coco(drawn / "annotations" / f"{split}.json", drawn / "images" / split, progress=False)
        found = verify_images(found, progress=False)
        assert found.issues == [] and len(found) == SMALL[split] and found.classes == list(scenes.CLASSES)
        assert len(found.points) > len(found.boxes)


def test_an_image_depends_on_seed_split_and_index_alone(drawn):
    image, figures = scenes.draw_image(96, 3, "val", 2)
    again, _ = scenes.draw_image(96, 3, "val", 2)
    np.testing.assert_array_equal(image, again)
    for other in ((96, 4, "val", 2), (96, 3, "train", 2), (96, 3, "val", 1)):
        changed, _ = scenes.draw_image(*other)
        assert changed.shape != image.shape or (changed != image).any()
    stored = cv2.imread(str(drawn / "images" / "val" / "000002.jpg"))[..., ::-1]
    assert stored.shape == image.shape and np.abs(stored.astype(int) - image).mean() < 8


@pytest.mark.slow
def test_boxes_and_polygons_are_tight_around_visible_pixels():
    for index in range(40):
        image, figures = scenes.draw_image(160, 0, "train", index)
        for first, second in ((a, b) for a in figures for b in figures if a is not b):
            assert not (first.mask & second.mask).any()  # visible pixels belong to one figure
        for figure in figures:
            entry = scenes.annotation_fields(figure)
            x, y, width, height = cv2.boundingRect(figure.mask.astype(np.uint8))
            assert entry["bbox"] == [x, y, width, height] and entry["area"] == figure.mask.sum()
            assert figure.mask.sum() >= scenes.MIN_VISIBLE * figure.full_area
            points = np.concatenate([np.reshape(outline, (-1, 2)) for outline in entry["segmentation"]])
            assert (
                np.abs(points.min(0) - [x, y]).max() <= 1 and np.abs(points.max(0) - [x + width, y + height]).max() <= 1
            )


@pytest.mark.parametrize("name", scenes.CLASSES)
def test_contours_fill_the_unit_circle(name):
    for seed in range(5):
        contours = scenes.class_contours(name, np.random.default_rng(seed))
        assert 0.85 < np.abs(contours[0]).max() <= 1.21
        assert abs(scenes._area(contours[0])) > 0.3


@pytest.mark.slow
def test_statistics_suit_training():
    counts = np.zeros(len(scenes.CLASSES))
    empty, sides, numbers = 0, [], []
    for index in range(150):
        image, figures = scenes.draw_image(160, 0, "train", index)
        empty += not figures
        numbers.append(len(figures))
        assert 160 <= max(image.shape[:2]) <= 224
        for figure in figures:
            counts[figure.label] += 1
            sides.append(np.sqrt(figure.mask.sum()))
    assert counts.min() > 0.5 * counts.mean()
    assert 1 <= empty <= 20
    assert min(sides) < 16 and max(sides) > 50 and 2 < np.mean(numbers) < 6


def test_it_is_redrawn_only_for_other_parameters(tmp_path, drawn):
    root = tmp_path / "set"
    small = {**SMALL, "train": 2, "val": 1, "test": 1}
    assert shapes.draw(root, **small, progress=False)
    assert not shapes.draw(root, **small, progress=False)
    assert shapes.draw(root, **{**small, "seed": 4}, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]  # nothing is left next to it
    (root / shapes.STAMP).write_text(json.dumps({**shapes.stamp_of(small, side=96, seed=4), "drawing": 0}))
    assert shapes.draw(root, **{**small, "seed": 4}, progress=False)


def test_a_foreign_folder_is_left_untouched(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="thesis|mine"):
        shapes.draw(tmp_path / "mine", **SMALL, progress=False)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "draw_split", stop)
    with pytest.raises(KeyboardInterrupt):
        shapes.draw(tmp_path / "set", **SMALL, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EACCES, 2)])
def test_a_disk_that_is_full_ends_the_command_with_1(number, code, tmp_path, monkeypatch, capsys):
    def fail(self, content):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(shapes.Path, "write_bytes", fail)
    counts = [word for split in scenes.SPLITS for word in (f"--{split}", "1")]
    assert shapes.main(["--out", str(tmp_path / "set"), *counts, "--side", "64"]) == code
    said = capsys.readouterr().err
    assert os.strerror(number) in said and "000000.jpg" in said and list(tmp_path.iterdir()) == []


def _draw(root):
    shapes.draw(root, train=6, val=2, test=2, side=64, seed=0, progress=False)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_draw, args=(tmp_path / "set",)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(list((tmp_path / "set" / "images" / "train").iterdir())) == 6


@pytest.mark.parametrize("flags", [["--train", "0"], ["--side", "1"], ["--seed", "-1"]])
def test_command_line_refuses_bad_values(tmp_path, flags, capsys):
    assert shapes.main(["--out", str(tmp_path / "x"), *flags]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_the_command_prints_no_warning() -> None:
    command = [sys.executable, "-m", "data.synthetic", "--help"]
    done = subprocess.run(command, cwd=Path(shapes.__file__).parents[1], capture_output=True, text=True, check=True)
    assert done.stderr == "" and "--out" in done.stdout
