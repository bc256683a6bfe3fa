"""Benchmark of Mish against a copy, ReLU, SiLU and PyTorch's Mish: ``python -m ops.bench``.

All entries of a table are measured in turn, round by round, in one process, and compared within a round: a ratio is the
median over the rounds of the quotient of two times, so that load on the machine affects both equally. Forward is
without gradients; backward is `y.backward(g)` alone. Copy (read 1, write 1) and add (read 2, write 1) are the lower
bounds that memory bandwidth sets for forward and backward. ``--compiled`` adds versions by torch.compile.
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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.mish import Mish, mish
from ops.norm_act import FUSED_TYPES, norm_act, prepare

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
Run = Callable[[], object]
Case = Callable[[], Run]  # does the untimed preparation, returns the timed part


def three_operations(x: Tensor) -> Tensor:
    """Mish as in its definition."""
    return x * torch.tanh(F.softplus(x)).to(x.dtype)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": F.relu,
    "SiLU": F.silu,
    "F.mish": F.mish,
    "x tanh(softplus(x))": three_operations,
    "ops.mish": mish,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write the requested files."""
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
    for name in [key for key in arguments.types if TYPES[key] in FUSED_TYPES.get(device.type, ())]:
        for layout in (torch.contiguous_format, torch.channels_last):
            side = max(arguments.sides)
            x = torch.randn(16, 64, side, side, device=device).to(TYPES[name]).to(memory_format=layout)
            pairs += fused_rows(x, name, arguments.rounds)
    print("\n" + fused_table(pairs), flush=True)
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
    add(
        "--sides",
        nargs="+",
        type=int,
        default=[20, 80],
        help="sizes of the maps (16, 64, side, side); 80: 6.5 M elements",
    )
    add("--rounds", type=int, default=40, help="rounds that count, after a tenth as many for warm-up")
    add("--compiled", action="store_true", help="add versions by torch.compile; compiling takes minutes")
    add("--json", metavar="FILE", help="write the numbers to this file")
    add("--picture", metavar="FILE.png", help="draw the ratios to this file")
    return parser.parse_args(argv)


def machine(device: torch.device) -> str:
    """CPU or GPU, PyTorch version and date in words."""
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
    """Milliseconds of each case in each round, after a tenth as many warm-up rounds."""
    milliseconds_of: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + max(2, rounds // 10)):
        for name, case in cases.items():
            milliseconds_of[name].append(milliseconds(case(), device))
    return {name: times[-rounds:] for name, times in milliseconds_of.items()}


def milliseconds(run: Run, device: torch.device) -> float:
    """Duration of a call, measured by events on a GPU."""
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
    """The median of the quotients of the rounds."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def forward_case(function: Callable[[Tensor], Tensor], x: Tensor) -> Case:
    """The function without gradients."""

    def run() -> None:
        with torch.no_grad():
            function(x)

    return lambda: run


def backward_case(function: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Case:
    """The backward pass of the function alone."""

    def prepared() -> Run:
        y = function(x.detach().requires_grad_())
        return lambda: y.backward(g)

    return prepared


def both_case(function: Callable[[Tensor], Tensor], x: Tensor, g: Tensor) -> Case:
    """Forward and backward pass of the function."""

    def run() -> None:
        function(x.detach().requires_grad_()).backward(g)

    return lambda: run


# --------------------------------------------------------------------------------------------------------- the operator


def operator_rows(x: Tensor, name: str, arguments: argparse.Namespace) -> list[dict[str, float | str]]:
    """Results for one type and size: milliseconds and ratios of each function, forward and backward."""
    functions = dict(FUNCTIONS)
    if arguments.compiled:
        # PyTorch's functions share one entry of the compiler's cache, which counts each type and each use of gradients.
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


def operator_table(rows: Sequence[dict[str, float | str]]) -> str:
    """The results as a Markdown table."""
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


def fused_rows(x: Tensor, name: str, rounds: int) -> list[dict[str, float | str]]:
    """Batch norm and activation in training, forward and backward together, against PyTorch's batch norm and ReLU."""
    norm, g = nn.BatchNorm2d(x.shape[1]).to(x.device), torch.randn_like(x)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "BatchNorm2d, ReLU": lambda z: F.relu(norm(z)),
        "BatchNorm2d, SiLU": lambda z: F.silu(norm(z)),
        "BatchNorm2d, F.mish": lambda z: F.mish(norm(z)),
        "BatchNorm2d, ops.mish": lambda z: mish(norm(z)),
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


def fused_table(rows: Sequence[dict[str, float | str]]) -> str:
    """The results of batch norm and activation as a Markdown table."""
    lines = [
        "| type | layout | modules | forward and backward, ms | by BatchNorm2d, ReLU | by norm_act, ReLU |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        values = f"{row['ms']:.2f} | {row['by_relu']:.2f} | {row['by_fused_relu']:.2f}"
        lines.append(f"| {row['type']} | {row['layout']} | {row['pair']} | {values} |")
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, float | str]], path: Path, *, title: str) -> None:
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
        selected = [row for row in rows if row["type"] == name]
        for key, shift, label in (
            ("forward_by_copy", 0.2, "forward / copy"),
            ("backward_by_add", -0.2, "backward / add"),
        ):
            places = [len(selected) - index + shift for index in range(len(selected))]
            bars = axis.barh(places, [row[key] for row in selected], height=0.36, label=label)
            axis.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        axis.set_yticks(
            [len(selected) - index for index in range(len(selected))], [row["function"] for row in selected]
        )
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title(name)
        axis.set_xlabel("times the copy (forward) or the add (backward)")
        axis.margins(x=0.12)
    axes[0].legend(loc="lower right", fontsize=8)
    figure.suptitle(f"{title}\n{largest:,} elements; 1 is the limit set by memory bandwidth", fontsize=9)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
