"""The ground truth of a batch as dense tensors, the form both the loader and the losses speak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class Targets:
    """Boxes of a batch, padded to the fullest image: rows where `mask` is False are padding and hold zeros."""

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
        """Targets for images that were resized by these factors, as multi-scale training does."""
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
