"""Are the outputs of random networks, and the loss around trained ones, smoother with Mish?

Three kinds of cells. "outputs": the roughness of a random network's output over a plane (studies/roughness.py).
"digits": a small ResNet trained on scikit-learn's digits; "detector": a small detector trained on a few images of the
embedded set. Of both, at the end of training, the largest eigenvalue of the Hessian of the training loss, and its rise
at a distance (studies/sharpness.py), with batch norm in evaluation mode.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from studies.digits import Split, small_digits, standardised
from studies.intervals import interval_text, mean_and_reach
from studies.networks import random_network, resnet
from studies.pictures import LABELS
from studies.roughness import LINES, SIDE, output_map, roughness
from studies.rows import Row, number, where
from studies.sharpness import largest_eigenvalue, mean_rise, plane
from studies.small_detector import chosen, drawn, make_detector, smooth_loss
from studies.tables import Table, table
from studies.training import Loss, batches, cross_entropy, nesterov, train
from studies.verdicts import Finding, finding, judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLAIM = "Output and loss landscapes are smoother with Mish"
TITLE = "Are the outputs of random networks and the loss around minima smoother with Mish?"
MINUTES = 35
EXTRA = "studies"
PICTURE = (16.0, 12.0)
MARGIN = -math.log(0.8)  # 20 % less, as a difference of logarithms
SHAPES = {"shallow": (2, 64, 32, 16, 1), "deep": (2, 64, 64, 64, 64, 32, 16, 1)}
OUTPUT_ACTS = ("relu", "leaky_relu", "silu", "gelu", "tanh", "mish")
TRAINED_ACTS = ("relu", "silu", "mish")
NETWORKS, SEEDS = 100, 5
RADII = (0.05, 0.1, 0.2, 0.4)  # relative to the norm of each filter
DIRECTIONS = 20
STEPS = np.linspace(-0.6, 0.6, 25)  # of the plane around the minimum of seed 0


def cells(*, quick: bool) -> list[Row]:
    """Cells per kind, activation and seed; ``scale`` is 1, or less for the few images and steps of the quick ones."""
    seeds = 2 if quick else SEEDS
    networks = 2 if quick else NETWORKS
    acts = ("relu", "mish") if quick else TRAINED_ACTS
    rows: list[Row] = [
        {"kind": kind, "act": act, "seed": seed, "scale": 0.03 if quick else 1.0}
        for kind in (("digits",) if quick else ("detector", "digits"))  # the longest first
        for seed in range(seeds)
        for act in acts
    ]
    rows += [
        {"kind": "outputs", "shape": shape, "act": act, "seed": seed, "scale": 0.3 if quick else 1.0}
        for shape in (("shallow",) if quick else SHAPES)
        for seed in range(networks)
        for act in (("relu", "mish") if quick else OUTPUT_ACTS)
    ]
    return rows


def measure(cell: Row) -> Row:
    """The figures of a cell."""
    act, seed, scale = str(cell["act"]), int(number(cell, "seed")), number(cell, "scale")
    if cell["kind"] == "outputs":
        network = random_network(act, SHAPES[str(cell["shape"])], seed)
        return {"roughness": roughness(network, seed=seed, lines=round(LINES * scale))}
    if cell["kind"] == "digits":
        return _of_digits(act, seed, scale)
    return _of_detector(act, seed, scale)


@cache
def digits() -> dict[str, Split]:
    """1,438 training and 359 test images, every fifth, the same in every run."""
    whole = small_digits()
    test = torch.arange(len(whole.labels)) % 5 == 4
    return standardised({"train": whole.at(~test), "test": whole.at(test)})


def _of_digits(act: str, seed: int, scale: float) -> Row:
    """A ResNet trained for 30 epochs, and the loss of all training images around its parameters."""
    data = digits()["train"].every(round(1 / scale))
    model = resnet(act, seed, stages=3, blocks=1, width=8)
    epochs = 30 if scale == 1 else 20
    _train(model, cross_entropy(model, data), len(data.labels), epochs=epochs, seed=seed, lr=0.1, batch=64)
    images, labels = digits()["test"]
    with torch.no_grad():
        accuracy = float((model(images).argmax(1) == labels).float().mean())
    loss = cross_entropy(model.double(), Split(data.images.double(), data.labels))
    everything = torch.arange(len(data.labels))
    row = _sharpness(lambda: loss(everything), model, seed, scale)
    return {**row, "test accuracy": accuracy}


def _of_detector(act: str, seed: int, scale: float) -> Row:
    """A detector trained for 40 epochs of 128 images, and the loss of the first 16 around its parameters."""
    model = make_detector(act, seed)
    images, targets = drawn(model, max(4, round(128 * scale)), seed=0)

    def loss(numbers: Tensor) -> Tensor:
        return model.loss(model(images[numbers]), chosen(targets, numbers))[0]

    _train(model, loss, len(images), epochs=max(1, round(40 * scale)), seed=seed, lr=0.01, batch=16)
    some = torch.arange(min(16, len(images)))
    return _sharpness(smooth_loss(model, images[some], chosen(targets, some)), model, seed, scale)


def _train(model: nn.Module, loss: Loss, count: int, *, epochs: int, seed: int, lr: float, batch: int) -> None:
    """Train with a cosine schedule down to 0."""
    optimizer, steps = nesterov(model, lr), epochs * math.ceil(count / batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    numbers = batches(count, batch, steps=steps, seed=seed, drop_rest=False)
    train(model, loss, optimizer, numbers, seed=seed, schedule=schedule)


def _sharpness(loss: Callable[[], Tensor], model: nn.Module, seed: int, scale: float) -> Row:
    """The loss, its largest eigenvalue and its rise by radius; for seed 0 the plane, as numbers with spaces, by row."""
    with torch.no_grad():
        row: Row = {"loss": float(loss())}
    row["eigenvalue"] = largest_eigenvalue(loss, model, seed=seed)
    rises = mean_rise(loss, model, RADII, directions=max(2, round(DIRECTIONS * scale)), seed=seed)
    row |= {f"rise {radius:g}": rise for radius, rise in rises.items()}
    if seed == 0:
        steps = STEPS[:: 1 if scale == 1 else 6]
        row["plane"] = " ".join(f"{value:.4g}" for line in plane(loss, model, list(steps), seed=seed) for value in line)
    return row


# -------------------------------------------------------------------------------------------------------- conclusions


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """The two claims of the paper: smoother outputs, and a smoother loss; the primary figures by plan.md."""
    outputs = log_ratios(rows, "relu", "roughness", kind="outputs", shape="shallow")
    sharpness = log_ratios(rows, "relu", "eigenvalue", kind="digits")
    return [
        finding(
            claim="The output of a random network with Mish is smoother than with ReLU",
            published="pictures of a random network's output: ReLU sharp, Mish smooth; no figure",
            found=f"{len(outputs)} random networks with linear output over a square of side {SIDE:g}. Roughness is the "
            f"total variation of the slope along {LINES} random lines, divided by the mean absolute slope.",
            judged=judge(outputs, MARGIN),
            unit="of ReLU's roughness",
            ratio=-1,
            part="outputs",
            tables=_roughness_table(rows),
        ),
        finding(
            claim="The loss around a minimum is smoother with Mish than with ReLU",
            published="pictures of the loss of a ResNet-20 on CIFAR-10; no figure",
            found=f"A ResNet of three stages on digits, which decides, and a small detector, {len(sharpness)} seeds. "
            "ReLU's second derivative is 0 wherever it exists: its Hessian consists of the Gauss-Newton part and of "
            "products of the weights of different layers, and does not see the corners, as the rise at a distance "
            "does. The detectors end at different training losses, so that theirs are not minima of like depth.",
            judged=judge(sharpness, MARGIN),
            unit="of ReLU's largest eigenvalue",
            ratio=-1,
            part="loss",
            tables=_sharpness_table(rows),
        ),
    ]


def _roughness_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    shown = {name: "-".join(map(str, shape)) for name, shape in SHAPES.items() if where(rows, shape=name)}
    return table(
        "Roughness of the output relative to ReLU, geometric means",
        ("activation", *(f"{units} units" for units in shown.values())),
        (
            [LABELS[act], *(_relative(rows, "roughness", act, kind="outputs", shape=shape) for shape in shown)]
            for act in OUTPUT_ACTS[1:]
            if where(rows, kind="outputs", act=act)
        ),
    )


def _sharpness_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    rise = f"rise {RADII[2]:g}"
    lines = []
    for kind in ("digits", "detector"):
        for act in TRAINED_ACTS:
            losses = [number(row, "loss") for row in where(rows, kind=kind, act=act)]
            if losses:
                ratios = (_relative(rows, column, act, kind=kind) for column in ("eigenvalue", rise))
                lines.append([kind, LABELS[act], f"{fmean(losses):.2g}", *(("1", "1") if act == "relu" else ratios)])
    return table(
        "Training loss at the end; largest eigenvalue of its Hessian, and its rise at a filter-normalised radius of "
        f"{RADII[2]:g}, relative to ReLU, geometric means",
        ("network", "activation", "training loss", "largest eigenvalue", "rise"),
        lines,
    )


def log_ratios(rows: Sequence[Row], base: str, column: str, *, act: str = "mish", **kind: str) -> list[float]:
    """log(base / act) of a column by seed, positive where the activation has less; NaN rows are left out."""
    mine, others = (
        {row["seed"]: value for row in where(rows, act=name, **kind) if (value := _positive(row, column))}
        for name in (act, base)
    )
    return [math.log(others[seed] / value) for seed, value in mine.items() if seed in others]


def _positive(row: Row, column: str) -> float | None:
    value = row.get(column)
    return float(value) if isinstance(value, int | float) and value > 0 and math.isfinite(value) else None


def _relative(rows: Sequence[Row], column: str, act: str, **kind: str) -> str:
    """An activation's column relative to ReLU: geometric mean and interval; empty without two seeds."""
    logs = log_ratios(rows, "relu", column, act=act, **kind)
    return interval_text(*_geometric([-each for each in logs]), ".2f") if len(logs) > 1 else ""


def _geometric(logs: ArrayLike) -> tuple[float, float, float]:
    """The geometric mean of figures with these logarithms, and both ends of its interval."""
    mean, reach = mean_and_reach(logs)
    return math.exp(mean), math.exp(mean - reach), math.exp(mean + reach)


# ------------------------------------------------------------------------------------------------------------ picture


def draw(rows: Sequence[Row], figure: "Figure") -> None:
    """Outputs of a random network, the loss around minima, and the figures of all cells."""
    axes = figure.subplots(3, 4)
    for axis, act in zip(axes[0], ("relu", "mish"), strict=False):
        drawn = axis.imshow(output_map(act, SHAPES["shallow"], 0, 200).T, origin="lower", extent=(0, SIDE, 0, SIDE))
        figure.colorbar(drawn, ax=axis, label="output", shrink=0.8)
        axis.set(title=f"Random network 0, {LABELS[act]}", xlabel="first input", ylabel="second input")
    _draw_ratios(axes[0, 2], rows, "roughness", [("outputs", shape) for shape in SHAPES])
    axes[0, 2].set(title="Roughness of the output", xlabel="relative to ReLU (95 % interval)")
    _draw_ratios(axes[0, 3], rows, "eigenvalue", [("digits", None), ("detector", None)])
    axes[0, 3].set(title="Hessian, largest eigenvalue", xlabel="relative to ReLU (95 % interval)")
    _draw_planes(figure, list(axes[1, :3]), rows, "digits", "cross-entropy (nat)")
    _draw_rises(axes[1, 3], rows, "digits", "cross-entropy (nat)")
    _draw_planes(figure, list(axes[2, :3]), rows, "detector", "training loss")
    _draw_rises(axes[2, 3], rows, "detector", "training loss")


def _draw_ratios(axis: "Axes", rows: Sequence[Row], column: str, groups: Sequence[tuple[str, str | None]]) -> None:
    acts = [act for act in OUTPUT_ACTS[1:] if any(row["act"] == act and column in row for row in rows)]
    for index, (kind, shape) in enumerate(groups):
        cells = {"kind": kind} | ({"shape": shape} if shape else {})
        for place, act in enumerate(acts):
            logs = [-each for each in log_ratios(rows, "relu", column, act=act, **cells)]
            if len(logs) < 2:
                continue
            middle, low, high = _geometric(logs)
            units = "-".join(map(str, SHAPES[shape])) if shape else kind
            label = f"{units}, {len(logs)} seeds" if act == acts[-1] else None
            error = [[middle - low], [high - middle]]
            axis.errorbar(middle, place + 0.2 * index, xerr=error, fmt="o", color=f"C{index}", label=label, capsize=3)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks(range(len(acts)), [LABELS[act] for act in acts])
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    ticks = [tick for tick in (0.05, 0.1, 0.2, 0.5, 0.7, 1, 1.4, 2, 5, 10) if low <= tick <= high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.margins(y=0.25)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _draw_planes(figure: "Figure", axes: Sequence["Axes"], rows: Sequence[Row], kind: str, loss: str) -> None:
    shown = [row for row in where(rows, kind=kind) if row.get("plane")]
    planes = {str(row["act"]): np.array(str(row["plane"]).split(), float) for row in shown}
    if not planes:
        for axis in axes:
            axis.axis("off")
        return
    levels = np.geomspace(min(each.min() for each in planes.values()), max(each.max() for each in planes.values()), 16)
    for axis, act in zip(axes, TRAINED_ACTS, strict=True):
        if act not in planes:
            axis.axis("off")
            continue
        side = math.isqrt(len(planes[act]))
        steps = np.linspace(STEPS[0], STEPS[-1], side)
        filled = axis.contourf(steps, steps, planes[act].reshape(side, side), levels, norm="log", cmap="magma_r")
        axis.set(title=f"Loss, {kind}, {LABELS[act]}", aspect="equal")
        axis.set(xlabel="second direction, in filter norms", ylabel="first direction, in filter norms")
    bar = figure.colorbar(filled, ax=list(axes), label=f"{loss}, {kind}, seed 0", shrink=0.8)
    ticks = (1e-4, 1e-3, 1e-2, 0.1, 1, 3, 10, 30, 100, 300, 1000, 3000)
    bar.set_ticks([tick for tick in ticks if levels[0] <= tick <= levels[-1]], minor=False)
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.minorticks_off()


def _draw_rises(axis: "Axes", rows: Sequence[Row], kind: str, loss: str) -> None:
    for act in TRAINED_ACTS:
        mine = where(rows, kind=kind, act=act)
        columns = {radius: [number(row, f"rise {radius:g}") for row in mine] for radius in RADII}
        shown = [radius for radius, column in columns.items() if len(column) > 1 and min(column) > 0]
        if not shown:
            continue
        middle, low, high = np.array([_geometric(np.log(columns[radius])) for radius in shown]).T
        error = [middle - low, high - middle]
        axis.errorbar(shown, middle, yerr=error, marker="o", label=f"{LABELS[act]}, 95 % interval", capsize=3)
    axis.set(xscale="log", yscale="log", title=f"Rise of the loss, {kind}")
    axis.set(xlabel="radius, in filter norms", ylabel=f"mean rise of {loss}")
    axis.set_xticks(RADII, [f"{radius:g}" for radius in RADII])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    if axis.has_data():
        axis.legend(fontsize=8)
