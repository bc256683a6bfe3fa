"""Sections of a Darknet `.cfg` to layers: what each takes in and gives out, its values in a `.weights` file, its part.

Nothing is allocated here: a plan says how large a network is before any of it is built.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from models.darknet.cfg import Section, parse

MOST_VALUES = 1_000_000_000  # of a network: 4 GB
MOST_CHANNELS = 1 << 20
IMAGE = -1  # the source of the first layer

RULE = (
    "backbone: the layers until the coarsest stride is reached, and at that stride until the last shortcut or "
    "concatenation and the layers after it, short of pooling pyramid, upsampling, head, or a 1x1 convolution that "
    "reduces channels; head: each [yolo] with up to two convolutions that lead to it alone (of a classifier all after "
    "the backbone); neck: the rest; stages: P or, in the neck, N with the level of the output, 5 at stride 32"
)


@dataclass(frozen=True)
class Layer:
    """A layer as it stands in the cfg, numbered as Darknet does, from 0 after `[net]`."""

    index: int
    section: Section
    sources: tuple[int, ...]
    inputs: int  # channels of the first source
    channels: int
    height: int
    width: int
    stride: int  # pixels of the network's input a step
    values: int = 0  # floats in a .weights file
    part: str = ""
    stage: str = ""

    @property
    def kind(self) -> str:
        """The name of its section."""
        return self.section.kind

    @property
    def path(self) -> str:
        """Where its module stands in the network."""
        return f"{self.part}.{self.stage}.{self.index}"

    @property
    def padding(self) -> int:
        """Of a convolution: pixels added on each side before dilation. Of a pooling: on both sides together."""
        section = self.section
        if self.kind == "convolutional":
            return section["size"] // 2 if section["pad"] else section["padding"]
        return self.size - 1 if section["padding"] < 0 else section["padding"]

    @property
    def has_activation(self) -> bool:
        """Whether an activation stands here: a convolution's, which may be none, or one after a sum."""
        return self.kind == "convolutional" or self.kind == "shortcut" and self.section["activation"] != "linear"

    @property
    def size(self) -> int:
        """Side of a pooling's window."""
        return self.section["size"] or self.section["stride"]


@dataclass(frozen=True)
class Plan:
    """A whole network: `[net]`'s section and its layers."""

    file: str
    sections: tuple[Section, ...]
    layers: tuple[Layer, ...]

    @property
    def net(self) -> Section:
        """The section `[net]`."""
        return self.sections[0]

    @property
    def heads(self) -> tuple[Layer, ...]:
        """The `[yolo]` layers; none in a classifier."""
        return tuple(layer for layer in self.layers if layer.kind == "yolo")

    @property
    def classes(self) -> int:
        """As many as the heads tell apart, or channels of a classifier's output."""
        return self.heads[0].section["classes"] if self.heads else self.layers[-1].channels

    @property
    def values(self) -> int:
        """Floats in a `.weights` file of the whole network."""
        return sum(layer.values for layer in self.layers)


def plan_network(text: str, *, file: str) -> Plan:
    """The plan of a cfg's text; ValueError naming `file` and the line for what cannot be built."""
    sections = parse(text, file=file)
    net = sections[0]
    layers: list[Layer] = []
    image = Layer(IMAGE, net, (), 3, 3, net["height"], net["width"], 1)
    total = 0
    for index, section in enumerate(sections[1:]):
        sources = tuple(_source(section, index, each, layers, image) for each in _asked(section, index))
        layer = PLANNERS[section.kind](index, section, sources)
        total += layer.values
        if layer.channels > MOST_CHANNELS or total > MOST_VALUES:
            raise section.refuse("filters", f"the network has {total} values up to here, {layer.channels} channels; "
                                 f"expected at most {MOST_VALUES}, {MOST_CHANNELS}")  # fmt: skip
        layers.append(layer)
    plan = Plan(file, tuple(sections), tuple(_with_parts(layers)))
    _check_heads(plan)
    return plan


def _asked(section: Section, index: int) -> list[int]:
    """The numbers of the layers that one takes in, as they may be wrong."""
    if section.kind == "route":
        return [each if each >= 0 else index + each for each in section["layers"]]
    if section.kind == "shortcut":
        other = section["from"]
        return [index - 1, other if other >= 0 else index + other]
    return [index - 1]


def _source(section: Section, index: int, asked: int, layers: Sequence[Layer], image: Layer) -> Layer:
    key = {"route": "layers", "shortcut": "from"}.get(section.kind, "")
    if asked == IMAGE and index == 0 and not key:
        return image
    if not 0 <= asked < index:
        raise section.refuse(key, f"layer {index} cannot take in layer {asked}; expected one from 0 to {index - 1}")
    if layers[asked].kind == "yolo":
        raise section.refuse(key, f"takes in layer {asked}, a [yolo], whose boxes are no features")
    return layers[asked]


def _convolutional(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    source = sources[0]
    filters, size, groups = section["filters"], section["size"], section["groups"]
    if source.channels % groups or filters % groups:
        raise section.refuse("groups", f"expected a divisor of the {source.channels} channels and {filters} filters")
    padding = size // 2 if section["pad"] else section["padding"]
    if section["dilation"] > 1 and size > 1 and 2 * padding != size - 1:
        # Darknet computes the side of the output as if there were no dilation, which is right for this padding only.
        raise section.refuse("dilation", f"expected a padding of {(size - 1) / 2:g} with it, found {padding}")
    height, width = ((side + 2 * padding - size) // section["stride"] + 1 for side in (source.height, source.width))
    if min(height, width) < 1:
        raise section.refuse("size", f"nothing is left of a map of {source.width} x {source.height}")
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
        raise section.refuse("size", f"nothing is left of a map of {source.width} x {source.height}")
    return replace(layer, height=height, width=width)


def _route(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    groups, group = section["groups"], section["group_id"]
    if group >= groups:
        raise section.refuse("group_id", f"expected 0 to {groups - 1}, as there are {groups} groups")
    first = sources[0]
    for other in sources:
        if other.channels % groups:
            raise section.refuse(
                "groups", f"expected a divisor of the {other.channels} channels of layer {other.index}"
            )
        _require_alike(section, "layers", first, other)
    channels = sum(each.channels // groups for each in sources)
    return Layer(index, section, tuple(each.index for each in sources), first.channels, channels, first.height,
                 first.width, first.stride)  # fmt: skip


def _shortcut(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    first, other = sources
    _require_alike(section, "from", first, other)
    if first.channels != other.channels:
        raise section.refuse("from", f"layer {first.index} has {first.channels} channels and layer {other.index} has "
                             f"{other.channels}; expected as many")  # fmt: skip
    return Layer(index, section, (first.index, other.index), first.channels, first.channels, first.height,
                 first.width, first.stride)  # fmt: skip


def _require_alike(section: Section, key: str, one: Layer, other: Layer) -> None:
    if (one.height, one.width, one.stride) != (other.height, other.width, other.stride):
        raise section.refuse(
            key,
            f"layer {one.index} is {one.width} x {one.height} at stride {one.stride} and layer {other.index} is "
            f"{other.width} x {other.height} at stride {other.stride}; expected the same",
        )


def _upsample(index: int, section: Section, sources: tuple[Layer, ...]) -> Layer:
    source, scale = sources[0], section["stride"]
    if source.stride % scale:
        raise section.refuse("stride", f"upsamples beyond the image: the map has a stride of {source.stride}")
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
    wrong = [each for each in section["mask"] if each >= section["num"]]
    if wrong:
        raise section.refuse("mask", f"there is no anchor {wrong[0]}; expected 0 to {section['num'] - 1}")
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
        raise plan.layers[-1].section.refuse("", "the last layer gives neither boxes nor one set of scores; expected "
                                             "[yolo] layers, or a classifier's [avgpool]")  # fmt: skip


def _with_parts(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with their parts and stages, by RULE."""
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
    """The number of the backbone's last layer."""
    stop = next((each.index for each in layers if each.kind in ("yolo", "upsample", "avgpool")), len(layers))
    if stop == 0:
        return -1
    coarsest = max(layer.stride for layer in layers[:stop])
    first = next(layer.index for layer in layers if layer.stride == coarsest)
    for layer in layers[first + 1 : stop]:
        pools = layer.kind == "maxpool" and layer.section["stride"] == 1
        if pools and len(readers[layer.sources[0]]) > 1 or layer.stride != coarsest:
            stop = layer.index
            break
    joins = [each.index for each in layers[first:stop] if len(each.sources) > 1]
    end = joins[-1] if joins else first
    while end + 1 < stop and layers[end + 1].sources == (end,):
        following = layers[end + 1]
        narrows = following.kind == "convolutional" and following.channels < following.inputs
        if narrows and following.section["size"] == 1:
            break
        end += 1
    # A head's own convolutions are no backbone, however short the network is.
    while end >= 0 and any(reader.kind == "yolo" for reader in readers.get(end, [])):
        end -= 1
    return end
