"""Frames of video files, cameras and streams, through OpenCV."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

STREAM_TIMEOUT_MS = 10_000


class UnreadableError(Exception):
    """One item of a source cannot be read; the message gives the reason."""


@dataclass(frozen=True)
class Picture:
    """One decoded frame."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    index: int  # position in the video, before any stride
    count: int  # frames of the video, 0 if unknown
    fps: float  # 0 if unknown


def open_camera(number: int) -> cv2.VideoCapture:
    """A local camera; UnreadableError if it cannot be opened."""
    with _silent():
        return _opened(cv2.VideoCapture(number), "no camera with this number can be opened")


def open_stream(address: str) -> cv2.VideoCapture:
    """A network stream or video; UnreadableError if it cannot be opened in time."""
    timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    options = [value for timeout in timeouts for value in (timeout, STREAM_TIMEOUT_MS)]
    seconds = STREAM_TIMEOUT_MS // 1000
    with _silent():
        capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, options)
        return _opened(capture, f"the stream does not open within {seconds} s; expected the address of a video")


def open_file(path: str) -> cv2.VideoCapture:
    """A video file; UnreadableError if it cannot be opened."""
    with _silent():
        return _opened(
            cv2.VideoCapture(path), "the video does not open; expected a file that OpenCV's FFmpeg can decode"
        )


def read_pictures(capture: cv2.VideoCapture, stride: int, *, live: bool | None) -> Iterator[Picture]:
    """Every ``stride``-th picture of a video, or the newest ones if ``live`` (None: live if the length is unknown).

    The capture is released at the end; UnreadableError if no frame can be decoded.
    """
    # For some containers FFmpeg's estimate is far off or even negative.
    count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    fps = fps if 0 < fps < 1000 else 0.0
    live = count == 0 if live is None else live
    pictures = _newest(capture, stride) if live else _every(capture, stride)
    seen = 0
    try:
        for index, picture in pictures:
            seen += 1
            yield Picture(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), index, 0 if live else count, fps)
    finally:
        pictures.close()
        capture.release()
    if not seen:
        raise UnreadableError("it opens, but none of its frames can be decoded")


def _opened(capture: cv2.VideoCapture, fault: str) -> cv2.VideoCapture:
    if not capture.isOpened():
        capture.release()
        raise UnreadableError(fault)
    return capture


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress warnings of OpenCV and FFmpeg on stderr: failures are reported by our own message.

    OpenCV reads FFmpeg's log level once per process, with the first video.
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


def _every(capture: cv2.VideoCapture, stride: int) -> Generator[tuple[int, np.ndarray], None, None]:
    """(position, BGR picture) of every ``stride``-th frame of a file; the others are not decoded."""
    index = 0
    while capture.grab():
        if index % stride == 0:
            decoded, picture = capture.retrieve()
            if not decoded:
                return
            yield index, picture
        index += 1


def _newest(capture: cv2.VideoCapture, stride: int) -> Generator[tuple[int, np.ndarray], None, None]:
    """The newest (position, BGR picture) each time; a thread drains the buffer, or the delay would keep growing."""
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
    next_index = 0
    try:
        while True:
            with arrived:
                while newest[0][0] < next_index and not stop.is_set():
                    arrived.wait()
                index, picture = newest[0]
            if index < next_index:
                return
            next_index = index + stride
            yield index, picture
    finally:
        stop.set()
        receiver.join()
