"""The typed, frozen configuration: ``load(path, overrides)`` reads a YAML file into a ``Config``.

Every value stands once, with a comment, in ``configs/yolo.yaml``; this file says which types and ranges it may take.
An unknown key or a wrong value is a ``ValueError``: the key, where it stands, the nearest valid one.
"""

import difflib
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from configs.cli import parse_setting
from configs.loading import CONFIGS, absolute, embed_cfg, find, flatten, load_data, read_chain, set_value

Unit = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
# No count that means anything is larger, and what is beyond 64 bits is refused by libraries in words of their own.
MOST = 10**9
Count = Annotated[int, Field(ge=0, le=MOST)]
AtLeastOne = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Length = Annotated[float, Field(ge=0, le=MOST)]  # of a part of the schedule: a fraction of the run, or epochs
Drawn = Annotated[int, Field(ge=1, le=100_000)]  # images of a split of the embedded set


def _activation(value: Any) -> Any:
    """Bring an activation, a name or a mapping with a name, into its one form ``{"name": ..., **parameters}``."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError("an activation is a name (mish) or a mapping with a name ({name: swish, beta: 1.0})")
    return dict(value)


def _finite(value: Any) -> Any:
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        _finite(each)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a finite number is expected")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a path of printable characters is expected")
    return value


Place = Annotated[str, AfterValidator(_printable)]
# Which names and parameters exist is known to models/activations.py alone; it refuses a wrong one at build.
Activation = Annotated[dict[str, str | bool | int | float], BeforeValidator(_activation)]


class Frozen(BaseModel):
    """A section of the configuration: immutable, no key beyond its fields, no number read from a string."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)


class Stage(Frozen):
    """One stage of a part: its own activation, or None to take the part's."""

    act: Activation | None = None


class Backbone(Frozen):
    """The CSP backbone's stages, named by the level of their output: P1 is 1/2 of the image, P5 is 1/32."""

    act: Activation | None = None
    stages: dict[Literal["P1", "P2", "P3", "P4", "P5"], Stage] = {}


class Neck(Frozen):
    """The PAN neck's stages: T4 is the top-down step at 1/16, N3, N4 and N5 are its outputs."""

    act: Activation | None = None
    stages: dict[Literal["T4", "N3", "N4", "N5"], Stage] = {}


class Head(Frozen):
    """The head's stages, one a level."""

    act: Activation | None = None
    stages: dict[Literal["P3", "P4", "P5"], Stage] = {}


class LossGains(Frozen):
    """Weights of the three terms of the loss."""

    box: NonNegative = 7.5
    cls: NonNegative = 0.5
    dfl: NonNegative = 1.5


class Assignment(Frozen):
    """Task-aligned assignment (TOOD): alignment is score^alpha * IoU^beta, the top k of each box are positive."""

    topk: AtLeastOne = 10
    alpha: NonNegative = 0.5
    beta: NonNegative = 6.0


class YoloModel(Frozen):
    """The anchor-free detector of this project."""

    kind: Literal["yolo"] = "yolo"
    size: Literal["n", "s", "m", "l", "x"] = "n"
    act: Activation = {"name": "silu"}
    backbone: Backbone = Backbone()
    neck: Neck = Neck()
    head: Head = Head()
    norm_act: Literal["fused", "plain"] = "fused"
    reg_max: Annotated[int, Field(ge=1, le=256)] = 16
    loss: LossGains = LossGains()
    assign: Assignment = Assignment()


class DarknetPart(Frozen):
    """A part of a Darknet network, by the rule that its census prints, and its stages: P or N with a level."""

    act: Activation | None = None
    stages: dict[str, Stage] = {}  # which there are depends on the cfg; models/__init__.py refuses others


class DarknetLoss(Frozen):
    """Weights of the three terms of the loss, over the cfg's own normalizers, and smoothing of the classes."""

    box: NonNegative = 50.0
    obj: NonNegative = 1.0
    cls: NonNegative = 1.0
    label_smoothing: Unit | None = None  # None: the cfg's label_smooth_eps, or none


class DarknetModel(Frozen):
    """The network of a Darknet `.cfg`, with the activations it names where none are given here."""

    kind: Literal["darknet"]
    cfg: str
    text: str | None = None  # of the cfg; kept with the config, so that a checkpoint needs no other file
    act: Activation | None = None
    replace: dict[str, Activation | None] = {}  # by the cfg's own name, as in {mish: relu}
    backbone: DarknetPart = DarknetPart()
    neck: DarknetPart = DarknetPart()
    head: DarknetPart = DarknetPart()
    norm_act: Literal["fused", "plain"] = "fused"
    loss: DarknetLoss = DarknetLoss()


def _kind(value: Any) -> str | None:
    kind = value.get("kind", "yolo") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


REPLACE = "model.replace."
# A tagged union: another family joins by adding its class here, discriminated by `kind`.
FAMILIES: dict[str, type[Frozen]] = {"yolo": YoloModel, "darknet": DarknetModel}
Model = Annotated[
    Annotated[YoloModel, Tag("yolo")] | Annotated[DarknetModel, Tag("darknet")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message=f"a kind of {' or '.join(FAMILIES)} is expected",
    ),
]


class Split(Frozen):
    """A folder of images and their COCO annotation file; absolute paths once loaded."""

    images: Place
    annotations: Place


class Embedded(Frozen):
    """How the embedded data set is drawn (data/synthetic.py), and the schedule it is meant for."""

    train: Drawn
    val: Drawn
    test: Drawn
    side: Annotated[int, Field(ge=64, le=1024)]
    seed: Seed = 0
    epochs: AtLeastOne


class Data(Frozen):
    """A data set in COCO form."""

    root: Place
    train: Split
    val: Split
    test: Split | None = None
    embedded: Embedded | None = None

    def split(self, name: str) -> Split:
        """Return the split called ``name``, or raise ValueError naming those there are."""
        found = getattr(self, name) if name in ("train", "val", "test") else None
        if found is None:
            there = [split for split in ("train", "val", "test") if getattr(self, split) is not None]
            raise ValueError(f"the data set at {self.root} has no split {name!r}; it has {', '.join(there)}")
        return found


class Augment(Frozen):
    """Augmentation of the training images; p is a probability, a gain or range is symmetric about no change."""

    mosaic: Unit = 1.0
    mixup: Unit = 0.0
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
    extra: Annotated[list[dict[str, Any]], AfterValidator(_finite)] = []


class Train(Frozen):
    """The schedule and the means of training. Lengths below 1 are a fraction of the run, from 1 on that many epochs."""

    epochs: AtLeastOne | None = None
    imgsz: Annotated[int, Field(ge=64, le=4096, multiple_of=32)] | None = None
    batch: AtLeastOne = 16
    nominal_batch: AtLeastOne | None = None
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: Positive = 0.002
    lr_final: Unit = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 0.0005
    schedule: Literal["cosine", "linear", "flat_cosine"] = "cosine"
    warmup: Length = 0.05
    clip: NonNegative = 10.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.05
    close_mosaic: Length = 0.25
    multi_scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    channels_last: Literal["auto", "on", "off"] = "auto"
    patience: Count = 0
    freeze: list[str] = []
    single_cls: bool = False
    seed: Seed = 0
    deterministic: bool = False
    device: str = "auto"
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None
    cache: Literal["auto", "ram", "disk", "off"] = "auto"
    strict_data: bool = False
    val: bool = True
    save_period: Count = 0
    save_minutes: NonNegative = 10.0
    profile: Count = 0


class Val(Frozen):
    """How detections are taken for mAP: as low a confidence as COCO's curves need."""

    conf: Unit = 0.001
    iou: Unit | None = None
    max_det: AtLeastOne = 300
    batch: AtLeastOne | None = None
    rect: bool = True


class Run(Frozen):
    """Where the run folder goes: project/name, with a number added where the name is taken, unless exist_ok."""

    project: str = "runs/train"
    name: str = "exp"
    exist_ok: bool = False
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] = ["tensorboard"]


class Config(Frozen):
    """Everything a training run is told."""

    model: Model = YoloModel()
    data: Data
    weights: str | None = None
    train: Train = Train()
    val: Val = Val()
    augment: Augment = Augment()
    run: Run = Run()

    def as_yaml(self) -> str:
        """Return the configuration as YAML from which ``load`` gives the same configuration back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def difference(self, base: str = "yolo.yaml") -> dict[str, Any]:
        """Return the dotted keys in which this differs from the configuration ``base`` in configs/, with its values."""
        reference = flatten(load(CONFIGS / base).model_dump(mode="json"))
        own = flatten(self.model_dump(mode="json"))
        own.pop("model.text", None)  # stands in the file that model.cfg names
        return {key: value for key, value in own.items() if reference.get(key) != value}

    @model_validator(mode="after")
    def _lengths_fit(self) -> "Config":
        for key in ("warmup", "close_mosaic"):
            value = getattr(self.train, key)
            if value >= 1 and value != int(value):
                raise ValueError(f"train.{key}: {value} is neither a fraction below 1 nor a whole number of epochs")
        return self


def load(path: str | Path, overrides: Iterable[str] | Mapping[str, Any] = ()) -> Config:
    """Read the configuration at ``path`` (a bare name is looked up in configs/) and set ``overrides`` on it.

    A Darknet ``.cfg`` stands for yolo.yaml with that network. ``overrides`` are ``"model.neck.act=relu"`` strings,
    their values read as YAML, or a mapping from dotted keys to values. Raises FileNotFoundError for a missing file and
    ValueError for everything else that is wrong with it.
    """
    file = find(path, CONFIGS)
    tree, origins = read_chain(file)
    command = overrides if isinstance(overrides, Mapping) else dict(parse_setting(text) for text in overrides)
    _refuse_hidden(tree, command, origins)
    if "model.kind" in command and command["model.kind"] != _kind(tree.get("model", {})):
        tree["model"] = {}  # of another family, whose keys mean nothing to this one
    for key, value in command.items():
        set_value(tree, key.split("."), value)
        origins[key] = "command line"
    embed_cfg(tree)
    if isinstance(tree.get("data"), str):
        tree["data"] = load_data(tree["data"])
    elif isinstance(tree.get("data"), dict):
        tree["data"] = absolute(tree["data"], file)
    return _resolve(_validate(tree, origins, file))


def _refuse_hidden(tree: Mapping[str, Any], command: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Raise ValueError where a general activation of the command line would be hidden by a narrower one of a file."""
    for general in command:
        for narrow, value in flatten(tree).items():
            if value is None or narrow in command or not _is_narrower(narrow, general):
                continue
            raise ValueError(
                f"{general} (command line) would not reach the sites of {narrow}: {value} ({origins.get(narrow)}); "
                f"set {narrow} as well, to null to let {general} through"
            )


def _is_narrower(key: str, general: str) -> bool:
    """Whether the activation at ``key`` stands for some of the sites of that at ``general``, over which it wins."""
    if not general.startswith("model."):
        return False
    of_a_part = key.startswith("model.") and key.endswith(".act") and key != "model.act"
    if general.startswith(REPLACE):  # by the cfg's name: any part's own wins
        return of_a_part
    scope = general.removesuffix("act")
    replaces = key.startswith(REPLACE) and general == "model.act"
    return general.endswith(".act") and key != general and (of_a_part and key.startswith(scope) or replaces)


def _validate(tree: Mapping[str, Any], origins: Mapping[str, str], file: Path) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ValueError("; ".join(_explain(fault, origins, file) for fault in error.errors()[:5])) from error


def _explain(fault: Any, origins: Mapping[str, str], file: Path) -> str:
    """Say in one line which key is wrong, where it stands, what was found and what was expected."""
    parts = [str(part)[:100] for part in fault["loc"] if part != "[key]"]
    if parts[0:1] == ["model"] and len(parts) > 2 and parts[1] in FAMILIES:
        del parts[1]  # the tag of the family
    location = [part if part.isprintable() else ascii(part) for part in parts]
    key = ".".join(location)
    places = [place for origin, place in origins.items() if origin == key or origin.startswith(key + ".")]
    where = places[-1] if places else next((origins[o] for o in origins if key.startswith(o)), file.name)
    if fault["type"] == "extra_forbidden" or "[key]" in fault["loc"]:
        valid = _valid_keys(location[:-1], FAMILIES.get(str(fault["loc"][1])) if len(fault["loc"]) > 1 else None)
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {'.'.join([*location[:-1], near[0]])}?" if near else f"valid are {', '.join(valid)}"
        return f"{key} ({where}): unknown key; {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{key} ({where}): missing"
    value = fault["input"]
    if fault["type"] == "kind" and isinstance(value, Mapping):
        key, value = "model.kind", value.get("kind")
    found = "a mapping" if isinstance(value, Mapping) else reprlib.repr(value)
    return f"{key or file.name} ({where}): found {found}; {message[0].lower()}{message[1:]}"


@cache
def _json_schema() -> dict[str, Any]:
    return Config.model_json_schema()


def _valid_keys(location: list[str], family: type[Frozen] | None) -> list[str]:
    """Return the keys that the section at ``location`` may have; below model, those of a ``family``."""
    schema: Any = _json_schema()
    definitions = schema.get("$defs", {})
    if location[:1] == ["model"] and family is not None:
        schema, location = definitions[family.__name__], location[1:]

    def follow(node: Any) -> Any:
        for option in node.get("anyOf", []) or node.get("allOf", []):
            if option.get("type") != "null":
                return follow(option)
        return follow(definitions[node["$ref"].rsplit("/", 1)[-1]]) if "$ref" in node else node

    for part in location:
        schema = follow(schema)
        schema = schema.get("properties", {}).get(part) or schema.get("additionalProperties", {})
    schema = follow(schema)
    return list(schema.get("properties", {})) or list(follow(schema.get("propertyNames", {})).get("enum", []))


def _cfg_side(model: Model) -> int | None:
    """The long side that a Darknet cfg asks for, None where it is none to train at."""
    if not isinstance(model, DarknetModel):
        return None
    sides = [int(found) for found in re.findall(r"^\s*(?:width|height)\s*=\s*(\d{1,4})\b", model.text or "", re.M)[:2]]
    side = max(sides, default=0)
    return side if side % 32 == 0 and 64 <= side <= 4096 else None


def _resolve(config: Config) -> Config:
    """Put a number for each value that was left open: the embedded set's own schedule, or the field's usual one."""
    embedded = config.data.embedded
    train: dict[str, Any] = {}
    if config.train.epochs is None:
        train["epochs"] = embedded.epochs if embedded else 100
    if config.train.imgsz is None:
        train["imgsz"] = _cfg_side(config.model) or (embedded.side if embedded else 640)
    if config.train.nominal_batch is None:
        train["nominal_batch"] = config.train.batch
    val = {} if config.val.iou is not None else {"iou": 0.45 if isinstance(config.model, DarknetModel) else 0.7}
    resolved = config.model_copy(
        update={"train": config.train.model_copy(update=train), "val": config.val.model_copy(update=val)}
    )
    if resolved.train.imgsz is not None and resolved.train.imgsz % 32:
        raise ValueError(f"train.imgsz: found {resolved.train.imgsz}; a multiple of the stride 32 is expected")
    return resolved
