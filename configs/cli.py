"""The command lines: the spellings that users of YOLOv5 and Ultralytics type, each an override of a key of the config.

Imports neither torch nor pydantic, so that ``--help`` answers at once.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from configs.loading import parse_yaml, read_yaml
from core.text import printable

DEBUG = "YOLO_MISH_DEBUG"
LONGEST_COMPLAINT = 1000  # letters; a message quotes what was found, and that may be a whole file


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and exit code 2; underscores in flags count as dashes."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False, **arguments)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Accept ``--batch_size`` where ``--batch-size`` is meant."""
        args = [_dashes(argument) for argument in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")


def _dashes(argument: str) -> str:
    name, equals, value = str(argument).partition("=")
    return (name.replace("_", "-") if name.startswith("--") else name) + equals + value


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run an entry script: what the user got wrong is one line on stderr and exit code 2, without a traceback.

    ValueError, FileNotFoundError and other OSErrors are the user's; anything else is ours and keeps its traceback.
    The environment variable YOLO_MISH_DEBUG=1 keeps the traceback of all.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # read when OpenCV is imported, later
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with an image is said by data/image.py
    try:
        sys.exit(main() or 0)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        if os.environ.get(DEBUG, "0") != "0":
            raise
        _complain(error)
        sys.exit(2)
    except FloatingPointError as error:  # a training that has diverged
        _complain(error)
        sys.exit(1)


def _complain(error: Exception) -> None:
    print(f"{Path(sys.argv[0]).name}: error: {one_line(str(error)) or type(error).__name__}", file=sys.stderr)


def one_line(text: str) -> str:
    """A message on one line of bounded length, without control characters, which a terminal would obey."""
    line = " ".join(text.split())
    line = line if len(line) <= LONGEST_COMPLAINT else f"{line[:LONGEST_COMPLAINT]} ..."
    return printable(line)


@dataclass(frozen=True)
class Flag:
    """A command-line flag and the key of the config that it sets."""

    names: tuple[str, ...]
    key: str
    help: str
    type: Callable[[str], Any] | None = str
    choices: tuple[str, ...] | None = None
    const: Any = None  # the value of the flag given bare


def _freeze(text: str) -> list[str]:
    return [part for part in text.replace(",", " ").split() if part]


TRAIN = (
    Flag(("--data",), "data", "data YAML, by path or by its name in configs/data/"),
    Flag(("--weights",), "weights", "start from these weights; what fits by name and shape is loaded"),
    Flag(("--epochs",), "train.epochs", "passes over the training images", int),
    Flag(("--batch", "--batch-size"), "train.batch", "images a step", int),
    Flag(("--img", "--imgsz", "--img-size"), "train.imgsz", "side of the training images in pixels", int),
    Flag(("--nbs",), "train.nominal_batch", "accumulate gradients up to this many images", int),
    Flag(("--optimizer",), "train.optimizer", "optimizer", str.lower, ("sgd", "adamw")),
    Flag(("--lr0", "--lr"), "train.lr", "peak learning rate", float),
    Flag(("--cos-lr",), "train.schedule", "cosine schedule", None, const="cosine"),
    Flag(("--linear-lr",), "train.schedule", "linear schedule", None, const="linear"),
    Flag(("--patience",), "train.patience", "stop after so many epochs without a better mAP; 0: never", int),
    Flag(("--freeze",), "train.freeze", "parts kept as they are, as in backbone,neck.N3", _freeze),
    Flag(("--multi-scale",), "train.multi_scale", "vary the side of the images by this fraction", float, const=0.5),
    Flag(("--close-mosaic",), "train.close_mosaic", "last epochs without mosaic and mixup", float),
    Flag(("--seed",), "train.seed", "seed of weights, order and augmentation", int),
    Flag(("--deterministic",), "train.deterministic", "deterministic GPU kernels or an error", None, const=True),
    Flag(("--device",), "train.device", "cpu, cuda, or the number of a GPU"),
    Flag(("--workers",), "train.workers", "loader processes", int),
    Flag(
        ("--cache",), "train.cache", "keep decoded images in ram or on disk", str, ("auto", "ram", "disk", "off"), "ram"
    ),
    Flag(("--amp",), "train.amp", "mixed precision", str, ("auto", "off", "bf16", "fp16"), "auto"),
    Flag(("--no-amp",), "train.amp", "single precision throughout", None, const="off"),
    Flag(("--single-cls",), "train.single_cls", "treat all classes as one", None, const=True),
    Flag(("--strict-data",), "train.strict_data", "stop at the first damaged image or annotation", None, const=True),
    Flag(("--save-period",), "train.save_period", "also keep the checkpoint of every so many epochs", int),
    Flag(("--noval",), "train.val", "evaluate after the last epoch only", None, const=False),
    Flag(("--profile",), "train.profile", "print the split of so many steps by part", int, const=20),
    Flag(("--project",), "run.project", "folder of the runs"),
    Flag(("--name",), "run.name", "name of the run"),
    Flag(("--exist-ok",), "run.exist_ok", "write into an existing run folder", None, const=True),
    Flag(("--loggers",), "run.loggers", "any of tensorboard,wandb,mlflow, besides console and results.csv", _freeze),
)

# Flags of other trainers that have no meaning here, with what to use instead.
INSTEAD = {
    "--half": "training precision is --amp bf16 or --amp fp16; val.py and detect.py have --half",
    "--sync-bn": "one process trains on one device, so there are no batch statistics to exchange; leave it out",
    "--rect": "training images are square mosaics; validation is rectangular by default (val.rect); leave it out",
    "--evolve": "set values with --set and compare runs instead",
    "--image-weights": "there is no sampling by class; leave it out",
    "--label-smoothing": "the class targets are soft scores; a Darknet network has model.loss.label_smoothing",
    "--quad": "leave it out",
    "--noautoanchor": "the head has no anchors, and a Darknet network those of its cfg; leave it out",
    "--nosave": "last.pt and best.pt are always kept; use --project to put them elsewhere",
    "--noplots": "pictures cost a few seconds a run; leave it out",
    "--bucket": "data and weights are local; leave it out",
    "--adam": "use --optimizer adamw",
    "--pretrained": "use --weights FILE.pt",
    "--local-rank": "one process trains on one device; use --device",
    "--entity": "runs are logged to files and TensorBoard; leave it out",
    "--upload-dataset": "runs are logged to files and TensorBoard; leave it out",
    "--bbox-interval": "runs are logged to files and TensorBoard; leave it out",
    "--artifact-alias": "runs are logged to files and TensorBoard; leave it out",
    "--time": "plan the run with --epochs",
    "--fraction": "make an annotation file of the images you want and name it in the data YAML",
    "--dropout": "the network has no dropout; leave it out",
}

# Keys of a YOLOv5 or Ultralytics hyperparameter file and the key they set here.
HYPERPARAMETERS = {
    "lr0": "train.lr",
    "lrf": "train.lr_final",
    "momentum": "train.momentum",
    "weight_decay": "train.weight_decay",
    "warmup_epochs": "train.warmup",
    "box": "model.loss.box",
    "cls": "model.loss.cls",
    "dfl": "model.loss.dfl",
    "hsv_h": "augment.hsv_h",
    "hsv_s": "augment.hsv_s",
    "hsv_v": "augment.hsv_v",
    "degrees": "augment.degrees",
    "translate": "augment.translate",
    "scale": "augment.scale",
    "shear": "augment.shear",
    "perspective": "augment.perspective",
    "flipud": "augment.flip_ud",
    "fliplr": "augment.flip_lr",
    "mosaic": "augment.mosaic",
    "mixup": "augment.mixup",
}
# Their keys that have no meaning for this network; named once when a file holds them.
MEANINGLESS = {
    *("warmup_momentum", "warmup_bias_lr", "cls_pw", "obj", "obj_pw", "iou_t", "anchor_t", "anchors", "fl_gamma"),
    *("copy_paste", "copy_paste_mode", "label_smoothing", "pose", "kobj", "bgr", "auto_augment", "erasing", "cutmix"),
}


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg``, ``--set``, ``--hyp``, the flags of TRAIN and the refusals of INSTEAD."""
    parser.add_argument("--cfg", metavar="YAML", help="configuration, by path or by its name in configs/")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="set any value")
    parser.add_argument("--hyp", metavar="YAML", help="hyperparameters: our keys, or those of YOLOv5 or Ultralytics")
    for flag in TRAIN:
        options: dict[str, Any] = {"dest": flag.key, "default": argparse.SUPPRESS, "help": flag.help}
        if flag.type is None:
            parser.add_argument(*flag.names, action="store_const", const=flag.const, **options)
        else:
            if flag.const is not None:
                options |= {"nargs": "?", "const": flag.const}
            options |= {"choices": flag.choices} if flag.choices else {"metavar": flag.key.rsplit(".", 1)[-1].upper()}
            parser.add_argument(*flag.names, type=flag.type, **options)
    for name in INSTEAD:
        parser.add_argument(name, nargs="*", action=_Refuse, help=argparse.SUPPRESS)


def add_weights_flags(parser: argparse.ArgumentParser) -> None:
    """Add what says which trained detector runs and how its boxes are suppressed, the same in val.py and detect.py."""
    add = parser.add_argument
    add("--weights", metavar="BEST.PT", help="checkpoint of a training run, or a Darknet .weights")
    add("--cfg", metavar="X.CFG", help="the network of a Darknet .weights")
    add(
        "--names",
        metavar="FILE",
        help="class names of a Darknet .weights, a line each; None: *.names beside it, or COCO's",
    )
    add("--imgsz", "--img", "--img-size", type=int, metavar="PIXELS", help="long side of the input; None: as trained")
    add(
        "--iou",
        "--iou-thres",
        type=float,
        help="overlap from which two boxes of a class are one; None: 0.7, Darknet's 0.45",
    )


class _Refuse(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        parser.error(f"{option_string}: has no meaning here; {INSTEAD[option_string or '']}")


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what the command line sets, dotted key -> value: ``--hyp``, then the flags, then ``--set``."""
    given: dict[str, Any] = read_hyperparameters(arguments.hyp) if arguments.hyp else {}
    keys = {flag.key for flag in TRAIN}
    given |= {key: value for key, value in vars(arguments).items() if key in keys}
    given |= dict(parse_setting(text) for text in arguments.set)
    return given


def parse_setting(text: str) -> tuple[str, Any]:
    """Split ``model.neck.act=relu`` into key and value, the value read as YAML."""
    key, equals, value = text.partition("=")
    text = one_line(text)
    if not equals or not key.strip() or not key.isprintable():
        raise ValueError(f"--set {text}: expected KEY=VALUE, as in model.neck.act=relu")
    try:
        return key.strip(), parse_yaml(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {text}: the value is not YAML: {' '.join(str(error).split())}") from error


def read_hyperparameters(path: str) -> dict[str, Any]:
    """Read a hyperparameter file: dotted keys of ours, or the keys of YOLOv5 and Ultralytics, whose meaning is kept."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"--hyp {path}: no such file")
    tree = read_yaml(file)
    idle = [key for key in tree if key in MEANINGLESS]
    if idle:
        print(f"--hyp {path}: no meaning for this network, not used: {', '.join(idle)}", file=sys.stderr)
    return {HYPERPARAMETERS.get(key, key): value for key, value in tree.items() if key not in idle}
