"""Does a detector train faster with Mish, and does a condition in ReLU cost time? Measured on the CPU of this machine.

A cell times one thing against another in interleaved rounds (`studies.timings`): an operator against ReLU, a training
step against that with ReLU (fused with batch norm, as in training), or a kernel that branches against one that does
not. Times beside other processes are not judged. How many epochs a target takes is measured by ``compare.py --target``.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from comparison.checks import MAX_OTHER_CORES
from studies.study import Row
from studies.verdicts import Finding, judge

TITLE = "training time of a detector, and whether conditions cost time"
MINUTES = 20
EXTRA = ""
ALONE = True  # a cell beside another would be timed beside it

OPERATORS = ("leaky ReLU", "SiLU", "F.mish", "x tanh(softplus(x))", "ops.mish")
COMPILED = ("ReLU, compiled", "SiLU, compiled", "F.mish, compiled", "ops.mish, compiled")
ELEMENTS = (1 << 14, 1 << 18, 1 << 22)  # 64 KiB to 16 MiB in fp32
BASE = "relu, fused"
ARMS = (
    *("mish, fused", "mish, plain", "mish_torch, plain", "mish_eager, plain", "silu, fused", "silu, plain"),
    *("leaky_relu, fused", "leaky_relu, plain", "relu, plain", "identity, plain"),
)
BEST, PROCESSES = "mish, fused", 3  # the default, expected to be the best; its step is timed in so many processes
STEP: Row = {"rounds": 30, "batch": 8, "side": 160}
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
        {"part": "memory", "name": name, "batch": STEP["batch"], "side": STEP["side"]} for name in (BASE, *ARMS)
    ]
    kernels: list[Row] = [
        {"part": "branch", "name": name, "form": form, "signs": signs, "vectorised": vectorised, "rounds": 40}
        for name in ("relu", "leaky_relu", "mish")
        for signs in ("random", "sorted", *(("ordinary",) if name == "mish" else ()))
        for vectorised in (True, False)
        for form in ("if", "jump")
    ]
    return [*steps, *memory, *kernels, *operators]


def measure(cell: Row) -> Row:
    """The ratio of two times, or the memory."""
    from studies import timings

    settings = {key: value for key, value in cell.items() if key not in ("part", "process")}
    measured = {
        "operator": timings.operator,
        "step": timings.step,
        "memory": timings.memory,
        "branch": timings.branch,
    }[str(cell["part"])]
    return measured(settings.pop("name"), **settings)  # type: ignore[operator]


# ------------------------------------------------------------------------------------------------------------- findings


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """Whether training takes less time with Mish, and whether conditions cost time."""
    return [_about_training(rows), _about_conditions(rows)]


def chosen(rows: Sequence[Row], part: str, **settings: object) -> list[Row]:
    """The measured rows of a part with these settings."""
    given = {"part": part, **settings}
    return [row for row in rows if all(row.get(key) == value for key, value in given.items()) and "note" not in row]


def clean(rows: Sequence[Row]) -> list[Row]:
    """Those that were measured without other processes."""
    return [row for row in rows if row["other_cores"] is not None and float(row["other_cores"]) <= MAX_OTHER_CORES]


def logs(rows: Sequence[Row]) -> list[float]:
    """The logarithms of the ratios by round of these rows."""
    return [float(word) for row in rows for word in str(row["log_ratios"]).split()]


def _about_training(rows: Sequence[Row]) -> Finding:
    best = chosen(rows, "step", name=BEST)
    judged = judge([-each for each in logs(clean(best))], LESS) if clean(best) else None
    found = []
    if best:
        times = ", ".join(_ratio(row) for row in best)
        found.append(
            f"{_machine(best[0])}. A step of a size n detector (batch {best[0]['batch']}, {best[0]['side']} pixels) "
            f"with Mish takes {times} of the time with ReLU (both fused with batch norm), in {len(best)} processes."
        )
    others = [row for name in ARMS if name != BEST for row in chosen(rows, "step", name=name)]
    if others:
        found.append("Relative to the same: " + "; ".join(f"{row['name']} {_ratio(row)}" for row in others) + ".")
    ratios = {str(row["name"]): float(row["ratio"] or 1) for row in [*best[:1], *others]}
    if "identity, plain" in ratios:
        shares = (
            f"{name} {100 * (1 - ratios['identity, plain'] / ratios[name]):.0f} %"
            for name in ("relu, plain", "mish_eager, plain", "mish_torch, plain", "mish, plain")
        )
        found.append(f"Share of the activations in a step, by leaving them out: {', '.join(shares)}.")
    kept = {str(row["name"]): float(row["kept_mib"] or 0) for row in chosen(rows, "memory")}
    if kept:
        words = ", ".join(f"{name} {mib:.0f}" for name, mib in kept.items())
        found.append(f"MiB kept for the backward pass: {words}.")
    for way in ("forward", "backward"):
        largest = max((int(row["elements"] or 0) for row in chosen(rows, "operator")), default=0)
        part = chosen(rows, "operator", way=way, elements=largest)
        if part:
            words = "; ".join(f"{row['name']} {_ratio(row)}" for row in part)
            found.append(f"The operator on {largest:,} elements, {way}, by ReLU's time: {words}.")
    found.append(_load([row for row in rows if row["part"] in ("step", "operator")], bool(judged)))
    return Finding(
        claim="Mish reduces the run time of training a detector",
        # github.com/digantamisra98/Mish, issue 18: YOLOv3-SPP on a V100, 31 to 46 minutes an epoch
        published="a hypothesis without a measurement; with the naive operator 1.48 times ReLU's time (Mish#18)",
        found=" ".join(found),
        verdict=judged.verdict if judged else "inconclusive",
        judged=judged,
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
    found += sorted({str(row["note"]) for row in rows if row["part"] == "branch" and "note" in row})
    found.append(_load([row for row in rows if row["part"] == "branch"], bool(judged)))
    return Finding(
        claim="Mish is faster because it has no conditional statements: a condition costs time",
        published="a hypothesis without a measurement",
        found=" ".join(found),
        verdict=judged.verdict if judged else "inconclusive",
        judged=judged,
    )


def _ratio(row: Row) -> str:
    return f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _machine(row: Row) -> str:
    from ops.bench import machine
    from studies.timings import CPU

    return f"{machine(CPU).rpartition(',')[0]}; {row['device']}"


def _load(rows: Sequence[Row], judged: bool) -> str:
    timed = [row for row in rows if "other_cores" in row]
    busy = len(timed) - len(clean(timed))
    words = "" if judged else ", so nothing is judged"
    return (
        f"In {busy} of {len(timed)} measurements, other processes used more than {MAX_OTHER_CORES:g} of a core{words}. "
        "One thread; no GPU was measured."
    )


# -------------------------------------------------------------------------------------------------------------- picture


def draw(rows: Sequence[Row], path: Path) -> None:
    """Ratios of times with 95 % intervals: operators, steps, branches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    largest = max((int(row["elements"] or 0) for row in chosen(rows, "operator")), default=0)
    kept = {row["name"]: row["kept_mib"] for row in chosen(rows, "memory")}
    series: list[list[tuple[str, list[tuple[str, Row]]]]] = [
        [
            (way, [(str(row["name"]), row) for row in chosen(rows, "operator", way=way, elements=largest)])
            for way in ("forward", "backward")
        ],
        [
            (
                f"process {process}",
                [
                    (f"{row['name']}" + (f" ({kept[row['name']]:.0f} MiB)" if kept else ""), row)
                    for row in chosen(rows, "step", process=process)
                ],
            )
            for process in range(PROCESSES)
        ],
        [
            (
                f"{form}, {'vectorised' if vectorised else 'scalar'}",
                [
                    (f"{row['name']}, {row['signs']}", row)
                    for row in chosen(rows, "branch", form=form, vectorised=vectorised)
                ],
            )
            for form in ("if", "jump")
            for vectorised in (True, False)
        ],
    ]
    titles = (
        f"Operator, {largest:,} elements, fp32\nby the time of PyTorch's ReLU",
        "Training step of the detector (memory kept for backward)\nby the time with ReLU fused with batch norm",
        "Kernel with a condition\nby the time of the branch-free kernel of the function",
    )
    for axis, title, groups in zip(axes, titles, series, strict=True):
        names = list(dict.fromkeys(name for _, group in groups for name, _ in group))
        for number, (label, group) in enumerate(groups):
            places = [-names.index(name) - 0.16 * (number - (len(groups) - 1) / 2) for name, _ in group]
            ends = ("ratio", "low", "high")
            middle, low, high = (np.array([float(row[key] or 1) for _, row in group]) for key in ends)
            axis.errorbar(middle, places, xerr=[middle - low, high - middle], fmt="o", capsize=2, label=label)
        axis.set_yticks([-place for place in range(len(names))], names)
        axis.set_title(title, fontsize=10)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_xlabel("ratio of times: median of the rounds, 95 % interval")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(axis="x", which="both", alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
