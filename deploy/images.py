"""Images to compare and to quantise by."""

from __future__ import annotations

import numpy as np

from data.annotations import Annotations
from data.image import ImageError, read_image
from data.scenes import draw_image

CHECKED = 8  # images of a comparison


def read_images(annotations: Annotations, count: int = CHECKED) -> list[np.ndarray]:
    """At most `count` images (H, W, 3) uint8 RGB, spread evenly over a split; damaged ones are left out.

    ValueError if none can be read.
    """
    total = len(annotations)
    places = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()
    images = []
    for place in places:
        try:
            images.append(read_image(annotations.path(place)))
        except (ImageError, OSError):
            continue
    if not images:
        raise ValueError(f"{annotations.source}: none of {len(places)} images could be read")
    return images


def draw_images(count: int = CHECKED, side: int = 160) -> list[np.ndarray]:
    """The first validation images (side, side, 3) of the embedded data set, drawn in memory."""
    return [draw_image(side, 0, "val", index)[0] for index in range(count)]
