"""Pictures: every kind is written for few and many classes, and drawn boxes are where they should be at any size."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from core.types import Detections, Targets
from engine.evaluation.coco import coco_stats
from engine.evaluation.evaluate import DrawnBatch
from engine.evaluation.ground_truth import GroundTruth
from engine.pictures.drawing import class_color, draw_detections, font_size, line_width, mosaic, text_color
from engine.pictures.evaluation_plots import plot_confusion, plot_evaluation
from engine.pictures.plots import plot_dataset, plot_labels, plot_results, plot_train_batch
from tests.support.coco import ground_truth


def luminance(color) -> float:
    channels = np.array(color) / 255
    return float(
        np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
    )


def test_colors_are_distinct_and_text_stands_out():
    colors = [class_color(k) for k in range(80)]
    assert len(set(colors)) == 80
    for color in colors:
        low, high = sorted((luminance(color), luminance(text_color(color))))
        assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA


def test_line_and_font_grow_with_the_image():
    sizes = [(32, 32), (320, 320), (640, 480), (3000, 4000)]
    assert [line_width(*size) for size in sizes] == sorted(line_width(*size) for size in sizes)
    assert line_width(320, 320) == 1 and line_width(3000, 4000) > 8
    assert font_size(64, 64) == 10 and font_size(3000, 4000) > 60


@pytest.mark.parametrize("shape", [(8, 8), (20, 60), (240, 320), (1200, 1600)])
def test_drawing_at_any_size(shape):
    """The box's outline has the class colour, the input is not touched, tiny images are enlarged."""
    image = np.full((*shape, 3), 90, np.uint8)
    height, width = shape
    box = [[0.25 * width, 0.5 * height, 0.75 * width, 0.9 * height], [-9, -9, width + 9, 0.2 * height]]
    drawn = draw_detections(
        image, np.array(box), np.array([1, 79]), np.array([0.9, 0.3]), ["a", "a very long name " * 9]
    )
    assert (image == 90).all() and drawn.dtype == np.uint8
    factor = drawn.shape[1] / width
    assert factor == drawn.shape[0] / height and (factor == 1) == (max(shape) >= 200)
    bottom, middle = round(0.9 * height * factor), round(0.5 * width * factor)
    line = drawn[bottom - 12 : bottom + 12, middle]
    assert (line == class_color(1)).all(axis=1).any()


def test_drawing_nothing_and_without_names():
    image = np.zeros((300, 300, 3), np.uint8)
    assert (draw_detections(image, np.zeros((0, 4)), np.zeros(0)) == 0).all()
    assert draw_detections(image, np.array([[5, 5, 50, 50]]), np.array([123])).any()
    assert draw_detections(image, np.full((1, 4), np.nan), np.array([0])).shape == image.shape


def test_labels_leave_a_crowded_image_visible():
    """With 300 boxes every box is drawn, and labels cover a fifth of the image at most."""
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 500, (300, 2))
    boxes = np.concatenate([corner, corner + 4], axis=1)
    image = np.full((600, 600, 3), 77, np.uint8)
    drawn = draw_detections(image, boxes, np.zeros(300, int), generator.random(300), ["person"])
    changed = np.any(drawn != 77, axis=2)
    assert 0.05 < changed.mean() < 0.35
    centres = (corner + 2).astype(int)
    assert changed[centres[:, 1] - 2, centres[:, 0]].all()


def test_mosaic_keeps_boxes_on_their_objects():
    """White squares in black tiles: the outline in the class colour surrounds each square of the mosaic."""
    images = np.zeros((5, 3, 100, 100), np.uint8)
    images[:, :, 40:80, 30:70] = 255
    boxes = [np.array([[30, 40, 70, 80]], np.float32)] * 4 + [np.zeros((0, 4), np.float32)]
    labels = [np.array([0])] * 4 + [np.zeros(0, np.int64)]
    picture = mosaic(images, boxes, labels, names=["square"])
    colored = np.all(picture == class_color(0), axis=2)
    white = np.all(picture > 250, axis=2)
    assert colored.any()
    height, width = picture.shape[0] // 2, picture.shape[1] // 3
    for row, column in ((0, 0), (0, 1), (0, 2), (1, 0)):
        tile = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
        ys, xs = np.nonzero(colored[tile])
        assert white[tile][ys.min() : ys.max(), xs.min() : xs.max()].mean() > 0.5


def synthetic(classes: int) -> tuple[GroundTruth, np.ndarray]:
    generator = np.random.default_rng(classes)
    annotations, rows = [], []
    for k in range(120):
        box = [*generator.uniform(0, 200, 2), *generator.uniform(5, 90, 2)]
        entry = {
            "id": k + 1,
            "image_id": k % 12 + 1,
            "category_id": int(generator.integers(1, classes + 1)),
            "bbox": box,
        }
        annotations.append(entry)
        rows.append([entry["image_id"], *box, generator.random(), generator.integers(1, classes + 1)])
    images = [{"id": i} for i in range(1, 13)]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, classes + 1)]
    return ground_truth({"images": images, "categories": categories, "annotations": annotations}), np.array(rows)


def written(folder) -> dict[str, Any]:
    return {path.name: cv2.imread(str(path)) for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 8, 80])
def test_pictures_of_an_evaluation(tmp_path, classes):
    truth, predictions = synthetic(classes)
    counts = np.random.default_rng(0).integers(0, 30_000, (classes + 1, classes + 1)) * np.eye(classes + 1, dtype=int)
    batch = DrawnBatch(
        images=torch.zeros(2, 3, 64, 96, dtype=torch.uint8),
        paths=["one.jpg", "two.jpg"],
        target_boxes=[np.array([[4, 4, 40, 40]]), np.zeros((0, 4))],
        target_labels=[np.array([0]), np.zeros(0, int)],
        detections=[
            Detections(torch.tensor([[4.0, 4, 40, 40], [8, 8, 20, 20]]), torch.tensor([0.9, 0.1]), torch.tensor([0, 0]))
        ]
        * 2,
    )
    stats = coco_stats(truth, predictions, backend="fast")
    plot_evaluation(tmp_path, SimpleNamespace(stats=stats, confusion=counts, truth=truth, drawn=[batch]))
    pictures = written(tmp_path)
    assert set(pictures) == {
        "PR_curve.png",
        "F1_curve.png",
        "confusion_matrix.png",
        "confusion_matrix_normalized.png",
        "val_batch0_labels.jpg",
        "val_batch0_pred.jpg",
    }
    assert all(picture is not None and picture.std() > 1 for picture in pictures.values())


@pytest.mark.slow
def test_pictures_where_there_is_nothing(tmp_path):
    truth = ground_truth({"images": [{"id": 1}], "categories": [{"id": 1, "name": "x"}], "annotations": []})
    stats = coco_stats(truth, np.zeros((0, 7)), backend="fast")
    empty = SimpleNamespace(stats=stats, confusion=np.zeros((2, 2), int), truth=truth, drawn=[])
    plot_evaluation(tmp_path, empty)
    plot_labels(
        tmp_path / "labels.png", boxes=np.zeros((0, 4)), labels=np.zeros(0), boxes_per_image=np.zeros(2), names=["x"]
    )
    plot_confusion(tmp_path / "again.png", np.zeros((2, 2), int), ["x"], normalise=True)
    assert all(picture is not None for picture in written(tmp_path).values())


@pytest.mark.slow
def test_results_and_labels(tmp_path):
    rows: list[dict[str, Any]] = [
        {"epoch": 1, "train/box_loss": "1.5", "lr": "0.01", "metrics/mAP50-95": "", "time_train_s": "2.0"},
        {"epoch": 2, "train/box_loss": 1.2, "lr": 0.01, "metrics/mAP50-95": 0.3, "metrics/AP_small": -1},
    ]
    plot_results(tmp_path / "results.png", rows)
    plot_results(tmp_path / "one.png", rows[:1])
    plot_results(tmp_path / "none.png", [])
    plot_results(tmp_path / "slowed.png", [{**rows[0], "time_contended_s": 1.5}, rows[1]])
    terms = {f"train/{name}_loss": 1.0 for name in ("box", "cls", "dfl", "l1", "iou")}
    plot_results(tmp_path / "five.png", [{"epoch": 1, **terms}])
    generator = np.random.default_rng(0)
    plot_labels(
        tmp_path / "labels.png",
        boxes=generator.random((500, 4)),
        labels=generator.integers(0, 80, 500),
        boxes_per_image=generator.integers(0, 60, 40),
        names=[f"class {k}" for k in range(80)],
        title="train",
    )
    split = SimpleNamespace(
        starts=np.array([0, 2, 2, 3]),
        sizes=np.array([[100, 50], [10, 10], [0, 0]]),
        boxes=np.array([[-10, 0, 60, 50], [0, 0, 9, 9], [1, 1, 2, 2]], float),
        labels=np.array([0, 1, 1]),
        crowd=np.array([False, True, False]),
        classes=["a", "b"],
    )
    plot_dataset(tmp_path / "split.png", split)
    batch = SimpleNamespace(
        images=torch.zeros(3, 3, 32, 32, dtype=torch.uint8),
        targets=Targets.collate(
            [np.array([[2, 2, 9, 9]], np.float32)] + [np.zeros((0, 4), np.float32)] * 2,
            [np.array([1]), np.zeros(0), np.zeros(0)],
        ),
        paths=["a", "b", "c"],
    )
    plot_train_batch(tmp_path / "train_batch0.jpg", batch, ["a", "b"])
    pictures = written(tmp_path)
    names = ("results.png", "one.png", "slowed.png", "five.png", "labels.png", "split.png", "train_batch0.jpg")
    assert set(pictures) == set(names)
    assert pictures["one.png"].shape[1] * 6 == pictures["five.png"].shape[1] * 4  # a panel per loss term, at least 4
