"""Fonts for text that people bring: matplotlib's DejaVu Sans, and installed fonts for characters that it lacks."""

from __future__ import annotations

import functools
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from PIL import ImageFont

from core.text import printable

DEJAVU = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
MISSING = re.compile(r"Glyph (\d+) .*missing from")
STYLED = ("bold", "italic", "oblique", "light", "thin", "black", "mono", "serif", "heavy", "medium")
ADVICE = "install a font that has them, such as Noto Sans CJK"
MAX_LEGEND = 100  # classes

_chosen: dict[str, str | None] = {}  # the font of each character that was looked for and is not in DejaVu


def split_by_font(text: str) -> list[tuple[str, str]]:
    """(font file, part of the text) for the parts that one font can draw; DejaVu for what no font has."""
    _look_for(set(text))
    parts = groupby(text, lambda character: _chosen.get(character) or DEJAVU)
    return [(font, "".join(characters)) for font, characters in parts]


def undrawable(text: str) -> str:
    """The characters of a text that no installed font has, each once."""
    _look_for(set(text))
    return "".join(character for character in dict.fromkeys(text) if _chosen.get(character, DEJAVU) is None)


def drawable_names(names: Sequence[str]) -> list[str]:
    """Class names as they can be drawn: those with characters that no installed font has become "class 3".

    Which these are is said on stderr, once.
    """
    return list(names) if all(name.isascii() for name in names) else list(_drawable(tuple(names)))


def save_figure(figure: Figure, file: str | os.PathLike[str] | IO[Any], **options: Any) -> None:
    """`figure.savefig`, with installed fonts for what the figure's font lacks; what no font has is said on stderr."""
    missing = _save(figure, file, options)
    if missing and (families := _families(missing)):
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_fontfamily([*text.get_fontfamily(), *families])
        if not isinstance(file, str | os.PathLike):
            file.seek(0)
            file.truncate()
        missing = _save(figure, file, options)
    if missing:
        _say(
            f"characters in a picture that no installed font has, drawn as boxes: {' '.join(sorted(missing))}; {ADVICE}"
        )


@functools.lru_cache(maxsize=16)
def _drawable(names: tuple[str, ...]) -> tuple[str, ...]:
    lacking = [label for label, name in enumerate(names) if undrawable(printable(name))]
    if lacking:
        legend = ", ".join(f"class {label} {printable(names[label])}" for label in lacking[:MAX_LEGEND])
        more = f", ... ({len(lacking)} in all)" if len(lacking) > MAX_LEGEND else ""
        _say(f"class names that no installed font can draw are drawn as numbers: {legend}{more}; {ADVICE}")
    return tuple(f"class {label}" if label in set(lacking) else name for label, name in enumerate(names))


def _look_for(characters: set[str]) -> None:
    """Choose the fonts of characters: one font for all that DejaVu lacks if there is one, else the first for each."""
    lacking = {c for c in characters - _chosen.keys() if not c.isascii() and ord(c) not in _dejavu() and not _blank(c)}
    found: dict[str, str | None] = dict.fromkeys(lacking)
    for path in _installed() if lacking else ():
        covered = lacking & _covered(path, lacking)
        if covered == lacking:
            found = dict.fromkeys(lacking, path)
            break
        found |= {character: path for character in covered if found[character] is None}
    _chosen.update(found)


def _blank(character: str) -> bool:
    """Whether a character is not drawn: joiners, marks of direction, variation selectors."""
    return unicodedata.category(character) == "Cf" or 0xFE00 <= ord(character) <= 0xFE0F


@functools.cache
def _dejavu() -> frozenset[int]:
    return frozenset(FT2Font(DEJAVU).get_charmap())


@functools.cache
def _installed() -> tuple[str, ...]:
    """The installed fonts, regular ones first."""
    paths = font_manager.findSystemFonts()
    return tuple(sorted(paths, key=lambda path: (any(style in Path(path).name.lower() for style in STYLED), path)))


def _covered(path: str, characters: set[str]) -> set[str]:
    """Those characters that a font has; none if it cannot be used."""
    try:
        known = FT2Font(path).get_charmap()
        covered = {character for character in characters if ord(character) in known}
        if covered:
            ImageFont.truetype(path, 16)  # refuses fonts of coloured bitmaps
    except (OSError, RuntimeError, ValueError):
        return set()
    return covered


def _families(characters: Iterable[str]) -> list[str]:
    """matplotlib's names of the fonts of characters."""
    _look_for(set(characters))
    return list(dict.fromkeys(_family(path) for c in characters if (path := _chosen.get(c)) is not None))


@functools.cache
def _family(path: str) -> str:
    font_manager.fontManager.addfont(path)
    return font_manager.FontProperties(fname=path).get_name()


def _save(figure: Figure, file: str | os.PathLike[str] | IO[Any], options: dict[str, Any]) -> set[str]:
    """Write the figure; the characters that its fonts lack."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", "Glyph")
        figure.savefig(file, **options)
    matches = [MISSING.search(str(warning.message)) for warning in caught]
    return {chr(int(match[1])) for match in matches if match}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
