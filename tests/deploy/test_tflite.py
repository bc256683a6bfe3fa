"""LiteRT files. Those that are converted here need litert-torch, in a separate environment (docs/export.md)."""

import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.network import Exportable
from deploy.options import MISH_FORMS, ExportOptions, MishForm
from deploy.runtime import open_runtime
from models.activations import ACTIVATION_NAMES
from ops.mish import reference
from tests.deploy.test_dynamic import models, predictions  # noqa: F401 - a fixture
from tests.deploy.test_onnx import METADATA, Everything
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
    from deploy.tflite import open_file, write_file

    x = torch.linspace(-100, 100, 1200).view(1, 3, 20, 20)
    network = Exportable(Everything(), mish=form, dtype=torch.float32)  # type: ignore[arg-type]
    write_file(network, tmp_path / "all.tflite", ExportOptions(), METADATA)
    runtime = open_file(tmp_path / "all.tflite", threads=1)
    assert runtime.metadata == METADATA
    found = runtime.run(x.numpy())[0]
    torch.testing.assert_close(torch.from_numpy(found), network(x)[0], rtol=1e-5, atol=1e-5)
    mine = torch.from_numpy(found[ACTIVATION_NAMES.index("mish")]).double()
    torch.testing.assert_close(mine, reference(x), rtol=3e-7, atol=4e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["yolo", "darknet"])
def test_boxes_and_scores_are_those_of_pytorch(family: str, models: dict[str, YOLO], tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("litert_torch")
    with suppress(FloatingPointError):  # its own check compares detections of an untrained network
        models[family].export("tflite", output=tmp_path / "x.tflite", progress=False)
    (path,) = tmp_path.glob("x*.tflite")
    runtime = open_runtime(path, threads=1)
    images = torch.rand(1, 3, *runtime.metadata.imgsz, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(runtime.run(images.numpy()), predictions(models[family], images), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
