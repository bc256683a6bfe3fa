"""Whether accuracy falls less with Mish as layers are added, and whether over-fitting is less: MNIST digits.

The network of the paper's notebook: convolutions 5 x 5 of 20 and 50 channels, then blocks of a dense layer of 500
units, batch norm, activation and dropout of 25 %, without shortcuts, and the output; "15 layers" are 12 such blocks.
SGD without momentum.

What two cores change. The paper takes 4,690 steps of 128 of 60,000 images at the rate 0.01. Here it is 400 steps of 64
of 3,500 images at the rate 0.1, so that rate times steps is 40 instead of 47, each image is seen 7 times instead of
10, and accuracy is lower. There is a max pooling after each convolution instead of one after both, which halves the
time. Batch norm averages over 10 steps (PyTorch's default) instead of 100 (Keras's), as there are fewer steps.

Arms beside the paper's: He initialisation instead of Glorot's, and the learning rate of three with the highest accuracy
on the held-out images, averaged over tuning seeds that no figure is computed from.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from studies.depth_network import TRAINED, measure
from studies.mnist import mean_and_reach, shown
from studies.study import Row
from studies.verdicts import Finding, judge

TITLE = "do accuracy and over-fitting suffer less with Mish as layers are added?"
MINUTES = 55.0
EXTRA = "studies"

ACTIVATIONS = ("relu", "swish", "mish")
DEPTHS = (15, 20, 25, 40)
ARM_DEPTH = 25  # of the arms with tuned rate and He initialisation
RATE, RATES = 0.1, (0.03, 0.1, 0.3)
SEEDS, TUNING_SEEDS = range(5), range(100, 102)
STEPS = 400
POINT, GAP = 1.0, 10.0  # what counts: points of accuracy, % of Swish's gap; from docs/results/paper/plan.md
__all__ = ["EXTRA", "MINUTES", "TITLE", "cells", "conclude", "draw", "measure"]
COLOURS = {"relu": "tab:blue", "swish": "tab:orange", "mish": "tab:green"}

# Test accuracy in % at 15 to 25 layers, one run each: Mish and Swish from Layers_Acc.ipynb of
# github.com/digantamisra98/Mish, ReLU read off layersacc.png there, to about 0.2.
PUBLISHED = {
    "mish": (98.43, 98.28, 98.38, 98.24, 98.05, 97.52, 97.86, 96.46, 94.52, 94.66, 85.16),
    "swish": (98.2, 97.91, 97.95, 97.52, 97.2, 96.22, 95.57, 91.74, 73.58, 63.41, 39.68),
    "relu": (97.1, 97.8, 85.7, 58.4, 51.4, 48.0, 26.8, 26.8, 14.4, 18.4, 22.9),
}
PUBLISHED_DEPTHS = range(15, 26)


def cells(*, quick: bool) -> list[Row]:
    """The paper's arm at all depths, then He initialisation and the rates at one depth, with tuning seeds first."""
    depths: Sequence[int] = DEPTHS
    rates: Sequence[float] = RATES
    arm, steps, seeds, tuning, every = ARM_DEPTH, STEPS, SEEDS, TUNING_SEEDS, 1
    if quick:
        depths, arm, steps, seeds, tuning, rates, every = (4, 6), 4, 2, range(2), range(100, 101), RATES[:2], 25
    plan = [("glorot", rate, arm, seed) for seed in tuning for rate in rates]
    for seed in seeds:
        plan += [("glorot", RATE, depth, seed) for depth in depths]
        plan += [("he", RATE, arm, seed)]
        plan += [("glorot", rate, arm, seed) for rate in rates if rate != RATE]
    return [
        {
            **{"initialisation": rule, "rate": rate, "depth": depth, "activation": name, "seed": seed},
            **{"steps": steps, "every": every},  # every: which images are evaluated
        }
        for rule, rate, depth, seed in plan
        for name in ACTIVATIONS
    ]


def arms(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each arm: paper, he and tuned, whose learning rate is chosen for each activation."""
    final = [row for row in rows if row["seed"] not in TUNING_SEEDS]
    chosen, depths = tuned_rates(rows), {row["depth"] for row in rows if row["initialisation"] == "he"}
    glorot = [row for row in final if row["initialisation"] == "glorot"]
    return {
        "paper": [row for row in glorot if row["rate"] == RATE],
        "he": [row for row in final if row["initialisation"] == "he"],
        "tuned": [row for row in glorot if row["depth"] in depths and row["rate"] == chosen[str(row["activation"])]],
    }


def tuned_rates(rows: Sequence[Row]) -> dict[str, float]:
    """Each activation's rate with the highest held-out accuracy over the tuning seeds, the lowest of equal ones."""
    tuning = [row for row in rows if row["seed"] in TUNING_SEEDS]
    return {
        name: max(
            sorted({cast(float, row["rate"]) for row in tuning}),
            key=lambda rate: sum(
                cast(float, row["held_out_accuracy"])
                for row in tuning
                if row["activation"] == name and row["rate"] == rate  # noqa: B023
            ),
        )
        for name in ACTIVATIONS
    }


def by_seed(rows: Iterable[Row], column: str, name: str) -> list[float]:
    """A figure of an activation by seed, averaged over the depths among the rows."""
    chosen = [row for row in rows if row["activation"] == name]
    found = []
    for seed in sorted({cast(int, row["seed"]) for row in chosen}):
        values = [cast(float, row[column]) for row in chosen if row["seed"] == seed]
        found.append(sum(values) / len(values))
    return found


def less(rows: Sequence[Row], column: str, one: str, other: str) -> list[float]:
    """One activation minus another by seed, averaged over the depths among the rows."""
    return [a - b for a, b in zip(by_seed(rows, column, one), by_seed(rows, column, other), strict=True)]


def trained_depths(rows: Iterable[Row]) -> list[int]:
    """The depths at which every network of every activation trained."""
    rows = list(rows)
    return sorted(
        {cast(int, row["depth"]) for row in rows} - {cast(int, row["depth"]) for row in rows if not row["trained"]}
    )


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """Accuracy against Swish and ReLU, over-fitting against Swish, and whether the other arms differ."""
    found = arms(rows)
    return [
        _accuracy(found["paper"], "swish"),
        _accuracy(found["paper"], "relu"),
        _overfitting(found["paper"]),
        _other_arms(found, tuned_rates(rows)),
    ]


def _accuracy(rows: Sequence[Row], other: str) -> Finding:
    differences = less(rows, "test_accuracy", "mish", other)
    judged = judge(differences, POINT)
    depths = sorted({cast(int, row["depth"]) for row in rows})
    published = [f"{name} {PUBLISHED[name][5]:.1f} % and {PUBLISHED[name][10]:.1f} %" for name in ("mish", other)]
    parts = []
    for depth in depths:
        here = [row for row in rows if row["depth"] == depth]
        means = ", ".join(
            f"{name} {mean_and_reach(by_seed(here, 'test_accuracy', name))[0]:.1f}" for name in ("mish", other)
        )
        count = [sum(bool(row["trained"]) for row in here if row["activation"] == name) for name in ("mish", other)]
        parts.append(f"{depth} layers: {means} ({count[0]} and {count[1]} of the runs trained)")
    return Finding(
        claim=f"Accuracy falls less with Mish than with {other} as layers are added",
        published=f"accuracy with 20 and 25 layers: {', '.join(published)} (one run each)",
        found=f"test accuracy in % on 1,000 MNIST digits after training on 3,500, mean over {len(differences)} seeds: "
        f"{'; '.join(parts)}; averaged over the depths, Mish minus {other} is {shown(differences, 'points')}. "
        f"The gradient of the first dense layer at the start, divided by that of the last, with {depths[-1]} layers: "
        f"{_ratios([row for row in rows if row['depth'] == depths[-1]], ('mish', other))}",
        verdict=judged.verdict,
        judged=judged if other == "swish" else None,
    )


def _ratios(rows: Sequence[Row], names: Sequence[str]) -> str:
    shown = (
        f"{name} {mean_and_reach(by_seed(rows, 'gradient_ratio', name))[0]:.3g}, with "
        f"{mean_and_reach(by_seed(rows, 'dead_percent', name))[0]:.1f} % dead units at the end"
        for name in names
    )
    return "; ".join(shown)


def _overfitting(rows: Sequence[Row]) -> Finding:
    claim, published = "Networks with Mish over-fit less than those with swish", "shown in a figure of the loss"
    depths = trained_depths(rows)
    if not depths:
        found = f"at no depth did all runs pass {TRAINED:.0f} % of test accuracy, so the gap cannot be compared"
        return Finding(claim=claim, published=published, found=found, verdict="inconclusive")
    chosen = [row for row in rows if row["depth"] in depths]
    swish = by_seed(chosen, "gap", "swish")
    level = abs(mean_and_reach(swish)[0])
    judged = judge([100 * value / level for value in less(chosen, "gap", "swish", "mish")], GAP)
    low, high = judged.interval
    gaps = ", ".join(f"{name} {shown(by_seed(chosen, 'gap', name), digits=4, sign='')}" for name in ACTIVATIONS)
    losses = ", ".join(f"{name} {mean_and_reach(by_seed(chosen, 'test_loss', name))[0]:.3f}" for name in ACTIVATIONS)
    return Finding(
        claim=claim,
        published=published,
        found=f"test loss minus training loss in nats, averaged over the depths at which all runs trained "
        f"({', '.join(map(str, depths))}): {gaps}; Mish's gap is smaller than swish's by {judged.estimate:.1f} % of it "
        f"({low:.1f} to {high:.1f}). Test losses: {losses}",
        verdict=judged.verdict,
        judged=judged,
    )


def _other_arms(found: Mapping[str, Sequence[Row]], rates: Mapping[str, float]) -> Finding:
    depth = cast(int, found["he"][0]["depth"])
    same = [row for row in found["paper"] if row["depth"] == depth]
    labels = {
        "paper": (same, "as above"),
        "he": (found["he"], "with He initialisation"),
        "tuned": (found["tuned"], f"with tuned rates ({', '.join(f'{k} {v:g}' for k, v in rates.items())})"),
    }
    parts = []
    for rows, label in labels.values():
        pairs = (
            f"{shown(less(rows, 'test_accuracy', 'mish', other), 'points')} from {other}" for other in ("swish", "relu")
        )
        level = mean_and_reach(by_seed(rows, "test_accuracy", "mish"))[0]
        parts.append(f"{label}: Mish at {level:.1f} % differs by {' and '.join(pairs)}")
    differences = less(found["tuned"], "test_accuracy", "mish", "swish")
    return Finding(
        claim="The difference remains with a tuned learning rate",
        published="nothing; the paper has one learning rate and one initialisation",
        found=f"test accuracy with {depth} layers, {'; '.join(parts)}",
        verdict=judge(differences, POINT).verdict,
    )


def draw(rows: Sequence[Row], path: Path) -> None:
    """Accuracy, gap, losses, gradient ratio and dead units by depth, and the accuracy of the arms at one depth."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).flatten()
    found = arms(rows)
    for panel, (title, label, columns) in zip(
        panels,
        (
            ("accuracy", "test accuracy, %", ("test_accuracy",)),
            ("loss in evaluation mode", "loss, nats", ("test_loss", "train_loss")),
            ("over-fitting", "test loss minus training loss, nats", ("gap",)),
            ("gradient at the start", "norm at the first dense layer / at the last", ("gradient_ratio",)),
            ("dead units at the end", "dead units of the dense layers, %", ("dead_percent",)),
        ),
        strict=False,
    ):
        for column, style in zip(columns, ("-", "--"), strict=False):
            _plot(panel, found["paper"], column, style, "" if len(columns) == 1 else f", {column.split('_')[0]}")
        panel.set(title=title, xlabel="layers", ylabel=label)
    for name in ACTIVATIONS:
        panels[0].plot(PUBLISHED_DEPTHS, PUBLISHED[name], ":", color=COLOURS[name], label=f"{name}, published")
    panels[3].set_yscale("log")
    for panel in (panels[0], panels[5]):
        panel.set_ylim(0, 102)
    _draw_arms(panels[5], found)
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.suptitle("MNIST networks of growing depth without shortcuts: mean over seeds, 95 % intervals")
    figure.savefig(path, dpi=110)


def _plot(panel: Any, rows: Sequence[Row], column: str, style: str, suffix: str) -> None:
    depths = sorted({cast(int, row["depth"]) for row in rows})
    for number, name in enumerate(ACTIVATIONS):
        values = [by_seed([row for row in rows if row["depth"] == depth], column, name) for depth in depths]
        means, reaches = zip(*map(mean_and_reach, values), strict=True)
        where = [depth + 0.25 * (number - 1) for depth in depths]  # so that intervals do not cover each other
        panel.errorbar(
            where, means, reaches, linestyle=style, marker="o", markersize=3, capsize=2, color=COLOURS[name],
            label=f"{name}{suffix}",
        )  # fmt: skip


def _draw_arms(panel: Any, found: Mapping[str, Sequence[Row]]) -> None:
    depth = found["he"][0]["depth"]
    for number, name in enumerate(ACTIVATIONS):
        values = [by_seed([r for r in rows if r["depth"] == depth], "test_accuracy", name) for rows in found.values()]
        means, reaches = zip(*map(mean_and_reach, values), strict=True)
        where = [place + 0.15 * (number - 1) for place in range(len(found))]
        panel.errorbar(where, means, reaches, linestyle="", marker="o", capsize=3, color=COLOURS[name], label=name)
    panel.set_xticks(range(len(found)), ["Glorot, one rate", "He", "tuned rate"])
    panel.set(title=f"other settings, {depth} layers", ylabel="test accuracy, %")
