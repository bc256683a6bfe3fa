"""Detection in the images of a source, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from core.arguments import ImageSize
from core.cores import usable_cores
from core.device import synchronize
from core.geometry import Geometry
from core.options import NmsOptions
from core.tiles import tile_places
from core.types import Detections, DetectorModel
from data.sources import Frame, Source
from engine.detections import Result
from engine.tiling import merge_tiles

MAX_THREADS = 8  # that read images ahead, by default


class Predictor:
    """Detects in the images of a source, batch by batch, with fixed options."""

    def __init__(
        self,
        model: DetectorModel,
        *,
        names: list[str],
        device: torch.device,
        nms: NmsOptions,
        imgsz: ImageSize,
        rect: bool,
        batch: int,
        classes: Sequence[int] | None,
        tile: int | None = None,
    ) -> None:
        """`classes`: the labels to detect, None for all; the rest as in core.options.PredictOptions."""
        self.model, self.names, self.device = model, names, device
        self.nms, self.imgsz, self.rect, self.batch, self.classes = nms, imgsz, rect, batch, classes
        longest = max(imgsz) if isinstance(imgsz, tuple) else imgsz
        self.tile = longest if tile == 0 else tile

    def run(self, frames: Source, *, workers: int | None = None) -> Iterator[Result]:
        """Yield the results in the order of the frames; `workers` as in core.options.PredictOptions."""
        waiting: list[Frame] = []
        for frame in frames.iterate(min(usable_cores(), MAX_THREADS) if workers is None else workers):
            if self.tile is not None and max(frame.size) > self.tile:
                if waiting:
                    yield from self._detect_batch(waiting)
                    waiting = []
                yield self._detect_in_tiles(frame, self.tile)
                continue
            waiting.append(frame)
            if len(waiting) == self.batch:
                yield from self._detect_batch(waiting)
                waiting = []
        if waiting:
            yield from self._detect_batch(waiting)

    def _detect_in_tiles(self, frame: Frame, side: int) -> Result:
        """Detect in overlapping tiles of a frame and in the whole of it, and merge the boxes."""
        width, height = frame.size
        places = [(0, 0, width, height), *tile_places(width, height, side)]
        found: list[Result] = []
        for first in range(0, len(places), self.batch):
            views = [
                replace(frame, image=np.ascontiguousarray(frame.image[top:bottom, left:right]))
                for left, top, right, bottom in places[first : first + self.batch]
            ]
            found += self._detect_batch(views)
        start = time.perf_counter()
        boxes, scores, labels = merge_tiles(
            [(place, each.boxes, each.scores, each.labels) for place, each in zip(places, found, strict=True)],
            size=frame.size,
            iou=self.nms.iou,
            max_det=self.nms.max_det,
            agnostic=self.nms.agnostic,
        )
        speed = {part: sum(each.speed[part] for each in found) for part in found[0].speed}
        speed["nms"] += (time.perf_counter() - start) * 1e3
        return Result(boxes, scores, labels, self.names, frame, speed, found[-1].shape)

    def _detect_batch(self, frames: Sequence[Frame]) -> list[Result]:
        """Detect in frames; only those of one shape share a forward pass: padding would change the results."""
        results: dict[int, Result] = {}
        groups: dict[tuple[int, ...], list[int]] = {}
        inputs: list[tuple[np.ndarray, Geometry, float]] = []
        for place, frame in enumerate(frames):
            start = time.perf_counter()
            fitted, geometry = self.model.preprocess(frame.image, self.imgsz, rect=self.rect)
            inputs.append((fitted, geometry, (time.perf_counter() - start) * 1e3))
            groups.setdefault(fitted.shape, []).append(place)
        for shape, places in groups.items():
            detections, spent = self._detect(np.stack([inputs[place][0] for place in places]))
            for place, found in zip(places, detections, strict=True):
                _, geometry, preprocess_ms = inputs[place]
                boxes = geometry.to_image(found.boxes, clip=True).cpu().numpy()
                results[place] = Result(
                    boxes,
                    found.scores.cpu().numpy(),
                    found.labels.cpu().numpy(),
                    self.names,
                    frames[place],
                    {"preprocess": preprocess_ms} | {part: value / len(places) for part, value in spent.items()},
                    (shape[0], shape[1]),
                )
        return [results[place] for place in range(len(frames))]

    @torch.inference_mode()
    def _detect(self, images: np.ndarray) -> tuple[list[Detections], dict[str, float]]:
        """Detections in network pixels of images (B, H, W, 3) uint8, and the milliseconds by part."""
        device, model = self.device, self.model
        start = time.perf_counter()
        tensor = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
        weight = next(model.parameters())
        boxes, scores = model.decode(model(tensor.to(weight.dtype).contiguous() / 255))
        synchronize(device)
        middle = time.perf_counter()
        detections = model.nms(boxes, keep_classes(scores, self.classes), self.nms)
        synchronize(device)
        return detections, {"inference": (middle - start) * 1e3, "nms": (time.perf_counter() - middle) * 1e3}


def keep_classes(scores: Tensor, classes: Sequence[int] | None) -> Tensor:
    """Scores (B, A, C), zero for boxes whose best class is not in ``classes``, so that they do not take part in NMS."""
    if classes is None:
        return scores
    kept = torch.isin(scores.argmax(dim=-1), torch.tensor(classes, device=scores.device))
    return scores * kept[..., None]
