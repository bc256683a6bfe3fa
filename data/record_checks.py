"""Checks of single annotation records, shared by all readers; faults are (kind, what) as in data.issues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np

from data.limits import MAX_COORDINATE

Fault = tuple[str, str]


def box_fault(box: Sequence[float], size: tuple[int, int]) -> Fault | None:
    """What is wrong with a box (left, top, width, height) of an image of `size` (width, height; 0 if unknown)."""
    if len(box) != 4:
        return "bad-box", f"a box of {len(box)} numbers, expected left, top, width, height"
    left, top, width, height = box
    most = MAX_COORDINATE  # compared so that NaN and infinity fail
    if not (abs(left) <= most and abs(top) <= most and 0 < width <= most and 0 < height <= most):
        return "bad-box", f"box {list(box)}, expected finite numbers with width and height above 0"
    image_width, image_height = size
    beside = image_width and (left >= image_width or left + width <= 0)
    if beside or (image_height and (top >= image_height or top + height <= 0)):
        return "outside", f"box {list(box)} does not overlap its image of {image_width} x {image_height} pixels"
    return None


def are_sound(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n,) whether `box_fault` finds nothing in boxes (n, 4) of images of `sizes` (n, 2)."""
    low, sides, most = boxes[:, :2], boxes[:, 2:], MAX_COORDINATE
    finite = (np.abs(low) <= most) & (sides > 0) & (sides <= most)
    beside = (sizes > 0) & ((low >= sizes) | (low + sides <= 0))
    return (finite & ~beside).all(axis=1)


def is_encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8; JSON may contain lone surrogates, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def stays_inside(name: str) -> bool:
    """Whether a file name is relative and contains no `..`, by the rules of POSIX and of Windows."""
    if not PurePosixPath(name).parts or "\0" in name:
        return False
    windows = PureWindowsPath(name)
    if windows.drive or windows.root or PurePosixPath(name).is_absolute():
        return False
    return ".." not in PurePosixPath(name).parts and ".." not in windows.parts
