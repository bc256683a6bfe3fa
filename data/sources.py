"""Inputs of detection (`--source`): image, folder, glob, video, webcam, address, list file or arrays, read as frames.

Images are decoded by data/image.py, exactly as in training, wherever they come from.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from core.arguments import switch, whole
from core.text import printable
from data.image import ImageError, decode_what_is_there, read_bytes
from data.source_items import ImageLike, Item, array_item, element_item, find_items, unique_name
from data.video import UnreadableError, open_camera, open_file, open_stream, read_pictures
from data.web import fetch_image

Decoded = tuple[np.ndarray, str | None]  # as data.image.decode_what_is_there gives it


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


class Source:
    """The frames of one or many items, in order; created by ``open_source``.

    An item that cannot be read is reported on stderr, added to ``skipped`` as (path, reason) and skipped; iterating
    raises ValueError if no item can be read.
    """

    def __init__(self, description: str, items: Sequence[Item], *, vid_stride: int = 1) -> None:
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
        return self.iterate()

    def iterate(self, workers: int = 0) -> Iterator[Frame]:
        """The frames; `workers`: threads that read as many image files ahead, none for videos and other items."""
        self.skipped.clear()
        taken: set[str] = set()
        with _ReadAhead(self.items, workers) as pictures:
            for number, item in enumerate(self.items):
                name = unique_name(item, taken)
                try:
                    yield from self._frames(item, number, name, pictures)
                except UnreadableError as error:
                    if len(self.items) == 1:
                        raise ValueError(f"source {item.path}: {error}") from error
                    self.skipped.append((item.path, str(error)))
                    print(printable(f"{item.path}: {error}; skipped"), file=sys.stderr)
        if self.items and len(self.skipped) == len(self.items):
            raise ValueError(f"source {self.description}: none of its {len(self.items)} files could be read")

    def _frames(self, item: Item, number: int, name: str, pictures: _ReadAhead) -> Iterator[Frame]:
        if item.array is not None:
            yield Frame(item.array, name, item.path, number)
        elif item.kind in ("image", "download"):
            image, fault = pictures.take(number)
            if fault:
                print(printable(f"{item.path}: {fault}"), file=sys.stderr)
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

    ``source``: image or video file, folder (its images and videos by name, without subfolders; other files are counted
    on stderr), glob, camera number, http address of an image, address of a stream, .txt file with one path or http
    address of an image per line (relative to the file's folder, else to the working folder), array (H, W, 3) or (H, W)
    uint8 in RGB order (BGR, as in OpenCV, if ``bgr``) or of another type (see data/pixels.py), PIL image, bytes of an
    image file, or a sequence of these except folders, globs, cameras and streams. ``vid_stride``: use every n-th frame
    of a video.
    Raises FileNotFoundError or ValueError that names the source, what was found, and what is accepted.
    """
    vid_stride, bgr = whole("vid_stride", vid_stride, 1), bgr is not None and switch("bgr", bgr)
    if isinstance(source, list | tuple):
        if not source:
            raise ValueError("source: the list is empty; expected paths, arrays or PIL images")
        items = [element_item(element, position, bgr=bgr) for position, element in enumerate(source)]
        return Source(f"list of {len(items)}", items, vid_stride=vid_stride)
    if isinstance(source, bool) or not isinstance(source, str | os.PathLike | int):
        return Source("array", [array_item(source, 0, bgr=bgr)], vid_stride=vid_stride)
    items = find_items(str(source) if isinstance(source, int) else os.fspath(source))
    description = items[0].path if len(items) == 1 else str(source)
    return Source(description, items, vid_stride=vid_stride)


class _ReadAhead:
    """Reads the image files among items in threads, some items ahead of the one that is taken."""

    def __init__(self, items: Sequence[Item], workers: int) -> None:
        self.items, self.workers = items, min(workers, len(items) - 1)
        self.pool = ThreadPoolExecutor(self.workers) if self.workers > 0 else None
        self.reads: dict[int, Future[Decoded]] = {}
        self.next = 0  # item to be read

    def take(self, number: int) -> Decoded:
        """The pixels of an image and their fault, if any; UnreadableError."""
        if self.pool is not None:
            self.next = max(self.next, number)
            while self.next < min(number + 1 + self.workers, len(self.items)):
                if self.items[self.next].kind == "image":
                    self.reads[self.next] = self.pool.submit(_read, self.items[self.next])
                self.next += 1
        read = self.reads.pop(number, None)
        return _read(self.items[number]) if read is None else read.result()

    def __enter__(self) -> _ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)


def _read(item: Item) -> Decoded:
    try:
        return decode_what_is_there(read_bytes(item.path) if item.kind == "image" else _downloaded(item))
    except ImageError as error:
        raise UnreadableError(error.what) from error


def _downloaded(item: Item) -> bytes:
    data = item.data if item.data is not None else fetch_image(item.address)
    if data is None:
        raise UnreadableError("is not an image; expected the address of an image")
    return data
