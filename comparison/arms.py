"""Arms of a comparison: parse what the command line names into config overrides.

``--acts`` names activations, ``--vary KEY=VALUE,VALUE`` the values of one key, ``--arm NAME KEY=VALUE ...`` any
overrides. An activation is a name (mish), a mapping ({name: swish, learnable: true}), the notation of the reports
(swish(learnable=true)), or assigned to parts and stages: backbone=mish,neck=leaky_relu,neck.T4=relu.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml
from pydantic import JsonValue

from comparison.plan import Overrides
from comparison.runs import ACTIVATION_KEYS, PARTS, activation_label, slug
from configs.cli import parse_setting
from configs.loading import flatten, parse_yaml
from configs.schema import Config, load
from core.text import one_line

CALL = re.compile(r"(\w+)\((.*)\)")
STAGES = tuple(f"model.{part}.stages." for part in PARTS)
OPENING, CLOSING = "([{", ")]}"
MAX_SEEDS = 1000
MAX_NAME = 60  # characters of an arm's name
# Config keys that a comparison sets itself; arms cannot differ in them.
OWN_KEYS = ("run", "train.seed", "train.profile", "train.patience")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is compared: a name and the config overrides by which its runs differ from those of the other arms."""

    text: str  # as given on the command line
    name: str  # the label in plans and reports
    overrides: Overrides
    config: Config  # with these overrides and the common ones


def parse_arms(texts: Sequence[str], common: Mapping[str, JsonValue], *, cfg: str) -> list[Arm]:
    """The arms of these activations, on top of the ``common`` overrides of all runs."""
    arms = []
    for text in texts:
        overrides = activation_overrides(text, common)
        config = load(cfg, {**common, **overrides})
        arms.append(Arm(text=text, name=label_of(config), overrides=overrides, config=config))
    return arms


def named_arms(settings: Sequence[Sequence[str]], common: Mapping[str, JsonValue], *, cfg: str) -> list[Arm]:
    """The arms of ``--arm NAME KEY=VALUE ...``, each a name and its settings."""
    arms = []
    for name, *texts in settings:
        if not texts:
            raise ValueError(f"--arm {name}: expected its settings, as in --arm {name} augment.mosaic=0")
        overrides = dict(parse_setting(text) for text in texts)
        arms.append(_arm(f"--arm {name}", name, overrides, common, cfg))
    return arms


def check_names(settings: Sequence[Sequence[str]]) -> None:
    """ValueError unless each arm of the command line begins with a name."""
    for name, *_ in settings:
        if "=" in name or not slug(name) or not name.isprintable() or len(name) > MAX_NAME:
            raise ValueError(f"--arm {name}: expected a name of at most {MAX_NAME} characters, then KEY=VALUE ...")


def varied_arms(text: str, common: Mapping[str, JsonValue], *, cfg: str, flag: str = "--vary") -> list[Arm]:
    """The arms of ``--vary KEY=VALUE,VALUE``, one per value."""
    key, values = parse_values(text, flag)
    settings = [f"{key}={value}" for value in values]
    return [_arm(f"{flag} {text}", each, dict([parse_setting(each)]), common, cfg) for each in settings]


def parse_values(text: str, flag: str) -> tuple[str, list[str]]:
    """The key and the values of "train.lr=0.001,0.002", as texts; ValueError unless there are two or more."""
    key, _, listed = text.partition("=")
    values = [value.strip() for value in _split(listed)]
    if not key.strip() or len(values) < 2:
        raise ValueError(f"{flag} {text}: expected a key and two or more values, as in augment.mosaic=1,0.5")
    if duplicates := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{flag} {text}: duplicate {duplicates[0]}")
    return key.strip(), values


def _arm(text: str, name: str, overrides: Overrides, common: Mapping[str, JsonValue], cfg: str) -> Arm:
    for key in overrides:
        if any(key == own or key.startswith(f"{own}.") for own in OWN_KEYS):
            raise ValueError(f"{text}: {key} is set by the comparison itself; arms cannot differ in it")
    return Arm(text=text, name=name, overrides=overrides, config=load(cfg, {**common, **overrides}))


def differing_keys(arms: Sequence[Arm]) -> list[str]:
    """The config keys in which arms differ, those included that follow from others."""
    configs = [flatten(arm.config.model_dump(mode="json", exclude={"run"})) for arm in arms]
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]


def is_activation(key: str) -> bool:
    """Whether a config key sets activations."""
    return key in ACTIVATION_KEYS or key.startswith(STAGES)


def varied_keys(arms: Sequence[Arm]) -> tuple[str, ...]:
    """The config keys in which arms may differ; () for activations, named after them."""
    differing = differing_keys(arms)
    if all(map(is_activation, differing)) and all(arm.name == label_of(arm.config) for arm in arms):
        return ()
    return tuple(differing or dict.fromkeys(key for arm in arms for key in arm.overrides))


def activation_overrides(text: str, common: Mapping[str, JsonValue]) -> Overrides:
    """The config overrides of an activation. ValueError if the text is not one.

    An activation without parts applies everywhere except to parts that ``common`` sets; of one by parts, parts that are
    not named keep the config's value.
    """
    pieces = [piece.partition("=") for piece in _split(text)]
    if not pieces or any(not name.strip() for name, _, _ in pieces):
        raise ValueError(f"--acts {text!r}: found nothing, expected an activation, as in mish")
    if not pieces[0][1] or not re.fullmatch(r"[\w.]+", pieces[0][0].strip()):  # no part=
        inherit: Overrides = {f"model.{part}.act": None for part in PARTS if f"model.{part}.act" not in common}
        return {"model.act": _spec(text), **inherit}
    overrides: Overrides = {}
    for name, equals, value in pieces:
        part, dot, stage = name.strip().partition(".")
        if not equals or part not in PARTS or (dot and not stage):
            raise ValueError(
                f"--acts {text!r}: {name.strip()!r} is not a part; expected {', '.join(PARTS)}, or a stage as in "
                "neck.T4"
            )
        key = f"model.{part}.stages.{stage}.act" if stage else f"model.{part}.act"
        if key in overrides:
            raise ValueError(f"--acts {text!r}: duplicate {name.strip()}")
        overrides[key] = _spec(value)
    return overrides


def label_of(config: Config) -> str:
    """The label of a configuration's activations."""
    return activation_label(config.model.model_dump(mode="json"))


def _spec(text: str) -> JsonValue:
    text = text.strip()
    call = CALL.fullmatch(text)
    if call is not None:
        settings = [piece.partition("=") for piece in _split(call[2])]
        return {"name": call[1], **{key.strip(): _value(value, text) for key, _, value in settings}}
    value = _value(text, text)
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, str) or not re.fullmatch(r"\w+", value):
        raise ValueError(f"--acts {text!r}: not an activation; expected a name, or {{name: swish, learnable: true}}")
    return value


def _value(text: str, whole: str) -> JsonValue:
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--acts {whole!r}: {text!r} is not YAML: {one_line(error)}") from error


def _split(text: str) -> list[str]:
    """Split at commas outside brackets."""
    pieces, depth = [""], 0
    for char in text:
        depth += (char in OPENING) - (char in CLOSING)
        if char == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += char
    return [piece for piece in pieces if piece.strip()] if text.strip() else []


def parse_numbers(text: str, flag: str) -> tuple[int, ...]:
    """A list of whole numbers, as in "3,5,9"; ValueError for anything else."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if not part.isdecimal() or not part.isascii() or len(part) > 18]
    if wrong or not parts:
        raise ValueError(
            f"{flag} {text!r}: found {wrong[0] if wrong else 'nothing'}, expected whole numbers, as in 3,5"
        )
    return tuple(int(part) for part in parts)


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds: "3" for seeds 0 to 2, "0,1,5" for exactly these."""
    numbers = parse_numbers(text, "--seeds")
    if "," in text:
        duplicates = [number for number in numbers if numbers.count(number) > 1]
        if duplicates:
            raise ValueError(f"--seeds {text}: duplicate {duplicates[0]}")
        return numbers
    if not 1 <= numbers[0] <= MAX_SEEDS:
        raise ValueError(f"--seeds {text}: expected 1 to {MAX_SEEDS} seeds, or a list as in 0,1,5")
    return tuple(range(numbers[0]))
