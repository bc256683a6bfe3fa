"""OpenVINO models (.xml and .bin in a folder): converted from ONNX, quantised by NNCF, run by OpenVINO."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import openvino

from deploy import onnx as onnx_files
from deploy.metadata import KEY, Metadata, parse_metadata
from deploy.network import Exportable
from deploy.options import ExportOptions
from deploy.runtime import Runtime


def write_file(network: Exportable, path: Path, options: ExportOptions, metadata: Metadata) -> None:
    """Write `network` as a folder with an OpenVINO model; `half` stores weights in fp16, the device chooses how to
    compute.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / "network.onnx"
        onnx.save(onnx_files.convert(network, options, metadata), source)
        model = openvino.convert_model(source)
    _save(model, path, half=options.half, text=metadata.to_json())


def quantise(path: Path, network: Exportable, inputs: Sequence[np.ndarray]) -> None:
    """Quantise a written model in place, calibrated on `inputs`, each (1, 3, H, W)."""
    import logging

    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = openvino.Core().read_model(_xml(path))
    text = str(model.get_rt_info([KEY]).value)
    operators = [(op.get_friendly_name(), op.get_type_name()) for op in model.get_ops()]
    kept = [name for name, kind in operators if onnx_files.stays_float(name, kind)]
    quantised = nncf.quantize(
        model,
        nncf.Dataset(list(inputs)),
        subset_size=len(inputs),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
    )
    # Its constants are mapped from the files that were read: writing over those ends the process (SIGBUS).
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        aside = Path(folder) / path.name
        _save(quantised, aside, half=False, text=text)
        for written in aside.iterdir():
            os.replace(written, path / written.name)


def _save(model: openvino.Model, path: Path, *, half: bool, text: str) -> None:
    path.mkdir(exist_ok=True)
    model.set_rt_info(text, [KEY])
    openvino.save_model(model, path / f"{path.name}.xml", compress_to_fp16=half)


def _xml(path: Path) -> Path:
    """The .xml of a folder."""
    return path if path.suffix == ".xml" else next(iter(sorted(path.glob("*.xml"))))


class OpenVinoRuntime(Runtime):
    """OpenVINO on the CPU, in the precision of the file: it would otherwise choose bf16 where the CPU has it."""

    def __init__(self, path: Path, *, threads: int | None) -> None:
        core = openvino.Core()
        try:
            model = core.read_model(_xml(path))
        except RuntimeError as error:
            raise ValueError(f"{path}: OpenVINO cannot read it: {str(error).strip().splitlines()[-1]}") from error
        text = model.get_rt_info([KEY]).value if model.has_rt_info([KEY]) else None
        self.metadata = parse_metadata(text, path)
        settings: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self.model = core.compile_model(model, "CPU", settings)
        self.description = f"OpenVINO {openvino.__version__.split('-')[0]}, CPU, {threads or 'all'} threads"

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs of images (B, 3, H, W) float32 in 0..1."""
        found = self.model(images)
        return [np.array(found[k]) for k in range(len(self.model.outputs))]


def open_file(path: Path, *, threads: int | None) -> Runtime:
    """Load a folder, or its .xml."""
    return OpenVinoRuntime(path, threads=threads)
