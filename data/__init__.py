"""The door to data: the only module here that sees a config section."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from core.geometry import letterbox
from core.types import Batch
from data.annotations import Annotations
from data.augment import Augmentation
from data.cache_dir import cache_folder, content_hash, is_there
from data.coco import read_coco
from data.image_cache import ImageStore, choose_cache, disk_store
from data.loader import EvalLoader, EvalSamples, Fitting, TrainLoader, TrainSamples, base_image
from data.synthetic import draw
from data.verify import verify_images

__all__ = [
    "Annotations",
    "Batch",
    "EvalLoader",
    "TrainLoader",
    "build_eval_loader",
    "build_train_loader",
    "load_dataset",
]

STRIDE = 32


def load_dataset(
    cfg_data: Any,
    split: str,
    *,
    strict: bool = False,
    progress: bool = True,
    single_cls: bool = False,
    verify: bool = True,
) -> Annotations:
    """The annotations of a split, its images decoded once to see that they are whole; the embedded set is drawn first.

    What cannot be used is skipped and stands in `.issues`, or is raised as ValueError where `strict`.
    FileNotFoundError for a missing file or folder, ValueError for a split that the data YAML does not have.
    """
    section = getattr(cfg_data, split, None) if split in ("train", "val", "test") else None
    if section is None:
        there = [name for name in ("train", "val", "test") if getattr(cfg_data, name, None) is not None]
        raise ValueError(f"the data set at {cfg_data.root} has no split {split!r}, expected one of {', '.join(there)}")
    embedded = getattr(cfg_data, "embedded", None)
    if embedded is not None:
        counts = {name: getattr(embedded, name) for name in ("train", "val", "test")}
        draw(cfg_data.root, **counts, side=embedded.side, seed=embedded.seed, progress=progress)
    if not is_there(section.images, folder=True):
        raise FileNotFoundError(f"{section.images}: no such folder, expected the images of the split {split!r}")
    annotations = read_coco(section.annotations, section.images, strict=strict, progress=progress)
    if verify:
        annotations = verify_images(annotations, strict=strict, progress=progress)
    return annotations.as_single_class() if single_cls else annotations


def build_train_loader(
    annotations: Annotations,
    *,
    imgsz: int,
    batch: int,
    workers: int = 0,
    seed: int = 0,
    augment: Any = None,
    cache: str | None = "auto",
    mosaic_until: int | None = None,
    stretch: bool = False,
    smooth: bool = True,
    progress: bool = True,
    pin_memory: bool = False,
) -> TrainLoader:
    """The loader of training; `augment` is the config's section, None for no augmentation.

    `stretch`, `smooth`: how the detector wants images brought to `imgsz`, as `data.loader.Fitting` says.
    """
    fitting = Fitting(stretch=stretch, smooth=smooth)
    samples = TrainSamples(
        annotations,
        imgsz=imgsz,
        seed=seed,
        augmentation=_augmentation(augment),
        mosaic_until=mosaic_until,
        store=_train_store(annotations, imgsz, fitting, cache, progress),
        fitting=fitting,
    )
    return TrainLoader(samples, batch=batch, workers=workers, pin_memory=pin_memory)


def build_eval_loader(
    annotations: Annotations,
    *,
    imgsz: int,
    batch: int,
    workers: int = 0,
    preprocess: Callable[..., Any] = letterbox,
    cache: str | None = "off",
    rect: bool = True,
    progress: bool = True,
    pin_memory: bool = False,
) -> EvalLoader:
    """The loader of an evaluation, of validation in training and of val.py alike."""
    if preprocess is letterbox:
        fitted = partial(letterbox, rect_stride=STRIDE) if rect else letterbox
    else:
        fitted = partial(preprocess, rect=True) if rect else preprocess
    samples = EvalSamples(annotations, imgsz=imgsz, preprocess=fitted)
    nbytes = sum(height * width * 3 for height, width in samples.shapes)
    if choose_cache(cache, nbytes) == "ram":  # a cache on disk would hardly be faster than the one pass over the files
        store = ImageStore(samples.shapes)
        store.fill(samples.image, title="caching validation images", progress=progress)
        samples.store = store
        workers = 0  # nothing is left to be done but copying
    return EvalLoader(samples, batch=batch, workers=workers, pin_memory=pin_memory)


def _train_store(
    annotations: Annotations, imgsz: int, fitting: Fitting, cache: str | None, progress: bool
) -> ImageStore | None:
    """Base images in memory or on disk, as `cache` says; None where they are decoded each time."""
    sizes = [fitting.size(width, height, imgsz) for width, height in annotations.sizes.tolist()]
    shapes = [(height, width) for width, height in sizes]
    kind = choose_cache(cache, sum(height * width * 3 for height, width in shapes))
    produce = partial(base_image, annotations, imgsz=imgsz, fitting=fitting)
    if kind == "ram":
        store = ImageStore(shapes)
        store.fill(produce, title="caching training images", progress=progress)
        return store
    if kind == "disk":
        stats = [os.stat(path) for path in annotations.paths]
        key = [content_hash(annotations.json_path), annotations.image_folder, imgsz, fitting]
        key += [(each.st_size, each.st_mtime_ns) for each in stats]
        folder = cache_folder(annotations.json_path)
        return disk_store(shapes, produce, folder=folder, key=key, progress=progress)
    return None


def _augmentation(section: Any) -> Augmentation:
    """The config's section as plain values; none is no augmentation."""
    if section is None:
        return Augmentation()
    names = ("mosaic", "mixup", "flip_lr", "flip_ud", "degrees", "translate", "scale", "shear", "perspective")
    values = {name: float(getattr(section, name)) for name in (*names, "blur", "gray", "clahe")}
    hsv = (float(section.hsv_h), float(section.hsv_s), float(section.hsv_v))
    return Augmentation(**values, hsv=hsv, extra=tuple(dict(entry) for entry in section.extra))
