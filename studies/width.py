"""Does Swish lose accuracy against Mish in larger networks? A small ResNet on digits, by width and depth; a detector.

A cell trains one network of two stages with one activation from one seed. The primary figure is how much
more Mish is ahead of Swish at the largest size than at the smallest; the others are the trends with width and depth.
The detector is descriptive: small images and short runs, whose mAP is far from final.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from studies.digits import Split, small_digits, standardised
from studies.intervals import mean_text
from studies.networks import resnet
from studies.noise_detector import noisy_map
from studies.pictures import COLOURS, errorbars
from studies.rows import Row, distinct, number, where
from studies.tables import Table, table
from studies.training import batches, cross_entropy, nesterov, train
from studies.verdicts import Finding, finding, judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Does Swish lose accuracy in larger networks where Mish does not?"
CLAIM = "Swish loses accuracy in larger models where Mish does not"
MINUTES = 30
EXTRA = "studies"
PICTURE = (19.0, 5.0)

OTHERS = ("tab:purple", "tab:brown", "tab:gray")  # colours of what is not an activation
ACTS = {"ReLU": "relu", "Swish": "silu", "Mish": "mish"}  # Swish with beta = 1 is SiLU
WIDTHS = (8, 16, 32, 64)  # channels of the first of two stages
BLOCKS = (1, 2, 4)  # per stage: 6, 10, 18 layers
SEEDS = 5
SIZES = {"half of n": 0.125, "n": 0.25, "s": 0.5}  # of the detector, with their width multiples
DETECTOR_IMAGES, DETECTOR_EPOCHS = (160, 100), 60  # to train on and to test on
TRAINING_IMAGES = 500  # the other 1297 are test images
STEPS, BATCH, RATE = 200, 50, 0.05
WARMUP = 0.05  # of the steps
PAIRS = (("Swish", "Mish"), ("Mish", "ReLU"), ("Swish", "ReLU"))
MARGIN = 1.0  # points


def cells(*, quick: bool) -> list[Row]:
    """All sizes, activations and seeds, the seeds outermost, so that an interrupted study has complete ones."""
    widths, blocks, seeds, steps = ((4, 8), (1,), 2, 12) if quick else (WIDTHS, BLOCKS, SEEDS, STEPS)
    detectors: list[Row] = [
        {"detector": size, "seed": seed, "act": act, "epochs": DETECTOR_EPOCHS}
        for seed in range(seeds)
        for size in SIZES
        for act in ACTS
    ]
    resnets: list[Row] = [
        {"seed": seed, "width": width, "blocks": each, "act": act, "steps": steps}
        for seed in range(seeds)
        for width in widths
        for each in blocks
        for act in ACTS
    ]
    return resnets + (
        [{"detector": "n", "seed": 0, "act": "Mish", "epochs": 1, "few images": True}] if quick else detectors
    )


def measure(cell: Row) -> Row:
    """Losses, accuracies and number of parameters of a trained network."""
    if "detector" in cell:
        (found,) = noisy_map(
            ACTS[str(cell["act"])],
            int(number(cell, "seed")),
            trained_to=0,
            sigmas=(0,),
            images=(16, 4) if cell.get("few images") else DETECTOR_IMAGES,
            epochs=int(number(cell, "epochs")),
            width=SIZES[str(cell["detector"])],
        )
        return {"map": found}
    width, blocks, seed, steps = (int(number(cell, key)) for key in ("width", "blocks", "seed", "steps"))
    splits = images(seed)
    model = resnet(ACTS[str(cell["act"])], seed, stages=2, blocks=blocks, width=width)
    optimizer = nesterov(model, RATE)
    warmup = max(1, round(WARMUP * steps))
    train(
        model,
        cross_entropy(model, splits["train"]),
        optimizer,
        batches(TRAINING_IMAGES, BATCH, steps=steps, seed=seed),
        seed=seed,
        schedule=torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))
        ),
    )
    row: Row = {"parameters": float(sum(each.numel() for each in model.parameters()))}
    with torch.no_grad():
        for name, split in splits.items():
            logits = model(split.images)
            row[f"{name}_loss"] = float(F.cross_entropy(logits, split.labels))
            row[f"{name}_accuracy"] = 100 * float((logits.argmax(1) == split.labels).double().mean())
    return row


def images(seed: int) -> dict[str, Split]:
    """Training and test images, drawn by the seed."""
    whole = small_digits()
    order = torch.randperm(len(whole.labels), generator=torch.Generator().manual_seed(seed))
    return standardised({"train": whole.at(order[:TRAINING_IMAGES]), "test": whole.at(order[TRAINING_IMAGES:])})


def layers(blocks: int) -> int:
    """Convolutions in a row and the linear layer."""
    return 4 * blocks + 2


# ------------------------------------------------------------------------------------------------------------- findings


def grid(rows: Sequence[Row], key: str = "test_accuracy") -> tuple[dict[str, np.ndarray], list[int], list[int]]:
    """A figure of the ResNets by activation as (seeds, widths, blocks), with the widths and the blocks."""
    rows = [row for row in rows if "detector" not in row]
    axes = {name: distinct(rows, name) for name in ("seed", "width", "blocks")}
    values = {act: np.full([len(known) for known in axes.values()], np.nan) for act in ACTS}
    for row in rows:
        place = tuple(known.index(int(number(row, name))) for name, known in axes.items())
        values[str(row["act"])][place] = row[key]
    return values, axes["width"], axes["blocks"]


def slopes(differences: np.ndarray, sizes: Sequence[float]) -> np.ndarray:
    """Least-squares slope (seeds,) of differences (seeds, sizes) by doubling of the size."""
    x = np.log2(sizes) - np.log2(sizes).mean()
    return (differences - differences.mean(1, keepdims=True)) @ x / (x @ x)


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """How the differences change with the size."""
    accuracy, widths, blocks = grid(rows)
    ahead = accuracy["Mish"] - accuracy["Swish"]
    growth, ahead_by_size = ahead[:, -1, -1] - ahead[:, 0, 0], -ahead.mean(0)
    depths = [layers(each) for each in blocks]
    return [
        finding(
            claim="Swish loses accuracy in larger networks where Mish does not",
            # YOLOv4 (arXiv 2004.10934), Table 2, quoted by the paper's Table 3: top-1 with CSPResNeXt-50, one run each
            published="ImageNet, CSPResNeXt-50: Swish 64.5 %, leaky ReLU 77.9 %, Mish 78.9 %, single runs",
            found=f"ResNets of {widths[0]} to {widths[-1]} channels and {depths[0]} to {depths[-1]} layers on 8x8 "
            f"digits, {len(growth)} seeds. The published gap, of one run of a far larger network, is 14.4 points; the "
            f"mean of Swish minus Mish is between {ahead_by_size.min():+.2f} and {ahead_by_size.max():+.2f} points at "
            f"all sizes here. The mean test error with Mish is only {100 - accuracy['Mish'].mean():.1f} %, so there is "
            "little room: this contradicts the claim for small networks, and says nothing of networks of ImageNet's "
            "size.",
            judged=judge(growth.tolist(), MARGIN),
            unit="points that Mish gains on Swish from the smallest to the largest size",
            part="digits",
            tables=_trend_table(accuracy, widths, depths) + _detector_table(rows),
        )
    ]


def _trend_table(accuracy: Mapping[str, np.ndarray], widths: Sequence[int], depths: Sequence[int]) -> tuple[Table, ...]:
    def line(one: str, other: str) -> list[str]:
        gap = accuracy[one] - accuracy[other]
        by_depth = mean_text(slopes(gap.mean(1), depths)) if len(depths) > 1 else ""
        ends = (gap[:, 0, 0], gap[:, -1, -1], gap.mean((1, 2)), slopes(gap.mean(2), widths))
        return [f"{one} minus {other}", *map(mean_text, ends), by_depth]

    largest = ", ".join(f"{act} {values[:, -1, -1].mean():.1f} %" for act, values in accuracy.items())
    return table(
        "Differences in test accuracy, points; the trends are least-squares slopes over the binary logarithm of "
        f"channels and of layers. At the largest size the accuracy is {largest}",
        ("", "smallest", "largest", "mean of all sizes", "by doubled channels", "by doubled layers"),
        (line(one, other) for one, other in PAIRS),
    )


def detectors(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """mAP50-95 of the detectors by activation as (seeds, sizes), for the sizes with at least two seeds of each."""
    values = {
        (act, size): [number(row, "map") for row in where(rows, detector=size, act=act)]
        for act in ACTS
        for size in SIZES
    }
    if min(map(len, values.values())) < 2:
        return {}
    return {act: np.array([values[act, size] for size in SIZES]).T for act in ACTS}


def _detector_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    values = detectors(rows)
    if not values:
        return ()
    gaps = {pair: values[pair[0]] - values[pair[1]] for pair in PAIRS}
    lines = [
        [
            f"{width:g} ({size})",
            *(f"{values[act][:, place].mean():.1f}" for act in ACTS),
            *(mean_text(gap[:, place]) for gap in gaps.values()),
        ]
        for place, (size, width) in enumerate(SIZES.items())
    ]
    trends = (mean_text(slopes(gap, list(SIZES.values()))) for gap in gaps.values())
    return table(
        f"Detector, mAP50-95 in points after {DETECTOR_EPOCHS} epochs of {DETECTOR_IMAGES[0]} images of 64 pixels",
        ("width", *ACTS, *(f"{one} minus {other}" for one, other in PAIRS)),
        [*lines, ["trend by doubled width", *("" for _ in ACTS), *trends]],
    )


# -------------------------------------------------------------------------------------------------------------- picture


def draw(rows: Sequence[Row], figure: "Figure") -> None:
    """Test accuracy and its differences by width, over the depths and for each of them; the detector's differences."""
    accuracy, widths, blocks = grid(rows)
    left, middle, right, detector = figure.subplots(1, 4)
    colours = [COLOURS[name] for name in ACTS.values()]
    _lines(left, widths, {act: values.mean(2) for act, values in accuracy.items()}, colours)
    left.set(title="Test accuracy, mean of the depths", ylabel="test accuracy, %")
    gaps = {f"{one} minus {other}": (accuracy[one] - accuracy[other]).mean(2) for one, other in PAIRS}
    _lines(middle, widths, gaps)
    middle.set_title("Differences, mean of the depths")
    swish = accuracy["Swish"] - accuracy["Mish"]
    _lines(right, widths, {f"{layers(each)} layers": swish[:, :, place] for place, each in enumerate(blocks)})
    right.set_title("Swish minus Mish, by depth")
    for axis in (middle, right):
        axis.set_ylabel("difference in test accuracy, points")
    found = detectors(rows)
    if found:
        gaps = {f"{one} minus {other}": found[one] - found[other] for one, other in PAIRS}
        _lines(detector, list(SIZES.values()), gaps)
        detector.set(title="Detector", xlabel="width multiple (n: 0.25)", ylabel="difference in mAP50-95, points")
    else:
        detector.axis("off")
    for axis in (middle, right, detector):
        axis.axhline(0, color="black", linewidth=0.8)
    figure.suptitle(f"ResNets on 8x8 digits, and a detector: {len(accuracy['ReLU'])} seeds, 95 % intervals over seeds")


def _lines(
    axis: "Axes", widths: Sequence[float], curves: Mapping[str, np.ndarray], colours: Sequence[str] = OTHERS
) -> None:
    """Curves of (seeds, widths)."""
    for place, (label, values) in enumerate(curves.items()):
        shifted = [width * 1.04 ** (place - 1) for width in widths]  # so that intervals do not cover each other
        errorbars(axis, shifted, list(values.T), label, color=colours[place])
    axis.set_xscale("log", base=2)
    axis.set_xticks(widths, [str(each) for each in widths])
    axis.set_xlabel("width, channels of the first stage")
    axis.grid(alpha=0.3)
    axis.legend()
