"""Types shared by all parts: targets, batches, detections, and the interface of a detector."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from core.arguments import ImageSize
from core.geometry import Geometry
from core.options import NmsOptions


@dataclass
class Targets:
    """Boxes of a batch, padded to the image with the most; rows where `mask` is False are padding and hold zeros."""

    boxes: torch.Tensor  # (B, M, 4) float32, xyxy in network pixels
    labels: torch.Tensor  # (B, M) int64
    mask: torch.Tensor  # (B, M) bool

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Targets:
        """The same targets on another device."""
        return Targets(
            self.boxes.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            self.mask.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Targets:
        """The same targets in page-locked memory."""
        return Targets(self.boxes.pin_memory(), self.labels.pin_memory(), self.mask.pin_memory())

    def scaled(self, factor_x: float, factor_y: float) -> Targets:
        """Targets for images resized by these factors, as in multi-scale training."""
        factors = self.boxes.new_tensor([factor_x, factor_y, factor_x, factor_y])
        return Targets(self.boxes * factors, self.labels, self.mask)

    @staticmethod
    def collate(boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Targets:
        """Pad per-image arrays boxes (n, 4) and labels (n,) into one batch; M is the largest n, which may be 0."""
        count = len(boxes)
        widest = max((len(each) for each in boxes), default=0)
        padded_boxes = np.zeros((count, widest, 4), dtype=np.float32)
        padded_labels = np.zeros((count, widest), dtype=np.int64)
        mask = np.zeros((count, widest), dtype=bool)
        for row, (image_boxes, image_labels) in enumerate(zip(boxes, labels, strict=True)):
            padded_boxes[row, : len(image_boxes)] = image_boxes
            padded_labels[row, : len(image_labels)] = image_labels
            mask[row, : len(image_boxes)] = True
        return Targets(torch.from_numpy(padded_boxes), torch.from_numpy(padded_labels), torch.from_numpy(mask))


@dataclass
class Batch:
    """Images of one shape with their targets; in evaluation also the geometry that maps boxes back to the images."""

    images: torch.Tensor  # (B, 3, H, W) uint8 RGB
    targets: Targets
    indices: torch.Tensor  # (B,) int64, positions in the data set
    image_ids: list[int | str]
    geometries: list[Geometry]  # empty in training
    paths: list[str]
    crc32: int = 0  # over images and targets: shows that runs saw the same batches
    images_crc32: int = 0  # over the images alone
    preprocess_ms: float = math.nan  # spent on preprocessing these images, if measured (evaluation only)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; called by the DataLoader."""
        self.images, self.targets = self.images.pin_memory(), self.targets.pin_memory()
        return self


@dataclass
class Detections:
    """The detections of one image, best first."""

    boxes: torch.Tensor  # (n, 4) float32, xyxy in network pixels
    scores: torch.Tensor  # (n,) float32
    labels: torch.Tensor  # (n,) int64


StateDict = dict[str, Any]
"""Plain values and tensors by name, nested, as checkpoints hold them."""

Outputs = Sequence[torch.Tensor]
"""Raw maps of a detector, each (B, C, H / stride, W / stride), finest level first."""


class DetectorModel(nn.Module, ABC):
    """A detector, as the trainer, the evaluator and the Python API see it; every model family derives from it."""

    names: list[str]
    stride: int  # image sizes are multiples of it

    @property
    @abstractmethod
    def loss_names(self) -> Sequence[str]:
        """Names of the loss terms, in the order in which they are reported."""

    @property
    @abstractmethod
    def fitting(self) -> Mapping[str, bool]:
        """How training images are resized: ``stretch`` (aspect ratio not kept) and ``smooth`` (area averaging)."""

    @abstractmethod
    def forward(self, images: torch.Tensor) -> Outputs:
        """Raw maps of images (B, 3, H, W) in 0..1."""

    @abstractmethod
    def preprocess(
        self, image: np.ndarray, size: ImageSize, *, rect: bool = False, original: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, Geometry]:
        """An image (H, W, 3) uint8 RGB as network input and its geometry; `size`: long side, or (height, width)."""

    @abstractmethod
    def loss(
        self,
        outputs: Outputs,
        targets: Targets,
        *,
        over_processes: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss, a float32 scalar, and its detached terms by name.

        `over_processes` sums a tensor over the processes that share a batch: each gets its part of the loss.
        """

    @abstractmethod
    def decode(self, outputs: Outputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (B, A, 4) xyxy in network pixels and scores (B, A, classes), float32."""

    @abstractmethod
    def nms(self, boxes: torch.Tensor, scores: torch.Tensor, options: NmsOptions) -> list[Detections]:
        """The detections of each image."""

    @abstractmethod
    def fused(self) -> DetectorModel:
        """A copy for inference with batch norms folded into the convolutions."""
