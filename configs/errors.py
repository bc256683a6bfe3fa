"""Pydantic validation errors as one line: the key, where it was set, what was found, what was expected."""

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from core.text import closest

MAX_ERRORS = 5  # reported at once
MAX_KEY_LENGTH = 100  # characters of one part of a key


def explain(
    error: ValidationError, model: type[BaseModel], *, name: str, where: Callable[[str], str] = lambda key: ""
) -> str:
    """One line for an error raised by validating `model`.

    `name` stands for the whole of what was validated (a file); `where` maps a dotted key to the place it was set.
    """
    return "; ".join(_explain(details, model, name, where) for details in error.errors()[:MAX_ERRORS])


def _explain(details: ErrorDetails, model: type[BaseModel], name: str, where: Callable[[str], str]) -> str:
    parts, valid = _resolve([str(part) for part in details["loc"]], model)
    kind, value = details["type"], details["input"]
    if kind == "kind" and isinstance(value, Mapping):  # a union whose sections are told apart by this key
        parts, value = [*parts, "kind"], value.get("kind")
    key = ".".join(parts)
    place = f" ({where(key)})" if where(key) else ""
    if kind == "extra_forbidden":
        nearest = closest(parts[-1], valid)
        hint = f"did you mean {'.'.join([*parts[:-1], nearest])}?" if nearest else f"valid are {', '.join(valid)}"
        return f"{key}{place}: unknown key; {hint}"
    if kind == "missing":
        return f"{key}{place}: missing"
    message = details["msg"].removeprefix("Value error, ")
    if not key and kind == "value_error":  # of a validator of the whole, which names the keys itself
        return message
    found = "a mapping" if isinstance(value, Mapping) else reprlib.repr(value)
    return f"{key or name}{place}: found {found}; {message[:1].lower()}{message[1:]}"


def _resolve(location: Sequence[str], model: type[BaseModel]) -> tuple[list[str], list[str]]:
    """The dotted key of an error as the user wrote it, in printable parts, and the valid keys beside its last part.

    A location names the member of a union that was tried ("model", "yolo", "act"); a key does not.
    """
    sections, key, valid = [model], [], list(model.model_fields)
    for part in location:
        tagged = [section for section in sections if part in _tags(section)]
        if tagged:
            sections = tagged
            continue
        key.append(part[:MAX_KEY_LENGTH] if part.isprintable() else ascii(part[:MAX_KEY_LENGTH]))
        valid = [field for section in sections for field in section.model_fields]
        fields = [section.model_fields[part] for section in sections if part in section.model_fields]
        if fields:  # else a key of a mapping, such as the name of a stage
            sections = [found for field in fields for found in _sections(field.annotation)]
    return key, valid


def _tags(section: type[BaseModel]) -> tuple[object, ...]:
    field = section.model_fields.get("kind")
    return get_args(field.annotation) if field is not None else ()


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    """The models within a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)
