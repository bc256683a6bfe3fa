"""torch.export files (.pt2): the graph that PyTorch's compilers and ExecuTorch start from; run by PyTorch."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.text import one_line
from deploy.metadata import KEY, Metadata, parse_metadata
from deploy.network import Exportable, free_sizes
from deploy.options import ExportOptions
from deploy.runtime import Runtime


def write_file(network: Exportable, path: Path, options: ExportOptions, metadata: Metadata) -> None:
    """Write `network` as an exported program."""
    images = torch.zeros(2 if options.dynamic else 1, 3, *metadata.imgsz)
    shapes = free_sizes(network) if options.dynamic else None
    program = torch.export.export(network, (images,), dynamic_shapes=shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, str(path), extra_files={KEY: metadata.to_json()})


class TorchExportRuntime(Runtime):
    """PyTorch's eager operators on the CPU; its number of threads is that of the process."""

    def __init__(self, path: Path, *, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        texts: dict[str, Any] = {KEY: ""}
        try:
            with warnings.catch_warnings(), contextlib.redirect_stderr(None):
                warnings.simplefilter("ignore")
                self.module = torch.export.load(str(path), extra_files=texts).module()
        except Exception as error:  # of its unpickler, archive reader and schema check
            raise ValueError(f"{path}: not a torch.export file: {one_line(repr(error))[:200]}") from error
        self.path, self.metadata = path, parse_metadata(texts[KEY], path)
        self.description = f"torch.export by PyTorch {torch.__version__}, CPU, {torch.get_num_threads()} threads"

    @torch.no_grad()
    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Outputs of images (B, 3, H, W) float32 in 0..1; ValueError for a size that the program was not made for."""
        try:
            return [output.numpy() for output in self.module(torch.from_numpy(images))]
        except AssertionError as error:  # its guards: a dynamic program refuses a height of one stride
            height, width = images.shape[2:]
            raise ValueError(f"{self.path}: cannot run images of {height}x{width} pixels: {one_line(error)}") from error


def open_file(path: Path, *, threads: int | None) -> Runtime:
    """Load a file."""
    return TorchExportRuntime(path, threads=threads)
