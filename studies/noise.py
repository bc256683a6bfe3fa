"""Whether Mish is more robust to Gaussian noise on the input: MNIST digits, then a detector.

Digits: a network of five layers (three convolutions 3 x 3 of 16, 32 and 32 channels, two dense layers of 64 and 10
units) is trained and tested under noise of a standard deviation from 0 to 8, with Adam at 0.001, batches of 64, and
noise drawn anew for each batch. The paper states neither the network nor the unit of the noise. Its accuracy falls from
98.6 % to 16 to 27 % at 8; with ReLU alone and on held-out images, 400 steps end at 35.7 % at 8 if the unit is the
standard deviation of the pixels (0.31 of their range), and at 10.2 %, which is chance, if it is their range. So images
are standardised first. Detector: studies/noise_detector.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from studies.mnist import Split, activation, digits, initialise, mean_and_reach, scores, shown, train
from studies.noise_detector import noisy_map
from studies.study import Row
from studies.verdicts import Finding, judge

TITLE = "is a network with Mish more robust to Gaussian noise on its input?"
MINUTES = 57.0
EXTRA = "studies"

SIGMAS = tuple(range(9))
ACTIVATIONS = ("relu", "swish", "mish")
DETECTOR_ACTIVATIONS = ("relu", "silu", "mish")  # silu is swish, by one operator
DETECTOR_SIGMAS = (0, 16, 32, 48, 64, 96)  # in pixel values of 0..255
TRAINED_TO = (0, 64)  # the largest standard deviation in training
SEEDS = range(5)
STEPS, BATCH, RATE = 400, 64, 0.001
EPOCHS, IMAGES = 60, (160, 100)  # of the detector; to train on and to test on
COLOURS = {"relu": "tab:blue", "swish": "tab:orange", "silu": "tab:orange", "mish": "tab:green"}
MARGIN = 1.0  # points of accuracy, from docs/results/paper/plan.md

# Test accuracy in %, one run each, at standard deviations 0 to 8: read off Observations/noise.png and noise1.png of
# github.com/digantamisra98/Mish, to about 0.2.
PUBLISHED = {
    "mish": (98.6, 95.6, 88.2, 78.7, 64.3, 69.1, 53.9, 49.5, 21.5),
    "relu": (98.6, 95.8, 87.4, 77.3, 66.0, 49.6, 45.8, 45.8, 15.7),
    "swish": (98.9, 95.9, 86.5, 72.0, 67.2, 46.0, 56.3, 25.9, 26.7),
}


def cells(*, quick: bool) -> list[Row]:
    """Digits by standard deviation, then the detector by noise in training; each with activation and seed."""
    sigmas, steps = ((0, 2), 3) if quick else (SIGMAS, STEPS)
    seeds, epochs, images = (range(1), 1, (16, 4)) if quick else (SEEDS, EPOCHS, IMAGES)
    rows: list[Row] = [
        {"part": "digits", "activation": name, "sigma": sigma, "seed": seed, "steps": steps}
        for seed in (range(2) if quick else SEEDS)
        for sigma in sigmas
        for name in ACTIVATIONS
    ]
    shape = {"epochs": epochs, "train_images": images[0], "test_images": images[1]}
    rows += [
        {"part": "detector", "activation": name, "trained_to": noise, "seed": seed, **shape}
        for seed in seeds
        for noise in TRAINED_TO
        for name in DETECTOR_ACTIVATIONS
    ]
    return rows


def measure(cell: Row) -> Row:
    """Digits: loss in nats and accuracy in % on the test images. Detector: mAP50-95 in % by test noise."""
    name, seed = str(cell["activation"]), int(cast(int, cell["seed"]))
    if cell["part"] == "detector":
        found = noisy_map(
            name,
            seed,
            trained_to=cast(int, cell["trained_to"]),
            sigmas=DETECTOR_SIGMAS,
            images=(cast(int, cell["train_images"]), cast(int, cell["test_images"])),
            epochs=cast(int, cell["epochs"]),
        )
        return {f"map_{sigma}": value for sigma, value in zip(DETECTOR_SIGMAS, found, strict=True)}
    sigma, splits = float(cast(float, cell["sigma"])), standardised()
    model = network(name)
    initialise(model, "glorot", torch.Generator().manual_seed(seed))
    train(
        model,
        torch.optim.Adam(model.parameters(), lr=RATE),
        splits["train"],
        steps=cast(int, cell["steps"]),
        batch=BATCH,
        seed=seed,
        change=lambda images, generator: noisy(images, sigma, generator),
    )
    test = splits["test"]
    loss, accuracy = scores(model, Split(noisy(test.images, sigma, torch.Generator().manual_seed(seed)), test.labels))
    return {"loss": loss, "accuracy": accuracy}


@lru_cache(maxsize=1)
def standardised() -> dict[str, Split]:
    """The digits with mean 0 and standard deviation 1 over the pixels of the training images."""
    pixels = digits()["train"].images
    return {name: Split((s.images - pixels.mean()) / pixels.std(), s.labels) for name, s in digits().items()}


def network(name: str) -> nn.Sequential:
    """Five layers, from images (N, 1, 28, 28) to logits (N, 10)."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), activation(name), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), activation(name), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 3, padding=1), activation(name), nn.Flatten()),
        *(nn.Linear(32 * 7 * 7, 64), activation(name), nn.Linear(64, 10)),
    )


def noisy(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Images plus Gaussian noise of this standard deviation, in their unit; not clipped."""
    return images + sigma * torch.randn(images.shape, generator=generator)


def differences(
    rows: Sequence[Row], column: str, one: str, other: str, *, by: str, at: Iterable[object]
) -> list[float]:
    """One activation minus the other by seed, each averaged over the rows whose ``by`` is among ``at``."""
    chosen = [row for row in rows if row[by] in set(at)]

    def mean(name: str, seed: object) -> float:
        found = [cast(float, r[column]) for r in chosen if r["activation"] == name and r["seed"] == seed]
        return sum(found) / len(found)

    return [mean(one, seed) - mean(other, seed) for seed in sorted({cast(int, row["seed"]) for row in chosen})]


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """Mish against ReLU, which decides, and against Swish; then the detector."""
    digit_rows = [row for row in rows if row["part"] == "digits"]
    noises = sorted({cast(int, row["sigma"]) for row in digit_rows} - {0})
    findings = []
    for other, label in (("relu", "ReLU"), ("swish", "Swish")):
        accuracy = differences(digit_rows, "accuracy", "mish", other, by="sigma", at=noises)
        loss = differences(digit_rows, "loss", "mish", other, by="sigma", at=noises)
        judged = judge(accuracy, MARGIN)
        findings.append(
            Finding(
                claim=f"A network with Mish is more robust to Gaussian noise on its input than one with {label}",
                published=f"accuracy averaged over standard deviations 1 to 8: Mish {_published('mish'):.1f} %, "
                f"{label} {_published(other):.1f} % (one run each, read off a figure)",
                found=f"{len(accuracy)} seeds, trained and tested under noise on 5,000 MNIST digits: accuracy averaged "
                f"over standard deviations {noises[0]} to {noises[-1]} (standardised pixels) is "
                f"{_mean(digit_rows, 'mish'):.2f} % with Mish and {_mean(digit_rows, other):.2f} % with {label}, a "
                f"difference of {shown(accuracy, 'points')}; the test loss differs by "
                f"{shown(loss, 'nats', digits=3)}",
                verdict=judged.verdict,
                judged=judged if other == "relu" else None,
            )
        )
    return [*findings, _detector_finding([row for row in rows if row["part"] == "detector"])]


def _detector_finding(rows: Sequence[Row]) -> Finding:
    noises = [sigma for sigma in DETECTOR_SIGMAS if sigma]
    means = [{**row, "map": sum(cast(float, row[f"map_{sigma}"]) for sigma in noises) / len(noises)} for row in rows]
    sentences = []
    for trained, how in zip(TRAINED_TO, ("without noise", "under noise of 0 to {}"), strict=True):
        both = [
            f"{label} by {shown(differences(means, 'map', 'mish', other, by='trained_to', at=[trained]), 'points')}"
            for other, label in (("relu", "ReLU"), ("silu", "SiLU"))
        ]
        sentences.append(f"trained {how.format(trained)}, Mish differs from {' and from '.join(both)}")
    seeds = len({row["seed"] for row in rows})
    against = differences(means, "map", "mish", "relu", by="trained_to", at=[0])
    return Finding(
        claim="The same of a detector",
        published="nothing",
        found=f"{seeds} seeds of a detector with two levels trained on {rows[0]['train_images']} images of 64 pixels, "
        f"mAP50-95 on {rows[0]['test_images']} others averaged over noise of standard deviation {noises[0]} to "
        f"{noises[-1]} (pixel values 0..255): {'; '.join(sentences)}",
        verdict=judge(against, MARGIN).verdict if seeds > 1 else "inconclusive",
    )


def _published(name: str) -> float:
    return sum(PUBLISHED[name][1:]) / len(PUBLISHED[name][1:])


def _mean(rows: Sequence[Row], name: str) -> float:
    return mean_and_reach([cast(float, r["accuracy"]) for r in rows if r["activation"] == name and r["sigma"]])[0]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Accuracy and loss of the digits, and mAP of the detector trained without and under noise, by test noise."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 2)
    digit_rows = [row for row in rows if row["part"] == "digits"]
    sigmas = sorted({cast(int, row["sigma"]) for row in digit_rows})
    for panel, column, label in zip(panels[0], ("accuracy", "loss"), ("accuracy, %", "loss, nats"), strict=True):
        curves = {
            name: [
                [cast(float, r[column]) for r in digit_rows if r["activation"] == name and r["sigma"] == sigma]
                for sigma in sigmas
            ]
            for name in ACTIVATIONS
        }
        _plot(panel, sigmas, curves)
        panel.set(
            title=f"MNIST digits, trained and tested under noise: {label.split(',')[0]}",
            xlabel="standard deviation of the noise (standardised pixels)",
            ylabel=f"test {label}",
        )
    for name in ("mish", "relu"):
        panels[0, 0].plot(SIGMAS, PUBLISHED[name], ":", color=COLOURS[name], label=f"{name}, published (one run)")
    for panel, trained in zip(panels[1], TRAINED_TO, strict=True):
        curves = {
            name: [
                [
                    cast(float, r[f"map_{sigma}"])
                    for r in rows
                    if r["part"] == "detector" and r["activation"] == name and r["trained_to"] == trained
                ]
                for sigma in DETECTOR_SIGMAS
            ]
            for name in DETECTOR_ACTIVATIONS
        }
        _plot(panel, DETECTOR_SIGMAS, curves)
        how = f"under noise of 0 to {trained}" if trained else "without noise"
        panel.set(
            title=f"detector trained {how}",
            xlabel="standard deviation of the noise in the test (pixel values 0..255)",
            ylabel="mAP50-95, %",
        )
    panels[0, 0].set_ylim(0, 102)
    for panel in panels.flatten():
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.suptitle("Gaussian noise on the input: mean over seeds, 95 % intervals")
    figure.savefig(path, dpi=110)


def _plot(panel: Any, places: Sequence[int], curves: Mapping[str, Sequence[Sequence[float]]]) -> None:
    for number, (name, values) in enumerate(curves.items()):
        means, reaches = zip(*(mean_and_reach(each) for each in values), strict=True)
        shift = (number - 1) * 0.008 * max(places)  # so that intervals do not cover each other
        where = [place + shift for place in places]
        panel.errorbar(where, means, yerr=reaches, marker="o", markersize=3, capsize=2, color=COLOURS[name], label=name)
