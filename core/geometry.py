"""Resizing and padding of images to the network input, and mapping boxes between both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch

from core.arguments import ImageSize

Array = TypeVar("Array", np.ndarray, torch.Tensor)
PADDING_GREY = 114


@dataclass(frozen=True)
class Geometry:
    """Network pixel = image pixel * scale + pad, per axis; width and height are those of the original image.

    `clips`: whether boxes mapped back to the image are clipped to it by default.
    """

    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float
    width: int
    height: int
    clips: bool = True

    def to_network(self, boxes: Array) -> Array:
        """Boxes (..., 4) xyxy from original image pixels to network pixels."""
        scale, pad = self._vectors(boxes)
        return boxes * scale + pad

    def to_image(self, boxes: Array, *, clip: bool | None = None) -> Array:
        """Boxes (..., 4) xyxy from network pixels to original image pixels, clipped if `clip` (default `clips`)."""
        scale, pad = self._vectors(boxes)
        moved = (boxes - pad) / scale
        if not (self.clips if clip is None else clip):
            return moved
        upper = [self.width, self.height, self.width, self.height]
        if isinstance(boxes, torch.Tensor):
            return torch.minimum(moved.clamp(min=0), moved.new_tensor(upper))
        return np.clip(moved, 0, np.asarray(upper, moved.dtype))

    def _vectors(self, boxes: Array) -> tuple[Array, Array]:
        scale = [self.scale_x, self.scale_y, self.scale_x, self.scale_y]
        pad = [self.pad_x, self.pad_y, self.pad_x, self.pad_y]
        if isinstance(boxes, torch.Tensor):
            like = boxes if boxes.dtype.is_floating_point else boxes.float()
            return like.new_tensor(scale), like.new_tensor(pad)
        kind = boxes.dtype if np.issubdtype(boxes.dtype, np.floating) else np.dtype(np.float32)
        return np.asarray(scale, dtype=kind), np.asarray(pad, dtype=kind)


def resize(image: np.ndarray, width: int, height: int, *, smooth: bool = True) -> np.ndarray:
    """Image (H, W, 3) to (height, width, 3): area averaging when shrinking (no aliasing), bilinear when enlarging.

    Always bilinear if not `smooth`, for networks that were trained on aliased images.
    """
    if image.shape[1] == width and image.shape[0] == height:
        return image
    shrinks = smooth and width * height < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def fit(width: int, height: int, size: ImageSize) -> tuple[int, int]:
    """The (width, height) of an image scaled to a long side of `size`, or into (height, width).

    The aspect ratio is kept to the nearest pixel.
    """
    scale = min(size[0] / height, size[1] / width) if isinstance(size, tuple) else size / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def letterbox(
    image: np.ndarray,
    size: ImageSize,
    *,
    fill: int = PADDING_GREY,
    rect_stride: int | None = None,
    original: tuple[int, int] | None = None,
) -> tuple[np.ndarray, Geometry]:
    """Scale the long side to `size` and pad with gray to a square, the image centered; or into `size` (height, width).

    With `rect_stride` each side is padded only to its next multiple of that stride.
    `original` is the (width, height) to which the geometry maps back, if `image` was already resized.
    """
    if (min(size) if isinstance(size, tuple) else size) <= 0:
        raise ValueError(f"letterbox: size is {size}, expected a positive number of pixels")
    source_width, source_height = original if original is not None else (image.shape[1], image.shape[0])
    inner = fit(source_width, source_height, size)
    outer = (size[1], size[0]) if isinstance(size, tuple) else (size, size)
    if rect_stride is not None:
        outer = (math.ceil(inner[0] / rect_stride) * rect_stride, math.ceil(inner[1] / rect_stride) * rect_stride)
    return centred(image, inner, outer, fill=fill, original=original)


def centred(
    image: np.ndarray,
    inner: tuple[int, int],
    outer: tuple[int, int],
    *,
    fill: int,
    original: tuple[int, int] | None = None,
    smooth: bool = True,
) -> tuple[np.ndarray, Geometry]:
    """Resize to (width, height) `inner` and centre the result on a canvas `outer` of grey level `fill`."""
    source_width, source_height = original if original is not None else (image.shape[1], image.shape[0])
    (width, height), (canvas_width, canvas_height) = inner, outer
    resized = resize(image, width, height, smooth=smooth)
    left, top = (canvas_width - width) // 2, (canvas_height - height) // 2
    canvas = np.full((canvas_height, canvas_width, image.shape[2]), fill, dtype=np.uint8)
    canvas[top : top + height, left : left + width] = resized
    geometry = Geometry(width / source_width, height / source_height, left, top, source_width, source_height)
    return canvas, geometry


def stretch(
    image: np.ndarray,
    size: int | tuple[int, int],
    *,
    original: tuple[int, int] | None = None,
    smooth: bool = True,
) -> tuple[np.ndarray, Geometry]:
    """Resize to a square of `size`, or to (width, height), ignoring the aspect ratio, as Darknet networks expect."""
    width, height = size if isinstance(size, tuple) else (size, size)
    if min(width, height) <= 0:
        raise ValueError(f"stretch: size is {size}, expected a positive number of pixels")
    source_width, source_height = original if original is not None else (image.shape[1], image.shape[0])
    geometry = Geometry(width / source_width, height / source_height, 0.0, 0.0, source_width, source_height)
    return resize(image, width, height, smooth=smooth), geometry
