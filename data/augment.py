"""Augmentation of training samples, keyed by (seed, epoch, image index) and thus independent of workers and history.

Each kind of decision uses a separate random stream, so enabling one augmentation leaves the others unchanged.
albumentations applies blur, grey, local contrast and the transforms of `extra`. Hue, saturation and value are changed
by a compiled loop (ops/colours.py), or else by OpenCV, which is more than twice as fast as albumentations; flips and
affine transforms are merged into one matrix with the mosaic (data/mosaic.py). Each albumentations transform has its own
generator: within one Compose, set_random_seed would give all the same stream, and two transforms with p = 0.5 would
always fire together.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from core.text import did_you_mean, one_line
from ops import colours

if TYPE_CHECKING:
    from albumentations import BasicTransform, Compose

# Random streams of one sample.
LAYOUT, MIXUP, COLOUR, RARE, EXTRA, COPY_PASTE = range(6)
LEVELS = np.arange(256, dtype=np.float64)  # of a channel


@dataclass(frozen=True)
class Augmentation:
    """Augmentation settings: probabilities, and ranges that are symmetric about no change."""

    mosaic: float = 0.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    hsv: tuple[float, float, float] = (0.0, 0.0, 0.0)
    flip_lr: float = 0.0
    flip_ud: float = 0.0
    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0
    blur: float = 0.0
    gray: float = 0.0
    clahe: float = 0.0
    extra: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def pose(self) -> dict[str, float]:
        """The keyword arguments of data.mosaic.random_pose."""
        names = ("degrees", "translate", "scale", "shear", "perspective", "flip_lr", "flip_ud")
        return {name: getattr(self, name) for name in names}


def stream(seed: int, epoch: int, index: int, purpose: int) -> np.random.Generator:
    """The generator for one purpose of one sample."""
    return np.random.default_rng([seed, epoch, index, purpose])


def import_albumentations() -> ModuleType:
    """Import albumentations without its query to a server for the newest version."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    return albumentations


def without_fourth(image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) of one (H, W, 3) or (H, W, 4)."""
    return image if image.shape[2] == 3 else cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)


def shift_hsv(image: np.ndarray, gains: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Scale hue, saturation and value of an RGB uint8 image (H, W, 3 or 4) by random factors within 1 +- gain.

    A fourth channel means nothing and is left out.
    """
    hue_gain, saturation_gain, value_gain = (1 + rng.uniform(-1, 1, 3) * np.asarray(gains)).tolist()
    shifted = colours.shift_hsv(image, (hue_gain, saturation_gain, value_gain))
    return _shift_by_opencv(image, hue_gain, saturation_gain, value_gain) if shifted is None else shifted


def _shift_by_opencv(image: np.ndarray, hue_gain: float, saturation_gain: float, value_gain: float) -> np.ndarray:
    """The same with hue, saturation and value in 8 bits, by which colours differ by up to 15 levels, mostly by one."""
    hue, saturation, value = cv2.split(cv2.cvtColor(without_fourth(image), cv2.COLOR_RGB2HSV))
    hues = ((LEVELS * hue_gain) % 180).astype(np.uint8)  # OpenCV's hue range is 0..179
    planes = cv2.LUT(hue, hues), _scaled(saturation, saturation_gain), _scaled(value, value_gain)
    return cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2RGB)


def _scaled(plane: np.ndarray, gain: float) -> np.ndarray:
    """A plane (H, W) uint8 times a factor, rounded down and at most 255."""
    levels = np.clip(LEVELS * gain, 0, 255)
    if gain >= 0 and (levels % 1 < 0.9998).all():
        # Rounding to the nearest after this shift is then rounding down (float32 errs by less than 0.0001 here): three
        # times as fast as a table.
        return cv2.convertScaleAbs(plane, alpha=gain, beta=-0.4999)
    return cv2.LUT(plane, levels.astype(np.uint8))


class PhotometricAugment:
    """Augmentation of the finished canvas: colours, then the rare transforms, then those of `extra`."""

    def __init__(self, settings: Augmentation, *, seed: int, size: int):
        """Raise ValueError for an unknown name or invalid arguments in `extra`; `size` is the canvas size."""
        self.settings, self.seed = settings, seed
        self._rare: list[tuple[float, Compose]] = []
        self._extra: list[tuple[float, Compose]] = []
        if any(settings.hsv):
            colours.prepare()  # here, as workers would each wait for the compiler
        if not (settings.blur or settings.gray or settings.clahe or settings.extra):
            return  # albumentations takes a second to import
        library = import_albumentations()
        for probability, transform in (
            (settings.blur, library.Blur(blur_limit=(3, 7), p=1.0)),
            (settings.gray, library.ToGray(p=1.0)),
            (settings.clahe, library.CLAHE(p=1.0)),
        ):
            if probability:
                self._rare.append((probability, _composed(library, transform)))
        for position, entry in enumerate(settings.extra):
            probability, transform = _by_name(library, entry, f"augment.extra[{position}]")
            composed = _composed(library, transform)
            _try_out(library, composed, size, f"augment.extra[{position}] ({entry['name']})")
            self._extra.append((probability, composed))

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, *, epoch: int, index: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image (H, W, 3), boxes (n, 4) xyxy and labels (n,) after augmentation; `image` may have a fourth channel."""
        if any(self.settings.hsv):
            image = shift_hsv(image, self.settings.hsv, stream(self.seed, epoch, index, COLOUR))
        image = without_fourth(image)
        for purpose, transforms in ((RARE, self._rare), (EXTRA, self._extra)):
            if not transforms:
                continue
            rng = stream(self.seed, epoch, index, purpose)
            draws = rng.random(len(transforms))
            seeds = rng.integers(0, 2**31, len(transforms))
            for (probability, transform), draw, seed in zip(transforms, draws, seeds, strict=True):
                if draw < probability:
                    image, boxes, labels = _apply(transform, image, boxes, labels, int(seed))
        return image, boxes, labels


def _composed(library: ModuleType, transform: BasicTransform) -> Compose:
    """A Compose of one transform, with boxes if it moves them; it always fires, the probability is applied here."""
    if isinstance(transform, library.ImageOnlyTransform):
        return library.Compose([transform])
    boxes = library.BboxParams(format="pascal_voc", label_fields=["rows"], min_width=2, min_height=2, clip=True)
    return library.Compose([transform], bbox_params=boxes)


def _apply(
    transform: Compose, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    transform.set_random_seed(seed)
    if not transform.processors:
        return np.ascontiguousarray(transform(image=image)["image"]), boxes, labels
    changed = transform(image=image, bboxes=boxes, rows=np.arange(len(boxes)))
    rows = np.asarray(changed["rows"], np.int64)
    moved = np.asarray(changed["bboxes"], np.float32).reshape(-1, 4)
    return np.ascontiguousarray(changed["image"]), moved, labels[rows]


def _by_name(library: ModuleType, entry: Mapping[str, Any], where: str) -> tuple[float, BasicTransform]:
    """(probability, transform) of an entry {name: ..., p: ..., arguments}; the transform always fires when called."""
    arguments = dict(entry)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(
            f"{where}: found {dict(entry)!r}, expected a mapping with a name, such as {{name: RandomFog, p: 0.1}}"
        )
    transforms = {
        key: kind
        for key, kind in vars(library).items()
        if isinstance(kind, type) and issubclass(kind, library.BasicTransform) and key[0] != "_"
    }
    if name not in transforms:
        raise ValueError(f"{where}: albumentations has no transform {name!r}{did_you_mean(name, transforms)}")
    probability = arguments.pop("p", 0.5)
    if isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1:
        raise ValueError(f"{where}: p is {probability!r}, expected a probability between 0 and 1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # albumentations only warns about unknown arguments
            return float(probability), transforms[name](p=1.0, **arguments)
    except (TypeError, ValueError, UserWarning) as error:
        raise ValueError(f"{where}: {name} does not accept {arguments}: {one_line(error)}") from error


def _try_out(library: ModuleType, transform: Compose, size: int, where: str) -> None:
    """Run a transform once on a dummy image, so that errors appear before training starts."""
    image = np.full((size, size, 3), 114, np.uint8)
    box, label = np.array([[0, 0, size / 2, size / 2]], np.float32), np.zeros(1, np.int64)
    crop_error = library.augmentations.crops.transforms.CropSizeError
    try:
        changed, _, _ = _apply(transform, image, box, label, 0)
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, cv2.error, crop_error) as error:
        raise ValueError(f"{where}: fails on an image of {size} x {size} with a box: {error}") from error
    if changed.shape != image.shape or changed.dtype != np.uint8:
        raise ValueError(f"{where}: turns {image.shape} uint8 into {changed.shape} {changed.dtype}, expected no change")
