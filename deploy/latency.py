"""Latency of exported files side by side: interleaved in random order, so that a busy moment meets all of them."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

import numpy as np

from deploy.runtime import Runtime

WARMUP = 3  # first runs of each, not counted: allocation, choice of kernels


def measure(runtimes: Mapping[str, Runtime], *, rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """Milliseconds of each runtime for one image of its size, a value per round; warm-up rounds are left out.

    In each round every runtime runs once, in a random order drawn from `seed`. Compare by ratios within a round.
    """
    shapes = {runtime.metadata.imgsz for runtime in runtimes.values()}
    if len(shapes) != 1:
        raise ValueError(f"files of {len(shapes)} image sizes; expected one, to compare their latency")
    image = np.random.default_rng(seed).random((1, 3, *shapes.pop()), dtype=np.float32)
    order, stream = list(runtimes), random.Random(seed)
    found: dict[str, list[float]] = {name: [] for name in runtimes}
    for number in range(WARMUP + rounds):
        stream.shuffle(order)
        for name in order:
            start = time.perf_counter()
            runtimes[name].run(image)
            if number >= WARMUP:
                found[name].append((time.perf_counter() - start) * 1e3)
    return found
