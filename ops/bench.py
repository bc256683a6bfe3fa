"""Benchmark of Mish against a copy, ReLU, SiLU and PyTorch's Mish: ``python -m ops.bench``.

All entries of a table are measured in turn, round by round, in one process, and compared within a round: a ratio is the
median over the rounds of the quotient of two times, so that load on the machine affects both equally. Forward is
without gradients; backward is the backward pass alone. Copy (read 1, write 1) and add (read 2, write 1) are the lower
bounds that memory bandwidth sets for forward and backward; GB/s counts these bytes. ``host`` is the time of a call on
small tensors: on a GPU what Python and PyTorch take, since nothing waits for the GPU. ``--compiled`` adds versions by
torch.compile, ``--passes`` the four parts of the fused batch norm and activation.
"""

import argparse
import datetime
import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from core.allocator import MODERATE, keep_freed_memory
from core.device import pick_device
from core.text import one_line
from ops.backend import forced
from ops.mish import mish
from ops.norm_act import FUSED_TYPES, prepare
from ops.norm_act_bench import fused_rows, fused_table, norm_inputs, pass_rows, pass_table
from ops.timing import BATCH, TYPES, Case, Row, Run, gb_per_s, host_microseconds, measure, noise, ratio, rotated

CHANNELS = 64
SIDES = {"cpu": [20, 80], "cuda": [99, 312, 625]}  # 0.4 and 6.6 M elements; 1e7, 1e8 and 4e8
PICTURES = (".png", ".svg", ".pdf")
FORWARD_BYTES, BACKWARD_BYTES = 2, 3  # reads and writes of each element, in elements


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
    """Measure, print the tables, and write the requested files; returns 2 for wrong input, with one line on stderr."""
    arguments = parse(argv)
    try:
        device = check(arguments)
    except (ValueError, OSError) as error:
        print(f"ops.bench: error: {one_line(error)}", file=sys.stderr)
        return 2
    torch.set_num_threads(arguments.threads)
    keep_freed_memory(MODERATE)  # as val.py and detect.py
    sides = arguments.sides or SIDES.get(device.type, SIDES["cpu"])
    chosen = prepare(device)
    print(f"{machine(device)}; {torch.get_num_threads()} threads; {chosen.implementation} ({chosen.reason})\n")
    content = {"machine": machine(device), "threads": arguments.threads, "mish": vars(chosen)}
    rows: list[Row] = []
    pairs: list[Row] = []
    passes: list[Row] = []

    def write() -> None:  # after every table: a run that is stopped keeps what it has measured
        if arguments.json:
            text = json.dumps(content | {"rows": rows, "pairs": pairs, "passes": passes}, indent=1)
            Path(arguments.json).write_text(text + "\n", encoding="utf-8")

    for name in arguments.types:
        for side in sides:
            rows += operator_rows(noise(name, CHANNELS, side, device=device), name, arguments)
            write()
    print(operator_table(rows), flush=True)
    fused = [name for name in arguments.types if TYPES[name] in FUSED_TYPES.get(device.type, ())]
    for x, name in norm_inputs(fused, (CHANNELS, max(sides)), device=device):
        pairs += fused_rows(x, name, arguments.rounds)
        write()
    print("\n" + fused_table(pairs), flush=True)
    if arguments.passes:
        for x, name in norm_inputs(fused, (CHANNELS, max(sides)), device=device):
            passes += pass_rows(x, name, arguments.rounds)
            write()
        print("\n" + pass_table(passes), flush=True)
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
        help=f"sizes of the maps ({BATCH}, {CHANNELS}, side, side); default: 20 80 (6.5 M elements), on a GPU 99 312 "
        "625 (10, 100, 400 M)",
    )
    add("--rounds", type=int, default=40, help="rounds that count, after a tenth as many for warm-up")
    add("--compiled", action="store_true", help="add versions by torch.compile; compiling takes minutes")
    add("--passes", action="store_true", help="add the parts of the fused batch norm and activation")
    add("--json", metavar="FILE", help="write the numbers to this file")
    add("--picture", metavar="FILE.png", help="draw the ratios to this file")
    return parser.parse_args(argv)


def check(arguments: argparse.Namespace) -> torch.device:
    """The device, with a GPU's number; ValueError or OSError for impossible options, before anything is measured."""
    forced()
    device, _ = pick_device(arguments.device)
    numbers = {"--threads": [arguments.threads], "--rounds": [arguments.rounds], "--sides": arguments.sides or []}
    for flag, values in numbers.items():
        if any(value < 1 for value in values):
            raise ValueError(f"{flag}: found {min(values)}, expected 1 or more")
    if arguments.picture and not arguments.picture.lower().endswith(PICTURES):
        raise ValueError(f"--picture {arguments.picture}: expected a name that ends in {', '.join(PICTURES)}")
    for path in filter(None, (arguments.json, arguments.picture)):
        with open(path, "ab"):  # a file that is there stays as it is
            pass
    return device


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


# --------------------------------------------------------------------------------------------------------------- cases


def forward_case(function: Callable[[Tensor], Tensor], xs: Sequence[Tensor]) -> Case:
    """The function without gradients."""

    def prepared(number: int) -> Run:
        def run() -> Tensor:
            with torch.no_grad():
                return function(xs[number])

        return run

    return prepared


def backward_case(function: Callable[[Tensor], Tensor], xs: Sequence[Tensor], gs: Sequence[Tensor]) -> Case:
    """The backward pass of the function alone."""

    def prepared(number: int) -> Run:
        x = xs[number].detach().requires_grad_()
        y = function(x)
        # A graph reads the saved tensors at every replay.
        return partial(torch.autograd.grad, y, x, gs[number], retain_graph=True)

    return prepared


# --------------------------------------------------------------------------------------------------------- the operator


def operator_rows(x: Tensor, name: str, arguments: argparse.Namespace) -> list[Row]:
    """Results for one type and size: milliseconds, GB/s, ratios and host time of each function and direction."""
    functions = dict(FUNCTIONS)
    if arguments.compiled:
        # PyTorch's functions share one entry of the compiler's cache, which counts each type and each use of gradients.
        torch._dynamo.config.recompile_limit = 100
        torch._functorch.config.donated_buffer = False  # it refuses retain_graph
        for key in ("ReLU", "SiLU", "F.mish", "ops.mish"):
            functions[f"{key}, compiled"] = torch.compile(FUNCTIONS[key], fullgraph=True, dynamic=False)
    xs = rotated(x)
    forward, backward = operator_cases(functions, xs)
    fore, back = (measure(cases, arguments.rounds, x.device, sets=len(xs)) for cases in (forward, backward))
    small = operator_cases(functions, [x.flatten()[:1024].clone()])
    fore_host, back_host = ({key: host_microseconds(case, x.device) for key, case in cases.items()} for cases in small)
    rows: list[Row] = []
    for key in fore:
        fore_ms, back_ms = statistics.median(fore[key]), statistics.median(back[key])
        row: Row = {"type": name, "elements": x.numel(), "function": "copy / add" if key == "copy" else key}
        row |= {"forward_ms": fore_ms, "forward_gb_per_s": gb_per_s(x, FORWARD_BYTES, fore_ms)}
        row |= {"forward_by_copy": ratio(fore[key], fore["copy"]), "forward_gain": ratio(fore["F.mish"], fore[key])}
        row |= {"forward_host_us": fore_host[key]}
        row |= {"backward_ms": back_ms, "backward_gb_per_s": gb_per_s(x, BACKWARD_BYTES, back_ms)}
        row |= {"backward_by_add": ratio(back[key], back["copy"]), "backward_gain": ratio(back["F.mish"], back[key])}
        row |= {"backward_host_us": back_host[key]}
        rows.append(row)
    return rows


def operator_cases(
    functions: dict[str, Callable[[Tensor], Tensor]], xs: Sequence[Tensor]
) -> tuple[dict[str, Case], dict[str, Case]]:
    """The calls of a table, forward and backward, copy and add first."""
    gs, outs = [torch.randn_like(x) for x in xs], [torch.empty_like(x) for x in xs]
    forward: dict[str, Case] = {"copy": lambda number: partial(outs[number].copy_, xs[number])}
    backward: dict[str, Case] = {"copy": lambda number: partial(torch.add, xs[number], gs[number], out=outs[number])}
    for key, function in functions.items():
        forward[key] = forward_case(function, xs)
        backward[key] = backward_case(function, xs, gs)
    return forward, backward


def operator_table(rows: Sequence[Row]) -> str:
    """The results as a Markdown table; in brackets the share of the bandwidth of copy or add."""
    lines = [
        "| type | elements | function | forward, ms | by copy | GB/s | F.mish takes | host, us "
        "| backward, ms | by add | GB/s | F.mish takes | host, us |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["type"], f"{row['elements']:,}", row["function"]]
        for way, bound in (("forward", "by_copy"), ("backward", "by_add")):
            by_bound = float(row[f"{way}_{bound}"])
            cells += [f"{row[f'{way}_ms']:.3f}", f"{by_bound:.2f}"]
            cells += [f"{row[f'{way}_gb_per_s']:.0f} ({100 / by_bound:.0f} %)"]
            cells += [f"{row[f'{way}_gain']:.2f}x", f"{row[f'{way}_host_us']:.1f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
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
