"""Adapt a Darknet cfg to a training: number of classes, image size, anchors."""

from collections.abc import Sequence

from models.darknet.cfg import Section, rewrite
from models.darknet.graph import Layer, Plan, plan_network

Edit = tuple[Section, str, str]


def require_trainable(plan: Plan) -> None:
    """ValueError if the network can be run but not trained here."""
    if not plan.heads:
        raise ValueError(f"{plan.file}: a classifier without [yolo] layers; expected a detector's .cfg to train")
    for head in plan.heads:
        if head.section.values.get("truth_thresh", 1.0) < 1:
            raise head.section.refuse("truth_thresh", "expected 1: positives are chosen by the shape of anchors only")


def for_classes(text: str, count: int, *, file: str) -> str:
    """The text with `count` classes in each `[yolo]`, and matching filters in the convolution before it."""
    return _checked(text, [edit for head in _heads(text, file) for edit in _class_edits(*head, count)], file)


def for_side(text: str, side: int, *, file: str) -> str:
    """The text with an input of `side` x `side` pixels."""
    net = plan_network(text, file=file).net
    return _checked(text, [(net, key, str(side)) for key in ("width", "height") if net[key] != side], file)


def with_anchors(text: str, anchors: Sequence[tuple[float, float]], *, file: str) -> str:
    """The text with other anchors (width, height), as many as it has; heads keep their masks."""
    listed = ",  ".join(f"{width:.4g}, {height:.4g}" for width, height in anchors)
    edits = []
    for head, _ in _heads(text, file):
        if head.section["num"] != len(anchors):
            raise head.section.refuse("num", f"found {len(anchors)} anchors; expected as many")
        edits.append((head.section, "anchors", listed))
    return _checked(text, edits, file)


def _heads(text: str, file: str) -> list[tuple[Layer, Layer]]:
    """Each `[yolo]` layer with the layer before it."""
    plan = plan_network(text, file=file)
    return [(head, plan.layers[head.sources[0]]) for head in plan.heads]


def _class_edits(head: Layer, before: Layer, count: int) -> list[Edit]:
    if head.section["classes"] == count:
        return []
    if before.kind != "convolutional":
        raise head.section.refuse("classes", f"expected {count}, or a convolution before it with filters to adapt")
    anchors = len(head.section["mask"]) or head.section["num"]
    return [(head.section, "classes", str(count)), (before.section, "filters", str(anchors * (5 + count)))]


def _checked(text: str, edits: Sequence[Edit], file: str) -> str:
    changed = rewrite(text, edits)
    plan_network(changed, file=file)
    return changed
