"""How the findings and the picture of the study of the run time read its rows, and their tables."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from comparison.checks import MAX_OTHER_CORES
from studies import timings
from studies.intervals import interval_text, mean_text
from studies.rows import Row, Value, number, where
from studies.tables import Table, table

OPERATORS = ("leaky ReLU", "SiLU", "F.mish", "x tanh(softplus(x))", "ops.mish")
COMPILED = ("ReLU, compiled", "SiLU, compiled", "F.mish, compiled", "ops.mish, compiled")
ARMS = (
    *("mish, fused", "mish, plain", "mish_torch, plain", "mish_eager, plain", "silu, fused", "silu, plain"),
    *("leaky_relu, fused", "leaky_relu, plain", "relu, plain", "identity, plain"),
    *("relu, compiled", "silu, compiled", "mish, compiled", "mish_torch, compiled", "mish_eager, compiled"),
)
BEST = "mish, fused"  # the default, expected to be the best
ACTIVATIONS, IMPLEMENTATIONS = ("silu", "mish"), ("mish", "mish_torch", "mish_eager", "mish_compiled")
PUBLISHED = {  # comparisons in docs/results and their arms beside ReLU
    "embedded": ACTIVATIONS,
    "bccd": ACTIVATIONS,
    "implementations": IMPLEMENTATIONS,
}
TARGET = 0.9  # of the mean mAP50-95 that ReLU ends with


def chosen(rows: Sequence[Row], part: str, **settings: Value) -> list[Row]:
    """The measured rows of a part with these settings."""
    return where(rows, part=part, note=None, **settings)


def clean(rows: Sequence[Row]) -> list[Row]:
    """Those that were measured without other processes."""
    return [row for row in rows if row["other_cores"] is not None and number(row, "other_cores") <= MAX_OTHER_CORES]


def step_ratios(rows: Sequence[Row]) -> dict[str, float]:
    """The time of each network's step by that of the fused ReLU, in the first process that has it."""
    steps = chosen(rows, "step")
    return {str(row["name"]): number(row, "ratio") for row in reversed(steps)}


def step_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    ratios, kept = step_ratios(rows), kept_mib(rows)
    empty = ratios.get("identity, plain")

    def line(row: Row) -> list[str]:
        name = str(row["name"])
        act, form = name.split(", ")
        relu = ratios.get(f"relu, {form}", 1.0 if form == "fused" else math.nan)
        share = f"{100 * (1 - empty / number(row, 'ratio')):.0f} %" if empty and form == "plain" else ""
        process = f" (process {int(number(row, 'process')) + 1})" if name == BEST else ""
        by_relu = "" if math.isnan(relu) else f"{number(row, 'ratio') / relu:.3f}"
        return [f"{act}{process}", form, _ratio(row), by_relu, share, f"{kept[name]:.0f}" if name in kept else ""]

    base, form = timings.BASE.split(", ")
    first = [base, form, "1", "1.000", "", f"{kept[timings.BASE]:.0f}" if kept else ""]
    lines = [line(row) for name in ARMS for row in chosen(rows, "step", name=name)]
    return table(
        "Time of a training step relative to that with the fused ReLU, and to that with ReLU in the same form; share "
        "of the activations, measured by leaving them out; memory kept for the backward pass. mish_torch is "
        "PyTorch's F.mish, mish_eager x tanh(softplus(x))",
        ("activation", "form", "to fused ReLU", "to ReLU", "activations' share", "kept, MiB"),
        [first, *lines] if lines else [],
    )


def operator_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    sizes = sorted({int(number(row, "elements")) for row in chosen(rows, "operator")})
    ways = [(elements, way) for elements in sizes for way in ("forward", "backward")]

    def cell(name: str, elements: int, way: str) -> str:
        found = chosen(rows, "operator", name=name, elements=elements, way=way)
        return _marked(found[0], ".2f") if found else ""

    return table(
        "Time of an operator relative to PyTorch's ReLU, for three numbers of elements (fp32)",
        ("operator", *(f"{elements:,} {way}" for elements, way in ways)),
        ([name, *(cell(name, *each) for each in ways)] for name in (*OPERATORS, *COMPILED) if ways),
    )


def branch_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    branches = chosen(rows, "branch")
    columns = [(vectorised, form) for vectorised in (True, False) for form in ("if", "jump")]

    def line(name: str, signs: str) -> list[str]:
        cells = (where(branches, name=name, signs=signs, vectorised=each, form=form) for each, form in columns)
        return [name, signs, *(_marked(found[0], ".3f") if found else "" for found in cells)]

    return table(
        "Time of a kernel with a condition relative to the branch-free kernel of the same function, compiled with and "
        "without vector instructions",
        ("function", "signs", "if, vectors", "jump, vectors", "if, scalar", "jump, scalar"),
        (line(*kind) for kind in dict.fromkeys((str(row["name"]), str(row["signs"])) for row in branches)),
    )


def epochs_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    """How many epochs each activation took to most of what ReLU ends with, on the data of a published comparison."""

    def line(data: str) -> list[str]:
        curves = _curves(rows, data)
        target = _target(curves)
        epochs = [_epochs(each, target) for each in curves.values()]
        return [data, str(len(curves["relu"][0])), f"{target:.3f}", *epochs]

    return table(
        f"Epochs until mAP50-95 is {100 * TARGET:.0f} % of what ReLU ends with, in the published comparisons "
        "(mean over their seeds)",
        ("data", "epochs in all", "mAP50-95", "relu", *ACTIVATIONS),
        (line(data) for data, names in PUBLISHED.items() if names == ACTIVATIONS and chosen(rows, "epochs", data=data)),
    )


def implementation_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    """The same for implementations of Mish, with differences from ops.mish by seed: how far rounding moves a run."""
    curves = _curves(rows, "implementations")
    if not curves:
        return ()
    target, own = _target(curves), curves[IMPLEMENTATIONS[0]]

    def line(name: str) -> list[str]:
        found = curves[name]
        points = mean_text([100 * (a[-1] - b[-1]) for a, b in zip(found, own, strict=True)])
        epochs = [[epochs_until(curve, target) for curve in each] for each in (found, own)]
        later = [a - b for a, b in zip(*epochs, strict=True) if a is not None and b is not None]
        ahead = [mean_text(later, "+.1f") if later else "", points] if name != IMPLEMENTATIONS[0] else ["", ""]
        return [name, _epochs(found, target), *ahead]

    return table(
        f"Epochs until mAP50-95 is {target:.3f}, {100 * TARGET:.0f} % of what ReLU ends with, by implementation of "
        f"Mish, and mAP50-95 at the end, after {len(own[0])} epochs, in points. mish is ops.mish, mish_compiled the "
        "network with it compiled; all without the form fused with batch norm",
        ("implementation", "epochs", "epochs more than mish", "points more than mish"),
        (line(name) for name in ("relu", *IMPLEMENTATIONS)),
    )


def _curves(rows: Sequence[Row], data: str) -> dict[str, list[list[float]]]:
    """mAP50-95 by epoch of the runs of a published comparison, by arm."""
    return {
        name: [[float(word) for word in str(row["map_by_epoch"]).split()] for row in found]
        for name in ("relu", *PUBLISHED[data])
        if (found := chosen(rows, "epochs", data=data, name=name))
    }


def _target(curves: Mapping[str, Sequence[Sequence[float]]]) -> float:
    return TARGET * float(np.mean([curve[-1] for curve in curves["relu"]]))


def _epochs(curves: Sequence[Sequence[float]], target: float) -> str:
    reached = [epoch for curve in curves if (epoch := epochs_until(curve, target)) is not None]
    never = f" ({len(curves) - len(reached)} of {len(curves)} runs never)" if 0 < len(reached) < len(curves) else ""
    return f"{mean_text(reached, '.1f')}{never}" if reached else "never"


def epochs_until(curve: Sequence[float], target: float) -> int | None:
    """The first epoch, from 1, after which a curve has the target; None if it never has."""
    return next((epoch for epoch, value in enumerate(curve, 1) if value >= target), None)


def _ratio(row: Row, form: str = ".3f") -> str:
    return interval_text(number(row, "ratio"), number(row, "low"), number(row, "high"), form)


def _marked(row: Row, form: str) -> str:
    """A ratio, with an asterisk if other processes ran beside its measurement."""
    return f"{_ratio(row, form)}{'' if clean([row]) else ' *'}"


def largest(rows: Sequence[Row]) -> int:
    """The elements of the largest tensors that operators were measured on."""
    return max((int(number(row, "elements")) for row in chosen(rows, "operator")), default=0)


def kept_mib(rows: Sequence[Row]) -> dict[str, float]:
    """MiB kept for the backward pass, by network."""
    return {str(row["name"]): number(row, "kept_mib") for row in chosen(rows, "memory")}
