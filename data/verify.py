"""Examine every image before training starts, so that what is skipped does not depend on worker timing.

The images of large data sets are examined by their structure (data/image_structure.py), unless decoding is requested or
was done before: what `python -m data.check` found holds for training.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from core.files import replacing
from core.progress import map_in_threads
from data.annotations import Annotations
from data.cache_dir import cache_folder
from data.image import ImageError, Verified, verify_image
from data.image_structure import inspect_image
from data.issues import Issue, refuse
from data.pixels import DECODING_VERSION

MANY_IMAGES = 1000  # fewer are decoded each time, which takes seconds
CHUNK = 64  # images that a thread takes at a time

Row = tuple[int, int, int, int]
UNUSABLE: Row = (0, 0, 0, 0)


def verify_images(
    annotations: Annotations, *, strict: bool = False, decode: bool = False, progress: bool = True
) -> Annotations:
    """The annotations without unusable images, which become issues, and with all image sizes known.

    `decode`: decode every image completely; so do `strict`, and data sets that are small or were decoded before.
    An image whose file size and modification time match an earlier verification is not read again.
    Raises ValueError for any issue if `strict`, and if no usable image remains.
    """
    cached, known = None, np.zeros((len(annotations), 4), np.int64)
    decode = decode or strict or len(annotations) < MANY_IMAGES
    if len(annotations) >= MANY_IMAGES:
        name = f"-{DECODING_VERSION}-{annotations.sha256[:32]}.npy"
        decoded = cache_folder(annotations.source) / f"verified{name}"
        decode = decode or decoded.exists()
        cached = decoded if decode else decoded.with_name(f"inspected{name}")
        known = _read_known(cached, len(annotations))
    title = f"checking images of {os.path.basename(annotations.source)}"
    show = progress and len(annotations) >= 200
    issues: list[Issue] = []
    rows = np.empty((len(annotations), 4), np.int64)
    look = partial(_examine, annotations, known=known, check=verify_image if decode else inspect_image)
    for index, (row, issue) in enumerate(map_in_threads(look, len(annotations), title, show=show, chunk=CHUNK)):
        rows[index] = row
        if issue is not None:
            issues.append(issue)
    outside = _outside(annotations, rows[:, 2:])
    issues += outside.values()
    if strict:
        refuse([*annotations.issues, *issues])
    if cached is not None and not np.array_equal(rows, known):
        with contextlib.suppress(OSError), replacing(cached) as file:
            np.save(file, rows)
    bad = np.flatnonzero(rows[:, 2] == 0).tolist()
    if len(bad) == len(annotations):
        raise ValueError(
            f"{annotations.image_folder}: none of the {len(annotations)} images listed in {annotations.source} can "
            f"be used, expected at least one; the first: {issues[0]}"
        )
    sized = replace(annotations, sizes=rows[:, 2:].astype(np.int32), issues=[*annotations.issues, *issues])
    if outside:
        sized = sized.without_boxes(list(outside))
    return sized.without(bad) if bad else sized


def _outside(annotations: Annotations, sizes: np.ndarray) -> dict[int, Issue]:
    """Issues by row: boxes that do not overlap their image, for images whose size the annotation file does not give.

    `sizes` (N, 2): actual width and height, 0 for unusable images.
    """
    image = annotations.image_of
    limits = sizes[image]
    low, high = annotations.boxes[:, :2], annotations.boxes[:, :2] + annotations.boxes[:, 2:]
    unlisted = (annotations.sizes[image, 0] == 0) & (limits[:, 0] > 0)
    issues = {}
    for row in np.flatnonzero(unlisted & ((low >= limits) | (high <= 0)).any(axis=1)).tolist():
        index, (width, height) = int(image[row]), limits[row].tolist()
        what = f"box {annotations.boxes[row].tolist()} does not overlap its image of {width} x {height} pixels"
        issues[row] = Issue(annotations.file_names[index], "outside", what, annotations.record(index))
    return issues


def _examine(
    annotations: Annotations, index: int, *, known: np.ndarray, check: Callable[[str], Verified]
) -> tuple[Row, Issue | None]:
    """(bytes, modification time in ns, width, height) of an image, zeros if it cannot be used, and its issue if any.

    `known` (N, 4): such rows of an earlier time; `check`: how images are examined that are not known.
    """
    name, path = annotations.file_names[index], annotations.path(index)
    nbytes, changed, width, height = known[index].tolist()
    fault = None
    try:
        status = os.stat(path)
        if not (width and (status.st_size, status.st_mtime_ns) == (nbytes, changed)):
            width, height, fault = check(path)
    except ImageError as error:
        return UNUSABLE, Issue(name, error.kind, error.what, annotations.record(index))
    except OSError as error:
        return UNUSABLE, Issue(name, "missing", f"{path} cannot be read: {error.strerror}", annotations.record(index))
    listed = tuple(annotations.sizes[index].tolist())
    if listed[0] and listed != (width, height):
        what = f"is {width} x {height} pixels after EXIF rotation, the annotation file says {listed[0]} x {listed[1]}"
        return UNUSABLE, Issue(name, "wrong-size", what, annotations.record(index))
    if fault is not None:  # examined again the next time, for its issue
        return (0, 0, width, height), Issue(name, "truncated", fault, annotations.record(index))
    return (status.st_size, status.st_mtime_ns, width, height), None


def _read_known(path: os.PathLike[str], count: int) -> np.ndarray:
    try:
        known = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        known = None
    if not isinstance(known, np.ndarray) or known.shape != (count, 4) or known.dtype != np.int64:
        return np.zeros((count, 4), np.int64)
    return known
