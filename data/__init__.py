"""Data sets and loaders; of this package only this module sees sections of the config."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from core.arguments import ImageSize
from core.distributed import local_world
from core.files import path_exists
from core.geometry import Geometry
from core.text import did_you_mean
from core.types import Batch
from data.annotations import Annotations
from data.augment import Augmentation
from data.cache_dir import cache_folder
from data.coco import read_coco
from data.conversion import CONVERTERS, read_converted
from data.holdout import hold_out
from data.image_cache import ImageStore, choose_cache, disk_store
from data.loader import EvalLoader, TrainLoader
from data.plausibility import examine
from data.recent_images import RecentImages
from data.samples import EvalSamples, ResizeMode, TrainSamples, base_image
from data.sampling import Arrangement, repeat_factors
from data.verify import verify_images
from data.workers import default_workers

__all__ = [
    "READERS",
    "Annotations",
    "Batch",
    "EvalLoader",
    "TrainLoader",
    "build_eval_loader",
    "build_train_loader",
    "hold_out",
    "load_dataset",
]

SPLITS = ("train", "val", "test")

# Readers by the `format` of a split: reader(annotations, images, strict=, progress=). A new format is one function that
# returns Annotations, usually through Annotations.from_lists, and one entry here.
READERS: dict[str, Callable[..., Annotations]] = {"coco": read_coco}


def load_dataset(
    cfg_data: Any,
    split: str,
    *,
    strict: bool = False,
    progress: bool = True,
    single_cls: bool = False,
    allow_skipped: bool = False,
    verify: bool = True,
    decode: bool = False,
) -> Annotations:
    """The annotations of a split, its images verified; the embedded set is drawn first.

    `decode`: verify by decoding every image completely, also in large data sets (see data.verify).

    What cannot be used is skipped and listed in `.issues`, or raised as ValueError if `strict`; so is a split of which
    more than half was skipped, unless `allow_skipped`.
    FileNotFoundError for a missing file or folder, ValueError for a split or format that does not exist.
    """
    section = getattr(cfg_data, split, None) if split in SPLITS else None
    if section is None:
        existing = ", ".join(name for name in SPLITS if getattr(cfg_data, name, None) is not None)
        raise ValueError(f"the data set at {cfg_data.root} has no split {split!r}, expected one of {existing}")
    name = getattr(section, "format", "coco")
    formats = [*READERS, *CONVERTERS]
    if name not in formats:
        hint = did_you_mean(name, formats)
        raise ValueError(f"data.{split}.format: unknown format {name!r}{hint}; expected one of {', '.join(formats)}")
    embedded = getattr(cfg_data, "embedded", None)
    if embedded is not None:
        from data.synthetic import draw  # here, so that `python -m data.synthetic` runs without a warning of Python

        counts = {name: getattr(embedded, name) for name in SPLITS}
        draw(cfg_data.root, **counts, side=embedded.side, seed=embedded.seed, progress=progress)
    if not path_exists(section.images, folder=True) and not (
        name == "yolo" and path_exists(section.images, folder=False)
    ):
        raise FileNotFoundError(f"{section.images}: no such folder, expected the images of the split {split!r}")
    if name in READERS:
        annotations = READERS[name](section.annotations, section.images, strict=strict, progress=progress)
    else:
        sections = {part: getattr(cfg_data, part, None) for part in SPLITS}
        same = {part: each for part, each in sections.items() if each is not None and each.format == name}
        annotations = read_converted(same, split, strict=strict, progress=progress)
    if verify:
        annotations = verify_images(annotations, strict=strict, decode=decode, progress=progress)
    annotations = examine(annotations, allow_skipped=allow_skipped)
    return annotations.as_single_class() if single_cls else annotations


def build_train_loader(
    annotations: Annotations,
    *,
    imgsz: int,
    batch: int,
    workers: int = 0,
    seed: int = 0,
    augment: object = None,
    cache: str | None = "auto",
    mosaic_until: int | None = None,
    stretch: bool = False,
    smooth: bool = True,
    rect: bool = False,
    class_balance: float = 0.0,
    stride: int = 32,
    progress: bool = True,
    pin_memory: bool = False,
    rank: int = 0,
    world: int = 1,
) -> TrainLoader:
    """The training loader; `augment` is the config's section, None for no augmentation.

    `batch` images are a step of all `world` processes, of which this one loads the share of its `rank`.

    `stretch`, `smooth`: how the detector expects images to be resized, see `data.samples.ResizeMode`.
    `rect`: batches of images of like aspect, each as small as they allow in multiples of `stride`, without mosaic,
    copy-paste and mixup. `class_balance`: the threshold of `data.sampling.repeat_factors`; 0: each image once an epoch.
    """
    mode = ResizeMode(stretch=stretch, smooth=smooth)
    augmentation = _augmentation(augment)
    if augmentation.copy_paste and not len(annotations.point_starts) > 1:
        raise ValueError(f"augment.copy_paste: no annotation of {annotations.source} has polygons")
    store = _train_store(annotations, imgsz, mode, cache, progress=progress)
    recent = None
    if store is None and not rect and (augmentation.mosaic or augmentation.copy_paste or augmentation.mixup):
        recent = RecentImages.fitting(len(annotations), imgsz, shared=workers > 0)
    samples = TrainSamples(
        annotations,
        imgsz=imgsz,
        seed=seed,
        augmentation=augmentation,
        mosaic_until=0 if rect else mosaic_until,
        store=store,
        recent=recent,
        resize_mode=mode,
    )
    sizes = [mode.size(width, height, imgsz) for width, height in annotations.sizes.tolist()] if rect else None
    arrangement = Arrangement(
        seed,
        batch,
        factors=repeat_factors(annotations, class_balance) if class_balance else None,
        sizes=None if sizes is None else np.array(sizes),
        stride=stride,
    )
    return TrainLoader(
        samples,
        batch=batch,
        workers=workers,
        pin_memory=pin_memory,
        rank=rank,
        world=world,
        arrangement=arrangement,
    )


def build_eval_loader(
    annotations: Annotations,
    *,
    imgsz: ImageSize,
    batch: int,
    preprocess: Callable[..., tuple[np.ndarray, Geometry]],
    workers: int | None = None,
    cache: str | None = "off",
    rect: bool = True,
    progress: bool = True,
    pin_memory: bool = False,
    rank: int = 0,
    world: int = 1,
) -> EvalLoader:
    """The evaluation loader, used for validation during training and by val.py; `preprocess` is the detector's.

    `workers`: processes that load ahead, None for `default_workers`. Of several processes that train, each loads every
    `world`-th batch.
    """
    samples = EvalSamples(annotations, imgsz=imgsz, preprocess=partial(preprocess, rect=rect))
    if workers is None:
        workers = default_workers(-(-len(samples) // batch))
    nbytes = sum(height * width * 3 for height, width in samples.shapes)
    # A cache on disk would hardly be faster than reading the files once.
    if choose_cache(cache, nbytes * local_world()) == "ram":
        store = ImageStore(samples.shapes)
        store.fill(samples.image, title="caching validation images", progress=progress)
        samples.store = store
        workers = 0  # only copying remains to be done
    return EvalLoader(samples, batch=batch, workers=workers, pin_memory=pin_memory, rank=rank, world=world)


def _train_store(
    annotations: Annotations, imgsz: int, mode: ResizeMode, cache: str | None, *, progress: bool
) -> ImageStore | None:
    """Base images in memory or on disk, as `cache` requests; None if they are decoded each time."""
    sizes = [mode.size(width, height, imgsz) for width, height in annotations.sizes.tolist()]
    shapes = [(height, width) for width, height in sizes]
    kind = choose_cache(cache, sum(height * width * 3 for height, width in shapes) * local_world())
    produce = partial(base_image, annotations, imgsz=imgsz, resize_mode=mode)
    if kind == "ram":
        store = ImageStore(shapes)
        store.fill(produce, title="caching training images", progress=progress)
        return store
    if kind == "disk":
        stats = [os.stat(path) for path in annotations.paths]
        key: list[object] = ["reduced", annotations.sha256, annotations.image_folder, imgsz, mode]  # see base_image
        key += [(status.st_size, status.st_mtime_ns) for status in stats]
        return disk_store(shapes, produce, folder=cache_folder(annotations.source), key=key, progress=progress)
    return None


def _augmentation(section: Any) -> Augmentation:
    """The config's section as plain values; None is no augmentation."""
    if section is None:
        return Augmentation()
    names = ("mosaic", "mixup", "copy_paste", "flip_lr", "flip_ud", "degrees", "translate", "scale", "shear")
    values = {name: float(getattr(section, name)) for name in (*names, "perspective", "blur", "gray", "clahe")}
    hsv = (float(section.hsv_h), float(section.hsv_s), float(section.hsv_v))
    return Augmentation(**values, hsv=hsv, extra=tuple(dict(entry) for entry in section.extra))
