"""What Mish costs beside a copy, ReLU, SiLU and PyTorch's own Mish: ``python -m ops.bench``.

Everything of a table is measured in turn, round after round, in one process, and compared within its round: a ratio is
the median over the rounds of the quotient of two times of one round. So a busy machine disturbs both of a pair alike.
Forward is without gradients; backward is `y.backward(g)` alone. Copy (read 1, write 1) and add (read 2, write 1) are
the least that the memory allows for forward and backward. ``--compiled`` has torch.compile's versions too.
"""

import argparse
import datetime
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.mish import Mish, mish
from ops.norm_act import FUSED_TYPES, norm_act, prepare

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
Run = Callable[[], object]
Case = Callable[[], Run]  # prepares what is not timed, returns what is


def three_operations(x: Tensor) -> Tensor:
    """Mish as its definition reads."""
    return x * torch.tanh(F.softplus(x)).to(x.dtype)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": F.relu,
    "SiLU": F.silu,
    "F.mish": F.mish,
    "x tanh(softplus(x))": three_operations,
    "ops.mish": mish,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write them and the picture where asked to."""
    arguments = parse(argv)
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    chosen = prepare(device)
    print(f"{machine(device)}; {torch.get_num_threads()} threads; {chosen.implementation} ({chosen.reason})\n")
    rows = []
    for name in arguments.types:
        for side in arguments.sides:
            x = torch.randn(16, 64, side, side, device=device).to(TYPES[name])
            rows += operator_rows(x, name, arguments)
    print(operator_table(rows), flush=True)
    pairs = []
    for name in [each for each in arguments.types if TYPES[each] in FUSED_TYPES.get(device.type, ())]:
        for layout in (torch.contiguous_format, torch.channels_last):
            side = max(arguments.sides)
            x = torch.randn(16, 64, side, side, device=device).to(TYPES[name]).to(memory_format=layout)
            pairs += pair_rows(x, name, arguments.rounds)
    print("\n" + pair_table(pairs), flush=True)
    if arguments.json:
        content = {"machine": machine(device), "threads": arguments.threads, "mish": vars(chosen), "rows": rows}
        Path(arguments.json).write_text(json.dumps(content | {"pairs": pairs}, indent=1) + "\n", encoding="utf-8")
    if arguments.picture:
        draw(rows, Path(arguments.picture), title=machine(device))
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--types", nargs="+", choices=TYPES, default=["fp32", "bf16", "fp16"])
    add("--sides", nargs="+", type=int, default=[20, 80], help="of the maps (16, 64, side, side); 80: 6.5 M elements")
    add("--rounds", type=int, default=40, help="the first tenth does not count")
    add("--compiled", action="store_true", help="torch.compile's versions too; compiling takes minutes")
    add("--json", metavar="FILE", help="write the numbers there")
    add("--picture", metavar="FILE.png", help="draw the ratios there")
    return parser.parse_args(argv)


def machine(device: torch.device) -> str:
    """Processor or GPU, PyTorch and date in words."""
    name = platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
        name += f" ({torch.backends.cpu.get_cpu_capability()})"
    return f"{name}, PyTorch {torch.__version__}, {datetime.date.today()}"


# ------------------------------------------------------------------------------------------------------------ measuring


def measure(cases: dict[str, Case], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of each case in each round, after a tenth of the rounds that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + max(2, rounds // 10)):
        for name, case in cases.items():
            taken[name].append(milliseconds(case(), device))
    return {name: times[-rounds:] for name, times in taken.items()}


def milliseconds(run: Run, device: torch.device) -> float:
    """How long a call takes, on the device's own clock where it has one."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    torch.cuda.synchronize(device)
    events[0].record()
    run()
    events[1].record()
    torch.cuda.synchronize(device)
    return events[0].elapsed_time(events[1])


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median of the quotients of one round each."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def forward_case(function: Callable[[Tensor], Tensor], x: Tensor) -> Case:
    """Times the function without gradients."""

    def run() -> None:
        with torch.no_grad():
            function(x)

    return lambda: run


def backward_case(function: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Case:
    """Times the backward pass of the function alone."""

    def prepared() -> Run:
        y = function(x.detach().requires_grad_())
        return lambda: y.backward(g)

    return prepared


def both_case(function: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Case:
    """Times forward and backward together."""

    def run() -> None:
        function(x.detach().requires_grad_()).backward(g)

    return lambda: run


# --------------------------------------------------------------------------------------------------------- the operator


def operator_rows(x: Tensor, name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of one type and size: milliseconds and ratios of each function, forward and backward."""
    functions = dict(FUNCTIONS)
    if arguments.compiled:
        # PyTorch's own functions share one entry of the compiler's cache: each type and each use of gradients counts.
        torch._dynamo.config.recompile_limit = 100
        for key in ("ReLU", "SiLU", "F.mish", "ops.mish"):
            functions[f"{key}, compiled"] = torch.compile(FUNCTIONS[key], fullgraph=True, dynamic=False)
    g, out = torch.randn_like(x), torch.empty_like(x)
    forward: dict[str, Case] = {"copy": lambda: lambda: out.copy_(x)}
    backward: dict[str, Case] = {"copy": lambda: lambda: torch.add(x, g, out=out)}
    for key, function in functions.items():
        forward[key] = forward_case(function, x)
        backward[key] = backward_case(function, x, g)
    fore, back = (measure(cases, arguments.rounds, x.device) for cases in (forward, backward))
    return [
        {
            "type": name,
            "elements": x.numel(),
            "function": "copy / add" if key == "copy" else key,
            "forward_ms": statistics.median(fore[key]),
            "forward_by_copy": ratio(fore[key], fore["copy"]),
            "forward_gain": ratio(fore["F.mish"], fore[key]),
            "backward_ms": statistics.median(back[key]),
            "backward_by_add": ratio(back[key], back["copy"]),
            "backward_gain": ratio(back["F.mish"], back[key]),
        }
        for key in fore
    ]


def operator_table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures as a table in Markdown."""
    lines = [
        "| type | elements | function | forward, ms | by copy | F.mish takes | backward, ms | by add | F.mish takes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        fore = f"{row['forward_ms']:.3f} | {row['forward_by_copy']:.2f} | {row['forward_gain']:.2f}x"
        back = f"{row['backward_ms']:.3f} | {row['backward_by_add']:.2f} | {row['backward_gain']:.2f}x"
        lines.append(f"| {row['type']} | {row['elements']:,} | {row['function']} | {fore} | {back} |")
    return "\n".join(lines)


# -------------------------------------------------------------------------------------------- batch norm and activation


def pair_rows(x: Tensor, name: str, rounds: int) -> list[dict[str, Any]]:
    """Batch norm and activation in training, forward and backward together, against PyTorch's batch norm and ReLU."""
    norm, g = nn.BatchNorm2d(x.shape[1]).to(x.device), torch.randn_like(x)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "BatchNorm2d, ReLU": lambda each: F.relu(norm(each)),
        "BatchNorm2d, SiLU": lambda each: F.silu(norm(each)),
        "BatchNorm2d, F.mish": lambda each: F.mish(norm(each)),
        "BatchNorm2d, ops.mish": lambda each: mish(norm(each)),
    }
    for act in (nn.ReLU(), nn.SiLU(), nn.LeakyReLU(0.1), Mish()):
        functions[f"norm_act, {type(act).__name__}"] = partial(norm_act, norm=norm, act=act)
    taken = measure({key: both_case(function, x, g) for key, function in functions.items()}, rounds, x.device)
    layout = "contiguous" if x.is_contiguous() else "channels_last"
    return [
        {
            "type": name,
            "layout": layout,
            "pair": key,
            "ms": statistics.median(times),
            "by_relu": ratio(times, taken["BatchNorm2d, ReLU"]),
            "by_fused_relu": ratio(times, taken["norm_act, ReLU"]),
        }
        for key, times in taken.items()
    ]


def pair_table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures of the pairs as a table in Markdown."""
    lines = [
        "| type | layout | batch norm and activation | both ways, ms | by BatchNorm2d, ReLU | by norm_act, ReLU |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = f"{row['ms']:.2f} | {row['by_relu']:.2f} | {row['by_fused_relu']:.2f}"
        lines.append(f"| {row['type']} | {row['layout']} | {row['pair']} | {figures} |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]], path: Path, *, title: str) -> None:
    """Bars of the largest size: forward by copy and backward by add, for each type and function."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    largest = max(row["elements"] for row in rows)
    rows = [row for row in rows if row["elements"] == largest and row["function"] != "copy / add"]
    types = list(dict.fromkeys(row["type"] for row in rows))
    figure = Figure(figsize=(4 * len(types) + 2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(types), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, types, strict=True):
        own = [row for row in rows if row["type"] == name]
        for key, shift, label in (
            ("forward_by_copy", 0.2, "forward / copy"),
            ("backward_by_add", -0.2, "backward / add"),
        ):
            places = [len(own) - index + shift for index in range(len(own))]
            bars = axis.barh(places, [row[key] for row in own], height=0.36, label=label)
            axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        axis.set_yticks([len(own) - index for index in range(len(own))], [row["function"] for row in own])
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title(name)
        axis.set_xlabel("times the copy (forward) or the add (backward)")
        axis.margins(x=0.12)
    axes[0].legend(loc="lower right", fontsize=8)
    figure.suptitle(f"{title}\n{largest:,} elements; 1 is what the memory allows", fontsize=9)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
