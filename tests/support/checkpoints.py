"""A small data set and an untrained detector with many detections, for tests that need checkpoints."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch

from configs.schema import Config, load
from data.synthetic import draw
from engine.checkpoint import FIELDS, STATE_FIELDS, save_checkpoint
from models import Detector, build_model, census

# OpenCV reads it once per process, with the first video, which in tests may not be opened by data/video.py.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

COUNTS = {"train": 2, "val": 6, "test": 3}
SIDE = 96


def write_data(folder: Path, **counts: int) -> Path:
    """Draw the small set, optionally with other image counts, and write its data YAML; return the YAML's path."""
    draw(folder / "shapes", **{**COUNTS, **counts}, side=SIDE, seed=5, progress=False)
    return write_data_yaml(folder / "shapes.yaml", *COUNTS)


def write_data_yaml(path: Path, *splits: str) -> Path:
    """A data YAML of some splits of the embedded data set, which lies in the folder shapes beside it."""
    lines = "".join(f"{s}: {{images: images/{s}, annotations: annotations/{s}.json}}\n" for s in splits)
    path.write_text(f"root: shapes\n{lines}", encoding="utf-8")
    return path


def class_names(folder: Path) -> list[str]:
    """The class names of the data set drawn in a folder."""
    return [category["name"] for category in json.loads((folder / "annotations/val.json").read_text())["categories"]]


def lively(config: Config, names: list[str]) -> Detector:
    """A detector whose scores vary by location and class, unlike those of a plain untrained one."""
    model = build_model(config.model, names=names, seed=3)
    generator = torch.Generator().manual_seed(1)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0  # set the statistics in one pass, else activations vanish in deeper layers
        model.train()(torch.rand(4, 3, 96, 96, generator=generator))
        for level in model.head.children():
            for branch, spread in ((level.get_submodule("box"), 0.3), (level.get_submodule("classes"), 0.4)):
                last = branch.get_submodule("2")
                last.get_parameter("weight").normal_(0, spread, generator=generator)
                last.get_parameter("bias").zero_()
    return model.eval()


def write_checkpoint(path: Path, data: Path, names: list[str], *, kind: str = "weights", **overrides: object) -> Path:
    """Save such a detector as a run does; ``kind`` training adds weights other than the EMA."""
    config = load("yolo-mish.yaml", {"data": str(data), "train.imgsz": SIDE, **overrides})
    model = lively(config, names)
    weights = model.state_dict()
    content = {"config": config.model_dump(mode="json"), "names": names, "census": [asdict(r) for r in census(model)]}
    if kind == "training":
        raw = {name: torch.zeros_like(value) for name, value in weights.items()}
        state = dict.fromkeys(STATE_FIELDS)
        content |= {"model": raw, "ema": {"model": weights, "updates": 1}, "state": state}
        content |= {name: {} for name in FIELDS["training"] if name not in content}
    else:
        content |= {"model": weights}
    save_checkpoint(path, {"kind": kind, **content})
    return path
