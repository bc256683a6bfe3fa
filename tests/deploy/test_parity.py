"""The check after an export: it passes equal outputs and fails each kind of difference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.options import NmsOptions
from core.types import Detections
from deploy.images import draw_images
from deploy.parity import TOLERANCES, Parity, _match, compare
from deploy.runtime import DeployedDetector, Runtime
from models import Detector
from tests.support.checkpoints import class_names, write_data
from tests.support.exports import METADATA

SIDE = 64


class Changed(Runtime):
    """PyTorch's own outputs, changed by a function."""

    description = "a stand-in"

    def __init__(self, model: Detector, change) -> None:
        self.model, self.change = model, change
        self.metadata = replace(METADATA, names=model.names, stride=model.stride, imgsz=(SIDE, SIDE))

    @torch.no_grad()
    def run(self, images: np.ndarray) -> list[np.ndarray]:
        boxes, scores = self.model.decode(self.model(torch.from_numpy(images)))
        return [each.numpy() for each in self.change(boxes.clone(), scores.clone())]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    from configs.schema import load
    from tests.support.checkpoints import lively

    folder = tmp_path_factory.mktemp("data")
    data = write_data(folder)
    small = Path(__file__).parents[1] / "support/small.yaml"
    return lively(load(small, {"data": str(data)}), class_names(folder / "shapes")).fused()


def check(model: Detector, change) -> Parity:
    deployed = DeployedDetector(Changed(model, change), model, path=Path("x.onnx"))
    return compare(model, deployed, draw_images(2), imgsz=(SIDE, SIDE), iou=0.7, max_det=300)


def test_equal_outputs(model: Detector) -> None:
    parity = check(model, lambda boxes, scores: (boxes, scores))
    assert parity.holds and parity.score == parity.overlap == parity.pair_overlap == 0
    assert parity.pairs == parity.expected == parity.found > 10


@pytest.mark.parametrize(
    "change",
    [
        lambda boxes, scores: (boxes + 1, scores),
        lambda boxes, scores: (boxes, scores + 0.002),
        lambda boxes, scores: (boxes, scores.roll(1, -1)),
        lambda boxes, scores: (boxes[..., [1, 0, 3, 2]], scores),
        lambda boxes, scores: (boxes, scores * 0),
    ],
    ids=["shifted", "scores", "classes", "x and y", "nothing"],
)
def test_differences(model: Detector, change) -> None:
    parity = check(model, change)
    assert not parity.holds
    assert "at most" in "".join(parity.lines())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda boxes, scores: (boxes * float("nan"), scores), "not finite"),
        (lambda boxes, scores: (boxes[:, :-1], scores), "outputs of"),
    ],
)
def test_what_cannot_be_compared(model: Detector, change, expected: str) -> None:
    with pytest.raises(FloatingPointError, match=expected):
        check(model, change)


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = torch.tensor(rows).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


def test_close_calls_are_no_differences() -> None:
    limits, options = TOLERANCES["fp32"], NmsOptions(0.25, 0.5, 300)
    sure = (0.0, 0.0, 10.0, 10.0, 0.9, 0)
    assert _match(detections(sure), detections(sure), options, limits)[:2] == (1, 0)
    # Its score is at the threshold: one of both sides may miss it.
    assert _match(detections(sure, (50, 50, 60, 60, 0.2505, 0)), detections(sure), options, limits)[:2] == (1, 0)
    assert _match(detections(sure, (50, 50, 60, 60, 0.5, 0)), detections(sure), options, limits)[:2] == (1, 1)
    # Its overlap with a better one is at the threshold of NMS: two thirds of each are shared.
    near = (0.0, 5.0 - 5 / 3, 10.0, 15.0 - 5 / 3, 0.6, 0)
    assert _match(detections(sure, near), detections(sure), options, limits)[:2] == (1, 0)
    assert _match(detections(sure), detections((*sure[:5], 1)), options, limits)[:2] == (0, 2)
