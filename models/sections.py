"""What the models read of a configuration, as protocols: the sections of configs/schema.py satisfy them."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, Self

from models.activations import ActivationSpec, parse_activation

PARTS = ("backbone", "neck", "head")


class StageSection(Protocol):
    """A stage of a part."""

    @property
    def act(self) -> Mapping[str, object] | None: ...


class PartSection(Protocol):
    """A part of the network and those of its stages that have settings."""

    @property
    def act(self) -> Mapping[str, object] | None: ...

    @property
    def stages(self) -> Mapping[str, StageSection]: ...


class NamedPart(PartSection, Protocol):
    """A part with a choice of implementation."""

    @property
    def name(self) -> str: ...


class AssignmentSection(Protocol):
    """Parameters of the task-aligned assignment."""

    @property
    def topk(self) -> int: ...

    @property
    def alpha(self) -> float: ...

    @property
    def beta(self) -> float: ...


class YoloSection(Protocol):
    """The `model` section of a detector of this project."""

    @property
    def kind(self) -> Literal["yolo"]: ...

    @property
    def size(self) -> str: ...

    @property
    def width_multiple(self) -> float | None: ...

    @property
    def depth_multiple(self) -> float | None: ...

    @property
    def levels(self) -> Sequence[int]: ...

    @property
    def act(self) -> Mapping[str, object]: ...

    @property
    def backbone(self) -> NamedPart: ...

    @property
    def neck(self) -> NamedPart: ...

    @property
    def head(self) -> NamedPart: ...

    @property
    def norm_act(self) -> Literal["fused", "plain"]: ...

    @property
    def reg_max(self) -> int: ...

    @property
    def loss(self) -> Mapping[str, float]: ...

    @property
    def assign(self) -> AssignmentSection: ...


class DarknetGains(Protocol):
    """Weights of the loss terms and the smoothing of class targets (None: the cfg's)."""

    @property
    def box(self) -> float: ...

    @property
    def obj(self) -> float: ...

    @property
    def cls(self) -> float: ...

    @property
    def label_smoothing(self) -> float | None: ...


class DarknetSection(Protocol):
    """The `model` section of a Darknet network."""

    @property
    def kind(self) -> Literal["darknet"]: ...

    @property
    def cfg(self) -> str: ...

    @property
    def text(self) -> str | None: ...

    @property
    def act(self) -> Mapping[str, object] | None: ...

    @property
    def replace(self) -> Mapping[str, Mapping[str, object] | None]: ...

    @property
    def backbone(self) -> PartSection: ...

    @property
    def neck(self) -> PartSection: ...

    @property
    def head(self) -> PartSection: ...

    @property
    def norm_act(self) -> Literal["fused", "plain"]: ...

    @property
    def loss(self) -> DarknetGains: ...

    def model_copy(self, *, update: Mapping[str, object]) -> Self: ...


ModelSection = YoloSection | DarknetSection


def part_sections(section: ModelSection) -> dict[str, PartSection]:
    """The sections of the parts by name."""
    return {"backbone": section.backbone, "neck": section.neck, "head": section.head}


def configured_activations(section: ModelSection) -> dict[str, ActivationSpec]:
    """The activations that a `model` section sets, by full key, as in {"model.neck.stages.N3.act": ...}.

    ValueError naming the key for an activation or a parameter that does not exist.
    """
    given: dict[str, Mapping[str, object] | None] = {"model.act": section.act}
    if section.kind == "darknet":
        given |= {f"model.replace.{name}": act for name, act in section.replace.items()}
    for part, settings in part_sections(section).items():
        given[f"model.{part}.act"] = settings.act
        given |= {f"model.{part}.stages.{stage}.act": each.act for stage, each in settings.stages.items()}
    specs = {}
    for key, value in given.items():
        if value is not None:
            try:
                specs[key] = parse_activation(value)
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from None
    return specs
