"""Anchors for a data set by k-means with the distance 1 - IoU of shapes (YOLOv2, arXiv 1612.08242, sec. 2)."""

import numpy as np

MOST_BOXES = 20_000  # as many are drawn of a larger set: the anchors hardly change beyond it
TRIES = 10  # starts, of which the best counts
MOST_ROUNDS = 300


def overlaps(sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """(n, k) IoU of boxes (n, 2) and anchors (k, 2), width and height, laid upon each other."""
    inner = np.minimum(sides[:, None], anchors).prod(-1)
    return np.asarray(inner / (sides.prod(-1)[:, None] + anchors.prod(-1) - inner))


def mean_overlap(sides: np.ndarray, anchors: np.ndarray) -> float:
    """The mean over boxes (n, 2) of the IoU with the anchor (k, 2) that fits best."""
    return float(overlaps(sides, anchors).max(1).mean())


def find_anchors(sides: np.ndarray, count: int, *, seed: int = 0) -> np.ndarray:
    """`count` anchors (count, 2) for boxes (n, 2), by rising area; ValueError where there are fewer shapes than that.

    Starts are drawn as by k-means++ (Arthur and Vassilvitskii 2007), each by its distance from those before it.
    """
    sides = np.asarray(sides, np.float64)
    sides = sides[(sides > 0).all(1)]
    shapes = len(np.unique(sides, axis=0))
    if shapes < count:
        raise ValueError(f"{shapes} boxes of different width and height, expected at least {count} for as many anchors")
    random = np.random.default_rng(seed)
    if len(sides) > MOST_BOXES:
        sides = sides[random.choice(len(sides), MOST_BOXES, replace=False)]
    found = [_cluster(sides, _start(sides, count, random)) for _ in range(TRIES)]
    best = max(found, key=lambda anchors: mean_overlap(sides, anchors))
    return best[np.argsort(best.prod(1), kind="stable")]


def _start(sides: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    chosen = [int(random.integers(len(sides)))]
    while len(chosen) < count:
        distance = 1 - overlaps(sides, sides[chosen]).max(1)
        weight = np.maximum(distance, 1e-12) ** 2
        chosen.append(int(random.choice(len(sides), p=weight / weight.sum())))
    return sides[chosen].copy()


def _cluster(sides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Lloyd's rounds until no box changes its anchor: each anchor becomes the mean of its boxes."""
    owner = np.full(len(sides), -1)
    for _ in range(MOST_ROUNDS):
        nearest = overlaps(sides, anchors).argmax(1)
        if (nearest == owner).all():
            break
        owner = nearest
        for number in range(len(anchors)):
            own = sides[owner == number]
            anchors[number] = own.mean(0) if len(own) else anchors[number]
    return anchors
