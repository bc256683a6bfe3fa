"""Flags of YOLOv5 and Ultralytics that do not exist here: what to use instead."""

import argparse
from collections.abc import Sequence

_LOGGING = "runs are logged to files and TensorBoard; leave it out"
_DRAWING = "line width and font size follow the size of the image; leave it out"
_WINDOWS = "images are not shown in windows; open the files in the run folder"

# By script: flags that do not exist here, with what to use instead.
INSTEAD: dict[str, dict[str, str]] = {
    "train.py": {
        "--half": "use --amp bf16 or --amp fp16 for training; val.py and detect.py have --half",
        "--sync-bn": "training uses one process on one device, so there are no statistics to synchronise; leave it out",
        "--evolve": "set values with --set and compare runs instead",
        "--image-weights": "use --class-balance",
        "--label-smoothing": "class targets are soft scores; for a Darknet network set model.loss.label_smoothing",
        "--quad": "leave it out",
        "--noautoanchor": "the head is anchor-free, and a Darknet network uses the anchors of its cfg; leave it out",
        "--nosave": "last.pt and best.pt are always saved; use --project to choose where",
        "--noplots": "plots take only a few seconds per run; leave it out",
        "--bucket": "data and weights are local; leave it out",
        "--adam": "use --optimizer adamw",
        "--pretrained": "use --weights FILE.pt",
        "--local-rank": "training uses one process on one device; use --device",
        "--entity": _LOGGING,
        "--upload-dataset": _LOGGING,
        "--bbox-interval": _LOGGING,
        "--artifact-alias": _LOGGING,
        "--time": "set the length of the run with --epochs",
        "--fraction": "create an annotation file with the images to use, and name it in the data YAML",
        "--dropout": "the network has no dropout; leave it out",
    },
    "val.py": {
        "--augment": "there is no test-time augmentation; leave it out",
        "--task": "use --split val, test or train",
        "--save-json": "predictions.json is always written; leave it out",
        "--save-txt": "use detect.py --save-txt; val.py always writes predictions.json",
        "--save-hybrid": "leave it out",
        "--save-conf": "predictions.json contains the scores; leave it out",
        "--plots": "plots are always drawn; leave it out",
        "--dnn": "leave it out",
    },
    "detect.py": {
        "--view-img": _WINDOWS,
        "--show": _WINDOWS,
        "--line-width": _DRAWING,
        "--line-thickness": _DRAWING,
        "--hide-labels": "leave it out",
        "--hide-conf": "leave it out",
        "--augment": "there is no test-time augmentation; --tile or a larger --imgsz helps with small objects",
        "--visualize": "leave it out",
        "--update": "leave it out",
        "--dnn": "leave it out",
        "--data": "class names are stored in the weights; leave it out",
        "--vid-fps": "a video keeps the frame rate of its source; leave it out",
    },
    "export.py": {
        "--include": "use --format",
        "--batch-size": "a file takes one image; with --dynamic any number",
        "--batch": "a file takes one image; with --dynamic any number",
        "--device": "files are written and checked on the CPU; leave it out",
        "--simplify": "the exporter optimises the graph; leave it out",
        "--optimize": "the exporter optimises the graph; leave it out",
        "--inplace": "leave it out",
        "--keras": "there is no TensorFlow export",
        "--workspace": "TensorRT chooses it; leave it out",
        "--agnostic-nms": "NMS inside a file is per class; leave --nms out, and detect with --agnostic-nms",
        "--fraction": "use --calibration with the number of images",
    },
}


def refuse_foreign_flags(parser: argparse.ArgumentParser, script: str) -> None:
    """Let the parser answer the flags of other programs with what to use instead, and exit code 2."""
    for flag in INSTEAD[script]:
        parser.add_argument(flag, nargs="*", action=_Refuse, const=INSTEAD[script][flag], help=argparse.SUPPRESS)


class _Refuse(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        parser.error(f"{option_string}: not supported; {self.const}")
