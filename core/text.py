"""Text for people: printable names and messages, durations, and the known word closest to a misspelled one."""

import difflib
import re
import sys
import unicodedata
from collections.abc import Iterable

MAX_MESSAGE = 1000  # characters; an error message may quote the content of a whole file
JOINERS = "\u200c\u200d"  # zero width; other characters of their category can reorder or hide a text

_said: set[str] = set()


def printable(text: object) -> str:
    """The text on one line: spaces of any kind as plain ones, control characters as question marks.

    The joiners that Persian and emoji are written with stay.
    """
    return "".join(_harmless(character) for character in str(text))


def one_line(text: object) -> str:
    """A message, such as an error, on one line of at most MAX_MESSAGE characters, without control characters."""
    if isinstance(text, OSError) and text.strerror:  # without its number, the file first
        text = text.strerror if text.filename is None else f"{text.filename}: {text.strerror}"
    line = re.sub(r"\s*[^\S ]\s*", " ", str(text).strip())  # spaces stay: a path may have several in a row
    return printable(line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]} ...")


def is_printable(text: str) -> bool:
    """Whether nothing in a text is a control character, as `printable` understands it."""
    return all(character == "?" or _harmless(character) != "?" for character in text)


def _harmless(character: str) -> str:
    if character.isprintable() or character in JOINERS:
        return character
    return " " if unicodedata.category(character) == "Zs" else "?"


def say_once(text: object) -> None:
    """Print a line on stderr, unless this process has printed the same before: what a user should know about a file."""
    line = printable(text)
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr)


def format_duration(seconds: float) -> str:
    """A duration in readable units: 4.2 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def closest(word: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """The known word most similar to `word`, None if none is similar."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=cutoff)
    return near[0] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown `word`: ", did you mean 'relu'?", or empty."""
    near = closest(word, known)
    return f", did you mean {near!r}?" if near else ""
