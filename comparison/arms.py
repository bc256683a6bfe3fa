"""Activations as the command line writes them, turned into overrides of the configuration.

A name (mish), a mapping ({name: swish, learnable: true}), the form of the reports (swish(learnable=true)), or parts and
stages: backbone=mish,neck=leaky_relu,neck.T4=relu.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from comparison.runs import PARTS, activation_label
from configs.loading import parse_yaml

CALL = re.compile(r"(\w+)\((.*)\)")
OPEN, CLOSE = "([{", ")]}"
MOST_SEEDS = 1000


def activation_overrides(text: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What an activation sets on the configuration beside what is ``given`` for all runs.

    One without parts goes everywhere but where ``given`` holds a part at an activation of its own; of one by parts,
    those it leaves out stay as the configuration has them. ValueError for what is no activation.
    """
    pieces = [piece.partition("=") for piece in _split(text)]
    if not pieces or any(not name.strip() for name, _, _ in pieces):
        raise ValueError(f"--acts {text!r}: found nothing, expected an activation, as in mish")
    if not pieces[0][1] or not re.fullmatch(r"[\w.]+", pieces[0][0].strip()):  # no part=
        parts = {f"model.{part}.act": None for part in PARTS if f"model.{part}.act" not in given}
        return {"model.act": _spec(text), **parts}
    found: dict[str, Any] = {}
    for name, equals, value in pieces:
        part, dot, stage = name.strip().partition(".")
        if not equals or part not in PARTS or (dot and not stage):
            raise ValueError(
                f"--acts {text!r}: {name.strip()!r} is no part; expected {', '.join(PARTS)}, or a stage as in neck.T4"
            )
        key = f"model.{part}.stages.{stage}.act" if stage else f"model.{part}.act"
        if key in found:
            raise ValueError(f"--acts {text!r}: {name.strip()} stands twice")
        found[key] = _spec(value)
    return found


def label_of(config: Any) -> str:
    """The label of a loaded configuration's activations."""
    return activation_label(config.model.model_dump(mode="json"))


def _spec(text: str) -> str | dict[str, Any]:
    text = text.strip()
    call = CALL.fullmatch(text)
    if call is not None:
        settings = [piece.partition("=") for piece in _split(call[2])]
        return {"name": call[1], **{key.strip(): _value(value, text) for key, _, value in settings}}
    value = _value(text, text)
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, str) or not re.fullmatch(r"\w+", value):
        raise ValueError(f"--acts {text!r}: no activation; expected a name, or {{name: swish, learnable: true}}")
    return value


def _value(text: str, whole: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--acts {whole!r}: {text!r} is not YAML: {' '.join(str(error).split())}") from error


def _split(text: str) -> list[str]:
    """The pieces between commas that stand in no bracket."""
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter in OPEN) - (letter in CLOSE)
        if letter == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return [piece for piece in pieces if piece.strip()] if text.strip() else []


def parse_numbers(text: str, flag: str) -> tuple[int, ...]:
    """Whole numbers in a list: "3,5,9"; ValueError for other text."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [part for part in parts if not part.isdecimal() or not part.isascii() or len(part) > 18]
    if wrong or not parts:
        raise ValueError(
            f"{flag} {text!r}: found {wrong[0] if wrong else 'nothing'}, expected whole numbers, as in 3,5"
        )
    return tuple(int(part) for part in parts)


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds: "3" for three of them, from 0 on, "0,1,5" for these."""
    numbers = parse_numbers(text, "--seeds")
    if "," in text:
        twice = [number for number in numbers if numbers.count(number) > 1]
        if twice:
            raise ValueError(f"--seeds {text}: {twice[0]} stands twice")
        return numbers
    if not 1 <= numbers[0] <= MOST_SEEDS:
        raise ValueError(f"--seeds {text}: expected 1 to {MOST_SEEDS} seeds, or a list as in 0,1,5")
    return tuple(range(numbers[0]))
