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

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from studies.depth_network import dead_percent, network
from studies.digits import mnist
from studies.intervals import interval_text, mean_text
from studies.networks import initialise
from studies.pictures import COLOURS, errorbars
from studies.rows import Row, ahead, by_seed, distinct, number, where
from studies.training import batches, cross_entropy, scores, train
from studies.verdicts import Finding, finding, judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "do accuracy and over-fitting suffer less with Mish as layers are added?"
MINUTES = 55.0
EXTRA = "studies"
PICTURE = (14.0, 8.0)

ACTIVATIONS = ("relu", "swish", "mish")
DEPTHS = (15, 20, 25, 40)
ARM_DEPTH = 25  # of the arms with tuned rate and He initialisation
RATE, RATES = 0.1, (0.03, 0.1, 0.3)
SEEDS, TUNING_SEEDS = range(5), range(100, 102)
STEPS, BATCH = 400, 64
POINT, GAP = 1.0, 10.0  # what counts: points of accuracy, % of Swish's gap; from docs/results/paper/plan.md
TRAINED = 50.0  # % of test accuracy above which a network has trained

# Test accuracy in % at 15 to 25 layers, one run each: Mish and Swish from Layers_Acc.ipynb of
# github.com/digantamisra98/Mish, ReLU read off layersacc.png there, to about 0.2.
PUBLISHED = {
    "mish": (98.43, 98.28, 98.38, 98.24, 98.05, 97.52, 97.86, 96.46, 94.52, 94.66, 85.16),
    "swish": (98.2, 97.91, 97.95, 97.52, 97.2, 96.22, 95.57, 91.74, 73.58, 63.41, 39.68),
    "relu": (97.1, 97.8, 85.7, 58.4, 51.4, 48.0, 26.8, 26.8, 14.4, 18.4, 22.9),
}
PUBLISHED_DEPTHS = range(15, 26)


def cells(*, quick: bool) -> list[Row]:
    """The paper's arm at all depths, then He initialisation and the rates at one depth, with tuning seeds first.

    Cells of the part "gradients" take the first step only; trainings have no part.
    """
    depths: Sequence[int] = DEPTHS
    rates: Sequence[float] = RATES
    arm, steps, seeds, tuning, every = ARM_DEPTH, STEPS, SEEDS, TUNING_SEEDS, 1
    if quick:
        depths, arm, steps, seeds, tuning, rates, every = (4, 6), 4, 2, range(2), range(100, 101), RATES[:2], 25
    gradients: list[Row] = [
        {"part": "gradients", "initialisation": rule, "depth": depth, "activation": name, "seed": seed}
        for rule in ("glorot", "he")
        for depth in depths
        for seed in seeds
        for name in ACTIVATIONS
    ]
    plan = [("glorot", rate, arm, seed) for seed in tuning for rate in rates]
    for seed in seeds:
        plan += [("glorot", RATE, depth, seed) for depth in depths]
        plan += [("he", RATE, arm, seed)]
        plan += [("glorot", rate, arm, seed) for rate in rates if rate != RATE]
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


def arms(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each arm: paper, he and tuned, whose learning rate is chosen for each activation."""
    final = [row for row in where(rows, part=None) if row["seed"] not in TUNING_SEEDS]
    he, glorot = (where(final, initialisation=rule) for rule in ("he", "glorot"))
    (depth,) = distinct(he, "depth")
    tuned = [where(glorot, depth=depth, activation=name, rate=rate) for name, rate in tuned_rates(rows).items()]
    return {"paper": where(glorot, rate=RATE), "he": he, "tuned": sum(tuned, [])}


def tuned_rates(rows: Sequence[Row]) -> dict[str, float]:
    """Each activation's rate with the highest held-out accuracy over the tuning seeds, the lowest of equal ones."""
    tuning = [row for row in where(rows, part=None) if row["seed"] in TUNING_SEEDS]
    rates = sorted({number(row, "rate") for row in tuning})

    def accuracy(name: str, rate: float) -> float:
        return sum(by_seed(where(tuning, activation=name, rate=rate), "held_out_accuracy"))

    return {name: max(rates, key=partial(accuracy, name)) for name in ACTIVATIONS}


def trained_depths(rows: Sequence[Row]) -> list[int]:
    """The depths at which every network of every activation trained."""
    failed = distinct(where(rows, trained=False), "depth")
    return [depth for depth in distinct(rows, "depth") if depth not in failed]


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """Accuracy against Swish and ReLU, over-fitting against Swish, and whether the other arms differ."""
    found = arms(rows)
    return [
        _accuracy(found["paper"], "swish", gradients=_gradients(rows)),
        _accuracy(found["paper"], "relu"),
        _overfitting(found["paper"]),
        _other_arms(found, tuned_rates(rows)),
    ]


def layer_gradients(rows: Sequence[Row], name: str, rule: str = "glorot") -> list[list[float]]:
    """For each layer of the deepest network, the norms of its weights' gradient in the first step, by seed."""
    rows = where(rows, part="gradients", activation=name, initialisation=rule)
    chosen = where(rows, depth=max(distinct(rows, "depth")))
    norms = [[float(word) for word in str(row["gradient_norms"]).split()] for row in chosen]
    return [list(layer) for layer in zip(*norms, strict=True)]


def _gradients(rows: Sequence[Row]) -> str:
    """By which factor the gradient grows from layer to layer towards the input, with either initialisation."""
    parts = []
    for rule, label in (("glorot", "Glorot's initialisation"), ("he", "He's")):
        factors = []
        for name in ACTIVATIONS:
            dense = layer_gradients(rows, name, rule)[2:-1]
            growth = [(one / last) ** (1 / (len(dense) - 1)) for one, last in zip(dense[0], dense[-1], strict=True)]
            factors.append(f"{name} {mean_text(growth, '.3f')}")
        parts.append(f"with {label} {', '.join(factors)}")
    start = (
        ". In the deepest network, from its last dense block to its first, the gradient grows by this factor a layer: "
    )
    return start + "; ".join(parts)


def _mean(rows: Sequence[Row], column: str, name: str) -> float:
    return fmean(by_seed(where(rows, activation=name), column))


def _accuracy(rows: Sequence[Row], other: str, gradients: str = "") -> Finding:
    differences = ahead(rows, "test_accuracy", "mish", other)
    published = [f"{name} {PUBLISHED[name][5]:.1f} % and {PUBLISHED[name][10]:.1f} %" for name in ("mish", other)]
    parts = []
    for depth in distinct(rows, "depth"):
        here = where(rows, depth=depth)
        means = ", ".join(f"{name} {_mean(here, 'test_accuracy', name):.1f}" for name in ("mish", other))
        count = [len(where(here, activation=name, trained=True)) for name in ("mish", other)]
        parts.append(f"{depth} layers: {means} ({count[0]} and {count[1]} of the runs trained)")
    deepest = where(rows, depth=depth)
    ratios = "; ".join(
        f"{name} {_mean(deepest, 'gradient_ratio', name):.3g}, with "
        f"{_mean(deepest, 'dead_percent', name):.1f} % dead units at the end"
        for name in ("mish", other)
    )
    return finding(
        claim=f"Accuracy falls less with Mish than with {other} as layers are added",
        published=f"accuracy with 20 and 25 layers: {', '.join(published)} (one run each)",
        found=f"test accuracy in % on 1,000 MNIST digits after training on 3,500, mean over {len(differences)} seeds: "
        f"{'; '.join(parts)}; averaged over the depths, Mish minus {other} is "
        f"{mean_text(differences, unit='points')}. The gradient of the first dense layer at the start, divided by "
        f"that of the last, with {depth} layers: {ratios}{gradients}",
        judged=judge(differences, POINT),
        unit="points, mean of the depths",
        primary=other == "swish",
    )


def _overfitting(rows: Sequence[Row]) -> Finding:
    depths = trained_depths(rows)
    judged = None
    found = f"at no depth did all runs pass {TRAINED:.0f} % of test accuracy, so the gap cannot be compared"
    if depths:
        chosen = [row for row in rows if row["depth"] in depths]
        level = abs(_mean(chosen, "gap", "swish"))
        judged = judge([100 * value / level for value in ahead(chosen, "gap", "swish", "mish")], GAP)
        gaps = ", ".join(
            f"{name} {mean_text(by_seed(where(chosen, activation=name), 'gap'), '.4f')}" for name in ACTIVATIONS
        )
        losses = ", ".join(f"{name} {_mean(chosen, 'test_loss', name):.3f}" for name in ACTIVATIONS)
        found = (
            f"test loss minus training loss in nats, averaged over the depths at which all runs trained "
            f"({', '.join(map(str, depths))}): {gaps}; Mish's gap is smaller than swish's by "
            f"{interval_text(judged.estimate, *judged.interval, '.1f', '%')} of it. Test losses: {losses}"
        )
    return finding(
        claim="Networks with Mish over-fit less than those with swish",
        published="shown in a figure of the loss",
        found=found,
        judged=judged,
        unit="% less gap between test and training loss",
    )


def _other_arms(found: Mapping[str, Sequence[Row]], rates: Mapping[str, float]) -> Finding:
    (depth,) = distinct(found["he"], "depth")
    edge = [name for name, rate in rates.items() if rate == max(RATES)]
    limit = (
        f"; the largest of the {len(RATES)} tried for {', '.join(edge)}, so a larger one may be better" if edge else ""
    )
    labels = {
        "paper": "as above",
        "he": "with He initialisation",
        "tuned": f"with tuned rates ({', '.join(f'{k} {v:g}' for k, v in rates.items())}{limit})",
    }
    parts = []
    for arm, label in labels.items():
        rows = where(found[arm], depth=depth)
        pairs = (
            f"{mean_text(ahead(rows, 'test_accuracy', 'mish', other), unit='points')} from {other}"
            for other in ("swish", "relu")
        )
        parts.append(f"{label}: Mish at {_mean(rows, 'test_accuracy', 'mish'):.1f} % differs by {' and '.join(pairs)}")
    return finding(
        claim="The difference remains with a tuned learning rate",
        published="nothing; the paper has one learning rate and one initialisation",
        found=f"test accuracy with {depth} layers, {'; '.join(parts)}",
        judged=judge(ahead(found["tuned"], "test_accuracy", "mish", "swish"), POINT),
        unit=f"points from swish with {depth} layers",
        primary=False,
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
        panels[0].plot(PUBLISHED_DEPTHS, PUBLISHED[name], ":", color=COLOURS[name], label=f"{name}, published")
    for panel in (panels[0], panels[4]):
        panel.set_ylim(0, 102)
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
        errorbars(panel, shifted, samples, f"{name}{suffix}", linestyle=style, color=COLOURS[name])


def _draw_gradients(panel: "Axes", rows: Sequence[Row]) -> None:
    """The gradient of each layer of the deepest network, Glorot's initialisation solid and He's dashed."""
    for rule, style, label in (("glorot", "-", ""), ("he", "--", ", He")):
        for place, name in enumerate(ACTIVATIONS):
            samples = layer_gradients(rows, name, rule)
            shifted = [layer + 0.25 * (place - 1) for layer in range(1, len(samples) + 1)]
            errorbars(panel, shifted, samples, f"{name}{label}", linestyle=style, color=COLOURS[name])
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
        errorbars(panel, shifted, samples, name, linestyle="", color=COLOURS[name])
    panel.set_xticks(range(len(found)), ["Glorot, one rate", "He", "tuned rate"])
    panel.set(title=f"other settings, {depth} layers", ylabel="test accuracy, %")
