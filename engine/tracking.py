"""Ids for the objects of a video, by ByteTrack of the package trackers (optional)."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

from engine.detections import SUPERVISION, Result, without_opencv

LOW = 0.1  # ByteTrack follows objects whose score falls, down to this (Zhang et al. 2022)
USUAL_FPS = 30.0  # of images, and of videos that do not say
NO_ID = -1


class Tracks:
    """Adds `track_ids` to results in order. A video has its own ids from 0 on; images in order share theirs."""

    def __init__(self, conf: float) -> None:
        """``conf``: the score from which an object is reported and a track begins.

        ValueError if the package trackers is not installed.
        """
        if importlib.util.find_spec("trackers") is None:
            raise ValueError(
                "tracking: the package trackers is not installed: uv sync --extra track, or "
                f"{without_opencv(f'trackers {SUPERVISION}')}"
            )
        self.conf = conf
        self.lowest = min(conf, LOW)  # the confidence threshold with which to detect

    def follow(self, results: Iterator[Result], *, vid_stride: int = 1) -> Iterator[Result]:
        """The results, of scores from `lowest` on, with ids and without objects below ``conf`` that have none.

        ``vid_stride``: that of the source. An object gets its id when it is found a second time.
        """
        place: int | None = None
        tracker: Any = None
        for result in results:
            item = result.frame.item if result.frame.is_video else NO_ID
            if tracker is None or item != place:
                place, tracker = item, self._tracker((result.frame.fps or USUAL_FPS) / vid_stride)
            yield self._with_ids(result, tracker)

    def _tracker(self, fps: float) -> Any:
        from trackers import ByteTrackTracker

        return ByteTrackTracker(frame_rate=fps, track_activation_threshold=self.conf, high_conf_det_threshold=self.conf)

    def _with_ids(self, result: Result, tracker: Any) -> Result:
        detections = result.to_supervision()
        detections.data["place"] = np.arange(len(result))
        tracked = tracker.update(detections)
        ids = np.full(len(result), NO_ID, np.int64)
        if len(tracked):  # in another order
            ids[tracked.data["place"]] = tracked.tracker_id
        kept = (result.scores >= self.conf) | (ids != NO_ID)
        return dataclasses.replace(
            result,
            boxes=result.boxes[kept],
            scores=result.scores[kept],
            labels=result.labels[kept],
            track_ids=ids[kept],
        )
