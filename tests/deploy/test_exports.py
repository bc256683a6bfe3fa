"""Dynamic files, fp16, and NMS inside: each target that runs here, both families, with a learned activation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core.options import NmsOptions
from deploy.export import Exported
from deploy.runtime import open_runtime
from deploy.targets import TARGETS
from tests.models.darknet.cfgs import DETECTOR_6, values, weights
from tests.models.darknet.oracle import count
from tests.support.checkpoints import class_names, write_checkpoint, write_data
from yolo import YOLO

pytestmark = pytest.mark.slow
PACKAGES = {
    "onnx": ("onnxscript", "onnxruntime"),
    "openvino": ("onnxscript", "openvino"),
    "ncnn": ("ncnn", "pnnx"),
}


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


def export(model: YOLO, target: str, folder: Path, **options: bool) -> Exported:
    """An export that passed its own check."""
    for package in PACKAGES.get(target, ()):
        pytest.importorskip(package, reason=f"uv sync --extra {target}")
    exported = model.export(target, output=folder / f"x{TARGETS[target].suffix}", progress=False, **options)  # type: ignore[arg-type]
    assert exported.parity is not None and exported.parity.holds
    return exported


@torch.no_grad()
def predictions(model: YOLO, images: torch.Tensor) -> list[np.ndarray]:
    """Boxes and scores of the network in PyTorch."""
    network = model.model.fused()
    return [each.numpy() for each in network.decode(network(images))]


@pytest.mark.parametrize("family", ["yolo", "darknet"])
@pytest.mark.parametrize("target", [name for name in TARGETS if "dynamic" in TARGETS[name].can])
def test_a_dynamic_file_takes_any_batch_and_multiple_of_the_stride(
    target: str, family: str, models: dict[str, YOLO], tmp_path: Path
) -> None:
    model = models[family]
    runtime = open_runtime(export(model, target, tmp_path, dynamic=True).path, threads=1)
    assert runtime.metadata.dynamic
    stride = model.model.stride
    for batch, rows, columns in ((1, 3, 5), (3, 12, 7), (2, 6, 6), (1, 2, 4)):
        images = torch.rand(batch, 3, rows * stride, columns * stride, generator=torch.Generator().manual_seed(rows))
        found, expected = runtime.run(images.numpy()), predictions(model, images)
        for ours, theirs, atol in zip(found, expected, (0.02, 1e-4), strict=True):
            assert ours.shape == theirs.shape and ours.shape[0] == batch
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("family", ["yolo", "darknet"])
@pytest.mark.parametrize("target", [name for name in TARGETS if {"half", "dynamic"} <= TARGETS[name].can] + ["ncnn"])
def test_fp16_stores_the_weights_in_half_the_size(
    target: str, family: str, models: dict[str, YOLO], tmp_path: Path
) -> None:
    if (target, family) == ("ncnn", "darknet"):
        pytest.skip("its converter does not take Darknet networks, see REFUSED in tests/test_export.py")
    sizes = []
    for half in (False, True):
        folder = tmp_path / str(half)
        folder.mkdir()
        exported = export(models[family], target, folder, half=half)
        assert exported.metadata.precision == ("fp16" if half else "fp32")
        files = [exported.path] if exported.path.is_file() else list(exported.path.iterdir())
        binary = [each for each in files if each.suffix in (".bin", ".onnx")]
        sizes.append(sum(each.stat().st_size for each in binary))
    parameters = sum(each.numel() for each in models[family].model.fused().parameters())
    assert sizes[0] - sizes[1] == pytest.approx(2 * parameters, rel=0.1)


@pytest.mark.parametrize("family", ["yolo", "darknet"])
@pytest.mark.parametrize("target", [name for name in TARGETS if "nms" in TARGETS[name].can])
def test_nms_inside_a_dynamic_file_finds_what_the_project_finds(
    target: str, family: str, models: dict[str, YOLO], tmp_path: Path
) -> None:
    model = models[family]
    exported = export(model, target, tmp_path, dynamic=True, nms=True)
    runtime, inside = open_runtime(exported.path, threads=1), exported.metadata.nms
    images = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(4))
    (found,) = runtime.run(images.numpy())
    boxes, scores = (torch.from_numpy(each) for each in predictions(model, images))
    (expected,) = model.model.nms(boxes, scores, NmsOptions(inside.conf, inside.iou, inside.max_det))
    assert found.shape == (len(expected.scores), 6)
    np.testing.assert_allclose(found[:, 4], expected.scores.numpy(), atol=1e-4)
