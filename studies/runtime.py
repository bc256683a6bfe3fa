"""Does a detector train faster with Mish, and does a condition in ReLU cost time? Measured on the CPU of this machine.

A cell times one thing against another in interleaved rounds (`studies.timings`): an operator against ReLU, a training
step against that with ReLU (fused with batch norm, as in training), or a kernel that branches against one that does
not. Times beside other processes are not judged. How many epochs a target takes is read from the published comparisons.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from comparison.checks import MAX_OTHER_CORES
from ops.bench import machine
from studies import timings
from studies.intervals import interval_text
from studies.rows import Row, Value, number, where
from studies.verdicts import Finding, finding, judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "training time of a detector, and whether conditions cost time"
MINUTES = 26
EXTRA = ""
PICTURE = (17.0, 6.5)
ALONE = True  # a cell beside another would be timed beside it

OPERATORS = ("leaky ReLU", "SiLU", "F.mish", "x tanh(softplus(x))", "ops.mish")
COMPILED = ("ReLU, compiled", "SiLU, compiled", "F.mish, compiled", "ops.mish, compiled")
ELEMENTS = (1 << 14, 1 << 18, 1 << 22)  # 64 KiB to 16 MiB in fp32
ARMS = (
    *("mish, fused", "mish, plain", "mish_torch, plain", "mish_eager, plain", "silu, fused", "silu, plain"),
    *("leaky_relu, fused", "leaky_relu, plain", "relu, plain", "identity, plain"),
    *("relu, compiled", "silu, compiled", "mish, compiled", "mish_torch, compiled", "mish_eager, compiled"),
)
BEST, PROCESSES = "mish, fused", 3  # the default, expected to be the best; its step is timed in so many processes
STEP: Row = {"rounds": 30, "batch": 8, "side": 160}
COMPARISONS = Path(__file__).parents[1] / "docs" / "results"  # with raw runs of detectors
PUBLISHED, SEEDS = ("embedded", "bccd"), 5  # of relu, silu and mish
TARGET = 0.9  # of the mean mAP50-95 that ReLU ends with
LESS, MORE = -math.log(0.98), math.log(1.02)  # margins


def cells(*, quick: bool) -> list[Row]:
    """Operators, steps, memory and branches."""
    if quick:
        return [
            {"part": "operator", "name": "ops.mish", "elements": 4096, "way": "forward", "rounds": 5},
            {"part": "step", "name": BEST, "process": 0, "rounds": 2, "batch": 2, "side": 64},
            {"part": "branch", "name": "relu", "form": "if", "signs": "random", "vectorised": True, "rounds": 5},
        ]
    operators: list[Row] = [
        {"part": "operator", "name": name, "elements": elements, "way": way, "rounds": 40}
        for elements in ELEMENTS
        for name in (*OPERATORS, *COMPILED)
        for way in ("forward", "backward")
    ]
    steps: list[Row] = [
        {"part": "step", "name": name, "process": process, **STEP}
        for process in range(PROCESSES)
        for name in ARMS
        if process == 0 or name == BEST
    ]
    memory: list[Row] = [
        {"part": "memory", "name": name, "batch": STEP["batch"], "side": STEP["side"]} for name in (timings.BASE, *ARMS)
    ]
    kernels: list[Row] = [
        {"part": "branch", "name": name, "form": form, "signs": signs, "vectorised": vectorised, "rounds": 40}
        for name in ("relu", "leaky_relu", "mish")
        for signs in ("random", "sorted", *(("ordinary",) if name == "mish" else ()))
        for vectorised in (True, False)
        for form in ("if", "jump")
    ]
    epochs: list[Row] = [
        {"part": "epochs", "data": data, "name": name, "seed": seed}
        for data in PUBLISHED
        for name in ("relu", "silu", "mish")
        for seed in range(SEEDS)
    ]
    return [*steps, *memory, *kernels, *operators, *epochs]


def measure(cell: Row) -> Row:
    """The ratio of two times, or the memory."""
    if cell["part"] == "epochs":
        return {"map_by_epoch": _curve(COMPARISONS / f"{cell['data']}/{cell['name']}-s{cell['seed']}/results.csv")}
    settings = {key: value for key, value in cell.items() if key not in ("part", "process")}
    measured = {
        "operator": timings.operator,
        "step": timings.step,
        "memory": timings.memory,
        "branch": timings.branch,
    }[str(cell["part"])]
    return measured(settings.pop("name"), **settings)  # type: ignore[operator]


def _curve(file: Path) -> str:
    """mAP50-95 after each epoch of a run, with spaces between."""
    with open(file, newline="", encoding="utf-8") as stream:
        return " ".join(row["metrics/mAP50-95"] for row in csv.DictReader(stream))


# ------------------------------------------------------------------------------------------------------------- findings


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """Whether training takes less time with Mish, and whether conditions cost time."""
    return [_about_training(rows), _about_conditions(rows)]


def chosen(rows: Sequence[Row], part: str, **settings: Value) -> list[Row]:
    """The measured rows of a part with these settings."""
    return where(rows, part=part, note=None, **settings)


def clean(rows: Sequence[Row]) -> list[Row]:
    """Those that were measured without other processes."""
    return [row for row in rows if row["other_cores"] is not None and number(row, "other_cores") <= MAX_OTHER_CORES]


def logs(rows: Sequence[Row]) -> list[float]:
    """The logarithms of the ratios by round of these rows."""
    return [float(word) for row in rows for word in str(row["log_ratios"]).split()]


def _about_training(rows: Sequence[Row]) -> Finding:
    best = chosen(rows, "step", name=BEST)
    judged = judge([-each for each in logs(clean(best))], LESS) if clean(best) else None
    found = []
    if best:
        cpu = machine(timings.CPU).rpartition(",")[0]  # without the date
        times = ", ".join(_ratio(row) for row in best)
        found.append(
            f"{cpu}; {best[0]['device']}. A step of a size n detector (batch {best[0]['batch']}, "
            f"{best[0]['side']} pixels) with Mish takes {times} of the time with ReLU "
            f"(both fused with batch norm), in {len(best)} processes."
        )
    others = [row for name in ARMS if name != BEST for row in chosen(rows, "step", name=name)]
    if others:
        found.append("Relative to the same: " + "; ".join(f"{row['name']} {_ratio(row)}" for row in others) + ".")
    ratios = {str(row["name"]): number(row, "ratio") for row in [*best[:1], *others]}
    if base := ratios.get("relu, compiled"):
        by_relu = (f"{name} {ratio / base:.2f}" for name, ratio in ratios.items() if name.endswith(", compiled"))
        found.append(f"Compiled steps by that of ReLU, compiled too: {', '.join(by_relu)}.")
    if "identity, plain" in ratios:
        shares = (
            f"{name} {100 * (1 - ratios['identity, plain'] / ratios[name]):.0f} %"
            for name in ("relu, plain", "mish_eager, plain", "mish_torch, plain", "mish, plain")
        )
        found.append(f"Share of the activations in a step, by leaving them out: {', '.join(shares)}.")
    kept = _kept(rows)
    if kept:
        words = ", ".join(f"{name} {mib:.0f}" for name, mib in kept.items())
        found.append(f"MiB kept for the backward pass: {words}.")
    largest = _largest(rows)
    for way in ("forward", "backward"):
        part = chosen(rows, "operator", way=way, elements=largest)
        if part:
            words = "; ".join(f"{row['name']} {_ratio(row)}" for row in part)
            found.append(f"The operator on {largest:,} elements, {way}, by ReLU's time: {words}.")
    found += [_epochs_to_target(rows, data) for data in PUBLISHED if chosen(rows, "epochs", data=data)]
    found += _circumstances([row for row in rows if row["part"] in ("step", "operator")], bool(judged))
    return finding(
        claim="Mish reduces the run time of training a detector",
        # github.com/digantamisra98/Mish, issue 18: YOLOv3-SPP on a V100, 31 to 46 minutes an epoch
        published="a hypothesis without a measurement; with the naive operator 1.48 times ReLU's time (Mish#18)",
        found=" ".join(found),
        judged=judged,
        unit="of the step time with ReLU",
        ratio=-1,
    )


def _about_conditions(rows: Sequence[Row]) -> Finding:
    primary = chosen(rows, "branch", name="relu", form="if", signs="random", vectorised=True)
    judged = judge(logs(clean(primary)), MORE) if clean(primary) else None
    found = []
    for vectorised, words in ((True, "With vector instructions"), (False, "Without")):
        part = chosen(rows, "branch", vectorised=vectorised)
        if part:
            each = "; ".join(f"{row['name']}, {row['form']}, {row['signs']} {_ratio(row)}" for row in part)
            found.append(f"{words}, time of the branching form by that of the branch-free form: {each}.")
    if found:
        found.append(
            "An if is left to the compiler, which makes a selection of it where it can, and a jump is forced; signs "
            "are of the distance to the bound between the two formulas, which is 0 for ReLU and 20 for Mish."
        )
    found += _circumstances(where(rows, part="branch"), bool(judged))
    return finding(
        claim="Mish is faster because it has no conditional statements: a condition costs time",
        published="a hypothesis without a measurement",
        found=" ".join(found),
        judged=judged,
        unit="of the branch-free time",
        ratio=1,
    )


def epochs_until(curve: Sequence[float], target: float) -> int | None:
    """The first epoch, from 1, after which a curve has the target; None if it never has."""
    return next((epoch for epoch, value in enumerate(curve, 1) if value >= target), None)


def _epochs_to_target(rows: Sequence[Row], data: str) -> str:
    """How many epochs each activation took to most of what ReLU ends with, on the data of a published comparison."""
    curves: dict[str, list[list[float]]] = {}
    for row in chosen(rows, "epochs", data=data):
        curves.setdefault(str(row["name"]), []).append([float(word) for word in str(row["map_by_epoch"]).split()])
    target = TARGET * float(np.mean([curve[-1] for curve in curves["relu"]]))
    words = []
    for name, of_seeds in curves.items():
        reached = [epoch for curve in of_seeds if (epoch := epochs_until(curve, target)) is not None]
        never = f" ({len(of_seeds) - len(reached)} runs never)" if len(reached) < len(of_seeds) else ""
        words.append(f"{name} {np.mean(reached):.1f}{never}" if reached else f"{name} never")
    return (
        f"Epochs until a mAP50-95 of {target:.3f}, {100 * TARGET:.0f} % of what ReLU ends with, in the published "
        f"comparison {data}, mean of {len(curves['relu'])} seeds: {', '.join(words)}."
    )


def _ratio(row: Row) -> str:
    return interval_text(number(row, "ratio"), number(row, "low"), number(row, "high"), ".3f")


def _largest(rows: Sequence[Row]) -> int:
    """The elements of the largest tensors that operators were measured on."""
    return max((int(number(row, "elements")) for row in chosen(rows, "operator")), default=0)


def _kept(rows: Sequence[Row]) -> dict[str, float]:
    """MiB kept for the backward pass, by network."""
    return {str(row["name"]): number(row, "kept_mib") for row in chosen(rows, "memory")}


def _circumstances(rows: Sequence[Row], judged: bool) -> list[str]:
    """What was not measured, and the load of other processes, as sentences."""
    timed = [row for row in rows if "other_cores" in row]
    busy = len(timed) - len(clean(timed))
    words = "" if judged else ", so nothing is judged"
    return [
        *sorted({f"{row['note']}." for row in rows if "note" in row}),
        f"In {busy} of {len(timed)} measurements, other processes used more than {MAX_OTHER_CORES:g} of a core{words}. "
        "One thread; no GPU was measured.",
    ]


# -------------------------------------------------------------------------------------------------------------- picture


def draw(rows: Sequence[Row], figure: "Figure") -> None:
    """Ratios of times with 95 % intervals: operators, steps, branches."""
    operators, steps, branches = figure.subplots(1, 3)
    largest, kept = _largest(rows), _kept(rows)
    ways = {way: chosen(rows, "operator", way=way, elements=largest) for way in ("forward", "backward")}
    _draw_ratios(operators, {way: {str(row["name"]): row for row in part} for way, part in ways.items()})
    operators.set_title(f"Operator, {largest:,} elements, fp32\nby the time of PyTorch's ReLU", fontsize=10)
    labels = {name: f"{name} ({kept[name]:.0f} MiB)" if kept else name for name in ARMS}
    processes = {f"process {each}": chosen(rows, "step", process=each) for each in range(PROCESSES)}
    _draw_ratios(steps, {each: {labels[str(row["name"])]: row for row in part} for each, part in processes.items()})
    steps.set_title(
        "Training step of the detector (memory kept for backward)\nby the time with ReLU fused with batch norm",
        fontsize=10,
    )
    forms = {
        f"{form}, {words}": chosen(rows, "branch", form=form, vectorised=vectorised)
        for form in ("if", "jump")
        for vectorised, words in ((True, "vectorised"), (False, "scalar"))
    }
    _draw_ratios(
        branches, {form: {f"{row['name']}, {row['signs']}": row for row in part} for form, part in forms.items()}
    )
    branches.set_title("Kernel with a condition\nby the time of the branch-free kernel of the function", fontsize=10)


def _draw_ratios(axis: "Axes", groups: Mapping[str, Mapping[str, Row]]) -> None:
    """A line per name, and on it a mark for each group that has the name."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    for place, (label, group) in enumerate(groups.items()):
        lines = [-names.index(name) - 0.16 * (place - (len(groups) - 1) / 2) for name in group]
        middle, low, high = (np.array([number(row, key) for row in group.values()]) for key in ("ratio", "low", "high"))
        axis.errorbar(middle, lines, xerr=[middle - low, high - middle], fmt="o", capsize=2, label=label)
    axis.set_yticks([-line for line in range(len(names))], names)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xlabel("ratio of times: median of the rounds, 95 % interval")
    if max(number(row, "ratio") for group in groups.values() for row in group.values()) > 4:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(axis="x", which="both", alpha=0.3)
    axis.legend(fontsize=8)
