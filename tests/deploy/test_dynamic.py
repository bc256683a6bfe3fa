"""Dynamic files of both families, with a learned activation, on batches and sizes that they were not traced with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.runtime import open_runtime
from tests.support.exports import export, predictions
from yolo import YOLO

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", ["yolo", "darknet"])
@pytest.mark.parametrize("target", ["onnx", "torchscript", "openvino", "torch_export"])
def test_a_dynamic_file_takes_any_batch_and_multiple_of_the_stride(
    target: str, family: str, models: dict[str, YOLO], tmp_path: Path
) -> None:
    model = models[family]
    runtime = open_runtime(export(model, target, tmp_path, dynamic=True), threads=1)
    assert runtime.metadata.dynamic
    stride = model.model.stride
    for batch, rows, columns in ((1, 3, 5), (3, 12, 7), (2, 6, 6), (1, 2, 4)):
        images = torch.rand(batch, 3, rows * stride, columns * stride, generator=torch.Generator().manual_seed(rows))
        found, expected = runtime.run(images.numpy()), predictions(model, images)
        for ours, theirs, atol in zip(found, expected, (0.02, 1e-4), strict=True):
            assert ours.shape == theirs.shape and ours.shape[0] == batch
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=atol)


def test_a_size_that_torch_export_refuses_is_named(models: dict[str, YOLO], tmp_path: Path) -> None:
    runtime = open_runtime(export(models["yolo"], "torch_export", tmp_path, dynamic=True), threads=1)
    with pytest.raises(ValueError, match=r"x\.pt2: cannot run images of 8x32 pixels"):
        runtime.run(np.zeros((1, 3, 8, 32), np.float32))
