"""Training images held out for choosing settings, so that no choice sees the validation images."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from data.annotations import Annotations

SALT = "holdout"  # the seed of the rule


def hold_out(annotations: Annotations, fraction: float) -> tuple[Annotations, Annotations]:
    """The images to train on and those held out, `fraction` of them but at least one of each.

    The rule is fixed: the images whose file names have the smallest SHA-256, whatever their order in the file and the
    seed of the run. ValueError for fewer than two images.
    """
    count = len(annotations)
    if count < 2:
        raise ValueError(f"{annotations.source}: found {count} images, expected two or more to hold some out")
    held = min(count - 1, max(1, round(fraction * count)))
    ranks = sorted(range(count), key=lambda index: _digest(annotations.file_names[index]))
    parts = {"rest": annotations.without(ranks[:held]), "held out": annotations.without(np.array(ranks[held:]))}
    rest, held_out = (
        replace(part, sha256=hashlib.sha256(f"{annotations.sha256} {fraction!r} {name}".encode()).hexdigest())
        for name, part in parts.items()
    )
    return rest, held_out


def _digest(name: str) -> bytes:
    return hashlib.sha256(f"{SALT} {name}".encode("utf-8", "surrogatepass")).digest()
