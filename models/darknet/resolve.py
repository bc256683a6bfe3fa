"""The `model` section of a Darknet network: its plan, the activation of each layer, its cfg adapted to a training."""

from collections.abc import Sequence
from typing import TypeVar, overload

from models.activations import ActivationSpec
from models.darknet.adapt import for_classes, for_side, require_trainable
from models.darknet.cfg import ACTIVATIONS, FIXED, read_text, training_keys
from models.darknet.graph import Layer, Plan, plan_network
from models.darknet.network import Darknet
from models.sections import DarknetSection, ModelSection, YoloSection, configured_activations

Darknet_ = TypeVar("Darknet_", bound=DarknetSection)
Yolo_ = TypeVar("Yolo_", bound=YoloSection)


def plan_darknet(section: DarknetSection) -> Plan:
    """The plan of the section's cfg, from the text in the section or else from the file. Builds nothing.

    FileNotFoundError or ValueError, naming file and line, if the cfg is missing or cannot be built.
    """
    return plan_network(section.text or read_text(section.cfg), file=section.cfg)


def build_darknet(section: DarknetSection, plan: Plan, *, names: Sequence[str]) -> Darknet:
    """The network of a plan without initial weights; ValueError if it is for another number of classes."""
    if len(names) != plan.classes:
        where = ", ".join(str(head.section.lines.get("classes", head.section.line)) for head in plan.heads)
        lines = f" (classes= in lines {where})" if where else ""
        raise ValueError(
            f"{plan.file}: has {plan.classes} classes{lines}, but there are {len(names)} names; expected as many"
        )
    loss = section.loss
    return Darknet(
        plan,
        names=names,
        activations=resolve_darknet(section, plan),
        fuse=section.norm_act == "fused",
        gains={"box": loss.box, "obj": loss.obj, "cls": loss.cls},
        label_smoothing=loss.label_smoothing,
    )


def resolve_darknet(section: DarknetSection, plan: Plan) -> dict[str, ActivationSpec]:
    """The activation of each layer by its path: that of its stage, its part, its name in the cfg, the model, the cfg.

    Linear convolutions and logistic heads stay as they are. ValueError if a key of the configuration reaches no layer.
    """
    configured = configured_activations(section)
    used = set()
    activations = {}
    for layer in plan.layers:
        if not layer.has_activation:
            continue
        name = layer.section["activation"]
        activations[layer.path] = ACTIVATIONS[name]
        if name in FIXED:
            continue
        part = f"model.{layer.part}"
        for key in (f"{part}.stages.{layer.stage}.act", f"{part}.act", f"model.replace.{name}", "model.act"):
            if key in configured:
                activations[layer.path] = configured[key]
                used.add(key)
                break
    unused = [key for key in configured if key not in used]
    if unused:
        raise ValueError(f"{unused[0]}: reaches no activation of {plan.file}; available are {_reachable(plan)}")
    return activations


def _reachable(plan: Plan) -> str:
    """The names and stages by which a key can reach an activation."""
    layers: list[Layer] = [
        layer for layer in plan.layers if layer.has_activation and layer.section["activation"] not in FIXED
    ]
    if not layers:
        return "none that can be replaced"
    names = dict.fromkeys(f"replace.{layer.section['activation']}" for layer in layers)
    stages = dict.fromkeys(f"{layer.part}.stages.{layer.stage}" for layer in layers)
    return f"{', '.join(names)} and {', '.join(stages)}"


@overload
def adapted(section: Darknet_, *, classes: int, side: int) -> tuple[Darknet_, list[str]]: ...
@overload
def adapted(section: Yolo_, *, classes: int, side: int) -> tuple[Yolo_, list[str]]: ...
def adapted(section: ModelSection, *, classes: int, side: int) -> tuple[ModelSection, list[str]]:
    """A `model` section for training with so many classes on images of `side` x `side` pixels, and notes for the user.

    Changes the cfg text of a Darknet network; other sections are returned unchanged. ValueError if the network cannot
    be trained, or not with so many classes.
    """
    if section.kind != "darknet":
        return section, []
    plan = plan_darknet(section)
    require_trainable(plan)
    text = for_classes(section.text or read_text(section.cfg), classes, file=plan.file)
    text = for_side(text, side, file=plan.file)
    notes = []
    if plan.classes != classes:
        layers = ", ".join(str(head.sources[0]) for head in plan.heads)
        notes.append(f"{plan.file}: {plan.classes} classes, the data have {classes}: set classes= of the [yolo] "
                     f"sections and filters= of layers {layers} accordingly")  # fmt: skip
    width, height = plan.net["width"], plan.net["height"]
    if (width, height) != (side, side):
        notes.append(f"{plan.file}: input of {width} x {height} pixels, trained on {side} x {side}; anchors unchanged")
    mapped, ignored = training_keys(list(plan.sections))
    notes.append("training keys of the cfg (only the loss reads any of them; otherwise the config applies):")
    notes += [f"  {key}: here {counterpart}" for key, counterpart in mapped.items()]
    notes.append(f"  without a counterpart here: {', '.join(ignored) or 'none'}")
    return section.model_copy(update={"text": text}), notes
