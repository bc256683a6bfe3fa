"""Export a detector for another runtime: ``python export.py --weights runs/train/exp/weights/best.pt --format onnx``.

Batch norms are folded, and the file contains the decoder: boxes in pixels of its input, and scores. At the end the file
is run by its runtime on real images and compared with PyTorch. val.py and detect.py take it as --weights.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from configs.cli import Parser, add_weights_flags, require_weights, run_script
from configs.foreign_flags import refuse_foreign_flags
from core.commands import command
from core.text import printable
from deploy.options import MISH_FORMS, ExportKeywords, ExportOptions


def main(argv: Sequence[str] | None = None) -> int:
    """Export as the command line says; returns the exit code."""
    arguments = parse(argv)

    from core.allocator import MODERATE, keep_freed_memory
    from deploy.targets import find_target, require_options, require_packages
    from yolo import YOLO

    chosen = {name: getattr(arguments, name) for name in ExportKeywords.__annotations__}
    options = ExportOptions(**{name: value for name, value in chosen.items() if value is not None})
    require_options(arguments.format, options)  # before anything is loaded
    require_packages(arguments.format, int8=options.int8)
    keep_freed_memory(MODERATE)
    model = YOLO(arguments.weights, cfg=arguments.cfg, names=arguments.names, device="cpu")
    print(model.describe(), flush=True)
    exported = model.export(arguments.format, data=arguments.data, output=arguments.output, **chosen)
    found = exported.metadata
    if found.mish:
        sites = sum(row["sites"] for row in found.census if row["activation"].startswith("mish"))
        form = "the formula x w / (2 - w)" if found.mish == "formula" else "the operator of the target"
        print(f"mish: {sites} layers as {form}")
    if exported.parity is None:
        print(f"not run: {find_target(arguments.format).title} has no runtime here; nothing was compared")
    elif arguments.data is not None:
        size = (found.imgsz[0], found.imgsz[1])
        compared = {"PyTorch": model, "the file": YOLO(exported.path)}
        if not found.nms.inside:
            for who, each in compared.items():
                numbers = each.val(arguments.data, imgsz=size, rect=False).stats.numbers
                print(f"val of {printable(arguments.data)}: mAP50-95 {numbers['mAP50-95']:.4f} by {who}", flush=True)
    height, width = found.imgsz
    size_text = f"any multiple of {found.stride}" if found.dynamic else f"{height}x{width}"
    print(f"{exported.path}: {found.outputs} of images of {size_text} pixels, {found.precision}")
    if exported.parity is not None:
        print(f"use it: {command('detect.py', '--weights', exported.path, '--source', 'images/')}")
    return 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="export.py", description=__doc__)
    add = parser.add_argument
    add_weights_flags(parser)
    add("--format", default="onnx", help="onnx, torchscript, torch_export, openvino, ncnn, coreml, tflite or tensorrt")
    add("--output", metavar="FILE", help="where to write; default: beside the weights")
    add("--dynamic", action="store_true", help="any batch, any multiple of the stride; --imgsz: the default size")
    add("--half", action="store_true", help="weights and network in fp16; input and outputs stay fp32")
    add("--int8", action="store_true", help="quantise after training, calibrated on training images of --data")
    add("--data", metavar="YAML", help="data set for the check, mAP and --int8; default: drawn images, without mAP")
    add("--calibration", type=int, default=ExportOptions.calibration, help="training images for --int8")
    add("--opset", type=int, default=ExportOptions.opset, help="ONNX operator set")
    add("--mish", choices=MISH_FORMS, help="Mish as formula, or operator of the target; default: the faster one")
    add("--nms", action="store_true", help="NMS inside the file: detections (n, 6) of one image")
    add("--conf", type=float, default=ExportOptions.conf, help="with --nms: confidence threshold")
    add("--max-det", type=int, default=ExportOptions.max_det, help="with --nms: maximum number of detections")
    refuse_foreign_flags(parser, "export.py")
    arguments = parser.parse_args(argv)
    arguments.weights = require_weights(parser, arguments.weights)
    return arguments


if __name__ == "__main__":
    run_script(main)
