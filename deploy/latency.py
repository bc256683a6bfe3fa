"""Latency and memory of exported files: latency side by side, so that a busy moment meets all of them."""

from __future__ import annotations

import importlib
import multiprocessing
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from deploy.runtime import Runtime, open_runtime

WARMUP = 3  # first rounds, not counted: allocation, choice of kernels
MEMORY_RUNS = 3  # after which a runtime has allocated what it needs


def measure(
    runtimes: Mapping[str, Runtime],
    *,
    rounds: int,
    block: int = 1,
    seed: int = 0,
    end_of_round: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Milliseconds of each runtime for one image of its size, a value per round; warm-up rounds are left out.

    In each round every runtime has one turn, in a random order drawn from `seed`: a run that is not timed, as the one
    before it left the caches full of its own weights, and the mean of `block` runs. Compare by ratios within a round.
    """
    draw = np.random.default_rng(seed)
    shapes = dict.fromkeys(runtime.metadata.imgsz for runtime in runtimes.values())
    images = {shape: draw.random((1, 3, *shape), dtype=np.float32) for shape in shapes}
    order, stream = list(runtimes), random.Random(seed)
    found: dict[str, list[float]] = {name: [] for name in runtimes}
    for number in range(WARMUP + rounds):
        stream.shuffle(order)
        for name in order:
            runtime, image = runtimes[name], images[runtimes[name].metadata.imgsz]
            runtime.run(image)
            start = time.perf_counter()
            for _ in range(block):
                runtime.run(image)
            if number >= WARMUP:
                found[name].append((time.perf_counter() - start) * 1e3 / block)
        end_of_round()
    return found


def peak_memory_mib(path: Path, *, threads: int) -> float:
    """Peak memory in MiB that loading a file and running it on one image adds to a process with the library loaded.

    Measured in a fresh process. They are forked from one that has PyTorch loaded, which takes seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deploy.runtime", "engine.machine"])
    with context.Pool(1) as pool:
        return pool.apply(_peak, (path, threads))


def _peak(path: Path, threads: int) -> float:
    import torch

    from deploy.targets import find_target, module_of, target_of
    from engine.machine import PeakMemory

    name = target_of(path) or ""
    module_of(name)
    for library in find_target(name).runtime or ():
        importlib.import_module(library)
    memory = PeakMemory(torch.device("cpu"))
    runtime = open_runtime(path, threads=threads)
    image = np.zeros((1, 3, *runtime.metadata.imgsz), np.float32)
    for _ in range(MEMORY_RUNS):
        runtime.run(image)
    return memory.mib()
