"""What each target is asked for and refuses, in one line."""

import importlib.util

import pytest

from deploy.options import ExportOptions
from deploy.targets import TARGETS, find_target, mish_form, require_options, require_packages, runnable, target_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("onx", "unknown format 'onx', did you mean 'onnx'"),
        ("open_vino", "did you mean 'openvino'"),
        ("litert", "use tflite"),
        ("engine", "use tensorrt"),
        ("../../etc", "expected one of onnx"),
    ],
)
def test_unknown_formats_name_the_nearest(name: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        find_target(name)


@pytest.mark.parametrize(
    ("target", "options", "form"),
    [
        ("openvino", {}, "op"),
        ("openvino", {"half": True}, "formula"),
        ("openvino", {"int8": True}, "formula"),
        ("openvino", {"mish": "formula"}, "formula"),
        ("onnx", {}, "formula"),
        ("ncnn", {}, "formula"),
        ("torchscript", {"mish": "op"}, "op"),
    ],
)
def test_the_form_of_mish(target: str, options: dict, form: str) -> None:
    assert mish_form(target, ExportOptions(**options)) == form


@pytest.mark.parametrize("option", ["dynamic", "half", "int8", "nms"])
@pytest.mark.parametrize("name", TARGETS)
def test_an_option_is_supported_or_refused(name: str, option: str) -> None:
    options = ExportOptions(**{option: True})  # type: ignore[arg-type]
    if option in TARGETS[name].can:
        require_options(name, options)
    else:
        with pytest.raises(ValueError, match=f"--{option}: --format {name} does not support it; use"):
            require_options(name, options)


def test_a_missing_package_names_the_extra_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else known(name))
    with pytest.raises(ValueError, match="OpenVINO needs nncf, .*uv sync --extra openvino, or pip install nncf"):
        require_packages("openvino", int8=True)


def test_a_converter_that_requires_older_packages_has_a_separate_environment(monkeypatch) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "litert" in name else known(name))
    with pytest.raises(
        ValueError, match=r"TFLite.* needs .*a separate environment: pip install \. litert_torch ai_edge_litert"
    ):
        require_packages("tflite")
    with pytest.raises(ValueError, match="TFLite.*uv sync --extra tflite, or pip install ai_edge_litert"):
        require_packages("tflite", to_run=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"opset": 11}, "opset: found 11, expected a whole number from 18"),
        ({"half": True, "int8": True}, "exclude each other"),
        ({"mish": "formla"}, "did you mean 'formula'"),
        ({"imgsz": "big"}, "imgsz: found 'big'"),
        ({"conf": 2}, "conf: found 2, expected a number from 0 to 1"),
    ],
)
def test_options_out_of_range(options: dict, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        ExportOptions(**options)


def test_files_are_told_apart_by_their_names(tmp_path) -> None:
    for name, target in (("a.onnx", "onnx"), ("a.pt2", "torch_export"), ("a.pt", None), ("a.engine", "tensorrt")):
        assert target_of(tmp_path / name) == target
    (tmp_path / "a_openvino").mkdir()
    (tmp_path / "a_openvino/a.xml").touch()
    (tmp_path / "any").mkdir()
    (tmp_path / "any/a.ncnn.param").touch()
    assert target_of(tmp_path / "a_openvino") == "openvino" and target_of(tmp_path / "any") == "ncnn"
    (tmp_path / "weights").mkdir()
    assert target_of(tmp_path / "weights") is None


def test_runtimes_that_a_comparison_measures() -> None:
    pytest.importorskip("onnxscript", reason="uv sync --extra onnx")
    pytest.importorskip("onnxruntime", reason="uv sync --extra onnx")
    assert runnable(["onnxruntime", "torchscript", "onnx"]) == ["onnx", "torchscript"] and runnable([]) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coreml", "--deploy: coreml does not run on a CPU here; expected some of onnx, torchscript"),
        ("tensorrt", "--deploy: tensorrt does not run on a CPU here"),
        ("openvin", "--deploy: format: unknown format 'openvin', did you mean 'openvino'"),
        ("litert", "--deploy: format litert: use tflite"),
    ],
)
def test_runtimes_that_it_cannot_measure(name: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        runnable([name])
