"""Latency of activations after export, on one thread: python -m benchmarks.deployed onnx openvino ncnn torchscript

Random weights, for latency does not depend on them. Each activation, and Mish in both forms, is exported to every
target; then all files of a target run interleaved. Prints the median over rounds of the ratio to ReLU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch

from configs.schema import load
from core.device import pick_device
from deploy.export import Trained, export_file
from deploy.images import draw_images
from deploy.latency import measure
from deploy.options import ExportOptions
from deploy.runtime import open_runtime
from deploy.targets import find_target
from models import build_model, census


def main() -> int:
    """Export, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deployed", description=__doc__)
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--cfg", default="yolo-mish.yaml")
    parser.add_argument("--acts", nargs="+", default=["relu", "leaky_relu", "hardswish", "silu", "mish"])
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.cfg}, {options.imgsz} pixels, one thread, {options.rounds} rounds; {pick_device('cpu')[1]}")
    with tempfile.TemporaryDirectory() as folder:
        for target in options.targets:
            print(table(target, options, Path(folder)), flush=True)
    return 0


def table(target: str, options: argparse.Namespace, folder: Path) -> str:
    """The line of a target: for each activation, the median over rounds of its latency relative to ReLU."""
    files = {}
    for act in options.acts:
        config = load(options.cfg, {"model.act": act})
        model = build_model(config.model, num_classes=6, seed=0).eval()
        for form in ("formula", "op") if act == "mish" else ("formula",):
            name = f"{act} ({form})" if act == "mish" else act
            weights = folder / "none.pt"
            weights.touch()
            size = (options.imgsz, options.imgsz)
            trained = Trained(model, weights, census(model), config.model_dump(mode="json"), size, 0.7, None)
            place = folder / f"{act}-{form}{find_target(target).suffix}"
            export_file(
                trained, target, ExportOptions(mish=form), images=draw_images(1), output=place, say=lambda _: None
            )
            files[name] = open_runtime(place, threads=1)
    times = measure(files, rounds=options.rounds)
    base = times[options.acts[0]]
    ratios = {name: median(x / y for x, y in zip(values, base, strict=True)) for name, values in times.items()}
    listed = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    return f"{target}: {listed}; {options.acts[0]} {median(base):.1f} ms ({next(iter(files.values())).description})"


if __name__ == "__main__":
    sys.exit(main())
