"""ncnn's files of both families: raw maps as PyTorch's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.runtime import open_runtime
from tests.support.exports import export
from yolo import YOLO


@pytest.mark.slow
@pytest.mark.parametrize("family", ["yolo", "darknet"])
def test_maps_are_those_of_pytorch(family: str, models: dict[str, YOLO], tmp_path: Path) -> None:
    """The Darknet network leaves half of a split unread, which its converter makes an output of."""
    runtime = open_runtime(export(models[family], "ncnn", tmp_path), threads=1)
    images = torch.rand(1, 3, *runtime.metadata.imgsz, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = models[family].model.fused()(images)
    for found, expected in zip(runtime.run(images.numpy()), maps, strict=True):
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)
