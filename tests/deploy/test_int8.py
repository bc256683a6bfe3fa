"""Quantisation after training: what is quantised, by which images, and how far the results move."""

import importlib
from pathlib import Path

import numpy as np
import pytest

import yolo
from deploy.options import ExportOptions
from tests.support.checkpoints import class_names, write_checkpoint, write_data
from yolo import YOLO

pytestmark = pytest.mark.slow
PACKAGES = {"onnx": ("onnxscript", "onnxruntime"), "openvino": ("onnxscript", "openvino", "nncf")}


@pytest.fixture(scope="module", params=["relu", "mish"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set and the weights of a small network with one activation."""
    folder = tmp_path_factory.mktemp(request.param)
    names = {"model.levels": [2, 3], "model.act": request.param}
    write_checkpoint(folder / "best.pt", write_data(folder, train=4), class_names(folder / "shapes"), **names)
    return folder


def operators(path: Path, target: str) -> list[tuple[str, str, set[str]]]:
    """Name and kind of each operator, and the kinds of the operators that its inputs come from."""
    if target == "onnx":
        import onnx

        nodes = onnx.load(path).graph.node
        made = {output: node.op_type for node in nodes for output in node.output}
        return [(node.name, node.op_type, {made[each] for each in node.input if each in made}) for node in nodes]
    import openvino

    model = openvino.Core().read_model(path / f"{path.name}.xml")
    return [
        (op.get_friendly_name(), op.get_type_name(), {v.get_node().get_type_name() for v in op.input_values()})
        for op in model.get_ops()
    ]


@pytest.mark.parametrize("target", PACKAGES)
def test_convolutions_are_quantised_and_the_decoder_is_not(
    target: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in PACKAGES[target]:
        pytest.importorskip(package, reason=f"uv sync --extra {target}")
    read: list[tuple[str, int]] = []
    images_of = yolo.read_images

    def reading(annotations, count):
        read.append((Path(annotations.source).stem, count))
        return images_of(annotations, count)

    monkeypatch.setattr(yolo, "read_images", reading)
    model = YOLO(place / "best.pt", device="cpu")
    exported = model.export(target, int8=True, data=place / "shapes.yaml", calibration=3, progress=False)
    assert sorted(read) == [("train", 3), ("val", 8)]
    assert exported.metadata.precision == "int8" and exported.path.name.startswith("best-int8")
    parity = exported.parity
    assert parity is not None and parity.tolerance is None and 0 < parity.pair_score < 0.1
    assert parity.pairs > 0.5 * parity.expected  # of an untrained network, whose scores are near each other

    found = operators(exported.path, target)
    steps = {"DequantizeLinear", "FakeQuantize"}
    of_kind = {kind: [inputs for _, k, inputs in found if k == kind] for _, kind, _ in found}
    convolutions = of_kind["Conv" if target == "onnx" else "Convolution"]
    # OpenVINO quantises what is concatenated, before it is.
    assert len(convolutions) > 20 and all(inputs & (steps | {"Concat"}) for inputs in convolutions)
    kept = [inputs for name, kind, inputs in found if name.startswith("decoder/") and kind not in steps]
    quantised = [inputs for inputs in kept if inputs & steps]
    assert len(kept) > 10 and len(quantised) <= 4  # what enters it: the maps of each level
    fp32 = model.export(target, mish="formula", progress=False).path
    assert YOLO(exported.path).model.metadata == exported.metadata
    assert size(exported.path) < 0.5 * size(fp32)


def size(path: Path) -> int:
    """Bytes of a file or of the files in a folder."""
    return sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir()))


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("decoder/node_Mul_3", "Mul", True),
        ("nms_node_best", "ReduceMax", True),
        ("backbone.P3.0.act/node_Sigmoid_4", "Sigmoid", True),
        ("backbone.P3.0.act/node_Relu_4", "Relu", False),
        ("backbone.P3.0.act/node_LeakyRelu_4", "PRelu", False),
        ("backbone.P3.0.conv/node_Conv_3", "Conv", False),
    ],
)
def test_what_stays_in_fp32(name: str, kind: str, expected: bool) -> None:
    pytest.importorskip("onnxscript", reason="uv sync --extra onnx")
    assert importlib.import_module("deploy.onnx").stays_float(name, kind) is expected


def test_calibration_is_a_number_of_images() -> None:
    assert ExportOptions(calibration=np.int64(5)).calibration == 5  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="calibration: found 0, expected a whole number from 1"):
        ExportOptions(calibration=0)
