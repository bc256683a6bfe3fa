"""ncnn's files of both families: raw maps as PyTorch's."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.runtime import open_runtime
from tests.deploy.test_dynamic import models  # noqa: F401 - a fixture
from yolo import YOLO

pytestmark = pytest.mark.slow
pytest.importorskip("pnnx", reason="uv sync --extra ncnn")
pytest.importorskip("ncnn", reason="uv sync --extra ncnn")


@pytest.mark.parametrize("family", ["yolo", "darknet"])
def test_maps_are_those_of_pytorch(family: str, models: dict[str, YOLO], tmp_path: Path) -> None:  # noqa: F811
    """The Darknet network leaves half of a split unread, which its converter makes an output of."""
    with suppress(FloatingPointError):  # its own check compares detections of an untrained network
        models[family].export("ncnn", output=tmp_path / "x_ncnn", progress=False)
    (path,) = tmp_path.glob("x*")
    runtime = open_runtime(path, threads=1)
    images = torch.rand(1, 3, *runtime.metadata.imgsz, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = models[family].model.fused()(images)
    for found, map_ in zip(runtime.run(images.numpy()), expected, strict=True):
        np.testing.assert_allclose(found, map_.numpy(), rtol=1e-3, atol=1e-4)
