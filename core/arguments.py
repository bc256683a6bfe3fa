"""Arguments of the Python API: numbers of any library as what they mean, one clear line for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.text import did_you_mean, printable

ImageSize = int | tuple[int, int]  # of a network's input, in pixels: the long side, or (height, width)
MAX_SHOWN = 80  # characters of a value in a message


def given(function: str, arguments: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The arguments that are not None, which means the default; TypeError for an unknown name."""
    names = list(known)
    for name in arguments:
        if name not in names:
            hint = did_you_mean(name, names)
            raise TypeError(f"{function}: unknown argument {name!r}{hint}; expected one of {', '.join(names)}")
    return {name: value for name, value in arguments.items() if value is not None}


def fraction(name: str, value: object) -> float:
    """A number from 0 to 1; ValueError for anything else."""
    number = to_number(value)
    if number is None or not 0 <= number <= 1:
        raise ValueError(f"{name}: found {shown(value)}, expected a number from 0 to 1")
    return number


def whole(name: str, value: object, low: int, high: int | None = None) -> int:
    """A whole number in a range, also one such as 5.0; ValueError for anything else."""
    number = to_number(value)
    if number is None or number != int(number) or number < low or (high is not None and number > high):
        limits = f"{low} on" if high is None else f"{low} to {high}"
        raise ValueError(f"{name}: found {shown(value)}, expected a whole number from {limits}")
    return int(number)


def switch(name: str, value: object) -> bool:
    """True or False, also as 1 or 0; ValueError for anything else."""
    bare = plain(value)
    number = float(bare) if isinstance(bare, bool) else to_number(bare)
    if number not in (0, 1):
        raise ValueError(f"{name}: found {shown(value)}, expected True or False")
    return bool(number)


def image_size(name: str, value: object) -> ImageSize:
    """A number of pixels, or (height, width); ValueError for anything else."""
    numbers = [to_number(side) for side in as_list(value)]
    pixels = [int(number) for number in numbers if number is not None and number == int(number)]
    if len(pixels) != len(numbers) or len(pixels) not in (1, 2):
        raise ValueError(f"{name}: found {shown(value)}, expected a number of pixels, or (height, width)")
    return pixels[0] if len(pixels) == 1 else (pixels[0], pixels[1])


def class_numbers(wanted: object, names: Sequence[str]) -> list[int]:
    """The numbers of one or several classes given by number or name, each once; ValueError for an unknown one."""
    numbers = [number for each in as_list(wanted) for number in _numbers_of(each, names)]
    if not numbers:
        raise ValueError("classes: an empty list; expected numbers or names, or None for all classes")
    return list(dict.fromkeys(numbers))


def _numbers_of(wanted: object, names: Sequence[str]) -> list[int]:
    """All classes of a name, or the class of a number, which may be text; "0,2" is both."""
    if isinstance(wanted, str) and wanted in names:
        return [number for number, name in enumerate(names) if name == wanted]
    if isinstance(wanted, str) and "," in wanted:
        return [number for part in wanted.split(",") for number in _numbers_of(part.strip(), names)]
    number = float(wanted) if isinstance(wanted, str) and wanted.isdecimal() else to_number(wanted)
    if number is not None and number == int(number) and 0 <= number < len(names):
        return [int(number)]
    known = ", ".join(f"{k} {name}" for k, name in enumerate(names[:20]))
    more = f", ... ({len(names)} in all)" if len(names) > 20 else ""
    hint = did_you_mean(wanted, names) if isinstance(wanted, str) else ""
    raise ValueError(f"classes: found {shown(wanted)}{hint}; expected one of {known}{more}")


def as_list(value: object) -> list[Any]:
    """The elements of a collection; a single value or text is a list of one."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        return [value]
    return list(value)


def to_number(value: object) -> float | None:
    """A finite number of Python, NumPy or PyTorch; None for other values, truth values and text among them."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def plain(value: object) -> object:
    """A scalar of NumPy or PyTorch as Python's, other values as they are."""
    return value.item() if getattr(value, "ndim", 1) == 0 and hasattr(value, "item") else value


def shown(value: object) -> str:
    """A value as a message shows it."""
    text = printable(repr(value))
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
