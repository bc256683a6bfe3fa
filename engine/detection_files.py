"""Output files of detect.py: images and videos with detections drawn in, text labels, crops, a JSON file."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

from core.files import MIN_FREE, increment_path, write_text
from engine.detection_formats import CSV_COLUMNS, add_to_coco, csv_rows, label_studio_task
from engine.detections import Record, Result

DEFAULT_FPS = 25.0


@dataclass
class _Video:
    """A video that is being written."""

    item: int  # of the source
    path: Path
    writer: cv2.VideoWriter
    size: tuple[int, int]  # width, height
    frames: int = 0

    def end(self) -> None:
        """Complete the file. OSError if it lacks frames: OpenCV says nothing of a full disk."""
        self.writer.release()
        written = cv2.VideoCapture(str(self.path))
        count = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.isOpened() else 0
        written.release()
        if count < self.frames:
            full = shutil.disk_usage(self.path.parent).free < MIN_FREE
            number = errno.ENOSPC if full else errno.EIO
            reason = f"{os.strerror(number)} ({count} of {self.frames} frames are in it)"
            raise OSError(number, f"{self.path} cannot be written: {reason}")


class DetectionFiles:
    """Writes results into a run folder, created for the first of them: a run that fails earlier leaves nothing.

    Use it as a context manager, which completes the open files even after an interruption.
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
        table: bool = False,
        coco: bool = False,
        label_studio: bool = False,
        model: str = "",
        vid_stride: int = 1,
    ) -> None:
        """Choose what to write.

        ``pictures``: images and videos with detections drawn in; ``txt``: labels/NAME.txt, with scores if ``conf``;
        ``crops``: crops/CLASS/NAME.jpg; ``records``: detections.json; ``table``: detections.csv; ``coco``: coco.json;
        ``label_studio``: label_studio.json, which names the ``model``; ``vid_stride``: that of the source.
        """
        self.project, self.run, self.exist_ok = project, name, exist_ok
        self.pictures, self.txt, self.conf, self.crops, self.records = pictures, txt, conf, crops, records
        self.table, self.coco, self.label_studio, self.model = table, coco, label_studio, model
        self.vid_stride = vid_stride
        self.folder: Path | None = None
        self._video: _Video | None = None
        self._json: TextIO | None = None
        self._written = 0
        self._csv: TextIO | None = None
        self._coco: dict[str, list[dict[str, Any]]] = {}
        self._tasks: list[dict[str, Any]] = []

    @property
    def idle(self) -> bool:
        """Whether nothing is to be written."""
        structured = self.records or self.table or self.coco or self.label_studio
        return not (self.pictures or self.txt or self.crops or structured)

    def add(self, result: Result) -> None:
        """Write the files of one result."""
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
        if self.table:
            self._add_rows(result)
        if self.coco:
            add_to_coco(self._coco, result)
        if self.label_studio:
            self._tasks.append(label_studio_task(result, model=self.model))

    def _add_frame(self, result: Result) -> None:
        """Write a frame to the video of its source, resized if its size differs from the first frame's."""
        picture = cv2.cvtColor(np.ascontiguousarray(result.plot()), cv2.COLOR_RGB2BGR)
        size = (picture.shape[1], picture.shape[0])
        if self._video is None or self._video.item != result.frame.item:
            self._end_video()
            assert self.folder is not None
            path = self.folder / f"{result.frame.name}.mp4"
            fps = (result.frame.fps or DEFAULT_FPS) / self.vid_stride
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            if not writer.isOpened():
                raise ValueError(f"{path}: OpenCV cannot write this video; use --nosave to write none")
            self._video = _Video(result.frame.item, path, writer, size)
        video = self._video
        video.writer.write(picture if size == video.size else cv2.resize(picture, video.size))
        video.frames += 1

    def _add_records(self, records: list[Record]) -> None:
        """Append to detections.json, one detection per line."""
        if self._json is None:
            assert self.folder is not None
            self._json = open(self.folder / "detections.json", "w", encoding="utf-8")  # noqa: SIM115 closed by close
            self._json.write("[")
        for record in records:
            self._json.write((",\n" if self._written else "\n") + json.dumps(record))
            self._written += 1
        self._json.flush()

    def _add_rows(self, result: Result) -> None:
        """Append to detections.csv."""
        if self._csv is None:
            assert self.folder is not None
            self._csv = open(self.folder / "detections.csv", "w", encoding="utf-8", newline="")  # noqa: SIM115 as above
            csv.writer(self._csv).writerow(CSV_COLUMNS)
        csv.writer(self._csv).writerows(csv_rows(result))
        self._csv.flush()

    def _end_video(self) -> None:
        if self._video is not None:
            video, self._video = self._video, None
            video.end()

    def close(self) -> None:
        """Complete and close the open files."""
        self._end_video()
        if self._json is not None:
            self._json.write("\n]\n")
            self._json.close()
            self._json = None
        if self._csv is not None:
            self._csv.close()
            self._csv = None
        for name, content in (("coco.json", self._coco), ("label_studio.json", self._tasks)):
            if content and self.folder is not None:
                write_text(self.folder / name, json.dumps(content) + "\n")

    def __enter__(self) -> DetectionFiles:
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        with contextlib.nullcontext() if kind is None else contextlib.suppress(OSError):  # the first error is reported
            self.close()
