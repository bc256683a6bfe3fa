"""Anchors for a data set, by k-means with the distance 1 - IoU of box shapes (YOLOv2, arXiv 1612.08242, sec. 2)."""

import numpy as np

MAX_BOXES = 20_000  # a random subset of larger data sets: more hardly change the anchors
RESTARTS = 10  # the best result is kept
MAX_ITERATIONS = 300


def overlaps(sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(n, k) IoU of boxes (n, 2) and anchors (k, 2), given by width and height, with a common centre."""
    inner = np.minimum(sides[:, None], anchors).prod(-1)
    return np.asarray(inner / (sides.prod(-1)[:, None] + anchors.prod(-1) - inner))


def mean_overlap(sides: np.ndarray, anchors: np.ndarray) -> float:
    """The mean over boxes (n, 2) of the IoU with their best anchor (k, 2)."""
    return float(overlaps(sides, anchors).max(1).mean())


def find_anchors(sides: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """`count` anchors (count, 2) for boxes (n, 2) by ascending area; ValueError for fewer distinct shapes than that.

    Initialised by k-means++ (Arthur and Vassilvitskii, 2007).
    """
    sides = np.asarray(sides, np.float64)
    sides = sides[(sides > 0).all(1)]
    shapes = len(np.unique(sides, axis=0))
    if shapes < count:
        raise ValueError(f"{shapes} boxes of distinct width and height; expected at least {count} for {count} anchors")
    random = np.random.default_rng(seed)
    if len(sides) > MAX_BOXES:
        sides = sides[random.choice(len(sides), MAX_BOXES, replace=False)]
    candidates = [_cluster(sides, _start(sides, count, random)) for _ in range(RESTARTS)]
    best = max(candidates, key=lambda anchors: mean_overlap(sides, anchors))
    return best[np.argsort(best.prod(1), kind="stable")]


def _start(sides: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    chosen = [int(random.integers(len(sides)))]
    while len(chosen) < count:
        distance = 1 - overlaps(sides, sides[chosen]).max(1)
        weight = np.maximum(distance, 1e-12) ** 2
        chosen.append(int(random.choice(len(sides), p=weight / weight.sum())))
    return sides[chosen].copy()


def _cluster(sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Lloyd's algorithm: move each anchor to the mean of its boxes until no box changes its anchor."""
    owner = np.full(len(sides), -1)
    for _ in range(MAX_ITERATIONS):
        nearest = overlaps(sides, anchors).argmax(1)
        if (nearest == owner).all():
            break
        owner = nearest
        for number in range(len(anchors)):
            members = sides[owner == number]
            anchors[number] = members.mean(0) if len(members) else anchors[number]
    return anchors
