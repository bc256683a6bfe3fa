"""LiteRT files. Those that are converted here need litert-torch, in a separate environment (docs/export.md)."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.options import MISH_FORMS, MishForm
from deploy.runtime import open_runtime
from models.activations import ACTIVATION_NAMES
from ops.mish import reference
from tests.support.exports import METADATA, Everything, export, predictions, run_everything
from yolo import YOLO

pytest.importorskip("ai_edge_litert", reason="uv sync --extra tflite")


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"\x1c\x00\x00\x00TFL3" + bytes(range(256)) * 9])
def test_a_damaged_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="x.tflite: has no metadata of this project"):
        open_runtime(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("yolo-mish.json", METADATA.to_json())
    with pytest.raises(ValueError, match="x.tflite: LiteRT cannot read it: .+") as raised:
        open_runtime(path)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("form", MISH_FORMS)
def test_all_activations_are_those_of_pytorch(form: MishForm, tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    x, found = run_everything("tflite", form, tmp_path)
    torch.testing.assert_close(found, Everything()(x), rtol=1e-5, atol=1e-5)
    mish = found[ACTIVATION_NAMES.index("mish")].double()
    torch.testing.assert_close(mish, reference(x), rtol=3e-7, atol=4e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["yolo", "darknet"])
def test_boxes_and_scores_are_those_of_pytorch(family: str, models: dict[str, YOLO], tmp_path: Path) -> None:
    runtime = open_runtime(export(models[family], "tflite", tmp_path), threads=1)
    images = torch.rand(1, 3, *runtime.metadata.imgsz, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(runtime.run(images.numpy()), predictions(models[family], images), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
