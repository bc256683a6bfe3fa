"""ncnn models (.ncnn.param and .ncnn.bin in a folder): converted by pnnx from TorchScript, run by ncnn.

They end at the raw maps of the heads, as is usual for ncnn; readers decode them (models/decode.py).
"""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from pathlib import Path

import ncnn
import numpy as np
import pnnx
import torch

from deploy.metadata import Metadata, parse_metadata
from deploy.network import Exportable
from deploy.options import ExportOptions
from deploy.runtime import Runtime

NOTE = "metadata.json"


def write_file(network: Exportable, path: Path, options: ExportOptions, metadata: Metadata) -> None:
    """Write `network` as a folder; `half` stores weights in fp16. ValueError naming operators that ncnn lacks."""
    path.mkdir(exist_ok=True)
    param = path / f"{path.name}.ncnn.param"
    height, width = metadata.imgsz
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is deprecated, and pnnx reads nothing else
            torch.jit.trace(network, torch.zeros(1, 3, height, width), check_trace=False).save(f"{folder}/network.pt")
        # The other files that it writes go to its working folder.
        arguments = [f"inputshape=[1,3,{height},{width}]", f"fp16={int(options.half)}", f"ncnnparam={param.absolute()}"]
        arguments.append(f"ncnnbin={param.with_suffix('.bin').absolute()}")
        command = [pnnx.EXEC_PATH, "network.pt", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not param.is_file():
        raise ValueError(f"pnnx failed: {(done.stderr.strip() or 'without a word').splitlines()[-1]}")
    kinds = {line.split()[0] for line in param.read_text(encoding="utf-8").splitlines()[2:] if line.strip()}
    foreign = sorted(kind for kind in kinds if "." in kind or "::" in kind or ncnn.layer_to_index(kind) < 0)
    if foreign:
        raise ValueError(f"no operator for {', '.join(foreign)}")
    (path / NOTE).write_text(metadata.to_json(), encoding="utf-8")


class NcnnRuntime(Runtime):
    """ncnn on the CPU; in fp32 unless the file was exported with `half`."""

    def __init__(self, path: Path, *, threads: int | None) -> None:
        folder = path if path.is_dir() else path.parent
        note = folder / NOTE
        self.metadata = parse_metadata(note.read_bytes() if note.is_file() else None, path)
        self.net = ncnn.Net()
        half = self.metadata.precision == "fp16"
        self.net.opt.use_fp16_packed = self.net.opt.use_fp16_storage = self.net.opt.use_fp16_arithmetic = half
        self.net.opt.use_bf16_storage = False
        if threads is not None:
            self.net.opt.num_threads = threads
        param = next(iter(sorted(folder.glob("*.ncnn.param"))))
        if self.net.load_param(str(param)) or self.net.load_model(str(param.with_suffix(".bin"))):
            raise ValueError(f"{path}: ncnn cannot read it")
        # Others are what no layer reads, such as the half of a split that a Darknet network leaves.
        self.outputs = [name for name in self.net.output_names() if name.startswith("out")]
        self.description = f"ncnn {ncnn.__version__}, CPU, {self.net.opt.num_threads} threads"

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The raw maps (1, C, h, w) of an image (1, 3, H, W) float32 in 0..1."""
        with self.net.create_extractor() as extractor:
            extractor.input(self.net.input_names()[0], ncnn.Mat(images[0]).clone())
            found = [extractor.extract(name) for name in self.outputs]
        if any(status for status, _ in found):
            raise ValueError("ncnn could not compute the outputs")
        return [np.array(output)[None] for _, output in found]


def open_file(path: Path, *, threads: int | None) -> Runtime:
    """Load a folder, or its .param."""
    return NcnnRuntime(path, threads=threads)
