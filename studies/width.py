"""Does Swish lose accuracy against Mish in larger networks? A small ResNet on digits, by width and depth.

A cell trains one network (`studies.digits_resnet`) with one activation from one seed. The primary figure is how much
more Mish is ahead of Swish at the largest size than at the smallest; the others are the trends with width and depth.
The detector is left out: at a size that two cores train from several seeds within the hour, its mAP is far from final.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from studies.study import Row
from studies.verdicts import ALPHA, Finding, judge

TITLE = "does Swish lose accuracy in larger networks where Mish does not"
MINUTES = 30
EXTRA = "studies"

ACTS = {"ReLU": "relu", "Swish": "silu", "Mish": "mish"}  # Swish with beta = 1 is SiLU
WIDTHS = (8, 16, 32, 64)  # channels of the first of two stages
BLOCKS = (1, 2, 4)  # per stage: 6, 10, 18 layers
SEEDS = 5
STEPS = 200
PAIRS = (("Swish", "Mish"), ("Mish", "ReLU"), ("Swish", "ReLU"))
MARGIN = 1.0  # points


def cells(*, quick: bool) -> list[Row]:
    """All sizes, activations and seeds, the seeds outermost, so that an interrupted study has complete ones."""
    widths, blocks, seeds, steps = ((4, 8), (1,), 2, 12) if quick else (WIDTHS, BLOCKS, SEEDS, STEPS)
    return [
        {"seed": seed, "width": width, "blocks": each, "act": act, "steps": steps}
        for seed in range(seeds)
        for width in widths
        for each in blocks
        for act in ACTS
    ]


def measure(cell: Row) -> Row:
    """Losses, accuracies and number of parameters of a trained network."""
    from studies.digits_resnet import train

    settings = {key: int(cell[key] or 0) for key in ("width", "blocks", "seed", "steps")}
    return {**train(ACTS[str(cell["act"])], **settings)}


# ------------------------------------------------------------------------------------------------------------- findings


def grid(rows: Sequence[Row], key: str = "test_accuracy") -> tuple[dict[str, np.ndarray], list[int], list[int]]:
    """A figure by activation as (seeds, widths, blocks), with the widths and the blocks."""
    seeds, widths, blocks = (sorted({int(row[name] or 0) for row in rows}) for name in ("seed", "width", "blocks"))
    values = {act: np.full((len(seeds), len(widths), len(blocks)), np.nan) for act in ACTS}
    for row in rows:
        place = tuple(
            known.index(int(row[name] or 0)) for name, known in (("seed", seeds), ("width", widths), ("blocks", blocks))
        )
        values[str(row["act"])][place] = row[key]
    return values, widths, blocks


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half-width of the 95 % interval over the first axis, the seeds."""
    count = len(values)
    reach = stats.t.isf(ALPHA / 2, count - 1) * values.std(0, ddof=1) / np.sqrt(count)
    return values.mean(0), reach


def slopes(differences: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Least-squares slope (seeds,) of differences (seeds, sizes) by doubling of the size."""
    x = np.log2(sizes) - np.log2(sizes).mean()
    return (differences - differences.mean(1, keepdims=True)) @ x / (x @ x)


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """How the differences change with the size."""
    accuracy, widths, blocks = grid(rows)
    ahead = accuracy["Mish"] - accuracy["Swish"]
    growth = ahead[:, -1, -1] - ahead[:, 0, 0]
    judged = judge(growth.tolist(), MARGIN)
    depths = [4 * each + 2 for each in blocks]
    found = [
        f"ResNets of {widths[0]} to {widths[-1]} channels and {depths[0]} to {depths[-1]} layers on 8x8 digits, "
        f"{len(growth)} seeds. From the smallest to the largest, Swish minus Mish changes by {_text(-growth)} points: "
        f"from {_text(-ahead[:, 0, 0])} to {_text(-ahead[:, -1, -1])}."
    ]
    for one, other in PAIRS:
        gap = accuracy[one] - accuracy[other]
        words = [f"{_text(gap.mean((1, 2)))} over all sizes", f"{_text(slopes(gap.mean(2), widths))} by doubled width"]
        if len(blocks) > 1:
            words.append(f"{_text(slopes(gap.mean(1), depths))} by doubled depth")
        found.append(f"{one} minus {other}: {', '.join(words)}.")
    means = ", ".join(f"{act} {values[:, -1, -1].mean():.1f} %" for act, values in accuracy.items())
    found.append(f"Mean accuracy at the largest size: {means}. No detector was trained for this.")
    return [
        Finding(
            claim="Swish loses accuracy in larger networks where Mish does not",
            # YOLOv4 (arXiv 2004.10934), Table 2, quoted by the paper's Table 3: top-1 with CSPResNeXt-50, one run each
            published="ImageNet, CSPResNeXt-50: Swish 64.5 %, leaky ReLU 77.9 %, Mish 78.9 %, single runs",
            found=" ".join(found),
            verdict=judged.verdict,
            judged=judged,
        )
    ]


def _text(values: np.ndarray) -> str:
    """Mean and interval of values by seed."""
    mean, reach = interval(values)
    return f"{mean:+.2f} [{mean - reach:+.2f}, {mean + reach:+.2f}]"


# -------------------------------------------------------------------------------------------------------------- picture


def draw(rows: Sequence[Row], path: Path) -> None:
    """Test error, and the differences by width, averaged over the depths and for each of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    accuracy, widths, blocks = grid(rows)
    figure = Figure(figsize=(15, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    shift = np.array(widths, float)
    for number, (act, values) in enumerate(accuracy.items()):
        mean, reach = interval(values.mean(2))
        left.errorbar(shift * 1.04 ** (number - 1), mean, yerr=reach, fmt="o-", capsize=3, label=act)
    left.set_title("Test accuracy, mean of the depths")
    left.set_ylabel("test accuracy, %")
    for number, (one, other) in enumerate(PAIRS):
        mean, reach = interval((accuracy[one] - accuracy[other]).mean(2))
        label = f"{one} minus {other}"
        middle.errorbar(shift * 1.04 ** (number - 1), mean, yerr=reach, fmt="o-", capsize=3, label=label)
    middle.set_title("Differences, mean of the depths")
    middle.set_ylabel("difference in test accuracy, points")
    for number, each in enumerate(blocks):
        mean, reach = interval((accuracy["Swish"] - accuracy["Mish"])[:, :, number])
        label = f"{4 * each + 2} layers"
        right.errorbar(shift * 1.04 ** (number - 1), mean, yerr=reach, fmt="o-", capsize=3, label=label)
    right.set_title("Swish minus Mish, by depth")
    right.set_ylabel("difference in test accuracy, points")
    for axis in (left, middle, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(widths, [str(each) for each in widths])
        axis.set_xlabel("width, channels of the first stage")
        axis.grid(alpha=0.3)
        axis.legend()
        if axis is not left:
            axis.axhline(0, color="black", linewidth=0.8)
    seeds = len({row["seed"] for row in rows})
    figure.suptitle(f"ResNets on 8x8 digits, {seeds} seeds, 95 % intervals over seeds")
    figure.savefig(path, dpi=110)
