"""Every activation of the table through ONNX Runtime, and NMS inside the file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.options import NmsOptions
from deploy.network import Exportable
from deploy.options import ExportOptions
from models.activations import ACTIVATION_NAMES
from models.decode import nms
from tests.support.exports import METADATA, Everything, run_everything

pytest.importorskip("onnxscript", reason="uv sync --extra onnx")
pytest.importorskip("onnxruntime", reason="uv sync --extra onnx")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, dict[str, Tensor]]:
    """An input from -100 to 100, and what ONNX Runtime makes of it by each form of Mish."""
    x, formula = run_everything("onnx", "formula", tmp_path_factory.mktemp("onnx"))
    return x, {"formula": formula, "op": run_everything("onnx", "op", tmp_path_factory.mktemp("onnx"))[1]}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ACTIVATION_NAMES, "swish, learned"])
def test_every_activation(name: str, outputs: tuple[Tensor, dict[str, Tensor]]) -> None:
    x, found = outputs
    place = [*ACTIVATION_NAMES, "swish, learned"].index(name)
    with torch.no_grad():
        expected = Everything().layers[place](x.double() if name.startswith("mish_") else x)
    for form, all_outputs in found.items():
        # ONNX Runtime's sigmoid stays at 1.5e-8 below x = -18, here multiplied by up to 175.
        result = all_outputs[place]
        torch.testing.assert_close(result, expected.float(), rtol=3e-6, atol=4e-6, msg=form)


class Boxes(nn.Module):
    """Boxes and scores that are the input: channel 0 to 2 of each pixel hold the scores, the boxes are fixed."""

    stride = 1

    def __init__(self, boxes: Tensor) -> None:
        super().__init__()
        self.register_buffer("boxes", boxes)

    def forward(self, images: Tensor) -> Tensor:
        return images

    def fused(self) -> nn.Module:
        return self

    def decode(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        scores = outputs.flatten(2).transpose(1, 2)
        return self.boxes + 0 * scores[..., :1], scores


@pytest.mark.slow
def test_nms_inside_is_that_of_the_project(tmp_path: Path) -> None:
    from deploy.onnx import open_file, write_file

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(1, 400, 2, generator=generator) * 40
    boxes = torch.cat((corners, corners + 5 + 10 * torch.rand(1, 400, 2, generator=generator)), -1)
    path = tmp_path / "nms.onnx"
    options = ExportOptions(nms=True, conf=0.3, iou=0.5, max_det=7)
    inside = replace(METADATA, nms=replace(METADATA.nms, inside=True), outputs="detections")
    write_file(Exportable(Boxes(boxes), mish="formula", dtype=torch.float32), path, options, inside)
    runtime = open_file(path, threads=1)
    for scale in (1.0, 0.31, 0.1):  # many detections, few, none
        scores = scale * torch.rand(1, 3, 20, 20, generator=generator)
        (found,) = runtime.run(scores.numpy())
        network = Boxes(boxes)
        (expected,) = nms(*network.decode(scores), **vars(NmsOptions(0.3, 0.5, 7)))
        assert found.shape == (len(expected.scores), 6) and (scale < 0.2) == (len(found) == 0)
        np.testing.assert_allclose(found[:, :4], expected.boxes.numpy(), atol=1e-5)
        np.testing.assert_array_equal(found[:, 4], expected.scores.numpy())
        np.testing.assert_array_equal(found[:, 5], expected.labels.numpy())
