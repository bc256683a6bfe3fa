"""LiteRT files (.tflite), once TensorFlow Lite: converted by litert-torch from torch.export, run by LiteRT.

litert-torch requires an older PyTorch than the newest, and so a separate environment (docs/export.md); its
files run wherever ai-edge-litert is installed. The metadata are in a ZIP archive behind the model, where TensorFlow
Lite keeps such files.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter

from deploy.metadata import KEY, Metadata, parse_metadata
from deploy.network import Exportable
from deploy.options import ExportOptions
from deploy.runtime import Runtime

NOTE = f"{KEY}.json"


def write_file(network: Exportable, path: Path, options: ExportOptions, metadata: Metadata) -> None:
    """Write `network` as a file of fixed size, with the layout of PyTorch (NCHW)."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when its libraries are loaded
    import litert_torch

    log = io.StringIO()  # its steps
    with warnings.catch_warnings(), contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        warnings.simplefilter("ignore")
        litert_torch.convert(network, (torch.zeros(1, 3, *metadata.imgsz),)).export(str(path))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NOTE, metadata.to_json())


class LiteRtRuntime(Runtime):
    """LiteRT on the CPU with XNNPACK, which is its default."""

    def __init__(self, path: Path, *, threads: int | None) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                note = archive.read(NOTE)
        except (zipfile.BadZipFile, KeyError):
            note = b""
        self.metadata = parse_metadata(note, path)
        try:
            interpreter = Interpreter(str(path), num_threads=threads)
            self.signature = interpreter.get_signature_runner()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: LiteRT cannot read it: {str(error).strip().splitlines()[-1]}") from error
        (self.input,) = self.signature.get_input_details()
        self.outputs = sorted(self.signature.get_output_details())  # output_0, output_1, ...
        self.description = f"LiteRT, CPU, {'its number of' if threads is None else threads} threads"

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs of an image (1, 3, H, W) float32 in 0..1."""
        found = self.signature(**{self.input: images})
        return [found[name] for name in self.outputs]


def open_file(path: Path, *, threads: int | None) -> Runtime:
    """Load a file."""
    return LiteRtRuntime(path, threads=threads)
