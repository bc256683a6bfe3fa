"""A model over a loader: boxes mapped back, scored, the same for every batch size."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from core.geometry import Geometry
from core.options import NmsOptions
from core.types import Detections, Targets
from engine.evaluation.coco import coco_stats, write_predictions
from engine.evaluation.evaluate import evaluate
from tests.engine.evaluation.test_coco import tiny_truth
from tests.support.coco import ground_truth, prediction_rows


@dataclass
class StubBatch:
    images: torch.Tensor
    targets: Targets
    image_ids: list
    geometries: list
    paths: list
    crc32: int = 0
    preprocess_ms: float = 4.0


class StubDetector(nn.Module):
    """Finds what is written into the first pixels of an image: number of the image in `answers`."""

    def __init__(self, answers: list[tuple[list, list, list]]) -> None:
        super().__init__()
        self.answers = answers
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images):
        assert not self.training and images.dtype == self.weight.dtype
        return (images[:, 0, 0, 0].float() * 255).round().long()

    def decode(self, outputs):
        return outputs, outputs

    def loss(self, outputs, targets):
        return outputs.float().sum(), {"box": outputs.float().mean(), "cls": targets.mask.float().sum()}

    def nms(self, boxes, scores, options):
        found = []
        for number in boxes.tolist():
            corners, sure, labels = self.answers[number]
            kept = [k for k, score in enumerate(sure) if score > options.conf][: options.max_det]
            found.append(
                Detections(
                    torch.tensor([corners[k] for k in kept], dtype=torch.float32).reshape(-1, 4),
                    torch.tensor([sure[k] for k in kept], dtype=torch.float32),
                    torch.tensor([labels[k] for k in kept], dtype=torch.int64),
                )
            )
        return found


def stub_run(batch_size: int, **options):
    """The tiny truth seen by a network at twice its size with 8 pixels of padding on the left."""
    geometry = Geometry(2.0, 2.0, 8.0, 0.0, 100, 100)
    answers = [
        ([[28, 20, 108, 100], [128, 120, 168, 160]], [0.9, 0.61234567], [0, 1]),
        ([[-40, 0, 108, 100], [400, 0, 500, 50]], [0.8, 0.7], [0, 0]),  # clipped to an exact hit; wholly outside
    ]
    images = torch.zeros(2, 3, 208, 216, dtype=torch.uint8)
    images[1, 0, 0, 0] = 1
    targets = Targets.collate([np.zeros((1, 4), np.float32), np.zeros((0, 4), np.float32)], [np.zeros(1), np.zeros(0)])
    whole = StubBatch(images, targets, [10, 20], [geometry] * 2, ["10.jpg", "20.jpg"])
    batches = []
    for start in range(0, 2, batch_size):
        part = slice(start, start + batch_size)
        cut = Targets(targets.boxes[part], targets.labels[part], targets.mask[part])
        batches.append(StubBatch(images[part], cut, whole.image_ids[part], [geometry] * batch_size, whole.paths[part]))
    model = StubDetector(answers)
    nms = NmsOptions(conf=0.001, iou=0.7, max_det=300, multi_label=True)
    result = evaluate(model, batches, truth=ground_truth(tiny_truth()), nms=nms, **options)
    assert model.training  # as it was before
    return result


@pytest.mark.parametrize("official", [False, True])
def test_evaluate_maps_boxes_back_and_scores_them(tmp_path, official):
    result = stub_run(2, official=official, loss=True)
    assert result.stats.numbers["mAP50-95"] == pytest.approx(1.0)
    assert result.stats.backend == ("pycocotools" if official else "fast")
    assert result.predictions.tolist() == [
        [10, 10, 10, 40, 40, 0.9, 3],
        [10, 60, 60, 20, 20, 0.61235, 7],
        [20, 0, 0, 50, 50, 0.8, 3],
    ]
    assert result.confusion.tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert result.losses == pytest.approx({"box": 0.5, "cls": 1.0})
    assert result.speed["preprocess"] == pytest.approx(2.0) and result.speed["inference"] >= 0
    assert [len(each.boxes) for each in result.drawn[0].detections] == [2, 2]
    assert [len(boxes) for boxes in result.drawn[0].target_boxes] == [1, 0]


def test_evaluate_does_not_depend_on_the_batch_size(tmp_path):
    one, two = stub_run(1), stub_run(2)
    np.testing.assert_array_equal(one.predictions, two.predictions)
    assert one.stats.numbers == two.stats.numbers


def test_written_predictions_give_the_same_numbers(tmp_path):
    result = stub_run(2, official=True)
    write_predictions(tmp_path / "predictions.json", result.predictions, result.truth)
    entries = json.loads((tmp_path / "predictions.json").read_text())
    assert entries[1] == {"image_id": 10, "category_id": 7, "bbox": [60.0, 60.0, 20.0, 20.0], "score": 0.61235}
    assert coco_stats(result.truth, prediction_rows(entries, result.truth)).numbers == result.stats.numbers
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []
