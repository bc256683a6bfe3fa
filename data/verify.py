"""Decode every image completely before training starts, so that what is skipped does not depend on worker timing."""

from __future__ import annotations

import contextlib
import os
import zipfile
from dataclasses import replace

import numpy as np

from core.files import replacing
from core.progress import map_in_threads
from data.annotations import Annotations
from data.cache_dir import cache_folder
from data.image import ImageError, verify_image
from data.issues import Issue, refuse
from data.pixels import DECODING_VERSION

MIN_CACHED_IMAGES = 1000  # fewer are decoded again in seconds

Row = tuple[int, int, int, int]
UNUSABLE: Row = (0, 0, 0, 0)


def verify_images(annotations: Annotations, *, strict: bool = False, progress: bool = True) -> Annotations:
    """The annotations without unusable images, which become issues, and with all image sizes known.

    An image whose file size and modification time match an earlier verification is not decoded again.
    Raises ValueError for any issue if `strict`, and if no usable image remains.
    """
    cached, known = None, np.zeros((len(annotations), 4), np.int64)
    if len(annotations) >= MIN_CACHED_IMAGES:
        cached = cache_folder(annotations.source) / f"verified-{DECODING_VERSION}-{annotations.sha256[:32]}.npy"
        known = _read_known(cached, len(annotations))
    title = f"checking images of {os.path.basename(annotations.source)}"
    show = progress and len(annotations) >= 200
    results = list(map_in_threads(lambda i: _examine(annotations, i, known[i]), len(annotations), title, show=show))
    issues = [issue for _, issue in results if issue is not None]
    rows = np.array([row for row, _ in results], np.int64)
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


def _examine(annotations: Annotations, index: int, known: np.ndarray) -> tuple[Row, Issue | None]:
    """(bytes, modification time in ns, width, height) of an image, zeros if it cannot be used, and its issue if any."""
    name, path, where = annotations.file_names[index], annotations.path(index), annotations.record(index)
    try:
        status = os.stat(path)
        if known[2] and (status.st_size, status.st_mtime_ns) == (known[0], known[1]):
            width, height, fault = int(known[2]), int(known[3]), None
        else:
            width, height, fault = verify_image(path)
    except ImageError as error:
        return UNUSABLE, Issue(name, error.kind, error.what, where)
    except OSError as error:
        return UNUSABLE, Issue(name, "missing", f"{path} cannot be read: {error.strerror}", where)
    listed = tuple(annotations.sizes[index].tolist())
    if listed[0] and listed != (width, height):
        what = f"is {width} x {height} pixels after EXIF rotation, the annotation file says {listed[0]} x {listed[1]}"
        return UNUSABLE, Issue(name, "wrong-size", what, where)
    if fault is not None:  # examined again the next time, for its issue
        return (0, 0, width, height), Issue(name, "truncated", fault, where)
    return (status.st_size, status.st_mtime_ns, width, height), None


def _read_known(path: os.PathLike[str], count: int) -> np.ndarray:
    try:
        known = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        known = None
    if not isinstance(known, np.ndarray) or known.shape != (count, 4) or known.dtype != np.int64:
        return np.zeros((count, 4), np.int64)
    return known
