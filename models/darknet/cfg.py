"""Parse a Darknet `.cfg` into typed sections. Unknown options are refused with their line.

A cfg is an INI-like text: `[section]`, then `key=value` lines; whitespace is ignored, `#` and `;` start comments.
Sections are the layers in order and may share a name; only the first, `[net]`, is not a layer.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.limits import MAX_CLASSES
from core.text import did_you_mean
from core.text_files import read_text_file
from models.activations import ActivationSpec, parse_activation

MAX_BYTES = 1 << 20
MAX_SECTIONS = 2048
MAX_NUMBERS = 2048  # in a list

# Darknet's names and the equivalent activations of our table (AlexeyAB/darknet, src/activations.h).
ACTIVATIONS: dict[str, ActivationSpec] = {
    "linear": parse_activation("identity"),
    "logistic": parse_activation("sigmoid"),
    "leaky": parse_activation({"name": "leaky_relu", "negative_slope": 0.1}),
    "mish": parse_activation("mish"),
    "swish": parse_activation("silu"),
    "relu": parse_activation("relu"),
    "elu": parse_activation("elu"),
    "selu": parse_activation("selu"),
    "gelu": parse_activation({"name": "gelu", "approximate": "tanh"}),
    "tanh": parse_activation("tanh"),
    "hard_mish": parse_activation("hard_mish"),
}
LOSS = "the same, in the loss"  # for training keys that are read from the cfg
# Never replaced: a projection has no activation, and a logistic head defines the range of its outputs.
FIXED = ("linear", "logistic")


@dataclass(frozen=True)
class Option:
    """How to parse an option; `ours` names the equivalent key of our configuration for options of the training."""

    read: Callable[[str], object]
    default: object = None
    ours: str | None = None  # None: the option defines the network; "": no equivalent


@dataclass(frozen=True)
class Section:
    """A section with the values of its options, defaults included, and the line numbers of those that are set."""

    kind: str
    line: int
    values: Mapping[str, Any]
    lines: Mapping[str, int]
    file: str

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def refuse(self, key: str, why: str) -> ValueError:
        """The error to raise for an option, with its line number, or that of the section if the option is not set."""
        line = self.lines.get(key, self.line)
        given = f" {key}={_plain(self.values[key])}" if key in self.values else ""
        return ValueError(f"{self.file}, line {line}: [{self.kind}]{given}: {why}")


def _plain(value: object) -> str:
    return ",".join(f"{each:g}" for each in value[:20]) if isinstance(value, tuple) else str(value)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[-+]?\d{1,18}", text, re.ASCII) or not low <= int(text) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return read


def _number(text: str) -> float:
    if not re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text, re.ASCII) or not math.isfinite(float(text)):
        raise ValueError("expected a number")
    return float(text)


def _positive(text: str) -> float:
    value = _number(text)
    if not 1e-6 <= value <= 1e6:
        raise ValueError("expected a number from 0.000001 to 1000000")
    return value


def _gain(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1e6:
        raise ValueError("expected a number from 0 to 1000000")
    return value


def _unit(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise ValueError("expected a number from 0 to 1")
    return value


def _fraction(text: str) -> float:
    value = _number(text)
    if not 0 <= value < 1:
        raise ValueError("expected a number from 0 to below 1")
    return value


def _list_of(read: Callable[[str], object]) -> Callable[[str], tuple[object, ...]]:
    def read_list(text: str) -> tuple[object, ...]:
        parts = text.removesuffix(",").split(",")
        if len(parts) > MAX_NUMBERS:
            raise ValueError(f"expected at most {MAX_NUMBERS} numbers")
        return tuple(read(part) for part in parts)

    return read_list


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected one of {', '.join(words)}{did_you_mean(text, words)}")
        return text

    return read


def _nms_kind(text: str) -> str:
    return _one_of("greedynms", "diounms")({"default": "greedynms"}.get(text, text))  # which is equivalent


def _word(text: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,100}", text, re.ASCII):
        raise ValueError("expected a word")
    return text


_INDEX = _whole(-MAX_SECTIONS, MAX_SECTIONS)
_FLAG = _whole(0, 1)
_COUNT = _whole(0, 10**9)
_ACTIVATION = _one_of(*ACTIVATIONS)

SECTIONS: dict[str, dict[str, Option]] = {
    "net": {
        "width": Option(_whole(32, 4096)),
        "height": Option(_whole(32, 4096)),
        "channels": Option(_whole(3, 3)),
        "letter_box": Option(_FLAG, 0),
        "batch": Option(_COUNT, ours="train.nominal_batch (images per update); train.batch is batch / subdivisions"),
        "subdivisions": Option(_COUNT, ours="train.batch (batch / subdivisions)"),
        "momentum": Option(_number, ours="train.momentum, with train.optimizer: sgd"),
        "decay": Option(_number, ours="train.weight_decay"),
        "learning_rate": Option(_number, ours="train.lr"),
        "burn_in": Option(_COUNT, ours="train.warmup (in epochs, and linear)"),
        "max_batches": Option(_COUNT, ours="train.epochs (batches / batches of an epoch)"),
        "policy": Option(_word, ours="train.schedule (cosine, linear or flat_cosine; none has steps)"),
        "steps": Option(_list_of(_COUNT), ours=""),
        "scales": Option(_list_of(_number), ours=""),
        "power": Option(_number, ours=""),
        "angle": Option(_number, ours="augment.degrees"),
        "saturation": Option(_number, ours="augment.hsv_s (1.5 there is 0.5 here)"),
        "exposure": Option(_number, ours="augment.hsv_v (1.5 there is 0.5 here)"),
        "hue": Option(_number, ours="augment.hsv_h"),
        "aspect": Option(_number, ours=""),
        "min_crop": Option(_COUNT, ours=""),
        "max_crop": Option(_COUNT, ours=""),
        "mosaic": Option(_FLAG, ours="augment.mosaic"),
        "cutmix": Option(_FLAG, ours=""),
        "mixup": Option(_FLAG, ours="augment.mixup"),
        "blur": Option(_number, ours="augment.blur (a probability)"),
        "gaussian_noise": Option(_number, ours=""),
        "mosaic_bound": Option(_FLAG, ours=""),
        "max_chart_loss": Option(_number, ours=""),
        "label_smooth_eps": Option(_number, ours=""),
        "ema_alpha": Option(_number, ours="train.ema (here a fraction of the run)"),
    },
    "convolutional": {
        "filters": Option(_whole(1, 65536), 1),
        "size": Option(_whole(1, 64), 1),
        "stride": Option(_whole(1, 64), 1),
        "groups": Option(_whole(1, 65536), 1),
        "dilation": Option(_whole(1, 64), 1),
        "pad": Option(_FLAG, 0),
        "padding": Option(_whole(0, 64), 0),
        "batch_normalize": Option(_FLAG, 0),
        "activation": Option(_ACTIVATION, "logistic"),
        "stopbackward": Option(_COUNT, ours="train.freeze (for the whole run, by part or stage)"),
    },
    "shortcut": {"from": Option(_INDEX), "activation": Option(_ACTIVATION, "linear")},
    "route": {
        "layers": Option(_list_of(_INDEX)),
        "groups": Option(_whole(1, 65536), 1),
        "group_id": Option(_whole(0, 65535), 0),
    },
    "maxpool": {
        "size": Option(_whole(1, 64), 0),  # 0: as the stride
        "stride": Option(_whole(1, 64), 1),
        "padding": Option(_whole(0, 63), -1),  # -1: size - 1
    },
    "avgpool": {},
    "upsample": {"stride": Option(_whole(1, 16), 2)},
    "dropout": {"probability": Option(_fraction, 0.5)},
    "softmax": {"groups": Option(_whole(1, 65536), 1)},
    "yolo": {
        "mask": Option(_list_of(_whole(0, 255)), ()),  # (): all
        "anchors": Option(_list_of(_positive)),
        "classes": Option(_whole(1, MAX_CLASSES), 20),
        "num": Option(_whole(1, 256), 1),
        "scale_x_y": Option(_positive, 1.0),
        "new_coords": Option(_FLAG, 0),
        "nms_kind": Option(_nms_kind, "greedynms"),
        "beta_nms": Option(_positive, 0.6),
        "jitter": Option(_number, ours="augment.scale, augment.translate"),
        "random": Option(_number, ours="train.multi_scale"),
        "resize": Option(_number, ours="augment.scale"),
        "ignore_thresh": Option(_number, ours=LOSS),
        "truth_thresh": Option(_number, ours=LOSS),
        "iou_thresh": Option(_number, ours=LOSS),
        "iou_loss": Option(_word, ours="CIoU, whatever it says"),
        "iou_normalizer": Option(_gain, ours=f"{LOSS}, times model.loss.box"),
        "cls_normalizer": Option(_gain, ours=f"{LOSS}, times model.loss.cls"),
        "obj_normalizer": Option(_gain, ours=f"{LOSS}, times model.loss.obj"),
        "objectness_smooth": Option(_FLAG, ours=LOSS),
        "max_delta": Option(_number, ours="train.clip (of the whole gradient)"),
        "max": Option(_COUNT, ours=""),
        "counters_per_class": Option(_list_of(_number), ours=""),
        "focal_loss": Option(_FLAG, ours=""),
        "label_smooth_eps": Option(_unit, ours=f"{LOSS}, unless model.loss.label_smoothing is set"),
    },
}  # fmt: skip
REQUIRED = {
    "net": ("width", "height", "channels"), "shortcut": ("from",), "route": ("layers",), "yolo": ("anchors",),
}  # fmt: skip


def read_text(path: str | Path) -> str:
    """The text of a cfg file; FileNotFoundError if it is missing, ValueError if it has more than MAX_BYTES."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a Darknet .cfg")
    return read_text_file(file, limit=MAX_BYTES, what="a Darknet .cfg", any_encoding=True)  # as comments may have


def parse(text: str, *, file: str) -> list[Section]:
    """The sections of a cfg, `[net]` first; ValueError naming `file` and the line for invalid text."""
    found: list[tuple[str, int, dict[str, tuple[str, int]]]] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = "".join(re.split("[#;]", raw, maxsplit=1)[0].split())
        if not line:
            continue
        if not line.isprintable():
            raise ValueError(f"{file}, line {number}: control characters; expected the text of a Darknet .cfg")
        if line.startswith("["):
            found.append((_kind(line, number, file, first=not found), number, {}))
            if len(found) > MAX_SECTIONS:
                raise ValueError(f"{file}, line {number}: more than {MAX_SECTIONS} sections")
            continue
        key, equals, value = line.partition("=")
        if not found or not equals or not key:
            raise ValueError(f"{file}, line {number}: {line[:100]!r}; expected [section] or key=value within one")
        options = found[-1][2]
        if key in options:
            raise ValueError(f"{file}, line {number}: duplicate key {key[:100]}, first set in line "
                             f"{options[key][1]}")  # fmt: skip
        options[key] = value, number
    if len(found) < 2:
        raise ValueError(f"{file}: {len(found)} sections; expected [net] and layers")
    return [_typed(kind, line, options, file) for kind, line, options in found]


def _kind(line: str, number: int, file: str, *, first: bool) -> str:
    name = line[1:-1] if line.endswith("]") else ""
    name = {"network": "net", "conv": "convolutional", "max": "maxpool", "avg": "avgpool", "soft": "softmax"}.get(
        name, name
    )
    if name not in SECTIONS:
        layers = [kind for kind in SECTIONS if kind != "net"]
        raise ValueError(
            f"{file}, line {number}: unknown section {line[:100]}{did_you_mean(name, SECTIONS)}; "
            f"known are [net] and the layers {', '.join(layers)}"
        )
    if first != (name == "net"):
        raise ValueError(f"{file}, line {number}: {line}; expected [net] as the first section and no other")
    return name


def _typed(kind: str, line: int, options: Mapping[str, tuple[str, int]], file: str) -> Section:
    known = SECTIONS[kind]
    values = {key: option.default for key, option in known.items() if option.ours is None}
    for key, (text, number) in options.items():
        where = f"{file}, line {number}: [{kind}]"
        if key not in known:
            raise ValueError(
                f"{where} {key[:100]}={text[:100]}: unknown option{did_you_mean(key, known)}; "
                f"known are {', '.join(known) or 'none'}"
            )
        try:
            values[key] = known[key].read(text)
        except ValueError as error:
            raise ValueError(f"{where} {key}={text[:100]}: {error}") from None
    for key in REQUIRED.get(kind, ()):
        if key not in options:
            raise ValueError(f"{file}, line {line}: [{kind}]: the option {key} is missing")
    return Section(kind, line, values, {key: number for key, (_, number) in options.items()}, file)


def rewrite(text: str, edits: Iterable[tuple[Section, str, str]]) -> str:
    """The text of a cfg with some options (section, key, value) set and everything else unchanged."""
    lines = text.split("\n")
    for section, key, value in edits:
        given = section.lines.get(key)
        if given is None:
            lines[section.line - 1] += f"\n{key}={value}"
        else:
            lines[given - 1] = f"{key}={value}"
    return "\n".join(lines)


def training_keys(sections: list[Section]) -> tuple[dict[str, str], list[str]]:
    """The training options set in a cfg: {"net.momentum=0.949": our key}, and those without an equivalent."""
    mapped: dict[str, str] = {}
    ignored: dict[str, None] = {}
    for section in sections:
        for key in section.lines:
            ours = SECTIONS[section.kind][key].ours
            if ours:
                mapped.setdefault(f"{section.kind}.{key}={_plain(section[key])}", ours)
            elif ours is not None:
                ignored.setdefault(f"{section.kind}.{key}")
    return mapped, list(ignored)
