"""The cost of Mish in a training step: ``python -m benchmarks.activation_step --rounds 30``.

Times forward, loss, backward and optimiser of one network with different activations and implementations: fused Mish,
fused ReLU, PyTorch's batch norm with F.mish, and no activation. Steps are interleaved in an order that rotates every
round. A ratio is the geometric mean of the ratios within a round, with its 95 % confidence interval (Student's t). The
fraction of time spent in the activation is 1 minus the ratio of the step without activation to the step with it.
"""

import argparse
import math
import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.step import our_step, random_batch
from comparison.statistics import compare_ratio
from configs.cli import run_script
from ops.norm_act import prepare

NETWORKS = {  # name: activation, norm_act
    "mish, fused": ("mish", "fused"),
    "relu, fused": ("relu", "fused"),
    "F.mish, plain": ("mish_torch", "plain"),
    "relu, plain": ("relu", "plain"),
    "identity, plain": ("identity", "plain"),
}
PAIRS = (
    ("mish, fused", "relu, fused"),
    ("mish, fused", "F.mish, plain"),
    ("mish, fused", "relu, plain"),
    ("identity, plain", "F.mish, plain"),
)


def ratio(times: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of the ratios within a round, and its 95 % confidence interval (paired t)."""
    values = {"one": dict(enumerate(times)), "other": dict(enumerate(others))}
    found = compare_ratio(values, baseline="other").differences["one"]
    low, high = found.interval or (math.nan, math.nan)
    return found.estimate, low, high


def main() -> int:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="n", help="model size")
    parser.add_argument("--imgsz", type=int, default=320, help="image size in pixels")
    parser.add_argument("--batch", type=int, default=8, help="batch size")
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME", help="networks to time"
    )
    parser.add_argument("--rounds", type=int, default=30, help="rounds, after two warm-up rounds")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", default="off", choices=("auto", "off", "bf16", "fp16"))
    parser.add_argument("--compiled", action="store_true", help="run the forward pass through torch.compile")
    parser.add_argument("--channels-last", default="on", choices=("auto", "on", "off"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    chosen = prepare(arguments.device)
    options = {"amp": arguments.amp, "channels_last": arguments.channels_last, "compiled": arguments.compiled}
    networks = {name: NETWORKS[name] for name in arguments.networks}
    steps = {name: our_step(act, arguments, norm_act=norm, **options) for name, (act, norm) in networks.items()}
    batch = random_batch(arguments)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(arguments.rounds + 2):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            steps[name](*batch)
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            taken[name].append(1e3 * (time.perf_counter() - start))
    taken = {name: times[2:] for name, times in taken.items()}
    print(f"{chosen.implementation} ({chosen.reason}); {options}")
    print("| network | step, ms (median, minimum) |\n|---|---|")
    for name, times in taken.items():
        print(f"| {name} | {statistics.median(times):.1f}, {min(times):.1f} |")
    print("\n| ratio | geometric mean | 95 % CI |\n|---|---|---|")
    for one, other in (pair for pair in PAIRS if all(name in taken for name in pair)):
        mean, low, high = ratio(taken[one], taken[other])
        print(f"| {one} / {other} | {mean:.3f} | {low:.3f} to {high:.3f} |")
    if "identity, plain" in taken and "F.mish, plain" in taken:
        fraction = 1 - ratio(taken["identity, plain"], taken["F.mish, plain"])[0]
        print(f"\nfraction of the plain step spent in F.mish: {100 * fraction:.0f} %")
    return 0


if __name__ == "__main__":
    run_script(main)
