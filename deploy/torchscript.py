"""TorchScript files: traced by torch.jit, which PyTorch keeps but no longer develops; run by PyTorch and LibTorch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from deploy.metadata import KEY, Metadata, parse_metadata
from deploy.network import Exportable
from deploy.options import ExportOptions
from deploy.runtime import Runtime


def write_file(network: Exportable, path: Path, options: ExportOptions, metadata: Metadata) -> None:
    """Write `network` as a TorchScript file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and warns about sizes that it keeps symbolic
        trace(network, metadata.imgsz).save(str(path), _extra_files={KEY: metadata.to_json()})


@torch.no_grad()
def trace(network: Exportable, imgsz: tuple[int, int]) -> torch.jit.ScriptModule:
    """The traced network."""
    traced = torch.jit.trace(network, torch.zeros(1, 3, *imgsz), check_trace=False)
    assert isinstance(traced, torch.jit.ScriptModule)
    return torch.jit.freeze(traced.eval())


class TorchScriptRuntime(Runtime):
    """PyTorch on the CPU; its number of threads is that of the process."""

    def __init__(self, path: Path, *, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        texts = {KEY: ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.module = torch.jit.load(str(path), map_location="cpu", _extra_files=texts)
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"{path}: not a TorchScript file: {str(error).splitlines()[0]}") from error
        self.metadata = parse_metadata(texts[KEY], path)
        self.description = f"TorchScript by PyTorch {torch.__version__}, CPU, {torch.get_num_threads()} threads"

    @torch.no_grad()
    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs of images (B, 3, H, W) float32 in 0..1."""
        return [output.numpy() for output in self.module(torch.from_numpy(images))]


def open_file(path: Path, *, threads: int | None) -> Runtime:
    """Load a file."""
    return TorchScriptRuntime(path, threads=threads)
