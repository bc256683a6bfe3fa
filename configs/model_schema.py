"""The `model` section of a configuration: the detector of this project, or a Darknet network."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from configs.fields import AtLeastOne, Frozen, NonNegative, OnOff, Unit
from configs.loading import CONFIGS
from core.text import did_you_mean

DEFAULT_GAINS: dict[str, float] = yaml.safe_load((CONFIGS / "yolo.yaml").read_text(encoding="utf-8"))["model"]["loss"]


def _activation(value: object) -> dict[str, object]:
    """Convert an activation, a name or a mapping with a name, to the form ``{"name": ..., **parameters}``."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError("expected an activation: a name (mish) or a mapping with a name ({name: swish, beta: 1.0})")
    return dict(value)


def _consecutive(levels: list[int]) -> list[int]:
    if len(levels) < 2 or levels != list(range(levels[0], levels[0] + len(levels))):
        raise ValueError("expected two or more consecutive levels from 2 to 7, such as [3, 4, 5]")
    return levels


def _gains(value: object) -> object:
    """Complete the gains of the loss terms by those of yolo.yaml; ValueError for a term that is not there."""
    if not isinstance(value, Mapping):
        raise ValueError(f"expected the gain of each loss term, as in {DEFAULT_GAINS}")
    for name in value:
        if name not in DEFAULT_GAINS:
            hint = did_you_mean(str(name), DEFAULT_GAINS)
            raise ValueError(f"unknown key {str(name)[:100]!r}{hint}; the loss terms are {', '.join(DEFAULT_GAINS)}")
    return {**DEFAULT_GAINS, **value}


# Level i has stride 2**i; models/backbone.py has widths for levels up to 7.
Levels = Annotated[list[Annotated[int, Field(ge=2, le=7)]], AfterValidator(_consecutive)]
Multiple = Annotated[float, Field(gt=0, le=8)]
LossGains = Annotated[dict[str, NonNegative], BeforeValidator(_gains)]  # by loss term
# The names and parameters that exist are in models/activations.py, which checks them when the model is built.
Activation = Annotated[dict[str, str | bool | int | float], BeforeValidator(_activation)]


class Stage(Frozen):
    """One stage of a part."""

    act: Activation | None = None  # None: that of the part


class Part(Frozen):
    """Settings of a part and its stages by name; models/ checks that these stages exist."""

    act: Activation | None = None  # None: that of the model
    stages: dict[str, Stage] = {}


class BackbonePart(Part):
    """The backbone. Stages are named by the level of their output: P1 has stride 2, P5 has stride 32."""

    name: str = "csp"


class NeckPart(Part):
    """The neck. Stages: N and the level of an output; except in an FPN, T and the level of a top-down result."""

    name: str = "pan"


class HeadPart(Part):
    """The head. Stages: P and the level."""

    name: str = "decoupled"


class Assignment(Frozen):
    """Task-aligned assignment (TOOD): the k anchors per box with the largest score^alpha * IoU^beta are positive."""

    topk: AtLeastOne = 10
    alpha: NonNegative = 0.5
    beta: NonNegative = 6.0


class YoloModel(Frozen):
    """The anchor-free detector of this project."""

    nms_iou: ClassVar[float] = 0.7  # default NMS IoU threshold

    kind: Literal["yolo"] = "yolo"
    size: Literal["n", "s", "m", "l", "x"] = "n"
    width_multiple: Multiple | None = None
    depth_multiple: Multiple | None = None
    levels: Levels = [3, 4, 5]
    act: Activation = {"name": "silu"}
    backbone: BackbonePart = BackbonePart()
    neck: NeckPart = NeckPart()
    head: HeadPart = HeadPart()
    norm_act: Literal["fused", "plain"] = "fused"
    sync_bn: Annotated[Literal["auto", "on", "off"], OnOff] = "auto"
    reg_max: Annotated[int, Field(ge=2, le=256)] = 16
    loss: LossGains = dict(DEFAULT_GAINS)
    assign: Assignment = Assignment()


class DarknetLoss(Frozen):
    """Weights of the loss terms, multiplied by the normalizers of the cfg, and label smoothing."""

    box: NonNegative = 50.0
    obj: NonNegative = 1.0
    cls: NonNegative = 1.0
    label_smoothing: Unit | None = None  # None: label_smooth_eps of the cfg, 0 if it has none


class DarknetModel(Frozen):
    """The network of a Darknet `.cfg`, with the activations of the cfg unless they are set here."""

    nms_iou: ClassVar[float] = 0.45  # default NMS IoU threshold, as in Darknet

    kind: Literal["darknet"]
    cfg: str
    text: str | None = None  # of the cfg, kept with the config so that a checkpoint needs no other file
    act: Activation | None = None
    replace: dict[str, Activation | None] = {}  # by name in the cfg, as in {mish: relu}
    backbone: Part = Part()
    neck: Part = Part()
    head: Part = Part()
    norm_act: Literal["fused", "plain"] = "fused"
    sync_bn: Annotated[Literal["auto", "on", "off"], OnOff] = "auto"
    loss: DarknetLoss = DarknetLoss()


def kind_of(value: object) -> str | None:
    """The kind of a model section, None for what is none; `yolo` unless it says otherwise."""
    kind = value.get("kind", "yolo") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None


Model = Annotated[
    Annotated[YoloModel, Tag("yolo")] | Annotated[DarknetModel, Tag("darknet")],
    Discriminator(kind_of, custom_error_type="kind", custom_error_message="expected yolo or darknet"),
]
