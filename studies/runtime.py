"""Does a detector train faster with Mish, and does a condition in ReLU cost time? Measured on the CPU of this machine.

A cell times one thing against another in interleaved rounds (`studies.timings`): an operator against ReLU, a training
step against that with ReLU (fused with batch norm, as in training), or a kernel that branches against one that does
not. Times beside other processes are not judged. How many epochs a target takes is read from the published comparisons.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from comparison.checks import MAX_OTHER_CORES
from studies import timings
from studies.intervals import interval_text, mean_and_reach
from studies.rows import Row, number, where
from studies.runtime_results import (
    ARMS,
    BEST,
    COMPILED,
    OPERATORS,
    PUBLISHED,
    branch_table,
    chosen,
    clean,
    epochs_table,
    implementation_table,
    kept_mib,
    largest,
    operator_table,
    step_ratios,
    step_table,
)
from studies.verdicts import Finding, finding, judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Does a detector train faster with Mish, and do conditional statements cost time?"
CLAIM = "Training a detector takes seriously less time, for the lack of conditional statements"
MINUTES = 26
EXTRA = ""
PICTURE = (17.0, 6.5)
ALONE = True  # a cell beside another would be timed beside it

ELEMENTS = (1 << 14, 1 << 18, 1 << 22)  # 64 KiB to 16 MiB in fp32
PROCESSES = 3  # in which the step that decides is timed
STEP: Row = {"rounds": 30, "batch": 8, "side": 160}
COMPARISONS = Path(__file__).parents[1] / "docs" / "results"  # with raw runs of detectors
SEEDS = 5  # of the published comparisons
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
        for data, names in PUBLISHED.items()
        for name in ("relu", *names)
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


def logs(rows: Sequence[Row]) -> list[float]:
    """The logarithms of the ratios by round of these rows."""
    return [float(word) for row in rows for word in str(row["log_ratios"]).split()]


def _about_training(rows: Sequence[Row]) -> Finding:
    best = chosen(rows, "step", name=BEST)
    judged = judge([-each for each in logs(clean(best))], LESS) if clean(best) else None
    found = []
    if best:
        logs_by_process = [fmean(logs([row])) for row in best]
        found.append(
            f"{best[0]['device']}. Steps of a size n detector (batch {best[0]['batch']}, {best[0]['side']} pixels). "
            f"What decides is Mish and ReLU, both fused with batch norm, in {len(best)} processes: the geometric mean "
            "of the ratios of all rounds, as planned, where the table has medians."
        )
        if len(best) > 1:
            mean, reach = mean_and_reach(logs_by_process)
            words = interval_text(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), ".3f")
            found.append(f"With the processes as units, which is stricter, it is {words}.")
    ratios = step_ratios(rows)
    if "identity, plain" in ratios and best:
        found.append(
            f"A step with the fused Mish takes {ratios[BEST] / ratios['identity, plain']:.3f} times as long as one "
            "with batch norm and no activation at all."
        )
    if chosen(rows, "operator", name="ReLU, compiled"):
        found.append(
            "The slow backward pass of the compiled ReLU has no branch either: the generated loop "
            "(`TORCH_LOGS=output_code`) uses vector instructions and a selection, by a mask of booleans that the "
            "forward pass has written."
        )
    if chosen(rows, "epochs"):
        found.append(
            "The verdict is about the time of a step, as planned. Epochs to a target are fewer with Mish than with "
            "ReLU, and with SiLU as well (the last tables), so that a given mAP can be reached sooner."
        )
    found += _circumstances([row for row in rows if row["part"] in ("step", "operator")], bool(judged))
    return finding(
        claim="Mish reduces the run time of a training step of a detector",
        # github.com/digantamisra98/Mish, issue 18: YOLOv3-SPP on a V100, 31 to 46 minutes an epoch
        # thomasbrandon/mish-cuda, README: an RTX 2070, fp32, 10,485,760 elements
        published="in the paper no measurement of a training; of operators, Mish-CUDA takes 1.21 (forward) and 1.18 "
        "(backward) times as long as ReLU, x tanh(softplus(x)) 3.4 and 4.0 times; with that, YOLOv3-SPP took 1.48 "
        "times leaky ReLU's time (Mish#18)",
        found=" ".join(found),
        judged=judged,
        unit="of the step time with ReLU",
        ratio=-1,
        part="step",
        tables=step_table(rows) + operator_table(rows) + epochs_table(rows) + implementation_table(rows),
    )


def _about_conditions(rows: Sequence[Row]) -> Finding:
    primary = chosen(rows, "branch", name="relu", form="if", signs="random", vectorised=True)
    judged = judge(logs(clean(primary)), MORE) if clean(primary) else None
    found = [
        "What decides is ReLU with an if in a loop with vector instructions and signs in random order, which is how "
        "libraries compile it: the geometric mean of the ratios of its rounds, where the table has medians. An if is "
        "left to the compiler, which makes a selection of it where it can; a jump is forced, which also keeps the "
        "loop from vector instructions: with sorted signs, whose jumps are predicted, that is what it costs. Signs "
        "are of the distance to the bound between the two formulas, which is 0 for ReLU and 20 for Mish; ordinary "
        "inputs are all below it. Without a condition, Mish needs arithmetic to keep its exponential in range, which "
        "costs more than a selection: with that arithmetic removed, which ordinary inputs do not need, both forms "
        "take the same time (ratio 1.00, 40 rounds)."
    ]
    return finding(
        claim="Mish is faster because it has no conditional statements: a condition costs time",
        published="a hypothesis without a measurement",
        found=" ".join([*found, *_circumstances(where(rows, part="branch"), bool(judged))]),
        judged=judged,
        unit="of the branch-free time",
        ratio=1,
        part="condition",
        tables=branch_table(rows),
    )


def _circumstances(rows: Sequence[Row], judged: bool) -> list[str]:
    """What was not measured, and the load of other processes, as sentences."""
    timed = [row for row in rows if "other_cores" in row]
    busy = len(timed) - len(clean(timed))
    words = "" if judged else ", so nothing is judged"
    return [
        *sorted({f"{row['note']}." for row in rows if "note" in row}),
        f"In {busy} of {len(timed)} measurements (marked *), other processes used more than {MAX_OTHER_CORES:g} of a "
        f"core{words}. "
        "One thread; no GPU was measured.",
    ]


# -------------------------------------------------------------------------------------------------------------- picture


def draw(rows: Sequence[Row], figure: "Figure") -> None:
    """Ratios of times with 95 % intervals: operators, steps, branches."""
    panels = figure.subplot_mosaic(
        [["operators", "fused", "branches"], ["operators", "steps", "branches"]], height_ratios=(1, 3)
    )
    operators, fused, steps, branches = (panels[name] for name in ("operators", "fused", "steps", "branches"))
    elements, kept = largest(rows), kept_mib(rows)
    ways = {way: chosen(rows, "operator", way=way, elements=elements) for way in ("forward", "backward")}
    _draw_ratios(operators, {way: {str(row["name"]): row for row in part} for way, part in ways.items()})
    operators.set_title(f"Operator, {elements:,} elements, fp32\nby the time of PyTorch's ReLU", fontsize=10)
    labels = {name: f"{name} ({kept[name]:.0f} MiB)" if kept else name for name in ARMS}
    processes = {f"process {each + 1}": chosen(rows, "step", process=each) for each in range(PROCESSES)}
    _draw_ratios(
        steps, {each: {labels[str(row["name"])]: row for row in part} for each, part in processes.items()}, legend=False
    )
    steps.set_title(
        "All forms (memory kept for backward); mish_torch is F.mish, mish_eager three operators", fontsize=9
    )
    _draw_ratios(
        fused,
        {
            process: {str(row["name"]): row for row in part if str(row["name"]).endswith("fused")}
            for process, part in processes.items()
        },
    )
    fused.set_title("Training step of the detector, fused with batch norm\nby the time with ReLU", fontsize=10)
    fused.set(xlabel="", ylim=(-2.6, 0.6))
    forms = {
        f"{form}, {words}": chosen(rows, "branch", form=form, vectorised=vectorised)
        for form in ("if", "jump")
        for vectorised, words in ((True, "vectorised"), (False, "scalar"))
    }
    _draw_ratios(
        branches, {form: {f"{row['name']}, {row['signs']}": row for row in part} for form, part in forms.items()}
    )
    branches.set_title("Kernel with a condition\nby the time of the branch-free kernel of the function", fontsize=10)


def _draw_ratios(axis: "Axes", groups: Mapping[str, Mapping[str, Row]], *, legend: bool = True) -> None:
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
    if legend:
        axis.legend(fontsize=8)
