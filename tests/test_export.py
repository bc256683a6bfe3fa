"""export.py from the command line: both families, what is written, what is refused, and the file in val and detect."""

import json
from pathlib import Path

import pytest

import detect
import export
import val
from deploy import parity
from deploy.runtime import open_runtime
from deploy.targets import TARGETS
from tests.models.darknet.cfgs import DETECTOR_6, values, weights
from tests.models.darknet.oracle import count
from tests.support.checkpoints import SIDE, class_names, write_checkpoint, write_data
from tests.support.scripts import run, tree
from yolo import YOLO

pytest.importorskip("onnxscript", reason="uv sync --extra onnx")
pytest.importorskip("onnxruntime", reason="uv sync --extra onnx")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, the weights of a small network, its ONNX file, and a Darknet network with weights."""
    folder = tmp_path_factory.mktemp("place")
    data = write_data(folder)
    write_checkpoint(folder / "best.pt", data, class_names(folder / "shapes"), **{"model.levels": [2, 3]})
    (folder / "x.cfg").write_text(DETECTOR_6)
    (folder / "x.weights").write_bytes(weights(values(count(DETECTOR_6), seed=1)))
    return folder


@pytest.fixture(scope="module")
def exported(place: Path) -> Path:
    """The ONNX file of the small network."""
    assert run(export.main, "export.py", "--weights", place / "best.pt") == 0
    return place / "best.onnx"


@pytest.mark.slow
def test_val_and_detect_take_the_file(
    place: Path, exported: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("best.pt", "best.onnx"):
        arguments = (
            "--weights",
            place / name,
            "--data",
            place / "shapes.yaml",
            "--conf",
            0.2,
            "--no-rect",
            "--name",
            name,
        )
        assert run(val.main, "val.py", *arguments) == 0
    numbers = [json.loads((here / f"runs/val/{name}/metrics.json").read_text()) for name in ("best.pt", "best.onnx")]
    # Two boxes of nearly equal score may swap places: the sums of another processor differ in the last digit.
    for name, number in numbers[0]["numbers"].items():
        other = numbers[1]["numbers"][name]
        assert other is None if number is None else other == pytest.approx(number, rel=0.01, abs=1e-6), name
    assert numbers[0]["images"] == 6
    assert f"{SIDE}x{SIDE} (fixed) pixels; ONNX Runtime" in capsys.readouterr().out
    source = place / "shapes/images/val"
    assert run(detect.main, "detect.py", "--weights", exported, "--source", source, "--save-json", "--nosave") == 0
    found = json.loads((here / "runs/detect/exp/detections.json").read_text())
    expected = YOLO(place / "best.pt", device="cpu").predict(source, rect=False)
    assert len(found) == sum(len(result.scores) for result in expected) > 10
    scores = sorted(float(score) for result in expected for score in result.scores)
    assert sorted(row["score"] for row in found) == pytest.approx(scores, abs=1e-4)
    assert run(val.main, "val.py", "--weights", exported, "--imgsz", 64) == 2
    assert "was exported for 96 96" in capsys.readouterr().err


@pytest.mark.slow
def test_what_the_file_says_about_itself(place: Path, exported: Path) -> None:
    import onnx

    model = YOLO(place / "best.pt", device="cpu")
    found = open_runtime(exported, threads=1).metadata
    assert found.names == model.names and found.stride == model.model.stride and found.imgsz == (SIDE, SIDE)
    assert found.mish == "formula" and {row["activation"] for row in found.census} == {"mish"}
    assert found.weights["file"] == "best.pt" and len(found.weights["sha256"]) == 64
    assert found.preprocess["resize"] == "letterbox, centred" and found.nms.iou == 0.7
    assert found.project["name"] == "yolo-mish" and found.config["train"]["imgsz"] == SIDE
    graph = onnx.load(exported).graph
    assert [each.name for each in graph.output] == ["boxes", "scores"]
    kinds = {node.op_type for node in graph.node}
    assert (
        "BatchNormalization" not in kinds and {"Sigmoid", "Div"} <= kinds and not kinds & {"Mish", "Softplus", "Tanh"}
    )
    content = exported.read_bytes()  # without paths of the machine that trained and exported
    assert str(Path(__file__).parents[1]).encode() not in content and str(place).encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize("target", ["openvino", "torchscript", "torch_export"])
def test_a_darknet_network_for_every_target_that_runs_here(
    target: str, place: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if target == "openvino":
        pytest.importorskip(target, reason=f"uv sync --extra {target}")
    model = YOLO(place / "x.weights", cfg=place / "x.cfg", device="cpu")
    exported = model.export(target, output=here / f"x{TARGETS[target].suffix}")
    assert exported.parity is not None and exported.parity.holds and exported.parity.candidates > 10
    back = YOLO(exported.path)
    assert back.names == model.names and back.iou == model.iou
    source = place / "shapes/images/val/000001.jpg"
    (expected,), (found,) = model.predict(source, conf=0.01), back.predict(source, conf=0.01)
    assert len(found.scores) == len(expected.scores) > 0
    assert found.boxes == pytest.approx(expected.boxes, abs=0.05)
    assert not list(here.glob(".*"))


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_named_failed(
    place: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(parity.TOLERANCES, "fp32", parity.Tolerance(score=0, overlap=0))
    code = run(export.main, "export.py", "--weights", place / "best.pt", "--format", "torchscript", "--output",
               "a.torchscript", "--mish", "op")  # fmt: skip
    assert code == 1
    assert [path.name for path in here.iterdir()] == ["a.failed.torchscript"]
    assert capsys.readouterr().err.startswith("export.py: error: a.failed.torchscript: does not compute")


REFUSED = {
    "wrong format": ("--format onx", "did you mean 'onnx'"),
    "no checkpoint": ("--weights {place}/shapes.yaml", "shapes.yaml: a YAML file, expected a checkpoint"),
    "missing": ("--weights none.pt", "none.pt: no such checkpoint"),
    "a folder as output": ("--output {here}", "a name ending in .onnx is expected"),
    "a folder of that name": ("--output {here}/folder.onnx", "is a folder that was not exported for onnx"),
    "a folder of labels": (
        "--format openvino --output {here}/x_openvino",
        "was not exported for openvino",
    ),
    "int8 without data": ("--int8", "give --data"),
    "no multiple of the stride": ("--imgsz 70", "expected a multiple of the stride 8"),
    "low opset": ("--opset 9", "opset: found 9, expected a whole number from 18"),
    "no such folder": ("--output none/a.onnx", "none: no such folder"),
    "weights without a cfg": ("--weights {place}/x.weights", "give its .cfg as cfg"),
    "dynamic": ("--format ncnn --dynamic", "--format ncnn does not support it; use --format onnx"),
    "half on the CPU": ("--format torchscript --half", "--format torchscript does not support it; use"),
    "both precisions": ("--half --int8", "exclude each other"),
    "another program's flag": ("--include onnx", "use --format"),
}


PACKAGES = {"dynamic": "ncnn", "a folder of labels": "openvino"}


@pytest.mark.parametrize("case", REFUSED)
def test_one_line_and_nothing_left_behind(
    case: str, place: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = REFUSED[case]
    (here / "folder.onnx").mkdir()
    (here / "folder.onnx/mine").touch()
    (here / "x_openvino").mkdir()
    (here / "x_openvino/image.xml").touch()
    before = tree(here), sorted(place.iterdir())
    text = arguments.format(place=place, here=here)
    given = text.split() if "--weights" in text else ["--weights", str(place / "best.pt"), *text.split()]
    if case in PACKAGES:
        pytest.importorskip(PACKAGES[case], reason=f"uv sync --extra {PACKAGES[case]}")
    assert run(export.main, "export.py", *given) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and expected in err and err.startswith("export.py: error: ")
    assert (tree(here), sorted(place.iterdir())) == before
