"""The tables of ops/bench.py for batch norm and activation: pairs of modules, and the operators of the fused one."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops.mish import Mish, mish
from ops.norm_act import ACTIVATIONS, norm_act
from ops.timing import Case, Row, Run, gb_per_s, host_microseconds, measure, noise, ratio, rotated

MAPS = ((16, 320), (32, 160), (64, 80), (128, 40), (256, 20))  # channels and side in model n at 640 pixels
PASS_BYTES = {"statistics": 1, "forward": 2, "reduce": 3, "backward": 3}


def norm_inputs(
    names: Sequence[str], largest: tuple[int, int], *, device: torch.device
) -> Iterator[tuple[Tensor, str]]:
    """Inputs of batch norm (16, channels, side, side) and the names of their types.

    On a GPU the maps of model n in channels_last, else the one map `largest` (channels, side) in both layouts.
    """
    on_gpu = device.type == "cuda"
    layouts = (torch.channels_last,) if on_gpu else (torch.contiguous_format, torch.channels_last)
    for name, layout, (channels, own) in product(names, layouts, MAPS if on_gpu else (largest,)):
        yield noise(name, channels, own, device=device).to(memory_format=layout), name


def both_case(
    function: Callable[[Tensor], Tensor], xs: Sequence[Tensor], gs: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Case:
    """Forward and backward pass of the function, the latter for x and for parameters of the function."""

    def prepared(number: int) -> Run:
        def run() -> object:
            x = xs[number].detach().requires_grad_()
            return torch.autograd.grad(function(x), (x, *parameters), gs[number])

        return run

    return prepared


def fused_rows(x: Tensor, name: str, rounds: int) -> list[Row]:
    """Batch norm and activation in training, forward and backward together, against PyTorch's batch norm and ReLU."""
    cases, xs = fused_cases(x)
    taken = measure(cases, rounds, x.device, sets=len(xs))
    small, _ = fused_cases(x[:2, :, :2, :2].contiguous())
    layout = "contiguous" if x.is_contiguous() else "channels_last"
    return [
        {
            "type": name,
            "layout": layout,
            "channels": x.shape[1],
            "side": x.shape[2],
            "pair": key,
            "ms": statistics.median(times),
            "by_relu": ratio(times, taken["BatchNorm2d, ReLU"]),
            "by_fused_relu": ratio(times, taken["norm_act, ReLU"]),
            "host_us": host_microseconds(small[key], x.device),
        }
        for key, times in taken.items()
    ]


def fused_cases(x: Tensor) -> tuple[dict[str, Case], list[Tensor]]:
    """The calls of a table of pairs, and the inputs that they rotate over."""
    norm, xs = nn.BatchNorm2d(x.shape[1]).to(x.device), rotated(x)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "BatchNorm2d, ReLU": lambda z: F.relu(norm(z)),
        "BatchNorm2d, SiLU": lambda z: F.silu(norm(z)),
        "BatchNorm2d, F.mish": lambda z: F.mish(norm(z)),
        "BatchNorm2d, ops.mish": lambda z: mish(norm(z)),
    }
    for act in (nn.ReLU(), nn.SiLU(), nn.LeakyReLU(0.1), Mish()):
        functions[f"norm_act, {type(act).__name__}"] = partial(norm_act, norm=norm, act=act)
    gs, parameters = [torch.randn_like(each) for each in xs], (norm.weight, norm.bias)
    return {key: both_case(function, xs, gs, parameters) for key, function in functions.items()}, xs


def fused_table(rows: Sequence[Row]) -> str:
    """The results of batch norm and activation as a Markdown table."""
    lines = [
        "| type | layout | channels, side | modules | forward and backward, ms | by BatchNorm2d, ReLU "
        "| by norm_act, ReLU | host, us |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        place = f"{row['type']} | {row['layout']} | {row['channels']}, {row['side']}"
        values = f"{row['ms']:.3f} | {row['by_relu']:.2f} | {row['by_fused_relu']:.2f} | {row['host_us']:.0f}"
        lines.append(f"| {place} | {row['pair']} | {values} |")
    return "\n".join(lines)


def pass_rows(x: Tensor, name: str, rounds: int) -> list[Row]:
    """Time and bandwidth of each operator of the fused batch norm and Mish."""
    xs = rotated(x)
    taken = measure(pass_cases(xs), rounds, x.device, sets=len(xs))
    row: Row = {"type": name, "layout": "contiguous" if x.is_contiguous() else "channels_last"}
    row |= {"channels": x.shape[1], "side": x.shape[2]}
    rows = []
    for key, times in taken.items():
        ms = statistics.median(times)
        rows.append(row | {"pass": key, "ms": ms, "gb_per_s": gb_per_s(x, PASS_BYTES[key], ms)})
    return rows


def pass_cases(xs: Sequence[Tensor]) -> dict[str, Case]:
    """The operators of the fused batch norm and Mish, as training calls them."""
    operators, channels = torch.ops.yolo, xs[0].shape[1]
    norm = nn.BatchNorm2d(channels).to(xs[0].device)
    mean, variance = operators.norm_statistics(xs[0], None, None, 0.0)
    weight, bias = norm.weight.detach(), norm.bias.detach()
    parameters = (mean, variance, weight, bias, norm.eps, ACTIVATIONS[Mish], 0.0)
    gs = [torch.randn_like(x) for x in xs]
    count = xs[0].numel() // channels
    _, by_weight, by_bias = operators.norm_act_reduce(gs[0], xs[0], *parameters)
    sums = (mean, variance, weight, by_weight, by_bias, norm.eps, count)
    running = (norm.running_mean, norm.running_var, 0.1)
    return {
        "statistics": lambda number: partial(operators.norm_statistics, xs[number], *running),
        "forward": lambda number: partial(operators.norm_act_forward, xs[number], *parameters),
        "reduce": lambda number: partial(operators.norm_act_reduce, gs[number], xs[number], *parameters),
        "backward": lambda number: partial(operators.norm_act_backward, gs[number], xs[number], *sums),
    }


def pass_table(rows: Sequence[Row]) -> str:
    """The operators of the fused batch norm and Mish as a Markdown table."""
    lines = ["| type | layout | channels, side | operator | us | GB/s |", "|---|---|---|---|---|---|"]
    for row in rows:
        place = f"{row['type']} | {row['layout']} | {row['channels']}, {row['side']}"
        lines.append(f"| {place} | {row['pass']} | {1e3 * float(row['ms']):.1f} | {row['gb_per_s']:.0f} |")
    return "\n".join(lines)
