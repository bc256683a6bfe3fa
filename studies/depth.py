"""Whether accuracy falls less with Mish as layers are added, and whether over-fitting is less: MNIST digits.

The network of the paper's notebook: convolutions 5 x 5 of 20 and 50 channels, then blocks of a dense layer of 500
units, batch norm, activation and dropout of 25 %, without shortcuts, and the output; "15 layers" are 12 such blocks.
SGD without momentum.

What two cores change. The paper takes 4,690 steps of 128 of 60,000 images at the rate 0.01. Here it is 400 steps of 64
of 3,500 images at the rate 0.1, so that rate times steps is 40 instead of 47, each image is seen 7 times instead of
10, and accuracy is lower. There is a max pooling after each convolution instead of one after both, which halves the
time. Batch norm averages over 10 steps (PyTorch's default) instead of 100 (Keras's), as there are fewer steps.

Arms beside the paper's: He initialisation instead of Glorot's, and the learning rate of five with the highest accuracy
on the held-out images, averaged over tuning seeds that no figure is computed from.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from studies.depth_network import dead_percent, network
from studies.depth_results import (
    ACTIVATIONS,
    BETWEEN,
    NAMES,
    PUBLISHED,
    RATE,
    RULES,
    TRAINED,
    TUNING_SEEDS,
    accuracy_table,
    arms,
    decisive,
    growth_table,
    interval_of,
    layer_gradients,
    loss_table,
    mean_of,
    trained_depths,
    tuned_rates,
    tuning_table,
)
from studies.digits import mnist
from studies.intervals import mean_text
from studies.networks import initialise
from studies.pictures import COLOURS, LABELS, errorbars
from studies.published_tables import LAYERS
from studies.rows import Row, ahead, by_seed, distinct, number, where
from studies.tables import Table, table
from studies.training import batches, cross_entropy, scores, train
from studies.verdicts import Finding, finding, judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Do accuracy and over-fitting suffer less with Mish as layers are added?"
CLAIM = "Accuracy falls less as layers are added, and over-fitting is less"
MINUTES = 45.0
EXTRA = "studies"
PICTURE = (14.0, 8.0)

DEPTHS = (15, 20, 25, 40)
ARM_DEPTH = 25  # of the arms with tuned rate and He initialisation
RATES = (0.03, 0.1, 0.3, 1.0, 3.0)
SEEDS = range(5)
STEPS, BATCH = 400, 64
TRAINING = (
    " Training: 400 steps of SGD on batches of 64 of 3,500 images at the rate 0.1, where the paper's notebook takes "
    "4,690 on batches of 128 of 60,000 at 0.01; max pooling after both convolutions, batch norm over about 10 steps. "
    "What these differences change was not tried one by one; the table has the published figures beside these."
)
POINT, GAP = 1.0, 10.0  # what counts: points of accuracy, % of Swish's gap; from docs/results/paper/plan.md


def cells(*, quick: bool) -> list[Row]:
    """The paper's arm at all depths, then He initialisation and the rates at one depth, with tuning seeds first.

    Cells of the part "gradients" take the first step only; trainings have no part.
    """
    depths: Sequence[int] = DEPTHS
    between: Sequence[int] = BETWEEN
    rates: Sequence[float] = RATES
    arm, steps, seeds, tuning, every = ARM_DEPTH, STEPS, SEEDS, TUNING_SEEDS, 1
    if quick:
        depths, between, arm, steps, rates, every = (4, 6), (), 4, 2, RATES[:2], 25
        seeds, tuning = range(2), range(100, 101)
    gradients: list[Row] = [
        {"part": "gradients", "initialisation": rule, "depth": depth, "activation": name, "seed": seed}
        for rule in RULES
        for depth in depths
        for seed in seeds
        for name in ACTIVATIONS
    ]
    plan = [("glorot", rate, arm, seed) for seed in tuning for rate in rates]
    for seed in seeds:
        plan += [("glorot", RATE, depth, seed) for depth in depths]
        plan += [("he", RATE, arm, seed)]
        plan += [("glorot", rate, arm, seed) for rate in rates if rate != RATE]
        plan += [("glorot", RATE, depth, seed) for depth in between]
    trainings: list[Row] = [
        {
            **{"initialisation": rule, "rate": rate, "depth": depth, "activation": name, "seed": seed},
            **{"steps": steps, "every": every},  # every: which images are evaluated
        }
        for rule, rate, depth, seed in plan
        for name in ACTIVATIONS
    ]
    return trainings + gradients


def measure(cell: Row) -> Row:
    """Losses in nats and accuracies in %, all in evaluation mode; gradient norms of the first step; dead units in %."""
    if cell.get("part") == "gradients":
        _, norms = _trained(cell, steps=1, rate=0.0)
        return {"gradient_norms": " ".join(f"{norm:.6g}" for norm in norms)}
    model, norms = _trained(cell, steps=int(number(cell, "steps")), rate=number(cell, "rate"))
    splits, every = mnist(), int(number(cell, "every"))
    row: Row = {}
    for name, split in splits.items():
        column = name.replace("-", "_")
        row[f"{column}_loss"], row[f"{column}_accuracy"] = scores(model, split.every(every))
    blocks = norms[2:-1]  # the dense layers but the output
    return {
        **row,
        "gap": number(row, "test_loss") - number(row, "train_loss"),
        "trained": number(row, "test_accuracy") > TRAINED,
        "gradient_first": blocks[0],
        "gradient_middle": blocks[len(blocks) // 2],
        "gradient_last": blocks[-1],
        "gradient_ratio": blocks[0] / blocks[-1],
        "dead_percent": dead_percent(model, splits["train"].every(7 * every).images),
    }


def _trained(cell: Row, *, steps: int, rate: float) -> tuple[nn.Sequential, list[float]]:
    """The network of a cell after some steps, and the norm of the gradient of each layer's weights in the first."""
    seed, images = int(number(cell, "seed")), mnist()["train"]
    model = network(int(number(cell, "depth")), str(cell["activation"]))
    initialise(model, str(cell["initialisation"]), seed)
    norms: list[float] = []

    def keep_norms(step: int) -> None:
        if step == 0:
            layers = (layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
            norms.extend(float(cast(Tensor, layer.weight.grad).norm()) for layer in layers)

    train(
        model,
        cross_entropy(model, images),
        torch.optim.SGD(model.parameters(), lr=rate),
        batches(len(images.labels), BATCH, steps=steps, seed=2 * seed),
        seed=seed,
        after_backward=keep_norms,
    )
    return model, norms


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """Accuracy against Swish and ReLU, over-fitting against Swish, and whether the other arms differ."""
    found = arms(rows)
    return [
        _accuracy(found["paper"], "swish", (*accuracy_table(found["paper"]), *growth_table(rows))),
        _accuracy(found["paper"], "relu", ()),
        _overfitting(found["paper"]),
        _other_arms(found, rows),
    ]


def _accuracy(rows: Sequence[Row], other: str, tables: tuple[Table, ...]) -> Finding:
    name = LABELS[other]
    differences = ahead(decisive(rows), "test_accuracy", "mish", other)
    deepest = where(rows, depth=max(distinct(rows, "depth")))
    ratios = " and ".join(
        f"{interval_of(deepest, 'gradient_ratio', each, '.3g')} (with {LABELS[each]})" for each in ("mish", other)
    )
    published = [
        f"{LABELS[each]} {PUBLISHED[each][LAYERS.index(20)]:.1f} % and {PUBLISHED[each][LAYERS.index(25)]:.1f} %"
        for each in ("mish", other)
    ]
    return finding(
        claim=f"Accuracy falls less with Mish than with {name} as layers are added",
        published=f"accuracy with 20 and 25 layers: {', '.join(published)} (one run each)",
        found=f"Test accuracy on 1,000 MNIST digits, {len(differences)} seeds, averaged over "
        f"{_words(distinct(decisive(rows), 'depth'))} layers. {_collapse(rows, 'mish')} {_collapse(rows, other)} In "
        f"the first step with {distinct(rows, 'depth')[-1]} layers, the gradient of the first dense layer is {ratios} "
        f"times as large as that of the last.{TRAINING if other == 'swish' else ''}",
        judged=judge(differences, POINT),
        unit=f"points more than {name}, mean of the depths",
        part=f"accuracy, {name}",
        primary=other == "swish",
        tables=tables,
    )


def _collapse(rows: Sequence[Row], name: str) -> str:
    """Up to which depth all runs of an activation trained, and from which on none did."""
    runs = {depth: where(rows, depth=depth, activation=name) for depth in distinct(rows, "depth")}
    whole = [depth for depth, mine in runs.items() if all(row["trained"] for row in mine)]
    none = [depth for depth, mine in runs.items() if not any(row["trained"] for row in mine)]
    first = (
        f"All runs with {LABELS[name]} passed {TRAINED:.0f} % up to {max(whole)} layers"
        if whole
        else (f"At no depth did all runs with {LABELS[name]} pass {TRAINED:.0f} %")
    )
    return f"{first}, and none from {min(none)} on." if none else f"{first}, and some at every depth."


def _words(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def _overfitting(rows: Sequence[Row]) -> Finding:
    depths = trained_depths(decisive(rows))
    judged = None
    found = f"At no depth did all runs pass {TRAINED:.0f} % of test accuracy, so the gap cannot be compared."
    if depths:
        chosen = [row for row in rows if row["depth"] in depths]
        level = abs(mean_of(chosen, "gap", "swish"))
        judged = judge([100 * value / level for value in ahead(chosen, "gap", "swish", "mish")], GAP)
        found = (
            "The gap is test loss minus training loss, averaged over the depths at which all runs of all activations "
            f"trained: {_words(depths)} layers. {_other_gaps(decisive(rows), depths)}At other depths gaps compare "
            "different things, as a network that has not learned its training images cannot over-fit. Over-fitting "
            "depends most on the number of images: 3,500 seen 7 times here, 60,000 seen 10 times in the paper, so "
            "this does not settle the paper's claim."
        )
    return finding(
        claim="Networks with Mish over-fit less than those with Swish",
        published="shown in a figure of the loss",
        found=found,
        judged=judged,
        unit="% less gap between test and training loss",
        part="over-fitting",
        tables=loss_table(rows),
    )


def _other_gaps(rows: Sequence[Row], depths: Sequence[int]) -> str:
    """The difference of the gaps at further depths at which all runs with Mish and Swish trained."""
    parts = []
    for depth in trained_depths([row for row in rows if row["activation"] in ("mish", "swish")]):
        if depth not in depths:
            difference = mean_text(ahead(where(rows, depth=depth), "gap", "mish", "swish"), "+.3f", "nats")
            parts.append(
                f"With {depth} layers all runs with Mish and Swish trained; Mish's gap minus Swish's is {difference}. "
            )
    return "".join(parts)


def _other_arms(found: Mapping[str, Sequence[Row]], rows: Sequence[Row]) -> Finding:
    (depth,), rates = distinct(found["he"], "depth"), tuned_rates(rows)
    labels = {
        "paper": f"as above, rate {RATE:g}",
        "he": f"He initialisation, rate {RATE:g}",
        "tuned": f"tuned rates: {', '.join(f'{LABELS[name]} {rate:g}' for name, rate in rates.items())}",
    }

    def line(arm: str) -> list[str]:
        rows = where(found[arm], depth=depth)
        gaps = [mean_text(ahead(rows, "test_accuracy", "mish", other)) for other in ("swish", "relu")]
        return [labels[arm], *(interval_of(rows, "test_accuracy", name, ".1f") for name in ACTIVATIONS), *gaps]

    edge = [LABELS[name] for name, rate in rates.items() if rate == max(RATES)]
    return finding(
        claim="The difference remains with a tuned learning rate",
        published="nothing; the paper has one learning rate and one initialisation",
        found="The rate of each activation is the one with the highest accuracy on held-out images over tuning seeds, "
        "of which no figure is computed. "
        + (
            f"It is the largest tried for {', '.join(edge)}, so a larger one may be better."
            if edge
            else "It is not the largest tried for any of them."
        ),
        judged=judge(ahead(found["tuned"], "test_accuracy", "mish", "swish"), POINT),
        unit=f"points more than Swish with {depth} layers and tuned rates",
        primary=False,
        tables=table(
            f"Test accuracy with {depth} layers, %",
            ("setting", *NAMES, "Mish minus Swish", "Mish minus ReLU"),
            map(line, labels),
        )
        + tuning_table(rows),
    )


def draw(rows: Sequence[Row], figure: "Figure") -> None:
    """Accuracy, gap, losses, gradient ratio and dead units by depth, and the accuracy of the arms at one depth."""
    panels = figure.subplots(2, 3).flatten()
    found = arms(rows)
    for panel, (title, label, columns) in zip(
        panels,
        (
            ("accuracy", "test accuracy, %", {"test_accuracy": ""}),
            ("loss in evaluation mode", "loss, nats", {"test_loss": ", test", "train_loss": ", train"}),
            ("over-fitting", "test loss minus training loss, nats", {"gap": ""}),
            ("dead units at the end", "dead units of the dense layers, %", {"dead_percent": ""}),
        ),
        strict=False,
    ):
        for (column, suffix), style in zip(columns.items(), ("-", "--"), strict=False):
            _draw_by_depth(panel, found["paper"], column, style, suffix)
        panel.set(title=title, xlabel="layers", ylabel=label)
    for name in ACTIVATIONS:
        panels[0].plot(LAYERS, PUBLISHED[name], ":", color=COLOURS[name], label=f"{LABELS[name]}, published")
    for panel in (panels[0], panels[4]):
        panel.set_ylim(0, 100)  # intervals may go beyond what is possible
    panels[3].set_ylim(bottom=0)
    _draw_arms(panels[4], found)
    _draw_gradients(panels[5], rows)
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.suptitle("MNIST networks of growing depth without shortcuts: mean over seeds, 95 % intervals")


def _draw_by_depth(panel: "Axes", rows: Sequence[Row], column: str, style: str, suffix: str) -> None:
    depths = distinct(rows, "depth")
    for place, name in enumerate(ACTIVATIONS):
        samples = [by_seed(where(rows, depth=depth, activation=name), column) for depth in depths]
        shifted = [depth + 0.25 * (place - 1) for depth in depths]  # so that intervals do not cover each other
        errorbars(panel, shifted, samples, f"{LABELS[name]}{suffix}", linestyle=style, color=COLOURS[name])


def _draw_gradients(panel: "Axes", rows: Sequence[Row]) -> None:
    """The gradient of each layer of the deepest network, Glorot's initialisation solid and He's dashed."""
    for rule, style, label in (("glorot", "-", ""), ("he", "--", ", He")):
        for place, name in enumerate(ACTIVATIONS):
            samples = layer_gradients(rows, name, rule)
            shifted = [layer + 0.25 * (place - 1) for layer in range(1, len(samples) + 1)]
            errorbars(panel, shifted, samples, f"{LABELS[name]}{label}", linestyle=style, color=COLOURS[name])
    panel.set_yscale("log")
    depth = max(distinct(where(rows, part="gradients"), "depth"))
    panel.set(
        title=f"gradient in the first step, {depth} layers", xlabel="layer", ylabel="gradient norm of its weights"
    )


def _draw_arms(panel: "Axes", found: Mapping[str, Sequence[Row]]) -> None:
    (depth,) = distinct(found["he"], "depth")
    for place, name in enumerate(ACTIVATIONS):
        samples = [by_seed(where(rows, depth=depth, activation=name), "test_accuracy") for rows in found.values()]
        shifted = [arm + 0.15 * (place - 1) for arm in range(len(found))]
        errorbars(panel, shifted, samples, LABELS[name], linestyle="", color=COLOURS[name])
    panel.set_xticks(range(len(found)), ["Glorot, one rate", "He", "tuned rate"])
    panel.set(title=f"other settings, {depth} layers", ylabel="test accuracy, %")
