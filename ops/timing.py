"""Timing of short calls: single calls on a CPU, replayed CUDA graphs on a GPU, and the host's share by itself.

On a GPU, events around one call on an idle stream measure the host, which takes longer than the kernel up to tens of
millions of elements. Calls are therefore captured into a graph, each with its own set of tensors, all sets together
larger than the L2 cache, and a replay of the graph is timed while another one keeps the GPU busy.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
BATCH = 16
Row = dict[str, float | str]  # of a table
Run = Callable[[], object]
Case = Callable[[int], Run]  # prepares a call with the tensors of this number, untimed, and returns the timed part

ROTATED_BYTES = 512 << 20  # of each operand over all sets: several times the largest L2 cache (96 MB on an RTX 4090)
MAX_SETS = 64
HOST_CALLS, HOST_REPEATS = 200, 5


def noise(name: str, channels: int, side: int, *, device: torch.device) -> Tensor:
    """Standard normal values (16, channels, side, side) of a type."""
    return torch.randn(BATCH, channels, side, side, device=device).to(TYPES[name])


def gb_per_s(x: Tensor, passes: int, milliseconds: float) -> float:
    """Bandwidth in GB/s of a call that reads and writes as many bytes as `passes` tensors like x."""
    return passes * x.numel() * x.element_size() / milliseconds / 1e6


def rotated(x: Tensor) -> list[Tensor]:
    """The tensor and as many copies as one graph rotates over; on a CPU the tensor alone."""
    if x.device.type != "cuda":
        return [x]
    count = min(MAX_SETS, max(2, -(-ROTATED_BYTES // (x.numel() * x.element_size()))))
    return [x, *(x.clone() for _ in range(count - 1))]


def measure(cases: Mapping[str, Case], rounds: int, device: torch.device, *, sets: int = 1) -> dict[str, list[float]]:
    """Milliseconds of one call of each case in each round, after a tenth as many warm-up rounds.

    `sets`: the number of sets of tensors that the cases can be prepared with; only a GPU uses more than the first.
    """
    timers = _graphs(cases, device, sets) if device.type == "cuda" else {name: _single(cases[name]) for name in cases}
    milliseconds_of: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds + max(2, rounds // 10)):
        for name, timer in timers.items():
            milliseconds_of[name].append(timer())
    return {name: times[-rounds:] for name, times in milliseconds_of.items()}


def _single(case: Case) -> Callable[[], float]:
    """A timer of single calls on the CPU, in milliseconds."""

    def timer() -> float:
        run = case(0)
        start = time.perf_counter()
        result = run()
        taken = time.perf_counter() - start
        del result  # freed here, not in the time taken
        return 1e3 * taken

    return timer


def _graphs(cases: Mapping[str, Case], device: torch.device, sets: int) -> dict[str, Callable[[], float]]:
    """A timer of each case in milliseconds per call, by replays of one graph with a call for each set of tensors."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        # Graphs of one pool reuse each other's results, which nobody reads: else all cases' results exist at once.
        pool = torch.cuda.graph_pool_handle()
        return {name: _graph(case, stream, pool, sets) for name, case in cases.items()}


def _graph(case: Case, stream: torch.cuda.Stream, pool: Any, sets: int) -> Callable[[], float]:
    with torch.cuda.stream(stream):  # autograd runs a backward pass in the stream of its forward pass
        case(0)()  # loads and builds, which is forbidden during capture
        runs = [case(number) for number in range(sets)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream):
        results = [run() for run in runs]  # all alive at once, so that no two calls write to the same memory
    del results
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def timer(runs: Sequence[Run] = runs) -> float:  # holds the tensors that the graph reads
        with torch.cuda.stream(stream):
            graph.replay()  # the host is ahead of the GPU when it records the events
            before.record()
            graph.replay()
            after.record()
        after.synchronize()
        return before.elapsed_time(after) / len(runs)

    return timer


def host_microseconds(case: Case, device: torch.device) -> float:
    """Host time of a call in microseconds, the best of several series that do not wait for the GPU.

    For a case with small tensors, so that no queue fills up. On a CPU the call itself is included.
    """
    best = float("inf")
    for _ in range(HOST_REPEATS):
        runs = [case(0) for _ in range(HOST_CALLS)]
        _synchronize(device)
        start = time.perf_counter()
        for run in runs:
            run()
        best = min(best, time.perf_counter() - start)
        _synchronize(device)
    return 1e6 * best / HOST_CALLS


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median of the quotients of the rounds."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))
