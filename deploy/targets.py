"""The table of targets: what each needs and can do, and which module of this package writes and runs its files."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from core.text import did_you_mean, printable
from deploy.options import ExportOptions, MishForm


@dataclass(frozen=True)
class Target:
    """A format. `packages` are imported to write its files, `runtime` to run them; `can`: options that it supports."""

    title: str
    suffix: str  # of the file, or of the folder
    extra: str | None  # of pyproject.toml, with the packages
    packages: tuple[str, ...]
    runtime: tuple[str, ...] | None  # None: its files are not run here
    can: frozenset[str]
    apart: bool = False  # whether the packages that write its files need a separate environment


def _can(text: str) -> frozenset[str]:
    return frozenset(text.split())


ONNX = ("onnx", "onnxscript")
TARGETS: dict[str, Target] = {
    "onnx": Target("ONNX", ".onnx", "onnx", ONNX, ("onnxruntime",), _can("dynamic half int8 nms opset op")),
    "torchscript": Target("TorchScript", ".torchscript", None, (), (), _can("dynamic op")),
    "torch_export": Target("torch.export", ".pt2", None, (), (), _can("dynamic op")),
    "openvino": Target(
        "OpenVINO", "_openvino", "openvino", ("openvino", *ONNX), ("openvino",), _can("dynamic half int8 nms op")
    ),
    "ncnn": Target("ncnn", "_ncnn", "ncnn", ("ncnn", "pnnx"), ("ncnn",), _can("half op")),
    "coreml": Target("Core ML", ".mlpackage", "coreml", ("coremltools",), None, _can("half op")),
    "tflite": Target(
        "LiteRT (TFLite)", ".tflite", "tflite", ("litert_torch",), ("ai_edge_litert",), _can("op"), apart=True
    ),
    "tensorrt": Target("TensorRT", ".engine", "tensorrt", ("tensorrt", *ONNX), ("tensorrt",), _can("half op")),
}
NEED_A_GPU = ("tensorrt",)
MISH_OPERATOR = ("openvino",)  # targets whose operator is faster than the formula in fp32, and right (docs/export.md)
INSTEAD = {
    "int8": "--format onnx or openvino",
    "nms": "--format onnx or openvino",
    "half": "--format onnx, openvino, ncnn, coreml or tensorrt; files of PyTorch run in fp32 on a CPU",
    "dynamic": "--format onnx, openvino, torchscript or torch_export, or one file for each size",
    "opset": "leave it out; it belongs to --format onnx",
}
SYNONYMS = {
    "litert": "use tflite",
    "pt2": "use torch_export",
    "engine": "use tensorrt",
    "trt": "use tensorrt",
    "mlpackage": "use coreml",
    "onnxruntime": "use onnx",
}


def find_target(name: str) -> Target:
    """The target of a name; ValueError for an unknown one, with the nearest."""
    if name in TARGETS:
        return TARGETS[name]
    if name.lower() in SYNONYMS:
        raise ValueError(f"format {name}: {SYNONYMS[name.lower()]}")
    hint = did_you_mean(name, TARGETS)
    raise ValueError(f"format: unknown format {printable(name)[:40]!r}{hint}; expected one of {', '.join(TARGETS)}")


def mish_form(name: str, options: ExportOptions) -> MishForm:
    """The form of Mish that is asked for, or else the faster one on the target."""
    return options.mish or ("op" if name in MISH_OPERATOR and options.precision == "fp32" else "formula")


def require_options(name: str, options: ExportOptions) -> None:
    """Raise ValueError for an option that the target does not support."""
    target = find_target(name)
    given = [each for each in ("dynamic", "half", "int8", "nms") if getattr(options, each)]
    given += ["opset"] if options.opset != ExportOptions.opset else []
    for option in given:
        if option not in target.can:
            raise ValueError(f"--{option}: --format {name} does not support it; use {INSTEAD[option]}")


def require_packages(name: str, *, to_run: bool = False, int8: bool = False) -> None:
    """Raise ValueError naming the extra and the command if a package is missing to write the target's files."""
    target = find_target(name)
    needed = (target.runtime or ()) if to_run else (*target.packages, *(target.runtime or ()))
    if int8 and name == "openvino":
        needed = (*needed, "nncf")
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing and target.apart and not to_run:
        raise ValueError(
            f"{target.title} needs {', '.join(missing)}, not installed here. Its converter requires an older PyTorch, "
            f"so in a separate environment: pip install . {' '.join(needed)} (docs/export.md)"
        )
    if missing:
        raise ValueError(
            f"{target.title} needs {', '.join(missing)}, not installed here: uv sync --extra {target.extra}, or "
            f"pip install {' '.join(missing)}"
        )


def runnable(names: Sequence[str], *, int8: bool = False, flag: str = "--deploy") -> list[str]:
    """The targets that a flag of compare.py names, also by their runtime; ValueError for those that do not run here."""
    found = list(dict.fromkeys("onnx" if name.lower() == "onnxruntime" else name for name in names))
    for name in found:
        try:
            if find_target(name).runtime is None or name in NEED_A_GPU:
                able = ", ".join(
                    each for each in TARGETS if TARGETS[each].runtime is not None and each not in NEED_A_GPU
                )
                raise ValueError(f"{name} does not run on a CPU here; expected some of {able}")
            require_packages(name, int8=int8)
        except ValueError as error:
            raise ValueError(f"{flag}: {error}") from error
    return found


def module_of(name: str) -> ModuleType:
    """The module of this package that writes and runs a target's files."""
    return importlib.import_module(f"deploy.{name}")


def target_of(path: Path) -> str | None:
    """The target whose file or folder this is, by its name; None for other files, such as checkpoints."""
    if path.suffix == ".xml" or (path.is_dir() and any(path.glob("*.xml"))):
        return "openvino"
    if path.suffix == ".param" or (path.is_dir() and any(path.glob("*.ncnn.param"))):
        return "ncnn"
    return next((name for name, target in TARGETS.items() if path.suffix == target.suffix), None)
