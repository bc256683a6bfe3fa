"""Darknet networks once more, in plain loops over floats and from the text of a cfg alone, to compare with."""

import math

import numpy as np


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
