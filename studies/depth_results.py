"""How the findings and the picture of the study of depth read its rows, and their tables."""

from collections.abc import Sequence
from statistics import fmean

import numpy as np

from studies.intervals import mean_text
from studies.pictures import LABELS
from studies.published_tables import DEPTH, LAYERS
from studies.rows import Row, ahead, by_seed, distinct, number, where
from studies.tables import Table, table

ACTIVATIONS = ("relu", "swish", "mish")
NAMES = [LABELS[name] for name in ACTIVATIONS]
BETWEEN = (30,)  # to see where an activation collapses; not in the mean that decides
RATE = 0.1
TUNING_SEEDS = range(100, 102)
RULES = {"glorot": "Glorot", "he": "He"}
TRAINED = 50.0  # % of test accuracy above which a network has trained

PUBLISHED = {name: DEPTH[LABELS[name]][0] for name in ACTIVATIONS}  # the first version of the figure


def arms(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each arm: paper, he and tuned, whose learning rate is chosen for each activation."""
    final = [row for row in where(rows, part=None) if row["seed"] not in TUNING_SEEDS]
    he, glorot = (where(final, initialisation=rule) for rule in ("he", "glorot"))
    (depth,) = distinct(he, "depth")
    tuned = [where(glorot, depth=depth, activation=name, rate=rate) for name, rate in tuned_rates(rows).items()]
    return {"paper": where(glorot, rate=RATE), "he": he, "tuned": sum(tuned, [])}


def tuned_rates(rows: Sequence[Row]) -> dict[str, float]:
    """Each activation's rate with the highest held-out accuracy over the tuning seeds, the lowest of equal ones."""
    accuracies = tuning_accuracies(rows)
    by_activation = zip(*accuracies.values(), strict=True)
    return {name: list(accuracies)[np.argmax(each)] for name, each in zip(ACTIVATIONS, by_activation, strict=True)}


def tuning_accuracies(rows: Sequence[Row]) -> dict[float, list[float]]:
    """By rate, the mean held-out accuracy of each activation over the tuning seeds."""
    tuning = [row for row in where(rows, part=None) if row["seed"] in TUNING_SEEDS]
    rates = sorted({number(row, "rate") for row in tuning})
    return {
        rate: [mean_of(where(tuning, rate=rate), "held_out_accuracy", name) for name in ACTIVATIONS] for rate in rates
    }


def trained_depths(rows: Sequence[Row]) -> list[int]:
    """The depths at which every network of every activation trained."""
    failed = distinct(where(rows, trained=False), "depth")
    return [depth for depth in distinct(rows, "depth") if depth not in failed]


def decisive(rows: Sequence[Row]) -> list[Row]:
    """The rows of the depths that the figures of plan.md average over."""
    return [row for row in rows if row["depth"] not in BETWEEN]


def layer_gradients(rows: Sequence[Row], name: str, rule: str = "glorot") -> list[list[float]]:
    """For each layer of the deepest network, the norms of its weights' gradient in the first step, by seed."""
    rows = where(rows, part="gradients", activation=name, initialisation=rule)
    chosen = where(rows, depth=max(distinct(rows, "depth")))
    norms = [[float(word) for word in str(row["gradient_norms"]).split()] for row in chosen]
    return [list(layer) for layer in zip(*norms, strict=True)]


def mean_of(rows: Sequence[Row], column: str, name: str) -> float:
    return fmean(by_seed(where(rows, activation=name), column))


def interval_of(rows: Sequence[Row], column: str, name: str, form: str) -> str:
    return mean_text(by_seed(where(rows, activation=name), column), form)


def accuracy_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    def line(depth: int) -> list[str]:
        here = where(rows, depth=depth)
        gaps = [mean_text(ahead(here, "test_accuracy", "mish", other)) for other in ("swish", "relu")]
        trained = [str(len(where(here, activation=name, trained=True))) for name in ACTIVATIONS]
        shown = [f"{mean_of(here, 'test_accuracy', name):.1f}" for name in ACTIVATIONS]
        known = depth in LAYERS
        published = (
            [f"{PUBLISHED[name][LAYERS.index(depth)]:.1f}" for name in ACTIVATIONS] if known else ["not published"]
        )
        return [str(depth), *shown, ", ".join(trained), *gaps, ", ".join(published)]

    return table(
        f"Test accuracy in %, and how many runs passed {TRAINED:.0f} % ({', '.join(NAMES)}). The published ones are of "
        "single runs on 60,000 images",
        ("layers", *NAMES, "runs trained", "Mish minus Swish", "Mish minus ReLU", f"published ({', '.join(NAMES)})"),
        map(line, distinct(rows, "depth")),
    )


def growth_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    """By which factor the gradient grows from layer to layer towards the input, with either initialisation."""

    def growth(rule: str, name: str) -> str:
        dense = layer_gradients(rows, name, rule)[2:-1]
        layers = len(dense) - 1
        return mean_text([(one / last) ** (1 / layers) for one, last in zip(dense[0], dense[-1], strict=True)], ".3f")

    deepest = max(distinct(where(rows, part="gradients"), "depth"))
    return table(
        f"Growth of the gradient from layer to layer in the first step, towards the input, {deepest} layers",
        ("initialisation", *NAMES),
        ([label, *(growth(rule, name) for name in ACTIVATIONS)] for rule, label in RULES.items()),
    )


def loss_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    columns = {"train_loss": ".3f", "test_loss": ".3f", "gap": ".3f", "dead_percent": ".1f"}
    lines = [
        [
            str(depth),
            LABELS[name],
            *(interval_of(where(rows, depth=depth), key, name, form) for key, form in columns.items()),
        ]
        for depth in distinct(rows, "depth")
        for name in ACTIVATIONS
    ]
    return table(
        "Losses in evaluation mode in nats, and dead units of the dense layers at the end (those whose output is the "
        "same for all images)",
        ("layers", "activation", "training loss", "test loss", "gap", "dead units, %"),
        lines,
    )


def tuning_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    """What the tuned rates were chosen by."""
    return table(
        "Accuracy on held-out images by rate, mean of the tuning seeds, %",
        ("rate", *NAMES),
        ([f"{rate:g}", *(f"{value:.1f}" for value in each)] for rate, each in tuning_accuracies(rows).items()),
    )
