"""What ``--source`` may be: image, folder, glob, video, webcam, stream, list file, arrays; all of them become frames.

Pictures go through ``data/image.py``, so that a source sees what training saw (EXIF rotation, grey, 16-bit, CMYK).
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from data.image import read_image

IMAGE_SUFFIXES = (".bmp", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")
ACCEPTED = f"images ({' '.join(IMAGE_SUFFIXES)}), videos ({' '.join(VIDEO_SUFFIXES)}) or a list of them (.txt)"
STREAM_TIMEOUT_MS = 10_000
LARGEST_LIST = 64 * 2**20  # bytes
DIGITS_OF_A_CAMERA = 4
LONGEST_PATH, LONGEST_PART = 4095, 255  # bytes of a path and of a name in it
LONGEST_NAME = 200  # bytes; file systems take 255, and numbers and a suffix are added

Pictures = Generator[tuple[int, np.ndarray], None, None]  # (position, BGR picture)


@dataclass(frozen=True)
class Frame:
    """One picture of a source, and where it came from."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    name: str  # stem for files written about it; the same for all frames of a video, different for different files
    path: str  # file, address, camera number; "array 0" for an array
    item: int  # position among the items of the source, from 0
    frame_index: int = 0  # position in the video, from 0, before any stride
    frame_count: int = 0  # frames of the video, 0 where not known
    is_video: bool = False
    fps: float = 0.0  # of the video itself; 0 for pictures and where not known

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
    address: str = ""  # of a stream, with the password that `path` leaves out: it is for no file, line or message


class Source:
    """The frames of one or many items, in order; made by ``open_source``.

    An item that cannot be read is reported on stderr once, noted in ``skipped`` as (path, reason) and passed over; when
    nothing at all can be read, iterating raises ValueError.
    """

    def __init__(self, description: str, items: Sequence[_Item], *, vid_stride: int = 1) -> None:
        self.description = description
        self.items = list(items)
        self.vid_stride = vid_stride
        self.skipped: list[tuple[str, str]] = []

    def __len__(self) -> int:
        """Number of items: files, cameras, addresses, arrays; a video is one of them."""
        return len(self.items)

    @property
    def is_live(self) -> bool:
        """Whether a camera or stream is among the items, so that iterating may never end."""
        return any(item.kind in ("camera", "stream") for item in self.items)

    def __iter__(self) -> Iterator[Frame]:
        self.skipped.clear()
        taken: set[str] = set()
        for number, item in enumerate(self.items):
            name = _free_name(item, taken)
            try:
                yield from self._frames(item, number, name)
            except _Unreadable as error:
                if len(self.items) == 1:
                    raise ValueError(f"source {item.path}: {error}") from error
                self.skipped.append((item.path, str(error)))
                print(f"{item.path}: {error}; skipped", file=sys.stderr)
        if self.items and len(self.skipped) == len(self.items):
            raise ValueError(f"source {self.description}: none of its {len(self.items)} files could be read")

    def _frames(self, item: _Item, number: int, name: str) -> Iterator[Frame]:
        if item.kind == "array":
            assert item.array is not None
            yield Frame(item.array, name, item.path, number)
        elif item.kind == "image":
            yield Frame(_read(item.path), name, item.path, number)
        else:
            yield from _read_video(item, number, name, self.vid_stride)


class _Unreadable(Exception):
    """One item of a source cannot be read; the message says why."""


def open_source(source: Any, *, bgr: bool = False, vid_stride: int = 1) -> Source:
    """Find out what ``source`` is and return its frames; nothing is decoded before they are asked for.

    ``source``: image or video file, folder (its images and videos, by name, not its subfolders), glob, camera number,
    address of a stream, .txt file with a path a line (relative to the file's folder, or else to the working folder),
    array (H, W, 3) or (H, W) uint8 in RGB order (``bgr=True``: in OpenCV's), PIL image, or a sequence of files, arrays
    and PIL images. ``vid_stride``: take every so many frames of a video.
    Raises FileNotFoundError or ValueError that names the source, what was found, and what is accepted.
    """
    if vid_stride < 1:
        raise ValueError(f"vid_stride: found {vid_stride}; a whole number from 1 on is expected")
    if isinstance(source, list | tuple):
        if not source:
            raise ValueError("source: the list is empty; paths, arrays or PIL images are expected")
        items = [item for place, each in enumerate(source) for item in _element(each, place, bgr=bgr)]
        return Source(f"list of {len(items)}", items, vid_stride=vid_stride)
    if isinstance(source, bool) or not isinstance(source, str | os.PathLike | int):
        return Source("array", [_array(source, 0, bgr=bgr)], vid_stride=vid_stride)
    items = _find(str(source) if isinstance(source, int) else os.fspath(source))
    description = items[0].path if len(items) == 1 else str(source)
    return Source(description, items, vid_stride=vid_stride)


def _element(element: Any, place: int, *, bgr: bool) -> list[_Item]:
    if not isinstance(element, str | os.PathLike):
        return [_array(element, place, bgr=bgr)]
    path = _expanded(element)
    if not path.is_file():
        raise FileNotFoundError(f"source: element {place} of the list, {path}: no such file")
    return [_file(path)]


def _array(value: Any, place: int, *, bgr: bool) -> _Item:
    """Bring an array or PIL image into (H, W, 3) uint8 RGB."""
    if isinstance(value, Image.Image):
        return _Item("array", f"array {place}", np.asarray(value.convert("RGB")))
    if not isinstance(value, np.ndarray):
        raise ValueError(
            f"source: found {type(value).__name__}; a path, an address, a camera number, an array (H, W, 3) uint8, "
            "a PIL image or a list of these is expected"
        )
    shaped = value.ndim == 2 or (value.ndim == 3 and value.shape[2] == 3)
    if value.dtype != np.uint8 or not shaped or 0 in value.shape:
        raise ValueError(
            f"source: found an array {value.shape} of {value.dtype}; (H, W, 3) or (H, W) uint8 is expected"
        )
    if value.ndim == 2:
        value = np.repeat(value[:, :, None], 3, axis=2)
    return _Item("array", f"array {place}", np.ascontiguousarray(value[:, :, ::-1] if bgr else value))


def _find(source: str) -> list[_Item]:
    """The items that a source given as text names."""
    if not source.strip():
        raise ValueError(
            "source: empty; an image, folder, glob, video, camera number, address or list file is expected"
        )
    if "\0" in source:
        raise ValueError(f"source {source!r}: a path holds no zero bytes")
    if source.lower().startswith(SCHEMES):
        return [_Item("stream", re.sub(r"://[^/]*@", "://", source), address=source)]
    path = _expanded(source)
    if len(os.fsencode(path)) > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_PART for part in path.parts):
        raise ValueError(f"source {source[:40]!r}...: longer than any path can be; expected {ACCEPTED}")
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return _list(path) if path.suffix.lower() == ".txt" else [_file(path)]
    if source.isascii() and source.isdigit() and len(source) <= DIGITS_OF_A_CAMERA:
        return [_Item("camera", source)]
    if glob.has_magic(source):
        return _glob(str(path))
    if "://" in source:
        raise ValueError(f"source {source}: unknown kind of address; {', '.join(SCHEMES)} are accepted")
    raise FileNotFoundError(
        f"source {source}: no such file or folder; expected {ACCEPTED}, a folder, glob, camera number or stream address"
    )


def _expanded(text: str | os.PathLike) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"source {text}: there is no home folder of this name") from error


def _kind(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return "image" if suffix in IMAGE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else None


def _file(path: Path) -> _Item:
    kind = _kind(path)
    if kind is None:
        raise ValueError(f"source {path}: suffix {path.suffix or '(none)'} is not known; expected {ACCEPTED}")
    return _Item(kind, str(path))


def _known(paths: Sequence[Path]) -> list[_Item]:
    return [_Item(kind, str(path)) for path in paths if (kind := _kind(path)) is not None and path.is_file()]


def _folder(path: Path) -> list[_Item]:
    paths = sorted(path.iterdir(), key=lambda entry: entry.name)
    items = _known(paths)
    if not items:
        folders = sum(entry.is_dir() for entry in paths)
        raise ValueError(
            f"source {path}: a folder of {len(paths) - folders} files and {folders} folders, no image "
            f"or video at its top; expected {ACCEPTED}"
        )
    return items


def _glob(pattern: str) -> list[_Item]:
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise FileNotFoundError(f"source {pattern}: no file matches; in a shell put the pattern in quotes")
    items = _known([Path(match) for match in matches])
    if not items:
        raise ValueError(f"source {pattern}: {len(matches)} matches, as {matches[0]}; none of them is among {ACCEPTED}")
    return items


def _list(path: Path) -> list[_Item]:
    """Read a list file: a path a line, relative to the file's folder or, if it is not there, to the working folder."""
    if path.stat().st_size > LARGEST_LIST:
        raise ValueError(f"source {path}: a list of {path.stat().st_size} bytes; at most {LARGEST_LIST} are accepted")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"source {path}: not text in UTF-8; a list file holds a path a line") from error
    items, missing = [], []
    for line in filter(None, lines):
        if "\0" in line or line.lower().startswith(SCHEMES):
            raise ValueError(f"source {path}: found {line[:80]!r}; a list file holds paths of images and videos")
        near = path.parent / _expanded(line)
        found = near if near.is_file() else Path(line)
        if found.is_file():
            items.append(_file(found))
        else:
            missing.append(line)
    if missing:
        raise FileNotFoundError(
            f"source {path}: {len(missing)} of {len(items) + len(missing)} files are missing: "
            f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )
    if not items:
        raise ValueError(f"source {path}: an empty list; a path of an image or video a line is expected")
    return items


def _free_name(item: _Item, taken: set[str]) -> str:
    """A stem for the files written about an item, which no item before it has: two folders may share names."""
    if item.kind == "array":
        stem = item.path.replace(" ", "_")
    elif item.kind == "camera":
        stem = f"camera_{item.path}"
    else:
        text = item.path.split("://")[-1] if item.kind == "stream" else Path(item.path).stem
        safe = re.sub(r"[^\w.\- ()+,=@]", "_", text).strip(". ")
        stem = safe.encode()[:LONGEST_NAME].decode(errors="ignore") or "image"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def _read(path: str) -> np.ndarray:
    try:
        return read_image(path)
    except (ValueError, OSError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise _Unreadable(reason or type(error).__name__) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from writing their own warnings to stderr: what fails is said by our message.

    OpenCV reads FFmpeg's level once a process, with the first video.
    """
    level = cv2.utils.logging.getLogLevel()
    before = os.environ.get("OPENCV_FFMPEG_LOGLEVEL")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
        if before is None:
            del os.environ["OPENCV_FFMPEG_LOGLEVEL"]
        else:
            os.environ["OPENCV_FFMPEG_LOGLEVEL"] = before


def _open_video(item: _Item) -> cv2.VideoCapture:
    with _quiet():
        if item.kind == "camera":
            capture = cv2.VideoCapture(int(item.path))
            expected = "no camera of this number opens"
        elif item.kind == "stream":
            timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC]
            capture = cv2.VideoCapture(
                item.address, cv2.CAP_FFMPEG, [v for t in timeouts for v in (t, STREAM_TIMEOUT_MS)]
            )
            expected = (
                f"the stream does not open within {STREAM_TIMEOUT_MS // 1000} s; an address of a video is expected"
            )
        else:
            capture = cv2.VideoCapture(item.path)
            expected = "the video does not open; a file that OpenCV's FFmpeg decodes is expected"
    if not capture.isOpened():
        capture.release()
        raise _Unreadable(expected)
    return capture


def _read_video(item: _Item, number: int, name: str, stride: int) -> Iterator[Frame]:
    capture = _open_video(item)
    # FFmpeg estimates the count of some containers wildly wrong, even negative.
    count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = float(fps) if 0 < fps < 1000 else 0.0
    live = item.kind == "camera" or (item.kind == "stream" and count == 0)
    pictures = _newest(capture, stride) if live else _every(capture, stride)
    seen = 0
    try:
        for index, picture in pictures:
            seen += 1
            image = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            yield Frame(image, name, item.path, number, index, 0 if live else count, True, fps)
    finally:
        pictures.close()
        capture.release()
    if not seen:
        raise _Unreadable("it opens but no frame of it can be decoded")


def _every(capture: cv2.VideoCapture, stride: int) -> Pictures:
    """Every ``stride``-th picture of a file, those between only skimmed."""
    index = 0
    while capture.grab():
        if index % stride == 0:
            decoded, picture = capture.retrieve()
            if not decoded:
                return
            yield index, picture
        index += 1


def _newest(capture: cv2.VideoCapture, stride: int) -> Pictures:
    """The newest picture of a live source each time: a thread empties its buffer, or the delay would grow for ever."""
    arrived = threading.Condition()
    stop = threading.Event()
    newest: list[tuple[int, np.ndarray]] = [(-1, np.empty(0, np.uint8))]

    def receive() -> None:
        while not stop.is_set():
            decoded, picture = capture.read()
            with arrived:
                if decoded:
                    newest[0] = (newest[0][0] + 1, picture)
                else:
                    stop.set()
                arrived.notify()

    receiver = threading.Thread(target=receive, daemon=True)
    receiver.start()
    following = 0
    try:
        while True:
            with arrived:
                while newest[0][0] < following and not stop.is_set():
                    arrived.wait()
                index, picture = newest[0]
            if index < following:
                return
            following = index + stride
            yield index, picture
    finally:
        stop.set()
        receiver.join()
