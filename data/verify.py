"""Every image is decoded to its end before a training starts: what is skipped never depends on workers' timing."""

from __future__ import annotations

import contextlib
import os
import zipfile
from dataclasses import replace

import numpy as np

from core.files import replacing
from core.progress import map_in_threads
from data.annotations import Annotations
from data.cache_dir import cache_folder, content_hash
from data.image import ImageError, verify_image
from data.issues import Issue, refuse

SMALLEST_CACHED = 1000  # images; fewer are decoded again in seconds


def verify_images(annotations: Annotations, *, strict: bool = False, progress: bool = True) -> Annotations:
    """The annotations without the images that cannot be used, each in the ledger, and with all sizes known.

    An image whose size and modification time are those of an earlier verification is not decoded again.
    Raises ValueError where `strict` and there is a problem, or where no usable image is left.
    """
    cached, known = None, np.zeros((len(annotations), 4), np.int64)
    if len(annotations) >= SMALLEST_CACHED:
        cached = cache_folder(annotations.json_path) / f"verified-{content_hash(annotations.json_path)[:32]}.npy"
        known = _read_known(cached, len(annotations))
    title = f"checking images of {os.path.basename(annotations.json_path)}"
    show = progress and len(annotations) >= 200
    results = list(map_in_threads(lambda i: _examine(annotations, i, known[i]), len(annotations), title, show=show))
    issues = [each for each in results if isinstance(each, Issue)]
    rows = np.array([[0, 0, 0, 0] if isinstance(each, Issue) else each for each in results], np.int64)
    outside = _outside(annotations, rows[:, 2:])
    issues += outside.values()
    if strict:
        refuse([*annotations.issues, *issues])
    if cached is not None and not np.array_equal(rows, known):
        with contextlib.suppress(OSError), replacing(cached) as file:
            np.save(file, rows)
    bad = [index for index, each in enumerate(results) if isinstance(each, Issue)]
    if len(bad) == len(annotations):
        raise ValueError(
            f"{annotations.image_folder}: none of the {len(annotations)} images that {annotations.json_path} lists can "
            f"be used, expected at least one; the first: {issues[0]}"
        )
    sized = replace(annotations, sizes=rows[:, 2:].astype(np.int32), issues=[*annotations.issues, *issues])
    if outside:
        sized = sized.without_boxes(list(outside))
    return sized.without(bad) if bad else sized


def _outside(annotations: Annotations, sizes: np.ndarray) -> dict[int, Issue]:
    """Boxes that do not touch their image, by row, where the annotation file did not say how large the image is.

    `sizes` (N, 2): width and height as found, 0 for images that cannot be used.
    """
    image = np.repeat(np.arange(len(annotations)), np.diff(annotations.starts))
    limits = sizes[image]
    low, high = annotations.boxes[:, :2], annotations.boxes[:, :2] + annotations.boxes[:, 2:]
    unsaid = (annotations.sizes[image, 0] == 0) & (limits[:, 0] > 0)
    found = {}
    for row in np.flatnonzero(unsaid & ((low >= limits) | (high <= 0)).any(axis=1)).tolist():
        index, (width, height) = int(image[row]), limits[row].tolist()
        what = f"box {annotations.boxes[row].tolist()} does not touch its image of {width} x {height} pixels"
        found[row] = Issue(annotations.file_names[index], "outside", what, _place(annotations, index))
    return found


def _place(annotations: Annotations, index: int) -> str:
    return f"{os.path.basename(annotations.json_path)}, image id {annotations.image_id(index)!r}"


def _examine(annotations: Annotations, index: int, known: np.ndarray) -> Issue | tuple[int, int, int, int]:
    """(bytes, modification time in ns, width, height) of a good image, or its problem."""
    name, path = annotations.file_names[index], annotations.path(index)
    where = _place(annotations, index)
    try:
        status = os.stat(path)
        if known[2] and (status.st_size, status.st_mtime_ns) == (known[0], known[1]):
            width, height = int(known[2]), int(known[3])
        else:
            width, height = verify_image(path)
    except ImageError as error:
        return Issue(name, error.kind, error.what, where)
    except OSError as error:
        return Issue(name, "missing", f"{path} cannot be read: {error.strerror}", where)
    listed = tuple(int(side) for side in annotations.sizes[index])
    if listed[0] and listed != (width, height):
        what = f"is {width} x {height} pixels upright, the annotation file says {listed[0]} x {listed[1]}"
        return Issue(name, "wrong-size", what, where)
    return status.st_size, status.st_mtime_ns, width, height


def _read_known(path: os.PathLike[str], count: int) -> np.ndarray:
    try:
        known = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        known = None
    if not isinstance(known, np.ndarray) or known.shape != (count, 4) or known.dtype != np.int64:
        return np.zeros((count, 4), np.int64)
    return known
