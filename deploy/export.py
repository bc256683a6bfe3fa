"""An export from beginning to end: written aside, run, compared with PyTorch, and only then put in its place."""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.files import file_sha256
from core.text import one_line
from core.types import DetectorModel
from deploy.metadata import Metadata, NmsDefaults, describe_preprocess
from deploy.network import Exportable
from deploy.options import ExportOptions
from deploy.parity import Parity, compare
from deploy.runtime import DeployedDetector, open_runtime
from deploy.targets import find_target, mish_form, module_of, require_options, require_packages
from engine.machine import fingerprint
from engine.published import without_paths
from models import CensusRow, Darknet, Detector
from models.activations import ActivationSpec, make_activation, parse_activation
from models.blocks import ConvAct, folded

FAILED = ".failed"
PROJECT = "yolo-mish"
FP16_GRAPHS = ("onnx", "tensorrt")  # targets that take the network in fp16; others convert it from fp32 themselves
# What is in the folders that some targets write; {} is the name of the folder.
FOLDERS = {
    "openvino": ("{}.xml", "{}.bin"),
    "ncnn": ("{}.ncnn.param", "{}.ncnn.bin", "metadata.json"),
    "coreml": ("Manifest.json", "Data", "executorch_debug_handle_mapping.json"),
}
HEADS_ONLY = ("ncnn",)  # targets without the operators of the decoder
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Trained:
    """What is exported: the network in fp32 on the CPU, and where it comes from. `config` as plain values."""

    model: Detector | Darknet
    weights: Path
    census: Sequence[CensusRow]
    config: dict[str, Any]
    imgsz: tuple[int, int]
    iou: float
    names_from: str | None


@dataclass(frozen=True)
class Exported:
    """A finished export: the file or folder, and how far it is from PyTorch (None: not run here)."""

    path: Path
    metadata: Metadata
    parity: Parity | None


def require_exportable(
    model: DetectorModel, weights: Path, options: ExportOptions, *, has_data: bool
) -> Detector | Darknet:
    """The network, if it can be exported; ValueError for a file that was exported, fp16, or int8 without data."""
    if not isinstance(model, Detector | Darknet):
        raise ValueError(f"{weights}: exported already; give the checkpoint or the Darknet .weights")
    if next(model.parameters()).dtype != torch.float32:
        raise ValueError("half: the network was loaded in fp16; load it without, and export with half=True")
    if options.int8 and not has_data:
        raise ValueError("int8: calibrated on training images; give --data, a data YAML or folder")
    return model


def export_file(
    trained: Trained,
    target: str,
    options: ExportOptions,
    *,
    images: Sequence[np.ndarray],
    calibration: Sequence[np.ndarray] = (),
    output: Path | None = None,
    say: Callable[[str], None] = print,
) -> Exported:
    """Write the file of a target, run it on `images` (H, W, 3) uint8 RGB, and compare with PyTorch.

    `output`: the file or folder, by default beside the weights. `calibration`: training images to quantise by.
    Raises ValueError for what the target does not support, OSError for a place that cannot be written, and
    FloatingPointError if the comparison fails; the file is then left under a name with FAILED in it.
    """
    require_options(target, options)
    require_packages(target, int8=options.int8)
    if options.nms:
        _require_plain_nms(trained.model)
    place = output or default_path(trained.weights, target, options)
    _require_place(place, target)
    metadata = describe(trained, target, options)
    dtype = torch.float16 if options.half and target in FP16_GRAPHS else torch.float32
    network = Exportable(trained.model, mish=mish_form(target, options), dtype=dtype, heads=metadata.outputs == "heads")
    module = module_of(target)
    work = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        written = work / place.name
        _write(module, network, written, options, metadata, trained.census)
        if options.int8:
            module.quantise(written, network, [_input(trained.model, each, metadata.imgsz) for each in calibration])
        parity = None
        if find_target(target).runtime is not None:
            parity = check(trained, written, images, options)
            for line in parity.lines():
                say(line)
        good = parity is None or parity.holds
        final = place if good else _failed(place)
        _put(written, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not good:
        raise FloatingPointError(f"{final}: does not compute what PyTorch computes, see above; do not use it")
    return Exported(final, metadata, parity)


def default_path(weights: Path, target: str, options: ExportOptions) -> Path:
    """Beside the weights, as in best.onnx, best-fp16.onnx, best-int8.onnx."""
    precision = "" if options.precision == "fp32" else f"-{options.precision}"
    return weights.with_name(f"{weights.stem}{precision}{find_target(target).suffix}")


def describe(trained: Trained, target: str, options: ExportOptions) -> Metadata:
    """The metadata of an export."""
    model = trained.model
    height, width = trained.imgsz
    iou = trained.iou if options.iou is None else options.iou
    has_mish = any(row.activation.startswith("mish") for row in trained.census)
    return Metadata(
        target=target,
        names=list(model.names),
        stride=model.stride,
        imgsz=(height, width),
        dynamic=options.dynamic,
        precision=options.precision,
        outputs="detections" if options.nms else "heads" if target in HEADS_ONLY else "boxes",
        mish=mish_form(target, options) if has_mish else "",
        nms=NmsDefaults(options.conf, iou, options.max_det, inside=options.nms),
        preprocess=describe_preprocess(
            "darknet" if isinstance(model, Darknet) else "yolo",
            letter_box=isinstance(model, Darknet) and bool(model.plan.net["letter_box"]),
        ),
        census=[asdict(row) for row in trained.census],
        weights={"file": trained.weights.name, "sha256": file_sha256(trained.weights)},
        names_from=trained.names_from,
        config=without_paths(trained.config),
        project={**_project(), **fingerprint()},
        packages={name: version(name) for name in ("torch", *find_target(target).packages)},
    )


def check(trained: Trained, path: Path, images: Sequence[np.ndarray], options: ExportOptions) -> Parity:
    """Compare an exported file with the network, on images (H, W, 3) uint8 RGB."""
    model = trained.model.fused().cpu()
    deployed = DeployedDetector(open_runtime(path), model, path=path)
    iou = trained.iou if options.iou is None else options.iou
    return compare(model, deployed, images, imgsz=trained.imgsz, iou=iou, max_det=options.max_det)


def _project() -> dict[str, Any]:
    """Name and version of this project."""
    about = ROOT / "pyproject.toml"
    if not about.is_file():  # an installed package
        return {"name": PROJECT, "version": version(PROJECT)}
    return {"name": PROJECT, "version": tomllib.loads(about.read_text(encoding="utf-8"))["project"]["version"]}


def _input(model: DetectorModel, image: np.ndarray, imgsz: tuple[int, int]) -> np.ndarray:
    """An image (H, W, 3) uint8 as input (1, 3, H, W) float32 in 0..1."""
    fitted = model.preprocess(image, imgsz)[0]
    return np.ascontiguousarray(fitted.transpose(2, 0, 1)[None], dtype=np.float32) / np.float32(255)


def _require_plain_nms(model: Detector | Darknet) -> None:
    if isinstance(model, Darknet) and model.plan.heads[0].section["nms_kind"] == "diounms":
        raise ValueError(
            f"--nms: {Path(model.plan.file).name} has nms_kind diounms, which ONNX has no operator for; leave --nms out"
        )


def _require_place(place: Path, target: str) -> None:
    """Raise ValueError or OSError if nothing can be written there, before the work is done."""
    suffix = find_target(target).suffix
    if not place.name.endswith(suffix):
        raise ValueError(f"output: {place}; a name ending in {suffix} is expected for {target}")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"output: {place.parent}: no such folder")
    if not os.access(place.parent, os.W_OK):
        raise PermissionError(f"output: {place.parent} cannot be written; choose another place with --output")
    for final in (place, _failed(place)):
        if final.is_dir() and not _is_export(final, place.name, target):
            raise ValueError(f"output: {final} is a folder that was not exported for {target}; choose another --output")


def _failed(place: Path) -> Path:
    """The name of a file or folder that did not pass its check."""
    return place.with_name(f"{place.stem}{FAILED}{place.suffix}")


def _is_export(folder: Path, name: str, target: str) -> bool:
    """Whether a folder holds an export of this name and nothing else, so that another one may replace it."""
    ours = {file.format(name) for file in FOLDERS.get(target, ())}
    return target in FOLDERS and {path.name for path in folder.iterdir()} <= ours


def _put(written: Path, final: Path) -> None:
    """Move a file or folder to its place, over an older one."""
    if final.is_dir():
        shutil.rmtree(final)
    os.replace(written, final)


# ------------------------------------------------------------------------------ what a target has no operator for


class _Probe(nn.Module):
    """A network of one convolution and one activation, to find out whether a target has the activation."""

    stride = 1

    def __init__(self, spec: ActivationSpec):
        super().__init__()
        self.layer = ConvAct(nn.Conv2d(3, 4, 1), make_activation(spec))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.layer(images)]

    def fused(self) -> _Probe:
        return folded(self)

    def decode(self, outputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        rows = outputs[0].flatten(2).transpose(1, 2)
        return rows, rows + 1


def _write(
    module: ModuleType,
    network: Exportable,
    path: Path,
    options: ExportOptions,
    metadata: Metadata,
    census: Sequence[CensusRow],
) -> None:
    """Write the file; if the target fails, ValueError that names the activations it cannot express."""
    try:
        module.write_file(network, path, options, metadata)
    except OSError:
        raise
    except Exception as error:  # each converter raises types of its own, some directly below Exception
        title = find_target(metadata.target).title
        missing = []
        for text in dict.fromkeys(_spec_text(row) for row in census):
            rows = [row for row in census if _spec_text(row) == text]
            spec = parse_activation({"name": rows[0].activation, **rows[0].parameters})
            form = mish_form(metadata.target, options)
            probe = Exportable(_Probe(spec), mish=form, dtype=network.dtype, heads=network.heads)
            small = replace(metadata, imgsz=(8, 8), dynamic=False)
            try:
                module.write_file(probe, path.with_name(f"probe{path.name}"), replace(options, dynamic=False), small)
            except Exception:  # as above; the probe only finds out which activation is to blame
                missing.append(f"{text} ({', '.join(f'{row.part}.{row.stage}' for row in rows[:3])})")
        if missing:
            raise ValueError(
                f"{title} cannot express {', '.join(missing)}: {_reason(error)}; train with relu, leaky_relu, "
                "hardswish, silu or mish for this target, or use --format onnx"
            ) from error
        raise ValueError(f"{title} cannot express this network: {_reason(error)}; use --format onnx") from error


def _spec_text(row: CensusRow) -> str:
    return str(ActivationSpec(row.activation, tuple(row.parameters.items())))


def _reason(error: Exception) -> str:
    """The first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {one_line(lines[0])[:200]}" if lines else type(error).__name__
