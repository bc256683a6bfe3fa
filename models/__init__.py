"""Models: `build_model` turns the `model` section of a config, which nothing else in here sees, into a detector."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from core.text import did_you_mean
from models.activations import check_activation
from models.backbone import Backbone
from models.blocks import ConvNormAct
from models.census import CensusRow, census, format_census, verify_census
from models.darknet.adapt import for_classes, for_side, require_trainable
from models.darknet.cfg import ACTIVATIONS, FIXED, read_text, training_keys
from models.darknet.graph import Layer, Plan, plan_network
from models.darknet.network import Darknet
from models.detector import Detector, flops, initialise
from models.head import Head
from models.neck import Neck

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
    "verify_census",
]

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
KINDS = ("yolo", "darknet")
STAGES = {"backbone": Backbone.STAGES, "neck": Neck.STAGES, "head": Head.STAGES}


def build_model(
    cfg_model: Any, *, num_classes: int | None = None, names: Sequence[str] | None = None, seed: int | None = None
) -> Any:
    """The Detector or Darknet of a config's `model` section, for `names` or for so many nameless classes.

    Without either these are 80, or as many as a Darknet cfg says. The weights follow from `seed` (None: PyTorch's
    initial seed) and no global random state is touched. ValueError where the config names what is not there: a stage,
    an activation, a parameter, a size.
    """
    kind = getattr(cfg_model, "kind", "yolo")
    plan = plan_darknet(cfg_model) if kind == "darknet" else None
    if num_classes is None:
        num_classes = len(names) if names is not None else plan.classes if plan else 80
    names = [str(index) for index in range(num_classes)] if names is None else names
    if num_classes < 1 or len(names) != num_classes:
        raise ValueError(f"num_classes is {num_classes} and there are {len(names)} names; expected as many, at least 1")
    for key, there in (("kind", KINDS), ("norm_act", ("fused", "plain")), ("size", tuple(SIZES))):
        value = getattr(cfg_model, key, there[0])
        if value not in there:
            raise ValueError(
                f"model.{key} is {value!r}, expected one of {', '.join(there)}{did_you_mean(str(value), there)}"
            )
    activations = resolve_activations(cfg_model)
    with torch.random.fork_rng(devices=[]):
        detector: Detector | Darknet
        if plan:
            _require_classes(plan, len(names))
            fuse = getattr(cfg_model, "norm_act", "plain") == "fused"
            loss = _read(cfg_model, "loss")
            gains = None if loss is None else {key: getattr(loss, key) for key in Darknet.loss_names}
            smoothing = _read(loss, "label_smoothing")
            detector = Darknet(
                plan, names=names, activations=activations, fuse=fuse, gains=gains, label_smoothing=smoothing
            )
        else:
            detector = _assemble(cfg_model, activations, names)
    initialise(detector, seed=torch.initial_seed() if seed is None else seed)
    verify_census(detector)
    return detector


def resolve_activations(cfg_model: Any) -> dict[str, dict[str, Any]]:
    """What each stage gets, as in {"neck.T4": {"name": "mish"}, ...}: the narrower key wins over the wider.

    Of a Darknet cfg it is what each layer gets. Builds nothing. ValueError naming the key where an activation, a
    parameter or a stage does not exist.
    """
    if getattr(cfg_model, "kind", "yolo") == "darknet":
        return _resolve_darknet(cfg_model, plan_darknet(cfg_model))
    asked = {}
    for part, stages in STAGES.items():
        section = getattr(cfg_model, part, None)
        default = _read(section, "act") or cfg_model.act
        narrower = _read(section, "stages") or {}
        for stage in narrower:
            if stage not in stages:
                there = ", ".join(stages)
                raise ValueError(
                    f"model.{part}.stages.{stage}: no such stage{did_you_mean(stage, stages)}; there are {there}"
                )
        _check(f"model.{part}.act" if _read(section, "act") else "model.act", default)
        for stage in stages:
            own = _read(narrower.get(stage), "act")
            asked[f"{part}.{stage}"] = _check(f"model.{part}.stages.{stage}.act", own or default)
    return asked


def plan_darknet(cfg_model: Any) -> Plan:
    """The plan of the Darknet cfg that a `model` section names, from the text it keeps or else from the file.

    Builds nothing. FileNotFoundError or ValueError, naming file and line, for what is not there or cannot be built.
    """
    return plan_network(_read(cfg_model, "text") or read_text(cfg_model.cfg), file=cfg_model.cfg)


def adapted(cfg_model: Any, *, classes: int, side: int) -> tuple[Any, list[str]]:
    """A config's `model` section for a training on so many classes and squares of `side` pixels, and what to say of it.

    Of a Darknet network the text of its cfg follows; others are as they were. ValueError where the network cannot be
    trained, or not with so many classes.
    """
    if getattr(cfg_model, "kind", "yolo") != "darknet":
        return cfg_model, []
    before = plan_darknet(cfg_model)
    require_trainable(before)
    file = before.file
    text = for_classes(_read(cfg_model, "text") or read_text(cfg_model.cfg), classes, file=file)
    text = for_side(text, side, file=file)
    notes = []
    if before.classes != classes:
        heads = ", ".join(str(head.sources[0]) for head in before.heads)
        notes.append(f"{file}: {before.classes} classes, the data have {classes}: classes= of the [yolo] sections and "
                     f"filters= of layers {heads} are set accordingly")  # fmt: skip
    width, height = before.net["width"], before.net["height"]
    if (width, height) != (side, side):
        notes.append(f"{file}: an input of {width} x {height} pixels, trained on squares of {side}; its anchors stay")
    mapped, idle = training_keys(list(before.sections))
    notes.append("the cfg's training keys, of which the loss alone takes any; the config's values rule:")
    notes += [f"  {key}: here {ours}" for key, ours in mapped.items()]
    notes.append(f"  without a counterpart here: {', '.join(idle) or 'none'}")
    return cfg_model.model_copy(update={"text": text}), notes


def _resolve_darknet(cfg_model: Any, plan: Plan) -> dict[str, dict[str, Any]]:
    """What each layer gets: its stage's, its part's, what replaces the cfg's name, the model's, or the cfg's own.

    Linear convolutions and logistic heads stay what they are. ValueError where a key of the config reaches no layer.
    """
    keys = _darknet_keys(cfg_model)
    used = set()
    asked = {}
    for layer in plan.layers:
        if not layer.has_site:
            continue
        name = layer.section["activation"]
        asked[layer.path] = check_activation(ACTIVATIONS[name])
        if name in FIXED:
            continue
        part = f"model.{layer.part}"
        for key in (f"{part}.stages.{layer.stage}.act", f"{part}.act", f"model.replace.{name}", "model.act"):
            if key in keys:
                asked[layer.path] = keys[key]
                used.add(key)
                break
    idle = [key for key in keys if key not in used]
    if idle:
        raise ValueError(f"{idle[0]}: reaches no activation of {plan.file}; there are {_reachable(plan)}")
    return asked


def _darknet_keys(cfg_model: Any) -> dict[str, dict[str, Any]]:
    """The activations that the config of a Darknet network gives, checked, by their full keys."""
    keys = {"model.act": _read(cfg_model, "act")}
    keys |= {f"model.replace.{name}": spec for name, spec in (_read(cfg_model, "replace") or {}).items()}
    for part in STAGES:
        section = _read(cfg_model, part)
        keys[f"model.{part}.act"] = _read(section, "act")
        for stage, narrower in (_read(section, "stages") or {}).items():
            keys[f"model.{part}.stages.{stage}.act"] = _read(narrower, "act")
    return {key: _check(key, spec) for key, spec in keys.items() if spec is not None}


def _reachable(plan: Plan) -> str:
    """The names and the stages that a key may name."""

    def listed(layers: list[Layer]) -> str:
        return ", ".join(dict.fromkeys(f"{layer.part}.stages.{layer.stage}" for layer in layers))

    layers = [each for each in plan.layers if each.has_site and each.section["activation"] not in FIXED]
    names = dict.fromkeys(f"replace.{layer.section['activation']}" for layer in layers)
    return f"{', '.join(names)} and {listed(layers)}" if layers else "none that could be another"


def _require_classes(plan: Plan, count: int) -> None:
    if count != plan.classes:
        where = ", ".join(str(head.section.lines.get("classes", head.section.line)) for head in plan.heads)
        lines = f" (classes= in lines {where})" if where else ""
        raise ValueError(
            f"{plan.file}: has {plan.classes} classes{lines}, and there are {count} names; expected as many"
        )


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
