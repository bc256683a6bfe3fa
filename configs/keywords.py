"""Keyword arguments of the Python API as overrides of the configuration: flags of train.py without their dashes."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping

from configs.flags import AUTO, TRAIN, Flag
from configs.foreign_flags import INSTEAD
from configs.hyperparameters import HYPERPARAMETERS, read_hyperparameters, whole_epochs
from configs.loading import CONFIGS, Tree, flatten, read_yaml
from core.arguments import as_list, plain, shown
from core.text import did_you_mean

FILE = "hyp"
# What False means for a flag that is not a switch.
OFF = {
    "cache": "off",
    "amp": "off",
    "no_amp": "auto",
    "cos_lr": "linear",
    "linear_lr": "cosine",
    "multi_scale": 0.0,
    "class_balance": 0.0,
    "profile": 0,
}
_DEVICE = "give it to the object, as in YOLO(weights, device=...)"
_LEAVE = "leave it out"
# By function: keywords of other trainers that do not exist here, with what to use instead, beside the flags of scripts.
SCRIPTS = {"train": "train.py", "resume": "train.py", "predict": "detect.py", "val": "val.py", "export": "export.py"}
NOT_HERE: dict[str, dict[str, str]] = {
    "train": {
        "model": "the network is that of the YOLO object",
        "task": "networks here detect; leave it out",
        "mode": _LEAVE,
        "verbose": _LEAVE,
        "plots": "pictures are always drawn; leave it out",
        "save": "last.pt and best.pt are always saved; leave it out",
        "erasing": "use extra, which takes any transforms of albumentations",
        "auto_augment": "use extra, which takes any transforms of albumentations",
        "classes": "create an annotation file with the classes to use, and name it in the data YAML",
    },
    "predict": {
        "save": 'use result.save("a.jpg") for each result; detect.py saves all',
        "save_txt": 'use result.save_txt("a.txt") for each result',
        "save_crop": 'use result.save_crops("folder") for each result',
        "show": "a result at the end of a notebook's cell shows itself; result.plot() returns the picture",
        "stream": "use YOLO.stream, which yields results one by one",
        "agnostic_nms": "use agnostic",
        "vid_stride": "use detect.py",
        "persist": "ids are kept within a call; give the whole video, camera or folder in one call",
        "tracker": "ByteTrack is the only one; leave it out",
        "verbose": _LEAVE,
        "device": _DEVICE,
        "half": "give it to the object, as in YOLO(weights, half=True)",
        "project": "nothing is written; see result.save",
        "name": "nothing is written; see result.save",
    },
    "val": {
        "plots": "the result has the numbers; val.py draws the curves; leave it out",
        "save_txt": "use predict and result.save_txt",
        "save_json": "the result has the predictions; leave it out",
        "verbose": _LEAVE,
        "device": _DEVICE,
        "half": "give it to the object, as in YOLO(weights, half=True)",
        "project": "nothing is written; val.py writes its results into a folder",
        "name": "nothing is written; val.py writes its results into a folder",
    },
    "export": {"verbose": "use progress"},
}


def overrides_from(function: str, keywords: Mapping[str, object]) -> Tree:
    """Overrides by dotted key of keyword arguments; None stands for the default.

    A name is that of a flag of train.py (``batch_size``), of a hyperparameter of YOLOv5 and Ultralytics (``fliplr``),
    the last part of a key of configs/yolo.yaml (``weight_decay``), or a whole key, as in ``**{"model.neck.act":
    "relu"}``. TypeError for an unknown name, ValueError for one of another trainer that does not apply here.
    """
    given: Tree = {}
    file = keywords.get(FILE)
    for name, value in keywords.items():
        if value is None or name == FILE:
            continue
        key = name if "." in name else known_names().get(name)
        if key is None:
            raise _unknown(function, name)
        if key in given:
            raise TypeError(f"{function}: {name} sets {key}, which another argument sets as well")
        given[key] = _value(name, value)
    if file is None:
        return given
    return read_hyperparameters(str(file), optimizer=given.get("train.optimizer")) | given


@functools.cache
def known_names() -> dict[str, str]:
    """Keys of the configuration by the names of keyword arguments."""
    keys = [key for key in flatten(read_yaml(CONFIGS / "yolo.yaml")) if key.count(".") == 1]
    last = [key.rpartition(".")[2] for key in keys]
    names = {name: key for name, key in zip(last, keys, strict=True) if last.count(name) == 1}
    return names | HYPERPARAMETERS | {name: flag.key for name, flag in _flags().items()}


@functools.cache
def _flags() -> dict[str, Flag]:
    return {name.lstrip("-").replace("-", "_"): flag for flag in TRAIN for name in flag.names}


def refuse_foreign(function: str, names: Iterable[str]) -> None:
    """ValueError for the keyword of another trainer that does not apply here, with what to use instead."""
    script = SCRIPTS[function]
    flags = {flag.lstrip("-").replace("-", "_"): text for flag, text in INSTEAD[script].items()}
    foreign = flags | NOT_HERE["train" if script == "train.py" else function]
    for name in names:
        if name in foreign:
            text = re.sub(r"--([a-z][a-z0-9-]*)", lambda flag: flag[1].replace("-", "_"), foreign[name])
            raise ValueError(f"{function}: {name}: not supported; {text}")


def _unknown(function: str, name: str) -> Exception:
    """The error for a name that sets nothing."""
    refuse_foreign(function, [name])
    hint = did_you_mean(name, [*known_names(), FILE])
    return TypeError(
        f"{function}: unknown argument {name!r}{hint}; expected the flags of train.py, as in epochs, or keys of "
        'configs/yolo.yaml, as in **{"train.lr": 0.01}'
    )


def _value(name: str, value: object) -> object:
    """A value as the configuration has it: plain, and as a flag with that argument means it."""
    value, flag = plain(value), _flags().get(name)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, tuple):
        value = list(value)
    if flag is None:
        return whole_epochs(name, value)
    if flag.key == "train.batch" and value == -1:
        return AUTO
    if flag.key == "train.device":
        return ",".join(map(str, as_list(value)))
    if flag.key in ("train.freeze", "run.loggers") and isinstance(value, str):
        assert flag.type is not None
        return flag.type(value)
    if flag.key == "train.freeze":
        return [str(each) for each in as_list(value)]
    if flag.key == "train.optimizer" and isinstance(value, str):
        return value.lower()
    if isinstance(value, bool) and flag.const is not None:
        return flag.const if value else OFF.get(name, not flag.const)
    if flag.type is None:
        raise ValueError(f"{name}: found {shown(value)}, expected True or False")
    return value
