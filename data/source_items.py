"""What a source of detection consists of: files, cameras, addresses and arrays; files are found, but not read yet."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from core.files import expand_user
from core.text import printable
from core.text_files import read_text_file
from data.image import ImageError, convert_image, decode_image
from data.image_files import (
    IMAGE_SUFFIXES,
    NOT_READ,
    RAW_SUFFIXES,
    is_animation,
    is_image,
    passed_over,
    split_images,
    unread_format,
)
from data.limits import (
    MAX_CAMERA_DIGITS,
    MAX_LIST_BYTES,
    MAX_PATH_BYTES,
    MAX_PATH_PART_BYTES,
    MAX_STEM_BYTES,
)
from data.video import UnreadableError
from data.web import WEB_SCHEMES, address_stem, fetch_image, without_password

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
SCHEMES = ("rtsp://", "rtsps://", "rtmp://", *WEB_SCHEMES, "udp://", "tcp://")
ACCEPTED = (
    f"images ({' '.join(sorted(IMAGE_SUFFIXES))}), videos ({' '.join(VIDEO_SUFFIXES)}), animated .gif or a list of "
    "them (.txt)"
)

ImageLike = str | os.PathLike[str] | bytes | np.ndarray | Image.Image


@dataclass(frozen=True)
class Item:
    """One file, camera, address or array of a source."""

    kind: str  # image, video, camera, stream, array, download (an image at an http address)
    path: str
    array: np.ndarray | None = None
    address: str = ""  # with the password, which `path` omits: never written to files or messages
    data: bytes | None = None  # of an image that was downloaded


def element_item(element: object, position: int, *, bgr: bool) -> Item:
    """An element of a list given in Python: a path, the address of an image, or what `array_item` takes."""
    if not isinstance(element, str | os.PathLike):
        return array_item(element, position, bgr=bgr)
    path = _expanded(element)
    if _is_web(os.fspath(element)) and not path.is_file():
        return _web_image(os.fspath(element))
    if not path.is_file():
        raise FileNotFoundError(f"source: element {position} of the list, {os.fspath(element)}: no such file")
    return _file(path)


def array_item(value: object, position: int, *, bgr: bool) -> Item:
    """An array, Pillow image or the bytes of a file as (H, W, 3) uint8 RGB, by the rule of data/pixels.py."""
    if isinstance(value, np.ndarray):
        value = _checked(value, bgr=bgr)
    elif not isinstance(value, Image.Image | bytes | bytearray):
        raise ValueError(
            f"source: found {type(value).__name__}; expected a path, an address, a camera number, an array (H, W, 3), "
            "a PIL image, the bytes of an image file or a list of these"
        )
    try:
        pixels = decode_image(bytes(value)) if isinstance(value, bytes | bytearray) else convert_image(value)
    except ImageError as error:
        raise ValueError(f"source: {_described(value)} {position} {error}") from error
    return Item("array", f"array {position}", pixels)


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"array {value.shape} of {value.dtype}, position"
    return "image"


def _checked(array: np.ndarray, *, bgr: bool) -> np.ndarray:
    """An array of a shape and type that images have, in RGB order; ValueError for others."""
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4))
    if array.dtype.kind not in "buif" or not shaped or 0 in array.shape:
        raise ValueError(
            f"source: found an array {array.shape} of {array.dtype}; expected (H, W, 3) or (H, W), uint8 in RGB order, "
            "also with an alpha channel, of 16 bits, or of floating-point numbers from 0 to 1"
        )
    if bgr and array.ndim == 3 and array.shape[2] >= 3:
        return np.concatenate([array[:, :, 2::-1], array[:, :, 3:]], axis=2)
    return array


def find_items(source: str) -> list[Item]:
    """The items of a source given as text."""
    if not source.strip():
        raise ValueError("source: empty; expected an image, folder, glob, video, camera number, address or list file")
    if "\0" in source:
        raise ValueError(f"source {source!r}: a path cannot contain zero bytes")
    if source.lower().startswith(SCHEMES) and not os.path.exists(source):
        return [_address(source)]
    path = _expanded(source)
    if len(os.fsencode(path)) > MAX_PATH_BYTES or any(
        len(os.fsencode(part)) > MAX_PATH_PART_BYTES for part in path.parts
    ):
        raise ValueError(f"source {source[:40]!r}...: longer than any valid path; expected {ACCEPTED}")
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return _list(path) if path.suffix.lower() == ".txt" else [_file(path)]
    if source.isascii() and source.isdigit() and len(source) <= MAX_CAMERA_DIGITS:
        return [Item("camera", source)]
    if glob.has_magic(source):
        return _glob(str(path))
    if "://" in source:
        raise ValueError(f"source {source}: unknown scheme; expected one of {', '.join(SCHEMES)}")
    raise FileNotFoundError(
        f"source {source}: no such file or folder; expected {ACCEPTED}, a folder, glob, camera number or stream address"
    )


def _expanded(text: str | os.PathLike[str]) -> Path:
    if os.path.exists(text):
        return Path(text)
    try:
        return expand_user(text)
    except ValueError as error:
        raise ValueError(f"source {error}") from error


def _is_web(text: str) -> bool:
    return text.lower().startswith(WEB_SCHEMES)


def _web_image(address: str) -> Item:
    return Item("download", without_password(address), address=address)


def _address(address: str) -> Item:
    """An image at an http address, downloaded now to find out whether it is one, or a stream."""
    stream = Item("stream", without_password(address), address=address)
    if not _is_web(address) or address.partition("?")[0].lower().endswith((*VIDEO_SUFFIXES, ".m3u8")):
        return stream
    try:
        data = fetch_image(address)
    except UnreadableError as error:
        raise ValueError(f"source {stream.path}: {error}") from error
    return stream if data is None else replace(_web_image(address), data=data)


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix == ".gif" and is_animation(path))


def _file(path: Path) -> Item:
    if not path.is_file():
        raise ValueError(f"source {path}: a device or pipe; expected a file, or for a camera its number")
    if _is_video(path):
        return Item("video", str(path))
    if not is_image(path):
        raise ValueError(f"source {path}: {_why_no_image(path)}")
    return Item("image", str(path))


def _why_no_image(path: Path) -> str:
    if path.suffix.lower() in RAW_SUFFIXES:
        return f"is a camera's raw file, {NOT_READ}"
    with open(path, "rb") as file:
        start = file.read(1024)
    if not start:
        return "is empty"
    return unread_format(start) or (
        f"unknown suffix {path.suffix or '(none)'} and no image by its content; expected {ACCEPTED}"
    )


def _known(paths: Sequence[Path], where: str) -> list[Item]:
    """The images and videos among paths; the number of other files is reported on stderr."""
    videos = {path for path in paths if path.is_file() and _is_video(path)}
    images, others = split_images([path for path in paths if path not in videos])
    accepted = videos | set(images)
    items = [Item("video" if path in videos else "image", str(path)) for path in paths if path in accepted]
    if items and others:
        print(f"{printable(where)}: {passed_over(others)}", file=sys.stderr)
    return items


def _folder(path: Path) -> list[Item]:
    paths = sorted(path.iterdir(), key=lambda entry: entry.name)
    items = _known(paths, str(path))
    if not items:
        folders = sum(entry.is_dir() for entry in paths)
        raise ValueError(
            f"source {path}: {len(paths) - folders} files and {folders} subfolders, but no image "
            f"or video directly in the folder; expected {ACCEPTED}"
        )
    return items


def _glob(pattern: str) -> list[Item]:
    matches = _matches(pattern)
    if not matches:
        raise FileNotFoundError(f"source {pattern}: no file matches; quote the pattern in a shell")
    items = _known([Path(match) for match in matches], pattern)
    if not items:
        raise ValueError(
            f"source {pattern}: {len(matches)} matches, such as {matches[0]}, but none is accepted: {ACCEPTED}"
        )
    return items


def _matches(pattern: str) -> list[str]:
    """The sorted matches of a pattern; first with brackets in the names of existing folders taken literally."""
    folder = next((parent for parent in Path(pattern).parents if parent.name and parent.is_dir()), None)
    attempts = [pattern]
    if folder is not None:
        rest = str(Path(pattern).relative_to(folder))
        below = glob.escape(str(folder))
        attempts = [os.path.join(below, rest), pattern, os.path.join(below, rest.replace("[", "[[]"))]
    return next(filter(None, (sorted(glob.glob(attempt, recursive=True)) for attempt in attempts)), [])


def _list(path: Path) -> list[Item]:
    """Read a list file: one path per line, relative to the file's folder or else to the working folder."""
    try:
        text = read_text_file(path, limit=MAX_LIST_BYTES, what="a list of images and videos")
    except ValueError as error:
        raise ValueError(f"source {error}") from error
    lines = [line.strip() for line in text.split("\n") if not _is_comment(line, path.parent)]
    items, missing = [], []
    for line in filter(None, lines):
        if "\0" in line or (line.lower().startswith(SCHEMES) and not _is_web(line)):
            raise ValueError(f"source {path}: found {line[:80]!r}; expected paths of images and videos")
        beside = path.parent / _expanded(line)
        file = beside if beside.is_file() else Path(line)
        if _is_web(line) and not file.is_file():
            items.append(_web_image(line))
        elif file.is_file():
            items.append(_file(file))
        else:
            missing.append(line)
    if missing:
        raise FileNotFoundError(
            f"source {path}: {len(missing)} of {len(items) + len(missing)} files are missing: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )
    if not items:
        raise ValueError(f"source {path}: an empty list; expected one path of an image or video per line")
    return items


def _is_comment(line: str, folder: Path) -> bool:
    return line.lstrip().startswith("#") and not (folder / line.strip()).is_file()


def unique_name(item: Item, taken: set[str]) -> str:
    """A unique stem for the output files of an item: files of different folders may have the same name."""
    if item.kind == "array":
        text = item.path.replace(" ", "_")
    elif item.kind == "camera":
        text = f"camera_{item.path}"
    elif item.kind == "stream":
        text = item.path.split("://")[-1]
    else:
        text = address_stem(item.path) if item.kind == "download" else Path(item.path).stem
    safe = re.sub(r"[^\w.\- ()+,=@]", "_", text).strip(". ")
    stem = safe.encode()[:MAX_STEM_BYTES].decode(errors="ignore") or "image"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name
