"""Describe a Darknet cfg, convert its weights to a checkpoint and back, find anchors.

    python -m models.darknet yolov4.cfg                              parts, activations, size, training keys
    python -m models.darknet yolov4.cfg yolov4.weights yolov4.pt     to a checkpoint for val.py, detect.py, train.py
    python -m models.darknet runs/train/exp/weights/best.pt own.weights own.cfg    and back (EMA weights)
    python -m models.darknet yolov4.cfg --anchors my.yaml --imgsz 416 own.cfg      anchors and classes for your data

A round trip reproduces the file byte for byte: the checkpoint stores the header.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from configs.cli import Parser, run_script
from configs.schema import Config, load
from core.files import write_text
from data import Annotations, load_dataset
from data.names import find_names
from data.samples import ResizeMode
from engine.checkpoint import load_checkpoint, save_checkpoint
from models import Darknet, adapted, build_model, census, flops, format_census, plan_darknet
from models.darknet.adapt import with_anchors
from models.darknet.anchors import find_anchors, mean_overlap
from models.darknet.cfg import ACTIVATIONS, rewrite, training_keys
from models.darknet.weights import Header, check_weights, read_weights, write_weights
from yolo import YOLO

HEADER = "darknet_header"  # key of a checkpoint: major, minor, revision, seen


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = Parser(
        prog="python -m models.darknet",
        description="Describe, convert and adapt Darknet networks.",
    )
    parser.add_argument("source", metavar="X.CFG|X.PT", help="a Darknet .cfg, or a checkpoint of such a network")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", help="after a cfg: X.weights OUT.pt; after a .pt: OUT.weights OUT.cfg"
    )
    parser.add_argument("--anchors", metavar="YAML", help="find anchors for a data set and write them to OUT.cfg")
    parser.add_argument(
        "--imgsz", "--img", type=int, metavar="PIXELS", help="image size for --anchors; default: the cfg's"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed for --anchors")
    parser.add_argument("--names", metavar="FILE", help="class names; default: a .names file beside, or COCO's")
    options = parser.parse_intermixed_args(argv)
    suffixes = [Path(name).suffix for name in (options.source, *options.files)]
    written = options.files[1:] if suffixes == [".cfg", ".weights", ".pt"] else options.files
    if options.anchors is not None:
        if suffixes not in ([".cfg"], [".cfg", ".cfg"]):
            parser.error("--anchors: expected X.cfg, or X.cfg OUT.cfg")
        require_new(written)
        print(fit_anchors(options.source, options.anchors, options.imgsz, options.seed, out=(*options.files, None)[0]))
    elif suffixes == [".cfg"]:
        print(describe(options.source))
    elif suffixes == [".cfg", ".weights", ".pt"]:
        require_new(written)
        print(to_checkpoint(options.source, *options.files, names=options.names))
    elif suffixes == [".pt", ".weights", ".cfg"]:
        require_new(written)
        print(from_checkpoint(options.source, *options.files))
    else:
        parser.error("expected X.cfg, or X.cfg X.weights OUT.pt, or X.pt OUT.weights OUT.cfg")
    return 0


def require_new(files: Sequence[str]) -> None:
    """FileExistsError for a file that would be overwritten: inputs and outputs are easily confused."""
    for name in files:
        if Path(name).exists():
            raise FileExistsError(f"{name}: exists already and would be overwritten; remove it or choose another name")


def describe(cfg: str) -> str:
    """Describe the network of a cfg: parts, activations, size, FLOPs, and our equivalents of its training keys."""
    config = load(cfg)
    plan = plan_darknet(config.darknet)
    with torch.device("meta"):
        model = build_model(config.darknet, seed=0)
    mapped, idle = training_keys(list(plan.sections))
    width, height = plan.net["width"], plan.net["height"]
    size = len(Header().to_bytes()) + 4 * plan.values
    lines = [
        model.describe(),
        format_census(census(model, device=torch.device("cpu"))),
        f"{plan.classes} classes, {width} x {height} pixels, {plan.values:,} values ({size:,} bytes of .weights), "
        f"{flops(model, model.side):.2f} GFLOPs",
        *(f"{key}: here {ours}" for key, ours in mapped.items()),
        f"training keys without a counterpart here: {', '.join(idle) or 'nothing'}",
    ]
    return "\n".join(lines)


def fit_anchors(cfg: str, data: str, imgsz: int | None, seed: int, *, out: str | None = None) -> str:
    """Find anchors for the training boxes of a data set at the training image size; return a report.

    ``out``: write the cfg with these anchors, and the classes, filters and image size of the training, to this file.
    """
    config = load(cfg, {"data": data, **({} if imgsz is None else {"train.imgsz": imgsz})})
    side, plan = config.train.imgsz or 640, plan_darknet(config.darknet)
    if not plan.heads:
        raise ValueError(f"{cfg}: a classifier without [yolo] layers, which has no anchors")
    annotations = load_dataset(config.data, "train")
    fitting = ResizeMode(stretch=not plan.net["letter_box"])
    sides = training_sides(annotations, fitting, side)
    section = plan.heads[0].section
    before = np.array(section["anchors"]).reshape(-1, 2)
    anchors = find_anchors(sides, section["num"], seed=seed)
    listed = ",  ".join(f"{width:.4g}, {height:.4g}" for width, height in anchors)
    lines = [
        f"{len(sides)} boxes at {side} x {side} pixels; mean IoU with the best of {len(anchors)} anchors: "
        f"{mean_overlap(sides, anchors):.4f}, with those of {cfg} {mean_overlap(sides, before):.4f}",
        f"anchors = {listed}",
    ]
    if out is not None:
        adapted_section, _ = adapted(config.darknet, classes=len(annotations.classes), side=side)
        write_text(out, with_anchors(adapted_section.text or "", anchors.tolist(), file=cfg))
        lines.append(f"{out}: {cfg} with them, for {len(annotations.classes)} classes and {side} x {side} pixels")
    return "\n".join(lines)


def training_sides(annotations: Annotations, fitting: ResizeMode, side: int) -> np.ndarray:
    """(n, 2) width and height of all training boxes, in pixels of images resized to `side`."""
    found = [np.zeros((0, 2))]
    for index, (width, height) in enumerate(annotations.sizes.tolist()):
        boxes = annotations.training_boxes(index)[0].astype(np.float64)
        found.append((boxes[:, 2:] - boxes[:, :2]) * np.array(fitting.size(width, height, side)) / (width, height))
    return np.concatenate(found)


def to_checkpoint(cfg: str, weights: str, out: str, *, names: str | None = None) -> str:
    """Convert weights to a checkpoint; return a report."""
    config = load(cfg)
    plan = plan_darknet(config.darknet)
    file = check_weights(weights, plan)
    known, where = find_names(plan.classes, names, beside=(Path(weights), Path(cfg)))
    model = build_model(config.darknet, names=known, seed=0)
    count = read_weights(file, model)
    content = {"kind": "weights", "config": config.model_dump(mode="json"), "names": known, "model": model.state_dict()}
    rows = [dataclasses.asdict(row) for row in census(model)]
    save_checkpoint(Path(out), {**content, "census": rows, HEADER: list(dataclasses.astuple(file.header))})
    held = "" if file.is_whole(plan) else f", of {len(model.weighted())}; the others have initial weights"
    return f"{out}: {count} convolutions from {weights}{held}; class names: {where}"


def from_checkpoint(checkpoint: str, out: str, cfg: str) -> str:
    """Convert a checkpoint of a Darknet network to weights and a cfg with its current activations."""
    model = YOLO(checkpoint, device="cpu", fuse=False)
    if not isinstance(model.model, Darknet):
        raise ValueError(f"{checkpoint}: a {model.config.model.kind} network, which the Darknet format cannot store")
    text = with_activations(model.config, model.model)
    write_weights(out, model.model, header=_header(load_checkpoint(checkpoint)))
    write_text(cfg, text)
    return f"{out}, {cfg}: {len(model.model.weighted())} convolutions, {model.model.plan.values:,} values"


def with_activations(config: Config, model: Darknet) -> str:
    """The text of the cfg with the activations of the network; ValueError if Darknet does not have one of them."""
    edits = []
    names = {spec: name for name, spec in ACTIVATIONS.items()}
    for layer in model.plan.layers:
        if not layer.has_activation:
            continue
        spec = model.activations[layer.path]
        name = names.get(spec)
        if name is None:
            raise ValueError(f"{layer.path}: Darknet has no activation {spec}; known are {', '.join(ACTIVATIONS)}")
        if name != layer.section["activation"]:
            edits.append((layer.section, "activation", name))
    return rewrite(config.darknet.text or "", edits)


def _header(content: Mapping[str, object]) -> Header:
    """The header stored in a checkpoint, or the default header."""
    kept = content.get(HEADER)
    if not isinstance(kept, list) or len(kept) != 4 or not all(isinstance(number, int) for number in kept):
        return Header()
    return Header(*kept)


if __name__ == "__main__":
    run_script(main)
