"""Models: `build_model` turns the `model` section of a config, which nothing else in here sees, into a detector."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from models.activations import check_activation, nearest
from models.backbone import Backbone
from models.blocks import ConvNormAct
from models.census import CensusRow, census, format_census, verify_census
from models.detector import Detector, flops, initialise
from models.head import Head
from models.neck import Neck

__all__ = ["CensusRow", "Detector", "build_model", "census", "flops", "format_census", "verify_census"]

# Multiples of depth and width and the most channels: the field's customary sizes.
SIZES = {
    "n": (1 / 3, 0.25, 1024),
    "s": (1 / 3, 0.5, 1024),
    "m": (2 / 3, 0.75, 768),
    "l": (1.0, 1.0, 512),
    "x": (1.0, 1.25, 512),
}
CHANNELS = (64, 128, 256, 512, 1024)  # of P1 to P5
REPEATS = (3, 6, 6, 3)  # of the CSP blocks of P2 to P5; the first is also the neck's
STRIDES = (8, 16, 32)
STAGES = {"backbone": Backbone.STAGES, "neck": Neck.STAGES, "head": Head.STAGES}


def build_model(
    cfg_model: Any, *, num_classes: int | None = None, names: Sequence[str] | None = None, seed: int | None = None
) -> Detector:
    """The detector of a config's `model` section, for `names` or for `num_classes` (80) nameless classes.

    The weights follow from `seed` (None: PyTorch's initial seed) and no global random state is touched. ValueError
    where the config names what is not there: a stage, an activation, a parameter, a size.
    """
    if num_classes is None:
        num_classes = 80 if names is None else len(names)
    names = [str(index) for index in range(num_classes)] if names is None else names
    if num_classes < 1 or len(names) != num_classes:
        raise ValueError(f"num_classes is {num_classes} and there are {len(names)} names; expected as many, at least 1")
    for key, there in (("kind", ("yolo",)), ("norm_act", ("fused", "plain")), ("size", tuple(SIZES))):
        value = getattr(cfg_model, key, there[0])
        if value not in there:
            raise ValueError(
                f"model.{key} is {value!r}, expected one of {', '.join(there)}{nearest(str(value), there)}"
            )
    activations = resolve_activations(cfg_model)
    with torch.random.fork_rng(devices=[]):
        detector = _assemble(cfg_model, activations, names)
    initialise(detector, seed=torch.initial_seed() if seed is None else seed)
    verify_census(detector)
    return detector


def resolve_activations(cfg_model: Any) -> dict[str, dict[str, Any]]:
    """What each stage gets, as in {"neck.T4": {"name": "mish"}, ...}: the narrower key wins over the wider.

    Builds nothing. ValueError naming the key where an activation, a parameter or a stage does not exist.
    """
    asked = {}
    for part, stages in STAGES.items():
        section = getattr(cfg_model, part, None)
        default = _read(section, "act") or cfg_model.act
        narrower = _read(section, "stages") or {}
        for stage in narrower:
            if stage not in stages:
                there = ", ".join(stages)
                raise ValueError(
                    f"model.{part}.stages.{stage}: no such stage{nearest(stage, stages)}; there are {there}"
                )
        _check(f"model.{part}.act" if _read(section, "act") else "model.act", default)
        for stage in stages:
            own = _read(narrower.get(stage), "act")
            asked[f"{part}.{stage}"] = _check(f"model.{part}.stages.{stage}.act", own or default)
    return asked


def _assemble(cfg_model: Any, activations: Mapping[str, dict[str, Any]], names: Sequence[str]) -> Detector:
    depth, width, most = SIZES[cfg_model.size]
    channels = [_divisible(min(each, most) * width) for each in CHANNELS]
    repeats = [max(1, round(each * depth)) for each in REPEATS]
    fuse = getattr(cfg_model, "norm_act", "plain") == "fused"
    convs = {
        part: {stage: partial(ConvNormAct, act=activations[f"{part}.{stage}"], fuse=fuse) for stage in stages}
        for part, stages in STAGES.items()
    }
    return Detector(
        Backbone(channels, repeats, convs=convs["backbone"]),
        Neck(channels[2:], repeats[0], convs=convs["neck"]),
        Head(
            channels[2:],
            num_classes=len(names),
            reg_max=cfg_model.reg_max,
            strides=STRIDES,
            convs=convs["head"],
        ),
        names=names,
        gains={key: getattr(cfg_model.loss, key) for key in ("box", "cls", "dfl")},
        assignment={key: getattr(cfg_model.assign, key) for key in ("topk", "alpha", "beta")},
        activations=activations,
    )


def _divisible(channels: float, divisor: int = 8) -> int:
    return -(-int(channels) // divisor) * divisor


def _check(key: str, spec: Any) -> dict[str, Any]:
    try:
        return check_activation(spec)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _read(section: Any, key: str) -> Any:
    """A value of an optional section, which may be an object or a mapping; None where it is not given."""
    return section.get(key) if isinstance(section, Mapping) else getattr(section, key, None)
