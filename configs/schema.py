"""The typed, frozen configuration: ``load(path, overrides)`` reads a YAML file into a ``Config``.

``configs/yolo.yaml`` states every value once, with a comment; this file states types and ranges, with ``fields.py`` and
``model_schema.py``.
An unknown key or an invalid value is a ``ValueError`` with the key, where it was set, and the nearest valid key.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    model_validator,
)

from configs.cli import parse_setting
from configs.errors import explain
from configs.fields import AtLeastOne, Count, Frozen, Length, NonNegative, OnOff, PathText, Positive, Seed, Unit, finite
from configs.loading import CONFIGS, Tree, absolute, embed_cfg, find, flatten, load_data, read_chain, set_value
from configs.model_schema import DarknetModel, Model, YoloModel, kind_of

EmbeddedImages = Annotated[int, Field(ge=1, le=100_000)]
USUAL_LR = {"muon": 0.01, "adamw": 0.002, "sgd": 0.01}
MIN_STRIDE = 32  # image sizes are multiples of it whatever the model
MIN_IMGSZ, MAX_IMGSZ = 64, 4096
HOLD_OUT = "expected images to validate on, or --set train.holdout=0.1 for train.py to hold out a tenth of train"


class Split(Frozen):
    """A folder of images and their annotations, as absolute paths."""

    images: PathText
    annotations: PathText  # for yolo the file with the class names, for voc the folder of XML files
    format: str = "coco"  # a key of data.READERS or of data.conversion.CONVERTERS
    parts: list[PathText] = []  # for yolo folders and lists of images, for voc lists of names; []: all


class Embedded(Frozen):
    """How the embedded data set is drawn (data/synthetic.py), and the schedule recommended for it."""

    train: EmbeddedImages
    val: EmbeddedImages
    test: EmbeddedImages
    side: Annotated[int, Field(ge=64, le=1024)]
    seed: Seed = 0
    epochs: AtLeastOne


class Data(Frozen):
    """A data set: its splits, and how it is drawn if it is the embedded one."""

    root: PathText
    train: Split
    val: Split
    test: Split | None = None
    embedded: Embedded | None = None

    def split(self, name: str) -> Split:
        """Return a split by name; ValueError listing the available ones if there is none of that name."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        split = splits.get(name)
        if split is None:
            available = ", ".join(key for key, value in splits.items() if value is not None)
            raise ValueError(f"the data set at {self.root} has no split {name!r}; it has {available}")
        return split


class Augment(Frozen):
    """Augmentation of the training images; gains and ranges are symmetric about no change."""

    mosaic: Unit = 1.0
    mixup: Unit = 0.0
    copy_paste: Unit = 0.0
    hsv_h: Unit = 0.015
    hsv_s: Unit = 0.7
    hsv_v: Unit = 0.4
    flip_lr: Unit = 0.5
    flip_ud: Unit = 0.0
    degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    translate: Unit = 0.1
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.5
    shear: Annotated[float, Field(ge=0, le=45)] = 0.0
    perspective: Annotated[float, Field(ge=0, le=0.01)] = 0.0
    blur: Unit = 0.01
    gray: Unit = 0.01
    clahe: Unit = 0.01
    extra: Annotated[list[dict[str, Any]], AfterValidator(finite)] = []


class Train(Frozen):
    """Schedule and hardware of the training. Lengths are fractions of the run if below 1, otherwise epochs."""

    epochs: AtLeastOne | None = None
    last_epoch_batches: AtLeastOne | None = None  # ends the last epoch early; null: whole epochs
    imgsz: Annotated[int, Field(ge=MIN_IMGSZ, le=MAX_IMGSZ, multiple_of=MIN_STRIDE)] | None = None
    batch: AtLeastOne = 16
    nominal_batch: AtLeastOne | None = None
    optimizer: Literal["muon", "adamw", "sgd"] = "muon"
    lr: Positive | None = None
    lr_final: Unit = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 0.0005
    schedule: Literal["cosine", "linear", "flat_cosine"] = "cosine"
    warmup: Length = 0.05
    clip: NonNegative = 10.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.05
    close_mosaic: Length = 0.25
    multi_scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rect: bool = False
    class_balance: Unit = 0.0
    amp: Annotated[Literal["auto", "off", "bf16", "fp16"], OnOff] = "auto"
    channels_last: Annotated[Literal["auto", "on", "off"], OnOff] = "auto"
    compile: bool = False
    graphs: Annotated[Literal["auto", "on", "off"], OnOff] = "auto"
    grad_checkpointing: bool = False
    patience: Count = 0
    freeze: list[str] = []
    single_cls: bool = False
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: Seed = 0
    deterministic: bool = False
    device: str = "auto"
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    cache: Literal["auto", "ram", "disk", "off"] = "auto"
    strict_data: bool = False
    allow_skipped: bool = False
    val: bool = True
    save_period: Count = 0
    save_minutes: NonNegative = 10.0
    profile: Count = 0


class Val(Frozen):
    """Detections for mAP, down to the low confidence that precision-recall curves need."""

    conf: Unit = 0.001
    iou: Unit | None = None
    max_det: AtLeastOne = 300
    batch: AtLeastOne | None = None
    rect: bool = True


class Run(Frozen):
    """The run folder: project/name, with a number appended if the name is taken and not exist_ok."""

    project: str = "runs/train"
    name: str = "exp"
    exist_ok: bool = False
    plan: str | None = None  # of a comparison, set by compare.py: its hash and the time at which it was written
    loggers: list[str] = ["tensorboard"]  # names of engine.loggers.LOGGERS, which checks them before a run starts
    arm: str | None = None  # set by compare.py: the arm's label, None for the activation's
    varies: list[str] = []  # set by compare.py with `arm`: the config keys in which the arms differ


class Config(Frozen):
    """The configuration of a training run."""

    model: Model = YoloModel()
    data: Data
    weights: str | None = None
    train: Train = Train()
    val: Val = Val()
    augment: Augment = Augment()
    run: Run = Run()

    @property
    def darknet(self) -> DarknetModel:
        """The section of a Darknet network; ValueError for another kind of model."""
        if not isinstance(self.model, DarknetModel):
            raise ValueError(f"model.kind: found {self.model.kind}; expected darknet")
        return self.model

    def as_yaml(self) -> str:
        """Return the configuration as YAML; ``load`` reads it back to an equal one."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def difference(self, base: str = "yolo.yaml") -> Tree:
        """Return the values that differ from the configuration ``base`` in configs/, by dotted key."""
        reference = flatten(load(CONFIGS / base).model_dump(mode="json"))
        values = flatten(self.model_dump(mode="json"))
        values.pop("model.text", None)  # the content of the file model.cfg
        return {key: value for key, value in values.items() if reference.get(key) != value}

    @model_validator(mode="after")
    def _check_lengths(self) -> "Config":
        for key in ("warmup", "close_mosaic"):
            value = getattr(self.train, key)
            if value >= 1 and value != int(value):
                raise ValueError(f"train.{key}: {value} is neither a fraction below 1 nor a whole number of epochs")
        return self


def load(path: str | Path, overrides: Iterable[str] | Mapping[str, object] = ()) -> Config:
    """Read the configuration at ``path`` (a bare name is looked up in configs/) and apply ``overrides``.

    A Darknet ``.cfg`` is read as yolo.yaml with that network. ``overrides`` are ``"model.neck.act=relu"`` strings with
    YAML values, or a mapping from dotted keys to values. FileNotFoundError for a missing file, ValueError for any other
    fault.
    """
    file = find(path, CONFIGS)
    tree, origins = read_chain(file)
    command = overrides if isinstance(overrides, Mapping) else dict(parse_setting(text) for text in overrides)
    _refuse_hidden(tree, command, origins)
    if "model.kind" in command and command["model.kind"] != kind_of(tree.get("model", {})):
        tree["model"] = {}  # the keys of one kind do not apply to the other
    for key, value in command.items():
        set_value(tree, key.split("."), value)
        origins[key] = "command line"
    embed_cfg(tree)
    if isinstance(tree.get("data"), str):
        tree["data"] = load_data(tree["data"])
    elif isinstance(tree.get("data"), dict):
        tree["data"] = absolute(tree["data"], file)

    def where(key: str) -> str:
        """The file that set a key, or a key above or below it."""
        places = [place for origin, place in origins.items() if origin == key or origin.startswith(key + ".")]
        return places[-1] if places else next((origins[o] for o in origins if key.startswith(o)), file.name)

    data, train = tree.get("data"), tree.get("train")
    only_train = isinstance(data, dict) and isinstance(data.get("train"), dict) and data.get("val") is None
    if isinstance(data, dict) and only_train and isinstance(train, dict) and train.get("holdout"):
        data["val"] = data["train"]  # never read: the images to validate on are held out of train
    try:
        return _resolve(Config.model_validate(tree))
    except ValidationError as error:
        text = explain(error, Config, name=file.name, where=where)
        hint = f"; {HOLD_OUT}" if only_train and error.error_count() == 1 else ""
        raise ValueError(text + hint) from error


def _refuse_hidden(tree: Mapping[str, object], command: Mapping[str, object], origins: Mapping[str, str]) -> None:
    """Raise ValueError if a wide activation key of the command line is overridden by a narrower one of a file."""
    for wide in command:
        for narrow, value in flatten(tree).items():
            if value is None or narrow in command or not _overrides(narrow, wide):
                continue
            raise ValueError(
                f"{wide} (command line) is overridden by {narrow}: {value} ({origins.get(narrow)}); "
                f"set {narrow} too, or to null to inherit {wide}"
            )


def _overrides(narrow: str, wide: str) -> bool:
    """Whether the activation at one key takes precedence over that at another for some layers."""
    if not wide.startswith("model.") or not narrow.startswith("model.") or narrow == wide:
        return False
    is_part = narrow.endswith(".act") and narrow != "model.act"  # that of a part or stage
    if wide.startswith("model.replace."):
        return is_part
    if not wide.endswith(".act"):
        return False
    replaces = narrow.startswith("model.replace.") and wide == "model.act"
    return replaces or is_part and narrow.startswith(wide.removesuffix("act"))


def _resolve(config: Config) -> Config:
    """Replace the open values (None): by the schedule of the embedded data set, or the usual defaults."""
    embedded, model = config.data.embedded, config.model
    stride = MIN_STRIDE if model.kind == "darknet" else max(MIN_STRIDE, 2 ** max(model.levels))
    train: dict[str, int | float] = {}
    if config.train.epochs is None:
        train["epochs"] = embedded.epochs if embedded else 100
    if config.train.imgsz is None:
        usual = embedded.side if embedded else 640
        size = _cfg_size(model) if model.kind == "darknet" else -(-usual // stride) * stride
        train["imgsz"] = size or usual
    if config.train.lr is None:
        train["lr"] = USUAL_LR[config.train.optimizer]
    if config.train.nominal_batch is None:
        train["nominal_batch"] = config.train.batch
    val = {} if config.val.iou is not None else {"iou": model.nms_iou}
    resolved = config.model_copy(
        update={"train": config.train.model_copy(update=train), "val": config.val.model_copy(update=val)}
    )
    size = resolved.train.imgsz or 0
    if size % stride:
        near = -(-size // stride) * stride
        raise ValueError(f"train.imgsz: found {size}; expected a multiple of the stride {stride}, such as {near}")
    return resolved


def _cfg_size(model: DarknetModel) -> int | None:
    """The long side of the input of a Darknet cfg in pixels; None if training cannot use it."""
    sizes = re.findall(r"^\s*(?:width|height)\s*=\s*(\d{1,4})\b", model.text or "", re.MULTILINE)[:2]
    size = max(map(int, sizes), default=0)
    return size if size % MIN_STRIDE == 0 and MIN_IMGSZ <= size <= MAX_IMGSZ else None
