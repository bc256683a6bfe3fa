"""Dynamic files of both families, with a learned activation, on batches and sizes that they were not traced with."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.runtime import open_runtime
from deploy.targets import TARGETS
from tests.models.darknet.cfgs import DETECTOR_6, values, weights
from tests.models.darknet.oracle import count
from tests.support.checkpoints import class_names, write_checkpoint, write_data
from yolo import YOLO

pytestmark = pytest.mark.slow
PACKAGES = {"onnx": ("onnxscript", "onnxruntime"), "openvino": ("onnxscript", "openvino")}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, YOLO]:
    """A small network of each family; that of the project has a Swish whose beta is learned."""
    folder = tmp_path_factory.mktemp("models")
    act = {"name": "swish", "beta": 1.3, "learnable": True}
    data = write_data(folder)
    write_checkpoint(
        folder / "best.pt", data, class_names(folder / "shapes"), **{"model.levels": [2, 3], "model.act": act}
    )
    (folder / "x.cfg").write_text(DETECTOR_6)
    (folder / "x.weights").write_bytes(weights(values(count(DETECTOR_6), seed=1)))
    darknet = YOLO(folder / "x.weights", cfg=folder / "x.cfg", device="cpu")
    return {"yolo": YOLO(folder / "best.pt", device="cpu"), "darknet": darknet}


def export(model: YOLO, target: str, folder: Path) -> Path:
    """A dynamic file, under another name if its own check fails, which compares detections: an untrained network has
    thousands, whose suppression hangs on the last digits."""
    for package in PACKAGES.get(target, ()):
        pytest.importorskip(package, reason=f"uv sync --extra {target}")
    with suppress(FloatingPointError):
        model.export(target, output=folder / f"x{TARGETS[target].suffix}", progress=False, dynamic=True)
    (written,) = folder.glob("x*")
    return written


@torch.no_grad()
def predictions(model: YOLO, images: torch.Tensor) -> list[np.ndarray]:
    """Boxes and scores of the network in PyTorch."""
    network = model.model.fused()
    return [each.numpy() for each in network.decode(network(images))]


@pytest.mark.parametrize("family", ["yolo", "darknet"])
@pytest.mark.parametrize("target", ["onnx", "torchscript", "openvino", "torch_export"])
def test_a_dynamic_file_takes_any_batch_and_multiple_of_the_stride(
    target: str, family: str, models: dict[str, YOLO], tmp_path: Path
) -> None:
    model = models[family]
    runtime = open_runtime(export(model, target, tmp_path), threads=1)
    assert runtime.metadata.dynamic
    stride = model.model.stride
    for batch, rows, columns in ((1, 3, 5), (3, 12, 7), (2, 6, 6), (1, 2, 4)):
        images = torch.rand(batch, 3, rows * stride, columns * stride, generator=torch.Generator().manual_seed(rows))
        found, expected = runtime.run(images.numpy()), predictions(model, images)
        for ours, theirs, atol in zip(found, expected, (0.02, 1e-4), strict=True):
            assert ours.shape == theirs.shape and ours.shape[0] == batch
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=atol)


def test_a_size_that_torch_export_refuses_is_named(models: dict[str, YOLO], tmp_path: Path) -> None:
    runtime = open_runtime(export(models["yolo"], "torch_export", tmp_path), threads=1)
    with pytest.raises(ValueError, match=r"x\.pt2: cannot run images of 8x32 pixels"):
        runtime.run(np.zeros((1, 3, 8, 32), np.float32))
