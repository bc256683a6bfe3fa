"""Single samples of training and evaluation.

A training sample is a function of (seed, epoch, image index) alone: the epoch is passed to the workers with the index,
and what workers keep (recent images, the order of the epoch) changes no sample, so any number of them makes the same.

The partners of a mosaic are drawn from all images if these fit `data.recent_images`. Of larger data sets they are drawn
from the block of the epoch's order to which the sample belongs, so that each image is decoded once, not four times.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from torch.utils.data import Dataset

from core.arguments import ImageSize
from core.geometry import Geometry, fit, resize
from data.annotations import Annotations
from data.augment import COPY_PASTE, LAYOUT, MIXUP, Augmentation, PhotometricAugment, stream
from data.copy_paste import paste_objects
from data.image import ImageError, read_image
from data.image_cache import ImageStore
from data.mosaic import Tile, centre_place, lay_out, mosaic_places, random_pose
from data.recent_images import SMALLEST_BLOCK, RecentImages, slots_for

Preprocess = Callable[[np.ndarray, ImageSize], tuple[np.ndarray, Geometry]]

KEPT_BOXES = 2048  # images whose boxes a process keeps


@dataclass(frozen=True)
class Failure:
    """Why a sample could not be made; passed to the main process, which raises it."""

    message: str


@dataclass(frozen=True)
class Sample:
    """One image in its final size, with boxes in its pixels."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    boxes: np.ndarray  # (n, 4) float32 xyxy
    labels: np.ndarray  # (n,) int64
    index: int  # position in the annotations
    geometry: Geometry | None = None
    preprocess_ms: float = math.nan  # of evaluation, decoding excluded; NaN if the image was cached


@dataclass(frozen=True)
class ResizeMode:
    """How an image is resized for training: long side to the image size, or both sides if `stretch`.

    `smooth`: area averaging when shrinking, as in `core.geometry.resize`.
    """

    stretch: bool = False
    smooth: bool = True

    def size(self, width: int, height: int, imgsz: int) -> tuple[int, int]:
        """The resized (width, height) of an image."""
        return (imgsz, imgsz) if self.stretch else fit(width, height, imgsz)


def read_listed(annotations: Annotations, index: int, *, reduce: int = 1) -> np.ndarray:
    """An image of a data set, whose structure was sound at the start; ImageError with its path and what to do.

    `reduce` as for read_image.
    """
    path = annotations.path(index)
    try:
        return read_image(path, reduce=reduce)
    except ImageError as error:
        what = f"{path} {error.what}; data.check finds all such images, and training then skips them"
        raise ImageError(error.kind, what) from error


def base_image(annotations: Annotations, index: int, imgsz: int, resize_mode: ResizeMode = ResizeMode()) -> np.ndarray:  # noqa: B008
    """An image resized to `imgsz`: what caches store and augmentation starts from."""
    listed_width, listed_height = annotations.sizes[index].tolist()
    width, height = resize_mode.size(listed_width, listed_height, imgsz)
    # A JPEG's blocks averaged while it is decoded: what area averaging would do afterwards.
    fits = [factor for factor in (8, 4, 2) if listed_width >= factor * width and listed_height >= factor * height]
    image = read_listed(annotations, index, reduce=fits[0] if fits and resize_mode.smooth else 1)
    if not fits:
        width, height = resize_mode.size(image.shape[1], image.shape[0], imgsz)
    return resize(image, width, height, smooth=resize_mode.smooth)


def epoch_order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """Permutation (N,) of the images for an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


class TrainSamples(Dataset):
    """Augmented samples by (epoch, index)."""

    def __init__(
        self,
        annotations: Annotations,
        *,
        imgsz: int,
        seed: int,
        augmentation: Augmentation,
        mosaic_until: int | None = None,
        store: ImageStore | None = None,
        recent: RecentImages | None = None,
        resize_mode: ResizeMode = ResizeMode(),  # noqa: B008
    ):
        """`mosaic_until`: first epoch without mosaic, copy-paste and mixup, None for no such epoch.

        `store` caches all base images; without it, `recent` keeps some of them.
        """
        self.annotations, self.imgsz, self.seed, self.store = annotations, imgsz, seed, store
        self.augmentation, self.mosaic_until, self.resize_mode = augmentation, mosaic_until, resize_mode
        self.photometric = PhotometricAugment(augmentation, seed=seed, size=imgsz)
        self.recent = recent
        slots = slots_for(imgsz)
        # Images of a block, of which there are two at a time in the slots; 0: all images fit.
        self._block = 0 if len(annotations) <= slots else max(slots // 2, SMALLEST_BLOCK)
        self._boxes: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}  # by index: _scaled_boxes
        self._order: tuple[int, np.ndarray, np.ndarray] | None = None  # epoch, its order, each image's place in it

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, key: tuple[int, int]) -> Sample | Failure:
        epoch, index = key
        try:
            return self.sample(epoch, index)
        except ImageError as error:
            return Failure(f"an image cannot be used: {error.what}")

    def sample(self, epoch: int, index: int) -> Sample:
        """One augmented sample."""
        settings = self.augmentation
        composed = self.mosaic_until is None or epoch < self.mosaic_until
        image, boxes, labels = self._scene(epoch, index, composed, stream(self.seed, epoch, index, LAYOUT))
        if composed and settings.copy_paste:
            rng = stream(self.seed, epoch, index, COPY_PASTE)
            if rng.random() < settings.copy_paste:
                tile = self._tile(epoch, *self._partners(epoch, index, 1, rng))
                matrix = random_pose(self.imgsz, rng, **settings.pose()) @ centre_place(tile)
                image, boxes, labels = paste_objects(image, boxes, labels, tile=tile, matrix=matrix)
        if composed and settings.mixup:
            rng = stream(self.seed, epoch, index, MIXUP)
            if rng.random() < settings.mixup:
                weight = rng.beta(32.0, 32.0)  # close to one half
                (partner,) = self._partners(epoch, index, 1, rng)
                other, more_boxes, more_labels = self._scene(epoch, partner, composed, rng)
                image = cv2.addWeighted(image, weight, other, 1 - weight, 0)
                boxes, labels = np.concatenate([boxes, more_boxes]), np.concatenate([labels, more_labels])
        image, boxes, labels = self.photometric(image, boxes, labels, epoch=epoch, index=index)
        return Sample(image, boxes, labels, index)

    def _scene(
        self, epoch: int, index: int, composed: bool, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One image or a mosaic of four, transformed at random onto the canvas."""
        mosaic = rng.random() < self.augmentation.mosaic and composed
        pose = random_pose(self.imgsz, rng, **self.augmentation.pose())
        if not mosaic:
            tile = self._tile(epoch, index)
            return lay_out([tile], [pose @ centre_place(tile)], self.imgsz)
        tiles = [self._tile(epoch, each) for each in (index, *self._partners(epoch, index, 3, rng))]
        tiles = [tiles[k] for k in rng.permutation(len(tiles))]
        return lay_out(tiles, [pose @ place for place in mosaic_places(tiles, self.imgsz, rng)], self.imgsz)

    def _partners(self, epoch: int, index: int, count: int, rng: np.random.Generator) -> list[int]:
        """Images drawn at random, with replacement, from the block of an image, or from all."""
        if not self._block:
            return rng.integers(len(self), size=count).tolist()
        order, places = self._order_of(epoch)
        blocks = max(round(len(self) / self._block), 1)  # of nearly equal size
        number = ((places[index] + 1) * blocks - 1) // len(self)
        first, end = number * len(self) // blocks, (number + 1) * len(self) // blocks
        return order[first + rng.integers(end - first, size=count)].tolist()

    def _order_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The order of the images in an epoch, and the place of each image in it."""
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(len(self), seed=self.seed, epoch=epoch)
            places = np.empty_like(order)
            places[order] = np.arange(len(order))
            self._order = epoch, order, places
        return self._order[1:]

    def _image(self, epoch: int, index: int) -> np.ndarray:
        """The base image (H, W, 3), or (H, W, 4) with a channel that has no meaning."""
        if self.store is not None:
            return self.store[index]
        if self.recent is None:
            return base_image(self.annotations, index, self.imgsz, self.resize_mode)
        slot = (int(self._order_of(epoch)[1][index]) if self._block else index) % self.recent.slots
        image = self.recent.get(slot, index)
        if image is None:
            image = base_image(self.annotations, index, self.imgsz, self.resize_mode)
            self.recent.put(slot, index, image)
        return image

    def _tile(self, epoch: int, index: int) -> Tile:
        image = self._image(epoch, index)
        kept = self._boxes.get(index)
        if kept is None:
            if len(self._boxes) == KEPT_BOXES:
                self._boxes.clear()
            kept = self._boxes[index] = self._scaled_boxes(index, image.shape[1], image.shape[0])
        boxes, labels, rows, scale = kept

        def polygons(position: int) -> list[np.ndarray]:
            return [polygon * scale for polygon in self.annotations.polygons(rows[position])]

        return Tile(image, boxes, labels, polygons if self.annotations.has_polygons(index) else None)

    def _scaled_boxes(
        self, index: int, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Boxes and labels of an image resized to this size, their rows, and by what it was scaled (x, y)."""
        boxes, labels, rows = self.annotations.training_boxes(index)
        original_width, original_height = self.annotations.sizes[index].tolist()
        scale = np.array([width / original_width, height / original_height], np.float32)
        return boxes * np.concatenate([scale, scale]), labels, rows, scale


class EvalSamples(Dataset):
    """Samples for evaluation, each image preprocessed by the detector."""

    def __init__(self, annotations: Annotations, *, imgsz: ImageSize, preprocess: Preprocess):
        self.annotations, self.imgsz, self.preprocess = annotations, imgsz, preprocess
        self.store: ImageStore | None = None
        self.shapes: list[tuple[int, int]] = []  # (height, width) of each preprocessed image
        self.geometries: list[Geometry] = []
        known: dict[tuple[int, int], tuple[tuple[int, int], Geometry]] = {}
        for width, height in annotations.sizes.tolist():
            if (width, height) not in known:
                # Only the detector knows the result for an image of this size: try a blank one.
                blank, geometry = preprocess(np.zeros((height, width, 3), np.uint8), imgsz)
                known[width, height] = (blank.shape[0], blank.shape[1]), geometry
            shape, geometry = known[width, height]
            self.shapes.append(shape)
            self.geometries.append(geometry)

    def __len__(self) -> int:
        return len(self.annotations)

    def image(self, index: int) -> np.ndarray:
        """One preprocessed image (H, W, 3)."""
        return self.preprocess(read_listed(self.annotations, index), self.imgsz)[0]

    def __getitem__(self, index: int) -> Sample | Failure:
        preprocess_ms = math.nan
        try:
            if self.store is not None:
                image = self.store[index]
            else:
                decoded = read_listed(self.annotations, index)
                start = time.perf_counter()
                image = self.preprocess(decoded, self.imgsz)[0]
                preprocess_ms = (time.perf_counter() - start) * 1e3
        except ImageError as error:
            return Failure(f"an image cannot be used: {error.what}")
        boxes, labels, _ = self.annotations.training_boxes(index)
        geometry = self.geometries[index]
        return Sample(image, geometry.to_network(boxes), labels, index, geometry, preprocess_ms)
