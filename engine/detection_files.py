"""What detect.py leaves behind: drawn pictures and videos, text labels, crops, one JSON file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from engine.detections import Result
from engine.run_logger import increment_path

FPS_WHERE_UNKNOWN = 25.0


class DetectionFiles:
    """Writes results into a run folder, which is made with the first of them: a run that fails before
    leaves nothing. ``close`` ends the files that are open, after an interruption too; use it as a context manager.
    """

    def __init__(
        self,
        project: str | os.PathLike,
        name: str,
        *,
        exist_ok: bool = False,
        pictures: bool = True,
        txt: bool = False,
        conf: bool = False,
        crops: bool = False,
        records: bool = False,
        vid_stride: int = 1,
    ) -> None:
        """``pictures``: drawn images and videos; ``txt``: labels/NAME.txt, with scores where ``conf``; ``crops``:
        crops/CLASS/NAME.jpg; ``records``: detections.json; ``vid_stride``: as the source was opened with.
        """
        self.project, self.run, self.exist_ok = project, name, exist_ok
        self.pictures, self.txt, self.conf, self.crops, self.records = pictures, txt, conf, crops, records
        self.vid_stride = vid_stride
        self.folder: Path | None = None
        self._video: tuple[int, cv2.VideoWriter, tuple[int, int]] | None = None  # item, writer, (width, height)
        self._json: TextIO | None = None
        self._written = 0

    @property
    def idle(self) -> bool:
        """Whether nothing was asked to be written."""
        return not (self.pictures or self.txt or self.crops or self.records)

    def add(self, result: Result) -> None:
        """Write all that was asked for about one result."""
        if self.idle:
            return
        if self.folder is None:
            self.folder = increment_path(self.project, self.run, self.exist_ok)
        if self.pictures and result.frame.is_video:
            self._add_frame(result)
        elif self.pictures:
            result.save(self.folder / f"{result.name}.jpg")
        if self.txt:
            (self.folder / "labels").mkdir(exist_ok=True)
            result.save_txt(self.folder / "labels" / f"{result.name}.txt", save_conf=self.conf)
        if self.crops:
            result.save_crops(self.folder / "crops")
        if self.records:
            self._add_records(result.records())

    def _add_frame(self, result: Result) -> None:
        """Write a frame to the video of its item; one whose size changes on the way keeps that of its first frame."""
        picture = cv2.cvtColor(np.ascontiguousarray(result.plot()), cv2.COLOR_RGB2BGR)
        size = (picture.shape[1], picture.shape[0])
        if self._video is None or self._video[0] != result.frame.item:
            self._end_video()
            assert self.folder is not None
            path = self.folder / f"{result.frame.name}.mp4"
            fps = (result.frame.fps or FPS_WHERE_UNKNOWN) / self.vid_stride
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            if not writer.isOpened():
                raise ValueError(f"{path}: OpenCV cannot write this video; leave pictures out with --nosave")
            self._video = (result.frame.item, writer, size)
        _, writer, first = self._video
        writer.write(picture if size == first else cv2.resize(picture, first))

    def _add_records(self, records: list[dict[str, Any]]) -> None:
        """Add to detections.json, one detection a line."""
        if self._json is None:
            assert self.folder is not None
            self._json = open(self.folder / "detections.json", "w", encoding="utf-8")  # noqa: SIM115 closed by close
            self._json.write("[")
        for record in records:
            self._json.write((",\n" if self._written else "\n") + json.dumps(record))
            self._written += 1
        self._json.flush()

    def _end_video(self) -> None:
        if self._video is not None:
            self._video[1].release()
            self._video = None

    def close(self) -> None:
        """End the open files; nothing happens where none is open."""
        self._end_video()
        if self._json is not None:
            self._json.write("\n]\n")
            self._json.close()
            self._json = None

    def __enter__(self) -> DetectionFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
