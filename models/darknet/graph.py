"""From the sections of a Darknet `.cfg` to a plan: inputs and output shape of each layer, its weights, its part.

A plan gives the size of a network before anything is allocated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.darknet.cfg import Section, parse

MAX_VALUES = 1_000_000_000  # of a network: 4 GB
MAX_CHANNELS = 1 << 20
IMAGE = -1  # the source of the first layer

RULE = (
    "backbone: the layers up to the coarsest stride, and at that stride up to the last shortcut or concatenation and "
    "the layers that follow it, excluding a pooling pyramid, upsampling, a head, and a 1x1 convolution that reduces "
    "channels; head: each [yolo] with up to two convolutions that lead only to it (for a classifier all layers after "
    "the backbone); neck: the rest; stages: P, or N in the neck, and the level of the output, 5 at stride 32"
)


@dataclass(frozen=True)
class Layer:
    """A layer of the cfg, numbered as in Darknet, from 0 after `[net]`."""

    index: int
    section: Section
    sources: tuple[int, ...]
    inputs: int  # channels of the first source
    channels: int
    height: int
    width: int
    stride: int  # in pixels of the input
    values: int = 0  # number of floats in a .weights file
    part: str = ""
    stage: str = ""

    @property
    def kind(self) -> str:
        """The name of the section."""
        return self.section.kind

    @property
    def path(self) -> str:
        """The path of its module in the network."""
        return f"{self.part}.{self.stage}.{self.index}"

    @property
    def padding(self) -> int:
        """Padding of a convolution on each side before dilation, or of a pooling on both sides together, in pixels."""
        section = self.section
        if self.kind == "convolutional":
            return section["size"] // 2 if section["pad"] else section["padding"]
        return self.size - 1 if section["padding"] < 0 else section["padding"]

    @property
    def has_activation(self) -> bool:
        """Whether it has an activation layer: a convolution (possibly identity), or a shortcut unless linear."""
        return self.kind == "convolutional" or self.kind == "shortcut" and self.section["activation"] != "linear"

    @property
    def size(self) -> int:
        """Window size of a pooling."""
        return self.section["size"] or self.section["stride"]


@dataclass(frozen=True)
class Plan:
    """A whole network: its sections, the first of which is `[net]`, and its layers."""

    file: str
    sections: tuple[Section, ...]
    layers: tuple[Layer, ...]

    @property
    def net(self) -> Section:
        """The `[net]` section."""
        return self.sections[0]

    @property
    def heads(self) -> tuple[Layer, ...]:
        """The `[yolo]` layers; none in a classifier."""
        return tuple(layer for layer in self.layers if layer.kind == "yolo")

    @property
    def classes(self) -> int:
        """The number of classes of the heads, or of output channels of a classifier."""
        return self.heads[0].section["classes"] if self.heads else self.layers[-1].channels

    @property
    def values(self) -> int:
        """Number of floats in a `.weights` file of the whole network."""
        return sum(layer.values for layer in self.layers)


def plan_network(text: str, *, file: str) -> Plan:
    """The plan for the text of a cfg; ValueError naming `file` and the line if it cannot be built."""
    sections = parse(text, file=file)
    net = sections[0]
    layers: list[Layer] = []
    image = Layer(IMAGE, net, (), 3, 3, net["height"], net["width"], 1)
    total = 0
    for index, section in enumerate(sections[1:]):
        sources = tuple(_source(section, index, source, layers, image) for source in _source_indices(section, index))
        layer = PLANNERS[section.kind](index, section, sources)
        total += layer.values
        if layer.channels > MAX_CHANNELS or total > MAX_VALUES:
            raise section.refuse("filters", f"the network has {total} values up to here, {layer.channels} channels; "
                                 f"expected at most {MAX_VALUES} and {MAX_CHANNELS}")  # fmt: skip
        layers.append(layer)
    plan = Plan(file, tuple(sections), tuple(_with_parts(layers)))
    _check_heads(plan)
    return plan


def _source_indices(section: Section, index: int) -> list[int]:
    """The indices of the input layers, not yet checked."""
    if section.kind == "route":
        return [source if source >= 0 else index + source for source in section["layers"]]
    if section.kind == "shortcut":
        other = section["from"]
        return [index - 1, other if other >= 0 else index + other]
    return [index - 1]


def _source(section: Section, index: int, source: int, layers: Sequence[Layer], image: Layer) -> Layer:
    key = {"route": "layers", "shortcut": "from"}.get(section.kind, "")
    if source == IMAGE and index == 0 and not key:
        return image
    if not 0 <= source < index:
        raise section.refuse(key, f"layer {index} cannot read layer {source}; expected one from 0 to {index - 1}")
    if layers[source].kind == "yolo":
        raise section.refuse(key, f"has layer {source} as input, a [yolo], whose output is not a feature map")
    return layers[source]


def _convolutional(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    source = sources[0]
    filters, size, groups = section["filters"], section["size"], section["groups"]
    if source.channels % groups or filters % groups:
        raise section.refuse("groups", f"expected a divisor of the {source.channels} channels and {filters} filters")
    padding = size // 2 if section["pad"] else section["padding"]
    if section["dilation"] > 1 and size > 1 and 2 * padding != size - 1:
        # Darknet ignores dilation when it computes the output size, which is correct for this padding only.
        raise section.refuse("dilation", f"expected a padding of {(size - 1) / 2:g} with it, found {padding}")
    height, width = ((side + 2 * padding - size) // section["stride"] + 1 for side in (source.height, source.width))
    if min(height, width) < 1:
        raise section.refuse("size", f"the output of a map of {source.width} x {source.height} would be empty")
    values = filters * (source.channels // groups) * size * size + filters * (4 if section["batch_normalize"] else 1)
    return Layer(index, section, (source.index,), source.channels, filters, height, width,
                 source.stride * section["stride"], values)  # fmt: skip


def _maxpool(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    source = sources[0]
    layer = Layer(index, section, (source.index,), source.channels, source.channels, 1, 1,
                  source.stride * section["stride"])  # fmt: skip
    if layer.padding >= layer.size:
        raise section.refuse("padding", f"expected less than the size {layer.size}")
    height, width = (
        (side + layer.padding - layer.size) // section["stride"] + 1 for side in (source.height, source.width)
    )
    if min(height, width) < 1:
        raise section.refuse("size", f"the output of a map of {source.width} x {source.height} would be empty")
    return replace(layer, height=height, width=width)


def _route(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    groups, group = section["groups"], section["group_id"]
    if group >= groups:
        raise section.refuse("group_id", f"expected 0 to {groups - 1} for {groups} groups")
    first = sources[0]
    for other in sources:
        if other.channels % groups:
            raise section.refuse(
                "groups", f"expected a divisor of the {other.channels} channels of layer {other.index}"
            )
        _require_equal_shape(section, "layers", first, other)
    channels = sum(source.channels // groups for source in sources)
    return Layer(index, section, tuple(source.index for source in sources), first.channels, channels, first.height,
                 first.width, first.stride)  # fmt: skip


def _shortcut(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    first, other = sources
    _require_equal_shape(section, "from", first, other)
    if first.channels != other.channels:
        raise section.refuse("from", f"layer {first.index} has {first.channels} channels and layer {other.index} has "
                             f"{other.channels}; expected as many")  # fmt: skip
    return Layer(index, section, (first.index, other.index), first.channels, first.channels, first.height,
                 first.width, first.stride)  # fmt: skip


def _require_equal_shape(section: Section, key: str, one: Layer, other: Layer) -> None:
    if (one.height, one.width, one.stride) != (other.height, other.width, other.stride):
        raise section.refuse(
            key,
            f"layer {one.index} is {one.width} x {one.height} at stride {one.stride} and layer {other.index} is "
            f"{other.width} x {other.height} at stride {other.stride}; expected the same",
        )


def _upsample(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    source, scale = sources[0], section["stride"]
    if source.stride % scale:
        raise section.refuse("stride", f"upsamples beyond the image: the map has stride {source.stride}")
    return Layer(index, section, (source.index,), source.channels, source.channels, source.height * scale,
                 source.width * scale, source.stride // scale)  # fmt: skip


def _avgpool(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    source = sources[0]
    return Layer(index, section, (source.index,), source.channels, source.channels, 1, 1, source.stride)


def _same(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    source = sources[0]
    if section.kind == "softmax" and source.channels * source.height * source.width % section["groups"]:
        raise section.refuse("groups", f"expected a divisor of {source.channels * source.height * source.width}")
    return replace(source, index=index, section=section, sources=(source.index,), inputs=source.channels, values=0)


def _yolo(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    source = sources[0]
    if len(section["anchors"]) != 2 * section["num"]:
        raise section.refuse(
            "anchors", f"{len(section['anchors'])} numbers; expected width and height of num={section['num']}"
        )
    wrong = [anchor for anchor in section["mask"] if anchor >= section["num"]]
    if wrong:
        raise section.refuse("mask", f"no anchor {wrong[0]}; expected 0 to {section['num'] - 1}")
    anchors = len(section["mask"]) or section["num"]
    if source.channels != anchors * (section["classes"] + 5):
        raise section.refuse(
            "classes",
            f"layer {source.index} has {source.channels} channels; expected {anchors * (section['classes'] + 5)}, "
            f"{anchors} anchors times 5 + {section['classes']} classes",
        )
    if section["new_coords"] and source.section.values.get("activation") != "logistic":
        raise section.refuse("new_coords", "expected activation=logistic in the convolution before it")
    return _same(index, section, sources)


PLANNERS = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": _upsample,
    "avgpool": _avgpool,
    "dropout": _same,
    "softmax": _same,
    "yolo": _yolo,
}


def _check_heads(plan: Plan) -> None:
    net, heads = plan.net, plan.heads
    for head in heads:
        if (head.width * head.stride, head.height * head.stride) != (net["width"], net["height"]):
            raise head.section.refuse("", f"a map of {head.width} x {head.height} at stride {head.stride} does not "
                                      f"cover {net['width']} x {net['height']} pixels")  # fmt: skip
        for key in ("classes", "nms_kind", "beta_nms"):
            if head.section[key] != heads[0].section[key]:
                raise head.section.refuse(key, f"expected {heads[0].section[key]}, as in the first [yolo]")
    if not heads and plan.layers[-1].height * plan.layers[-1].width != 1:
        raise plan.layers[-1].section.refuse("", "the last layer gives neither boxes nor class scores; expected "
                                             "[yolo] layers, or the [avgpool] of a classifier")  # fmt: skip


def _with_parts(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with their parts and stages according to RULE."""
    readers: dict[int, list[Layer]] = {}
    for layer in layers:
        for source in layer.sources:
            readers.setdefault(source, []).append(layer)
    end = _backbone_end(layers, readers)
    head = {layer.index for layer in layers[end + 1 :]} if all(layer.kind != "yolo" for layer in layers) else set()
    for layer in layers:
        if layer.kind == "yolo":
            head.add(layer.index)
            before = layers[layer.sources[0]]
            for _ in range(2):
                if before.index <= end or before.kind != "convolutional" or len(readers[before.index]) > 1:
                    break
                head.add(before.index)
                if before.sources[0] == IMAGE:
                    break
                before = layers[before.sources[0]]
    placed = []
    for layer in layers:
        part = "backbone" if layer.index <= end else "head" if layer.index in head else "neck"
        level = layer.stride.bit_length() - 1
        placed.append(replace(layer, part=part, stage=f"{'N' if part == 'neck' else 'P'}{level}"))
    return placed


def _backbone_end(layers: Sequence[Layer], readers: dict[int, list[Layer]]) -> int:
    """The index of the last layer of the backbone."""
    stop = next((layer.index for layer in layers if layer.kind in ("yolo", "upsample", "avgpool")), len(layers))
    if stop == 0:
        return -1
    coarsest = max(layer.stride for layer in layers[:stop])
    first = next(layer.index for layer in layers if layer.stride == coarsest)
    for layer in layers[first + 1 : stop]:
        pools = layer.kind == "maxpool" and layer.section["stride"] == 1
        if pools and len(readers[layer.sources[0]]) > 1 or layer.stride != coarsest:
            stop = layer.index
            break
    joins = [layer.index for layer in layers[first:stop] if len(layer.sources) > 1]
    end = joins[-1] if joins else first
    while end + 1 < stop and layers[end + 1].sources == (end,):
        following = layers[end + 1]
        narrows = following.kind == "convolutional" and following.channels < following.inputs
        if narrows and following.section["size"] == 1:
            break
        end += 1
    # Convolutions of a head are never part of the backbone, however short the network.
    while end >= 0 and any(reader.kind == "yolo" for reader in readers.get(end, [])):
        end -= 1
    return end
