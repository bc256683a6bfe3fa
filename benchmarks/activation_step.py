"""The cost of Mish in a training step: ``python -m benchmarks.activation_step --rounds 30``.

Times forward, loss, backward and optimiser of one network with different activations and implementations: fused Mish,
fused ReLU, PyTorch's batch norm with F.mish, and no activation. Steps are interleaved in an order that rotates every
round. A ratio is the geometric mean of the ratios within a round, with its 95 % confidence interval (Student's t). The
fraction of time spent in the activation is 1 minus the ratio of the step without activation to the step with it.

On a GPU the table also has the time in which the GPU was busy, from a profile of a few steps: where the step takes
longer, the host is measured. ``--graphed`` adds networks whose forward and backward pass are CUDA graphs.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.step import our_step, random_batch
from comparison.statistics import compare_ratio
from configs.cli import Parser, run_script
from core.allocator import MODERATE, keep_freed_memory
from core.device import pick_device, synchronize
from core.types import Targets
from ops.norm_act import prepare

NETWORKS = {  # name: activation, norm_act
    "mish, fused": ("mish", "fused"),
    "relu, fused": ("relu", "fused"),
    "F.mish, plain": ("mish_torch", "plain"),
    "relu, plain": ("relu", "plain"),
    "identity, plain": ("identity", "plain"),
    "silu, plain": ("silu", "plain"),
}
ON_REQUEST = ("silu, plain",)
GRAPHED = ", graphed"
PAIRS = (
    ("mish, fused", "relu, fused"),
    ("mish, fused", "F.mish, plain"),
    ("mish, fused", "relu, plain"),
    ("mish, fused", "silu, plain"),
    ("identity, plain", "F.mish, plain"),
    (f"mish, fused{GRAPHED}", f"relu, plain{GRAPHED}"),
    (f"mish, fused{GRAPHED}", "mish, fused"),
)
GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of a profile's events
PROFILED = 3  # steps
STRIDE = 32  # of the network
Step = Callable[[Tensor, Targets], None]


def ratio(times: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of the ratios within a round, and its 95 % confidence interval (paired t)."""
    values = {"one": dict(enumerate(times)), "other": dict(enumerate(others))}
    found = compare_ratio(values, baseline="other").differences["one"]
    low, high = found.interval or (math.nan, math.nan)
    return found.estimate, low, high


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write the file if requested."""
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory(MODERATE)
    chosen = prepare(arguments.device)
    device = torch.device(arguments.device)
    options = {"amp": arguments.amp, "channels_last": arguments.channels_last, "compiled": arguments.compiled}
    networks = [(name, False) for name in arguments.networks] + [(name, True) for name in arguments.graphed]
    steps = {}
    for name, graphed in networks:
        act, norm = NETWORKS[name]
        step = our_step(act, arguments, norm_act=norm, graphed=graphed, **options)
        steps[name + GRAPHED * graphed] = step
    images, targets = random_batch(arguments)
    batch = (images.to(device), targets.to(device))
    taken = measure(steps, batch, rounds=arguments.rounds, device=device)
    busy = {name: busy_milliseconds(step, batch) for name, step in steps.items()} if device.type == "cuda" else {}
    ratios = [(one, other, *ratio(taken[one], taken[other])) for one, other in PAIRS if {one, other} <= set(taken)]
    print(f"{chosen.implementation} ({chosen.reason}); {options}")
    print(step_table(taken, busy))
    print("\n| ratio | geometric mean | 95 % CI |\n|---|---|---|")
    for one, other, mean, low, high in ratios:
        print(f"| {one} / {other} | {mean:.3f} | {low:.3f} to {high:.3f} |")
    if "identity, plain" in taken and "F.mish, plain" in taken:
        fraction = 1 - ratio(taken["identity, plain"], taken["F.mish, plain"])[0]
        print(f"\nfraction of the plain step spent in F.mish: {100 * fraction:.0f} %")
    if arguments.json:
        content: dict[str, Any] = {
            "options": options | {key: getattr(arguments, key) for key in ("size", "imgsz", "batch")}
        }
        content["networks"] = {
            name: {"median_ms": statistics.median(times), "min_ms": min(times), "busy_ms": busy.get(name)}
            for name, times in taken.items()
        }
        keys = ("one", "other", "mean", "low", "high")
        content["ratios"] = [dict(zip(keys, each, strict=True)) for each in ratios]
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.activation_step", description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="n", help="model size")
    parser.add_argument("--imgsz", type=int, default=320, help="image size in pixels")
    parser.add_argument("--batch", type=int, default=8, help="batch size")
    usual = [name for name in NETWORKS if name not in ON_REQUEST]
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=usual, metavar="NAME", help="networks to time"
    )
    parser.add_argument(
        "--graphed",
        nargs="+",
        choices=NETWORKS,
        default=[],
        metavar="NAME",
        help="networks to time with CUDA graphs as well",
    )
    parser.add_argument("--rounds", type=int, default=30, help="rounds, after two warm-up rounds")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", default="off", choices=("auto", "off", "bf16", "fp16"))
    parser.add_argument("--compiled", action="store_true", help="run the forward pass through torch.compile")
    parser.add_argument("--channels-last", default="on", choices=("auto", "on", "off"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file")
    arguments = parser.parse_args(argv)
    parser.require_positive(arguments, "rounds", "threads", "batch")
    if arguments.imgsz < 1 or arguments.imgsz % STRIDE:
        parser.error(f"--imgsz: found {arguments.imgsz}, expected a multiple of {STRIDE}")
    if arguments.graphed and (arguments.compiled or not arguments.device.startswith("cuda")):
        raise ValueError("--graphed needs --device cuda, and not --compiled")
    arguments.device = str(pick_device(arguments.device)[0])
    return arguments


def measure(
    steps: Mapping[str, Step], batch: tuple[Tensor, Targets], *, rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Milliseconds of each step in each round, after two warm-up rounds."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds + 2):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            steps[name](*batch)
            synchronize(device)
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: times[2:] for name, times in taken.items()}


def busy_milliseconds(step: Step, batch: tuple[Tensor, Targets]) -> float | None:
    """Time per step in which the GPU worked; None if the profiler saw no work, as without CUPTI."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            step(*batch)
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    milliseconds = 1e-3 * covered(events)
    return milliseconds / PROFILED if milliseconds else None


def covered(events: Iterable[Mapping[str, Any]]) -> float:
    """Microseconds in which at least one kernel or copy of a profile ran, parallel ones counted once."""
    work = (event for event in events if event.get("cat") in GPU_WORK)
    total, end = 0.0, -math.inf
    for start, stop in sorted((event["ts"], event["ts"] + event["dur"]) for event in work):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def step_table(taken: Mapping[str, Sequence[float]], busy: Mapping[str, float | None]) -> str:
    """The steps as a Markdown table, with the time in which a GPU was busy where there is one."""
    lines = ["| network | step, ms (median, minimum) |", "|---|---|"]
    if busy:
        lines = [f"{lines[0]} GPU busy, ms |", f"{lines[1]}---|"]
    for name, times in taken.items():
        line = f"| {name} | {statistics.median(times):.1f}, {min(times):.1f} |"
        if busy:
            line += f" {'unknown' if (found := busy[name]) is None else f'{found:.2f}'} |"
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
