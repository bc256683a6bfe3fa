"""Inputs of detection (`--source`): image, folder, glob, video, webcam, stream, list file or arrays, read as frames.

Images are decoded by data/image.py, exactly as in training (EXIF rotation, grey, 16-bit, CMYK).
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from core.files import expand_user
from core.text_files import read_text_file
from data.image import read_image
from data.limits import (
    MAX_CAMERA_DIGITS,
    MAX_LIST_BYTES,
    MAX_PATH_BYTES,
    MAX_PATH_PART_BYTES,
    MAX_STEM_BYTES,
)
from data.video import UnreadableError, open_camera, open_file, open_stream, read_pictures

IMAGE_SUFFIXES = (".bmp", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")
ACCEPTED = f"images ({' '.join(IMAGE_SUFFIXES)}), videos ({' '.join(VIDEO_SUFFIXES)}) or a list of them (.txt)"

ImageLike = str | os.PathLike[str] | np.ndarray | Image.Image


@dataclass(frozen=True)
class Frame:
    """One picture of a source, and its origin."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    name: str  # stem for output files; the same for all frames of a video, unique among the items of a source
    path: str  # file, address or camera number; "array 0" for an array
    item: int  # position among the items of the source, from 0
    frame_index: int = 0  # position in the video, from 0, before any stride
    frame_count: int = 0  # frames of the video, 0 if unknown
    is_video: bool = False
    fps: float = 0.0  # of the video; 0 for images and if unknown

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.shape[1], self.image.shape[0]


@dataclass(frozen=True)
class _Item:
    """One file, camera, address or array of a source."""

    kind: str  # image, video, camera, stream, array
    path: str
    array: np.ndarray | None = None
    address: str = ""  # of a stream, with the password, which `path` omits: never written to files or messages


class Source:
    """The frames of one or many items, in order; created by ``open_source``.

    An item that cannot be read is reported on stderr, added to ``skipped`` as (path, reason) and skipped; iterating
    raises ValueError if no item can be read.
    """

    def __init__(self, description: str, items: Sequence[_Item], *, vid_stride: int = 1) -> None:
        self.description = description
        self.items = list(items)
        self.vid_stride = vid_stride
        self.skipped: list[tuple[str, str]] = []

    def __len__(self) -> int:
        """Number of items: files, cameras, addresses, arrays; a video is one item."""
        return len(self.items)

    @property
    def is_live(self) -> bool:
        """Whether a camera or stream is among the items, so that iteration may not end."""
        return any(item.kind in ("camera", "stream") for item in self.items)

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        taken: set[str] = set()
        for number, item in enumerate(self.items):
            name = _unique_name(item, taken)
            try:
                yield from self._frames(item, number, name)
            except UnreadableError as error:
                if len(self.items) == 1:
                    raise ValueError(f"source {item.path}: {error}") from error
                self.skipped.append((item.path, str(error)))
                print(f"{item.path}: {error}; skipped", file=sys.stderr)
        if self.items and len(self.skipped) == len(self.items):
            raise ValueError(f"source {self.description}: none of its {len(self.items)} files could be read")

    def _frames(self, item: _Item, number: int, name: str) -> Iterator[Frame]:
        if item.array is not None:
            yield Frame(item.array, name, item.path, number)
        elif item.kind == "image":
            try:
                image = read_image(item.path)
            except (ValueError, OSError) as error:
                reason = str(error).removeprefix(f"{item.path}: ")
                raise UnreadableError(reason or type(error).__name__) from error
            yield Frame(image, name, item.path, number)
        else:
            if item.kind == "camera":
                capture = open_camera(int(item.path))
            else:
                capture = open_stream(item.address) if item.kind == "stream" else open_file(item.path)
            live = {"camera": True, "video": False}.get(item.kind)
            for picture in read_pictures(capture, self.vid_stride, live=live):
                yield Frame(picture.image, name, item.path, number, picture.index, picture.count, True, picture.fps)


def open_source(source: ImageLike | int | Sequence[ImageLike], *, bgr: bool = False, vid_stride: int = 1) -> Source:
    """Determine what ``source`` is and return its frames, which are decoded lazily.

    ``source``: image or video file, folder (its images and videos by name, without subfolders), glob, camera number,
    address of a stream, .txt file with one path per line (relative to the file's folder, else to the working folder),
    array (H, W, 3) or (H, W) uint8 in RGB order (BGR, as in OpenCV, if ``bgr``), PIL image, or a sequence of files,
    arrays and PIL images. ``vid_stride``: use every n-th frame of a video.
    Raises FileNotFoundError or ValueError that names the source, what was found, and what is accepted.
    """
    if vid_stride < 1:
        raise ValueError(f"vid_stride: found {vid_stride}; expected a whole number of at least 1")
    if isinstance(source, list | tuple):
        if not source:
            raise ValueError("source: the list is empty; expected paths, arrays or PIL images")
        items = [_element(element, position, bgr=bgr) for position, element in enumerate(source)]
        return Source(f"list of {len(items)}", items, vid_stride=vid_stride)
    if isinstance(source, bool) or not isinstance(source, str | os.PathLike | int):
        return Source("array", [_array(source, 0, bgr=bgr)], vid_stride=vid_stride)
    items = _find(str(source) if isinstance(source, int) else os.fspath(source))
    description = items[0].path if len(items) == 1 else str(source)
    return Source(description, items, vid_stride=vid_stride)


def _element(element: object, position: int, *, bgr: bool) -> _Item:
    if not isinstance(element, str | os.PathLike):
        return _array(element, position, bgr=bgr)
    path = _expanded(element)
    if not path.is_file():
        raise FileNotFoundError(f"source: element {position} of the list, {path}: no such file")
    return _file(path)


def _array(value: object, position: int, *, bgr: bool) -> _Item:
    """An array or PIL image as (H, W, 3) uint8 RGB."""
    if isinstance(value, Image.Image):
        return _Item("array", f"array {position}", np.asarray(value.convert("RGB")))
    if not isinstance(value, np.ndarray):
        raise ValueError(
            f"source: found {type(value).__name__}; expected a path, an address, a camera number, an array (H, W, 3) "
            "uint8, a PIL image or a list of these"
        )
    shaped = value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3)
    if value.dtype != np.uint8 or not shaped or 0 in value.shape:
        raise ValueError(f"source: found an array {value.shape} of {value.dtype}; expected (H, W, 3) or (H, W) uint8")
    if value.ndim == 2:
        value = np.repeat(value[:, :, None], 3, axis=2)
    return _Item("array", f"array {position}", np.ascontiguousarray(value[:, :, ::-1] if bgr else value))


def _find(source: str) -> list[_Item]:
    """The items of a source given as text."""
    if not source.strip():
        raise ValueError("source: empty; expected an image, folder, glob, video, camera number, address or list file")
    if "\0" in source:
        raise ValueError(f"source {source!r}: a path cannot contain zero bytes")
    if source.lower().startswith(SCHEMES):
        return [_Item("stream", re.sub(r"://[^/]*@", "://", source), address=source)]
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
        return [_Item("camera", source)]
    if glob.has_magic(source):
        return _glob(str(path))
    if "://" in source:
        raise ValueError(f"source {source}: unknown scheme; expected one of {', '.join(SCHEMES)}")
    raise FileNotFoundError(
        f"source {source}: no such file or folder; expected {ACCEPTED}, a folder, glob, camera number or stream address"
    )


def _expanded(text: str | os.PathLike[str]) -> Path:
    try:
        return expand_user(text)
    except ValueError as error:
        raise ValueError(f"source {error}") from error


def _kind(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return "image" if suffix in IMAGE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else None


def _file(path: Path) -> _Item:
    kind = _kind(path)
    if kind is None:
        raise ValueError(f"source {path}: unknown suffix {path.suffix or '(none)'}; expected {ACCEPTED}")
    return _Item(kind, str(path))


def _known(paths: Sequence[Path]) -> list[_Item]:
    return [_Item(kind, str(path)) for path in paths if (kind := _kind(path)) is not None and path.is_file()]


def _folder(path: Path) -> list[_Item]:
    paths = sorted(path.iterdir(), key=lambda entry: entry.name)
    items = _known(paths)
    if not items:
        folders = sum(entry.is_dir() for entry in paths)
        raise ValueError(
            f"source {path}: {len(paths) - folders} files and {folders} subfolders, but no image "
            f"or video directly in the folder; expected {ACCEPTED}"
        )
    return items


def _glob(pattern: str) -> list[_Item]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise FileNotFoundError(f"source {pattern}: no file matches; quote the pattern in a shell")
    items = _known([Path(match) for match in matches])
    if not items:
        raise ValueError(
            f"source {pattern}: {len(matches)} matches, such as {matches[0]}, but none is accepted: {ACCEPTED}"
        )
    return items


def _list(path: Path) -> list[_Item]:
    """Read a list file: one path per line, relative to the file's folder or else to the working folder."""
    try:
        text = read_text_file(path, limit=MAX_LIST_BYTES, what="a list of images and videos")
    except ValueError as error:
        raise ValueError(f"source {error}") from error
    lines = [line.strip() for line in text.split("\n")]
    items, missing = [], []
    for line in filter(None, lines):
        if "\0" in line or line.lower().startswith(SCHEMES):
            raise ValueError(f"source {path}: found {line[:80]!r}; expected paths of images and videos")
        beside = path.parent / _expanded(line)
        file = beside if beside.is_file() else Path(line)
        if file.is_file():
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


def _unique_name(item: _Item, taken: set[str]) -> str:
    """A unique stem for the output files of an item: files of different folders may have the same name."""
    if item.kind == "array":
        stem = item.path.replace(" ", "_")
    elif item.kind == "camera":
        stem = f"camera_{item.path}"
    else:
        text = item.path.split("://")[-1] if item.kind == "stream" else Path(item.path).stem
        safe = re.sub(r"[^\w.\- ()+,=@]", "_", text).strip(". ")
        stem = safe.encode()[:MAX_STEM_BYTES].decode(errors="ignore") or "image"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name
