"""Darknet networks once more, in plain loops over floats and from the text of a cfg alone, to compare with."""

import math
from collections.abc import Sequence

import numpy as np

from tests.models.oracle import ciou, iou


def sections(text: str) -> list[tuple[str, dict[str, str]]]:
    """Names and options of a cfg's sections."""
    found: list[tuple[str, dict[str, str]]] = []
    for line in text.replace("\r", "").split("\n"):
        line = line.split("#")[0].split(";")[0].replace(" ", "").replace("\t", "")
        if line.startswith("["):
            found.append((line.strip("[]"), {}))
        elif line:
            key, _, value = line.partition("=")
            found[-1][1][key] = value
    return found


def sources(kind: str, options: dict[str, str], index: int) -> list[int]:
    """Numbers of the layers that one takes in."""
    key = {"route": "layers", "shortcut": "from"}.get(kind)
    named = [int(each) for each in options[key].split(",") if each] if key else []
    named = [index + each if each < 0 else each for each in named]
    return named if kind == "route" else [index - 1, *named]


def count(text: str) -> int:
    """Values in a .weights file of this cfg."""
    channels, total = {-1: 3}, 0
    for index, (kind, options) in enumerate(sections(text)[1:]):
        taken = sources(kind, options, index)
        channels[index] = channels[taken[0]]
        if kind == "route":
            channels[index] = sum(channels[each] // int(options.get("groups", 1)) for each in taken)
        if kind in ("convolutional", "conv"):
            filters, size = int(options.get("filters", 1)), int(options.get("size", 1))
            kernels = filters * size * size * channels[taken[0]] // int(options.get("groups", 1))
            total += kernels + filters * (4 if options.get("batch_normalize") == "1" else 1)
            channels[index] = filters
    return total


def activate(name: str, x: float) -> float:
    """An activation by Darknet's name."""
    if name == "leaky":
        return x if x > 0 else x / 10
    if name == "mish":
        return x * math.tanh(math.log1p(math.exp(x)))
    if name in ("swish", "logistic"):
        sigmoid = 1 / (1 + math.exp(-x))
        return x * sigmoid if name == "swish" else sigmoid
    return max(x, 0.0) if name == "relu" else x


def convolve(x: np.ndarray, options: dict[str, str], values: list[float]) -> np.ndarray:
    """A [convolutional] on a map (C, H, W); takes its values off the front of ``values``."""
    filters, size, stride = (int(options.get(key, 1)) for key in ("filters", "size", "stride"))
    groups, dilation = int(options.get("groups", 1)), int(options.get("dilation", 1))
    pad = (size // 2 if options.get("pad") == "1" else int(options.get("padding", 0))) * dilation
    normed = options.get("batch_normalize") == "1"

    def take(number: int) -> list[float]:
        taken = values[:number]
        del values[:number]
        return taken

    bias = take(filters)
    scale, mean, variance = (take(filters) for _ in range(3)) if normed else ([], [], [])
    share = len(x) // groups
    kernel = np.array(take(filters * share * size * size)).reshape(filters, share, size, size)
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    reach = dilation * (size - 1) + 1
    side = [(length - reach) // stride + 1 for length in padded.shape[1:]]
    out = np.zeros((filters, *side))
    for f in range(filters):
        first = f // (filters // groups) * share
        for i in range(side[0]):
            for j in range(side[1]):
                window = padded[first : first + share, i * stride :, j * stride :][:, :reach:dilation, :reach:dilation]
                value = float((window * kernel[f]).sum())
                if normed:
                    value = (value - mean[f]) / math.sqrt(variance[f]) * scale[f]
                out[f, i, j] = activate(options.get("activation", "logistic"), value + bias[f])
    return out


def pool(x: np.ndarray, options: dict[str, str]) -> np.ndarray:
    """A [maxpool]: Darknet pads size - 1 in all, half of it rounded down in front."""
    stride = int(options.get("stride", 1))
    size = int(options.get("size", stride))
    padding = int(options.get("padding", size - 1))
    side = [(length + padding - size) // stride + 1 for length in x.shape[1:]]
    out = np.full((len(x), *side), -np.inf)
    for i in range(side[0]):
        for j in range(side[1]):
            for p in range(i * stride - padding // 2, i * stride - padding // 2 + size):
                for q in range(j * stride - padding // 2, j * stride - padding // 2 + size):
                    if 0 <= p < x.shape[1] and 0 <= q < x.shape[2]:
                        out[:, i, j] = np.maximum(out[:, i, j], x[:, p, q])
    return out


def run(text: str, image: np.ndarray, values: list[float]) -> list[np.ndarray]:
    """The maps before each [yolo], or the last layer's, of an image (3, H, W)."""
    values = list(values)
    maps, heads = {-1: image}, []
    for index, (kind, options) in enumerate(sections(text)[1:]):
        taken = [maps[each] for each in sources(kind, options, index)]
        x = taken[0]
        if kind == "convolutional":
            x = convolve(x, options, values)
        elif kind == "maxpool":
            x = pool(x, options)
        elif kind == "route":
            groups, group = int(options.get("groups", 1)), int(options.get("group_id", 0))
            x = np.concatenate([each[len(each) // groups * group :][: len(each) // groups] for each in taken])
        elif kind == "shortcut":
            name = options.get("activation", "linear")
            x = np.array([activate(name, value) for value in sum(taken).flatten()]).reshape(x.shape)
        elif kind == "upsample":
            x = x.repeat(int(options["stride"]), axis=1).repeat(int(options["stride"]), axis=2)
        elif kind == "avgpool":
            x = x.mean(axis=(1, 2), keepdims=True)
        elif kind == "softmax":
            x = np.exp(x) / np.exp(x).sum()
        elif kind == "yolo":
            heads.append(x)
        maps[index] = x
    assert not values, f"{len(values)} values are left over"
    return heads or [maps[len(maps) - 2]]


def boxes(
    options: dict[str, str], raw: np.ndarray, *, width: int, height: int
) -> list[tuple[list[float], list[float]]]:
    """Boxes (centre x, y, width, height in pixels) and class scores of a map before a [yolo], in rows, then anchors."""
    anchors = [float(each) for each in options["anchors"].split(",")]
    mask = [int(each) for each in options["mask"].split(",")]
    scale, classes = float(options.get("scale_x_y", 1)), int(options["classes"])
    modern = options.get("new_coords") == "1"

    def squash(value: float) -> float:
        return value if modern else 1 / (1 + math.exp(-value))

    found = []
    for row in range(raw.shape[1]):
        for column in range(raw.shape[2]):
            for place, anchor in enumerate(mask):
                t = raw[place * (5 + classes) : (place + 1) * (5 + classes), row, column].tolist()
                x, y = (scale * squash(value) - (scale - 1) / 2 for value in t[:2])
                sides = [(2 * v) ** 2 if modern else math.exp(v) for v in t[2:4]]
                box = [(column + x) / raw.shape[2] * width, (row + y) / raw.shape[1] * height]
                box += [sides[0] * anchors[2 * anchor], sides[1] * anchors[2 * anchor + 1]]
                found.append((box, [squash(t[4]) * squash(value) for value in t[5:]]))
    return found


def losses(
    text: str, maps: Sequence[np.ndarray], truths: list[list[list[float]]], labels: list[list[int]]
) -> tuple[dict[str, float], int, int]:
    """Sums over the batch of box, obj and cls, each by its normalizer; the positives, and the predictions left alone.

    ``maps``: of each head (images, channels, h, w); ``truths``: of each image, xyxy in pixels.
    """
    net, *heads = (options for kind, options in sections(text) if kind in ("net", "yolo"))
    width, height = int(net["width"]), int(net["height"])
    sums, positives, alone = {"box": 0.0, "obj": 0.0, "cls": 0.0}, 0, 0
    for options, raw in zip(heads, maps, strict=True):
        for image in range(len(raw)):
            found, pairs, ignored = _head_losses(options, raw[image], truths[image], labels[image], width, height)
            sums = {name: value + found[name] for name, value in sums.items()}
            positives, alone = positives + pairs, alone + ignored
    return sums, positives, alone


def _head_losses(
    options: dict[str, str], raw: np.ndarray, truths: list[list[float]], labels: list[int], width: int, height: int
) -> tuple[dict[str, float], int, int]:
    numbers = [float(each) for each in options["anchors"].split(",")]
    anchors = list(zip(numbers[::2], numbers[1::2], strict=True))
    mask = [int(each) for each in options["mask"].split(",")]
    classes, modern = int(options["classes"]), options.get("new_coords") == "1"
    rows, columns = raw.shape[1:]

    def entropy(x: float, z: float) -> float:
        p = x if modern else 1 / (1 + math.exp(-x))
        return -(z * math.log(p) + (1 - z) * math.log(1 - p))

    pairs = []  # (row, column, place in the mask), number of the box
    for number, (x1, y1, x2, y2) in enumerate(truths):
        shapes = [iou([0, 0, x2 - x1, y2 - y1], [0, 0, *anchor]) for anchor in anchors]
        best = shapes.index(max(shapes))
        column = min(max(int((x1 + x2) / 2 / width * columns), 0), columns - 1)
        row = min(max(int((y1 + y2) / 2 / height * rows), 0), rows - 1)
        for place, anchor in enumerate(mask):
            if anchor == best or shapes[anchor] > float(options.get("iou_thresh", 1)):
                pairs.append(((row, column, place), number))
    sums, alone, eps = {"box": 0.0, "obj": 0.0, "cls": 0.0}, 0, float(options.get("label_smooth_eps", 0))
    predictions = boxes(options, raw, width=width, height=height)
    order = [(row, column, place) for row in range(rows) for column in range(columns) for place in range(len(mask))]
    for where, ((x, y, w, h), _) in zip(order, predictions, strict=True):
        row, column, place = where
        values = raw[place * (5 + classes) : (place + 1) * (5 + classes), row, column].tolist()
        predicted = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        own = [number for at, number in pairs if at == where]
        sums["box"] += sum(1 - ciou(predicted, truths[number]) for number in own)
        overlap = max((iou(predicted, truth) for truth in truths), default=0)
        if overlap > float(options.get("ignore_thresh", 0.5)) and options.get("objectness_smooth") == "1":
            sums["obj"] += entropy(values[4], overlap)
        elif own:
            sums["obj"] += entropy(values[4], 1)
        elif overlap <= float(options.get("ignore_thresh", 0.5)):
            sums["obj"] += entropy(values[4], 0)
        else:
            alone += 1
        if own:
            named = {labels[number] for number in own}
            sums["cls"] += sum(
                entropy(values[5 + each], (1 - eps if each in named else 0) + eps / 2) for each in range(classes)
            )
    for name, key, usual in (("box", "iou", 0.07), ("obj", "obj", 1), ("cls", "cls", 1)):
        sums[name] *= float(options.get(f"{key}_normalizer", usual))
    return sums, len(pairs), alone
