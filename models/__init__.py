"""Models: `build_model` assembles a detector from the `model` section of a configuration (models/sections.py)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar, overload

import torch

from core.text import did_you_mean
from models.activations import ActivationSpec
from models.backbone import BACKBONES, scaled_channels, scaled_repeats
from models.blocks import ConvFactory, ConvNormAct
from models.census import CensusRow, census, format_census, verify_census
from models.darknet.network import Darknet
from models.darknet.resolve import adapted, build_darknet, plan_darknet, resolve_darknet
from models.detector import Detector, flops, initialise
from models.head import HEADS
from models.neck import NECKS
from models.sections import DarknetSection, ModelSection, YoloSection, configured_activations, part_sections

__all__ = [
    "CensusRow",
    "Darknet",
    "Detector",
    "adapted",
    "build_model",
    "census",
    "flops",
    "format_census",
    "plan_darknet",
    "resolve_activations",
    "verify_census",
]

DEFAULT_CLASSES = 80  # COCO's
Part = TypeVar("Part")


@overload
def build_model(
    section: YoloSection, *, num_classes: int | None = None, names: Sequence[str] | None = None, seed: int | None = None
) -> Detector: ...
@overload
def build_model(
    section: DarknetSection,
    *,
    num_classes: int | None = None,
    names: Sequence[str] | None = None,
    seed: int | None = None,
) -> Darknet: ...
def build_model(
    section: ModelSection,
    *,
    num_classes: int | None = None,
    names: Sequence[str] | None = None,
    seed: int | None = None,
) -> Detector | Darknet:
    """Build the network of a `model` section for the classes `names`, or for `num_classes` classes named "0", "1", ...

    The default number of classes is 80, or that of a Darknet cfg. The initial weights follow from `seed` (None:
    PyTorch's initial seed); the global random state is left alone. ValueError if the section names a part, stage,
    activation or parameter that does not exist.
    """
    plan = plan_darknet(section) if section.kind == "darknet" else None
    if num_classes is None:
        num_classes = len(names) if names is not None else plan.classes if plan else DEFAULT_CLASSES
    names = [str(index) for index in range(num_classes)] if names is None else names
    if num_classes < 1 or len(names) != num_classes:
        raise ValueError(f"num_classes is {num_classes} and there are {len(names)} names; expected as many, at least 1")
    with torch.random.fork_rng(devices=[]):
        model: Detector | Darknet
        if section.kind == "darknet":
            model = build_darknet(section, plan_darknet(section) if plan is None else plan, names=names)
        else:
            model = _build_detector(section, names)
    initialise(model, seed=torch.initial_seed() if seed is None else seed)
    verify_census(model)
    return model


def resolve_activations(section: ModelSection) -> dict[str, ActivationSpec]:
    """The activation of each stage, as in {"neck.T4": mish, ...}, or of each layer of a Darknet network.

    The narrower key wins over the wider one. Builds nothing. ValueError naming the key for an activation, parameter or
    stage that does not exist.
    """
    if section.kind == "darknet":
        return resolve_darknet(section, plan_darknet(section))
    configured = configured_activations(section)
    activations = {}
    for part, stages in _stages(section).items():
        for stage in stages:
            keys = (f"model.{part}.stages.{stage}.act", f"model.{part}.act", "model.act")
            activations[f"{part}.{stage}"] = next(configured[key] for key in keys if key in configured)
    return activations


def _stages(section: YoloSection) -> dict[str, tuple[str, ...]]:
    """The stages of each part; ValueError if the section has settings for another stage."""
    stages = {
        "backbone": _by_name("backbone", section.backbone.name, BACKBONES).stages(section.levels),
        "neck": _by_name("neck", section.neck.name, NECKS).stages(section.levels),
        "head": _by_name("head", section.head.name, HEADS).stages(section.levels),
    }
    for part, settings in part_sections(section).items():
        for stage in settings.stages:
            if stage not in stages[part]:
                raise ValueError(
                    f"model.{part}.stages.{stage}: unknown stage{did_you_mean(stage, stages[part])}; with model.levels "
                    f"{list(section.levels)} the {part} has {', '.join(stages[part])}"
                )
    return stages


def _by_name(part: str, name: str, table: Mapping[str, Part]) -> Part:
    if name not in table:
        raise ValueError(
            f"model.{part}.name: unknown {part} {name[:100]!r}{did_you_mean(name, table)}; known are {', '.join(table)}"
        )
    return table[name]


def _build_detector(section: YoloSection, names: Sequence[str]) -> Detector:
    activations = resolve_activations(section)
    fuse = section.norm_act == "fused"
    convs: dict[str, dict[str, ConvFactory]] = {
        part: {stage: partial(ConvNormAct, act=activations[f"{part}.{stage}"], fuse=fuse) for stage in stages}
        for part, stages in _stages(section).items()
    }
    channels = scaled_channels(section.size, section.width_multiple)
    repeats = scaled_repeats(section.size, section.depth_multiple)
    backbone = BACKBONES[section.backbone.name](
        section.levels, channels=channels, repeats=repeats, convs=convs["backbone"]
    )
    neck = NECKS[section.neck.name](
        {level: channels[level] for level in section.levels}, repeats=repeats[2], convs=convs["neck"]
    )
    head = HEADS[section.head.name](neck.channels, num_classes=len(names), reg_max=section.reg_max, convs=convs["head"])
    return Detector(
        backbone,
        neck,
        head,
        names=names,
        gains=section.loss,
        assignment={"topk": section.assign.topk, "alpha": section.assign.alpha, "beta": section.assign.beta},
        activations=activations,
    )
