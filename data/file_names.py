r"""From the file names in annotations to files: names as other systems, tools and machines write them.

A name is taken as it stands where that file exists. Else these are tried, in this order, always below the folder of
images:

1. other spellings: `/` for `\`, the path of an address, %-escapes decoded, the other Unicode form, another case
2. without leading folders, the longest rest first, in each spelling: paths of another machine, `..`, a repeated folder
3. for a name without folders, the only file of this name in a subfolder

Two candidates of one rank, and one file for two names, are refused: a wrong image would be worse than none.
"""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from core.text import say_once
from data.annotations import Annotations
from data.issues import Issue
from data.record_checks import Fault, stays_inside
from data.text_column import TextColumn

SPACES, SLASHES = "without spaces around", "with / for \\"
ADDRESS, ESCAPES = "by the path of an address", "with %-escapes decoded"
UNICODE, CASE = "in another Unicode form", "in another case"
FOLDERS, BELOW = "without leading folders", "in a subfolder"


@dataclass(frozen=True)
class Found:
    """The file for a name: its path relative to the folder, None if there is none, and how it was found.

    `rivals`: the paths between which the name does not decide.
    """

    path: str | None = None
    how: tuple[str, ...] = ()  # () as it stands
    rivals: tuple[str, ...] = ()

    @property
    def is_decided(self) -> bool:
        """Whether no further rule is to be tried."""
        return self.path is not None or bool(self.rivals)


class FileFinder:
    """Finds files below a folder; each of its folders is listed once, when a name leads there."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.abspath(folder)
        self._names: dict[str, frozenset[str]] = {}
        self._folded: dict[str, dict[str, list[str]]] = {}

    def exists(self, name: str) -> bool:
        """Whether a name stays below the folder and is listed there as it stands."""
        head, _, last = name.rpartition("/")
        plain = "\\" not in name and not name.startswith("/") and ".." not in name and ":" not in name
        return (plain or stays_inside(name)) and bool(last) and last in self._listed(head)

    def find(self, name: str) -> Found:
        """The file for a name, by the rules of this module."""
        if self.exists(name):
            return Found(name)
        spellings = list(self._spellings(name))
        for start in range(max((len(parts) for _, parts in spellings), default=0)):
            for how, parts in spellings:
                if start < len(parts):
                    found = self._walk(parts[start:], (*how, FOLDERS) if start else how)
                    if found.is_decided:
                        return found
        for how, parts in spellings:
            found = self._search(parts[0], (*how, BELOW)) if len(parts) == 1 else Found()
            if found.is_decided:
                return found
        return Found()

    def _spellings(self, name: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
        """Ways to write a name: what was changed, and the parts, without drive, root and all up to the last `..`."""
        texts: dict[str, tuple[str, ...]] = {name: ()}
        texts.setdefault(name.strip(), (SPACES,))
        if "://" in name or "?d=" in name:
            with contextlib.suppress(ValueError):  # from urllib, for brackets
                address = urlsplit(name)
                local = parse_qs(address.query).get("d", [])  # of a labelling tool's local files
                texts = dict.fromkeys((*local, address.path), (ADDRESS,))
        for text, how in list(texts.items()):
            texts.setdefault(text.replace("\\", "/"), (*how, SLASHES))
        for text, how in list(texts.items()):
            texts.setdefault(unquote(text).replace("\\", "/"), (*how, ESCAPES))
        for text, how in texts.items():
            if "\\" in text or "\0" in text:
                continue
            parts = [part for part in (self._inside(text) or text).split("/") if part not in ("", ".")]
            if parts and re.fullmatch(r"[a-zA-Z]:", parts[0]):
                parts = parts[1:]
            if ".." in parts:
                parts = parts[len(parts) - parts[::-1].index("..") :]
            if parts:
                yield how if "/".join(parts) == text.removeprefix("./") else (*how, FOLDERS), parts

    def _inside(self, text: str) -> str | None:
        """An absolute path below the folder, relative to it; None for other paths."""
        if not os.path.isabs(text):
            return None
        path = os.path.normpath(text)
        for folder in (self.folder, os.path.realpath(self.folder)):
            if path.startswith(folder.rstrip(os.sep) + os.sep):
                return Path(os.path.relpath(path, folder)).as_posix()
        return None

    def _walk(self, parts: Sequence[str], how: tuple[str, ...]) -> Found:
        """The file at a path whose parts may be in another Unicode form or case."""
        paths, changes = [""], dict.fromkeys(how)
        for part in parts:
            exact = [_join(path, part) for path in paths if part in self._listed(path)]
            near = [] if exact else [_join(path, name) for path in paths for name in self._similar(path, part)]
            same = [path for path in near if _composed(os.path.basename(path)) == _composed(part)]
            if near:
                changes[UNICODE if same else CASE] = None
            paths = exact or same or near
        return self._choose(paths, tuple(changes))

    def _search(self, name: str, how: tuple[str, ...]) -> Found:
        """The file of a name in any subfolder."""
        near = self._below.get(_fold(name), [])
        return self._choose([path for path in near if os.path.basename(path) == name] or near, how)

    def _choose(self, paths: Sequence[str], how: tuple[str, ...]) -> Found:
        files = sorted(path for path in paths if os.path.isfile(os.path.join(self.folder, path)))
        return Found(files[0], how) if len(files) == 1 else Found(None, how, tuple(files))

    def _listed(self, folder: str) -> frozenset[str]:
        """The names in a folder, none if it cannot be listed."""
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(os.path.join(self.folder, folder)))
            except (OSError, ValueError):
                self._names[folder] = frozenset()
        return self._names[folder]

    def _similar(self, folder: str, name: str) -> list[str]:
        """The names in a folder that differ from one in case and Unicode form only."""
        if folder not in self._folded:
            self._folded[folder] = {}
            for each in self._listed(folder):
                self._folded[folder].setdefault(_fold(each), []).append(each)
        return self._folded[folder].get(_fold(name), [])

    @cached_property
    def _below(self) -> dict[str, list[str]]:
        """All files in subfolders, by their name without case and Unicode form."""
        found: dict[str, list[str]] = {}
        for folder, folders, names in os.walk(self.folder):
            folders[:] = [name for name in folders if not name.startswith(".")]
            relative = Path(os.path.relpath(folder, self.folder)).as_posix()
            for name in names if relative != "." else ():
                found.setdefault(_fold(name), []).append(_join(relative, name))
        return found


def find_images(annotations: Annotations) -> Annotations:
    """The annotations with the names of the files where these are written otherwise, which a line on stderr says.

    Names that lead out of the folder of images, and names that more than one file fits, become issues without an image.
    Names without a file stay as they are. ValueError if no image remains.
    """
    finder = FileFinder(annotations.image_folder)
    names = list(annotations.file_names)
    found = {index: finder.find(name) for index, name in enumerate(names) if not finder.exists(name)}
    if not found:
        return annotations
    uses = Counter(each.path for each in found.values())
    uses.update({name for index, name in enumerate(names) if index not in found})
    issues: dict[int, Issue] = {}
    for index, each in found.items():
        fault = _fault(names[index], each, uses[each.path], annotations.image_folder)
        if fault is not None:
            issues[index] = Issue(names[index].replace("\0", "?"), *fault, annotations.record(index))
    renamed = {index: each for index, each in found.items() if each.path is not None and index not in issues}
    for index, each in renamed.items():
        names[index] = each.path or ""
    if renamed:
        first = next(iter(renamed))
        ways = Counter(" and ".join(each.how) for each in renamed.values()).most_common()
        line = (
            f"{annotations.source}: {len(renamed)} of {len(names)} image names are not there as written and were found "
            f"below {annotations.image_folder} ({', '.join(f'{count} {how}' for how, count in ways)}), such as "
            f"{annotations.file_names[first]!r} as {names[first]!r}"
        )
        say_once(line)
    if len(issues) == len(names):
        raise ValueError(
            f"{annotations.source}: none of the {len(names)} images that it lists can be used; the first: "
            f"{next(iter(issues.values()))}"
        )
    changed = replace(annotations, file_names=TextColumn.of(names), issues=[*annotations.issues, *issues.values()])
    return changed.without(list(issues)) if issues else changed


def _fault(name: str, found: Found, uses: int, folder: str) -> Fault | None:
    """Why a name that is not there as it stands cannot be used."""
    kind = "ambiguous-path" if stays_inside(name) else "unsafe-path"
    if found.path is not None:
        return (kind, f"is not there, and {found.path} is that of another name") if uses > 1 else None
    if found.rivals:
        return kind, f"is not there, and {' and '.join(found.rivals[:3])} fit equally"
    if not name.strip():
        return "unsafe-path", "the file name is empty"
    if not stays_inside(name):
        return "unsafe-path", f"the file name leads out of the image folder, and {folder} has no such file"
    return None


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _fold(text: str) -> str:
    return _composed(_composed(text).casefold())
