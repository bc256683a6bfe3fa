"""Hue, saturation and value of images by a compiled loop: one pass instead of OpenCV's seven."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import numpy as np

from ops import build
from ops.backend import unsupported


def shift_hsv(image: np.ndarray, gains: tuple[float, float, float]) -> np.ndarray | None:
    """An RGB uint8 image (H, W, 3) whose hue, saturation and value are multiplied by gains of 0 to 2, rounded.

    `image` is RGB (H, W, 3), or (H, W, 4), of which the fourth channel is left out. The hue is a fraction of the colour
    circle and goes round; saturation and value are at most 1. None where no loop is compiled, or only one without
    vectors, which would take longer than OpenCV.
    """
    run = prepare()
    if run is None:
        return None
    height, width, channels = image.shape
    image, out = np.ascontiguousarray(image), np.empty((height, width, 3), np.uint8)
    run(height * width, channels, image.ctypes.data, *gains, out.ctypes.data)
    return out


@functools.cache
def prepare() -> Callable[..., None] | None:
    """The compiled loop, built and loaded on first use; None if there is none."""
    if unsupported("cpu") or build.instruction_set() == "baseline":
        return None
    try:
        run = ctypes.CDLL(str(build.cpu_library())).shift_hsv
    except (build.Unavailable, OSError, AttributeError):
        return None
    run.argtypes = (ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, *(ctypes.c_float,) * 3, ctypes.c_void_p)
    run.restype = None
    return run
