"""The flags that override the configuration: names as in YOLOv5 and Ultralytics, the key that each sets, help."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

AUTO = "auto"  # as a batch size: chosen by train.py


@dataclass(frozen=True)
class Flag:
    """A command-line flag and the configuration key it sets."""

    names: tuple[str, ...]
    key: str
    help: str
    type: Callable[[str], Any] | None = str
    choices: tuple[str, ...] | None = None
    const: Any = None  # value of the flag without an argument
    metavar: str | None = None  # None: the last part of the key


def _names(text: str) -> list[str]:
    return [part for part in text.replace(",", " ").split() if part]


def _batch(text: str) -> int | str:
    return text if text == AUTO else int(text)


_batch.__name__ = "int"  # argparse names it in its errors

TRAIN = (
    Flag(
        ("--data",),
        "data",
        "data YAML (ours, YOLOv5's or Ultralytics'), by path or by name in configs/data/, or a folder of a data set",
    ),
    Flag(("--weights",), "weights", "initial weights; parameters that fit by name and shape are loaded"),
    Flag(
        ("--epochs",),
        "train.epochs",
        "number of epochs; default: 100, or that recommended for the embedded data set",
        int,
    ),
    Flag(
        ("--batch", "--batch-size"),
        "train.batch",
        f"batch size; {AUTO}: as many images as fit into memory, at most 16 on a CPU and 64 on a GPU",
        _batch,
    ),
    Flag(
        ("--img", "--imgsz", "--img-size"),
        "train.imgsz",
        "image size in pixels; default: 640, or that of the embedded data set",
        int,
    ),
    Flag(
        ("--nbs",),
        "train.nominal_batch",
        "nominal batch size: accumulate gradients up to this many images; default: no accumulation",
        int,
    ),
    Flag(("--optimizer",), "train.optimizer", "optimizer", str.lower, ("muon", "adamw", "sgd")),
    Flag(("--lr0", "--lr"), "train.lr", "peak learning rate; default: that of the optimizer", float),
    Flag(("--cos-lr",), "train.schedule", "cosine schedule", None, const="cosine"),
    Flag(("--linear-lr",), "train.schedule", "linear schedule", None, const="linear"),
    Flag(
        ("--patience",), "train.patience", "stop after N epochs without a better mAP50-95; 0: never", int, metavar="N"
    ),
    Flag(("--freeze",), "train.freeze", "parts to freeze, as in backbone,neck.N3", _names),
    Flag(
        ("--multi-scale",),
        "train.multi_scale",
        "vary the image size by up to this fraction; 0.5 if no value is given",
        float,
        const=0.5,
    ),
    Flag(
        ("--rect",),
        "train.rect",
        "batches of images of like aspect, not padded to squares; without mosaic, copy-paste and mixup",
        None,
        const=True,
    ),
    Flag(
        ("--class-balance",),
        "train.class_balance",
        "repeat images with classes that fewer than this fraction of the images have; 0.1 if no value is given",
        float,
        const=0.1,
    ),
    Flag(
        ("--close-mosaic",),
        "train.close_mosaic",
        "number (or fraction, if below 1) of final epochs without mosaic, copy-paste and mixup",
        float,
    ),
    Flag(("--seed",), "train.seed", "random seed of weights, data order and augmentation", int),
    Flag(("--deterministic",), "train.deterministic", "require deterministic GPU kernels", None, const=True),
    Flag(
        ("--device",),
        "train.device",
        "auto, cpu, cuda, a GPU number, or a device for each of several processes, as in 0,1",
    ),
    Flag(("--workers",), "train.workers", "number of data loader processes; default: one per core, at most 8", int),
    Flag(
        ("--threads",),
        "train.threads",
        "number of threads that compute the network on a CPU; default: one per core; 1 is best beside busy programs",
        int,
    ),
    Flag(
        ("--cache",),
        "train.cache",
        "cache for decoded images; ram if no value is given",
        str,
        ("auto", "ram", "disk", "off"),
        "ram",
    ),
    Flag(
        ("--amp",),
        "train.amp",
        "mixed precision; auto if no value is given",
        str,
        ("auto", "off", "bf16", "fp16"),
        "auto",
    ),
    Flag(("--no-amp",), "train.amp", "disable mixed precision", None, const="off"),
    Flag(("--compile",), "train.compile", "train the network by torch.compile", None, const=True),
    Flag(
        ("--grad-checkpointing",),
        "train.grad_checkpointing",
        "compute each block again in the backward pass: less memory, more time",
        None,
        const=True,
    ),
    Flag(("--single-cls",), "train.single_cls", "treat all classes as one class", None, const=True),
    Flag(("--strict-data",), "train.strict_data", "stop at the first damaged image or annotation", None, const=True),
    Flag(
        ("--allow-skipped",),
        "train.allow_skipped",
        "train even if more than half of the images or annotations cannot be used",
        None,
        const=True,
    ),
    Flag(("--save-period",), "train.save_period", "also save a checkpoint every N epochs; 0: never", int, metavar="N"),
    Flag(("--noval",), "train.val", "skip validation except after the last epoch", None, const=False),
    Flag(
        ("--profile",),
        "train.profile",
        "before training, time the parts of N steps; 20 if N is omitted, 0: none",
        int,
        const=20,
        metavar="N",
    ),
    Flag(("--project",), "run.project", "parent folder of the run folders"),
    Flag(("--name",), "run.name", "name of the run folder"),
    Flag(("--exist-ok",), "run.exist_ok", "write into an existing run folder", None, const=True),
    Flag(("--loggers",), "run.loggers", "any of tensorboard,wandb,mlflow, besides console and results.csv", _names),
)
