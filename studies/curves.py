"""Every activation's curve with its first two derivatives, checked to 50 digits, and what the paper draws of Mish's.

Values are computed by the modules used in training, derivatives by autograd through them; studies/exact.py has the
closed forms. ``python -m studies.curves --output curves.png`` plots all activations.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from mpmath import mp, mpf
from scipy.optimize import minimize_scalar
from torch import Tensor

from configs.cli import Parser, run_script
from models.activations import TABLE
from studies.exact import DIGITS, exact
from studies.networks import activation
from studies.pictures import COLOURS, LABELS
from studies.rows import Row, number, where
from studies.tables import Table, table
from studies.verdicts import Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLAIM = "Mish is smooth where ReLU is not, and its derivative is that of Fig. 1"
TITLE = "Is Mish smooth where ReLU is not, and are its curves those of Fig. 1?"
MINUTES = 0.5
EXTRA = ""
PICTURE = (18.0, 4.4)
MARGIN = 0.01
LEFT, RIGHT, POINTS = -5.0, 5.0, 1001
# Fig. 1(b), Mish's derivative, digitised; Swish's curve in it is right to 0.002 (Observations/Derivatives.png of
# github.com/digantamisra98/Mish at ec1faeb draws the same). The last point is its maximum, read off less exactly.
DRAWN = {0.0: 0.59, 0.25: 0.709, 1.0: 0.972, 1.5: 1.050, 1.9: 1.06}
WIDE = 10.0  # extremes are sought between -WIDE and WIDE
REACH, SPACING = 8, 16  # accuracy is measured between -REACH and REACH, at SPACING points per unit between the corners
BESIDE = 2.0**-30  # from a corner, where one-sided derivatives are taken
PRECISIONS = {"fp64": torch.float64, "fp32": torch.float32}
PICTURES = (".png", ".pdf", ".svg")
ORDERS = ("value", "first derivative", "second derivative")


def cells(*, quick: bool) -> list[Row]:
    """One per activation."""
    return [{"act": name} for name in (("relu", "silu", "mish") if quick else TABLE)]


def measure(cell: Row) -> Row:
    """Extremes, jumps of the derivatives, and relative errors of an activation."""
    name = str(cell["act"])
    return {**extremes(name), **jumps(name), **errors(name)}


def conclude(rows: Sequence[Row]) -> list[Finding]:
    """Whether Mish's derivative is continuous, and whether the drawn one is Mish's; from calculations."""
    (mish,), (relu,) = (where(rows, act=name) for name in ("mish", "relu"))
    off = {x: drawn - at("mish", [x], 1)[0] for x, drawn in DRAWN.items()}
    furthest = max(off, key=lambda x: abs(off[x]))
    smooth = number(mish, "jump d1") < MARGIN < number(relu, "jump d1")
    return [
        Finding(
            claim="Mish is smooth where ReLU is not",
            published="Fig. 1: Mish, its derivatives, and ReLU's corner at 0",
            found=f"Jumps are over a step of {2 * BESIDE:.1g}; the largest jump of Mish's second derivative at "
            f"any multiple of 1/16 between -{WIDE:g} and {WIDE:g} is {number(mish, 'jump d2'):.1g}. Relative errors "
            f"are the largest between -{REACH} and {REACH} against {DIGITS} digits. They are large where a module "
            f"takes almost 1 from 1: GELU of -{REACH} is 0 in fp32, and the derivative of tanh at {REACH} has few "
            "digits left. Mish has no such difference; its derivative's error is largest where the derivative itself "
            "is almost 0. The author also supposes that a factor of the derivative acts like a preconditioner and "
            "makes gradients smoother; the sources that could be read have no measure of it, so it is not tried here.",
            brief=f"the first derivative jumps at 0 by {number(relu, 'jump d1 at 0'):.3g} for ReLU and by "
            f"{number(mish, 'jump d1 at 0'):.1g} for Mish",
            verdict="supported" if smooth else "contradicted",
            part="smooth",
            note="a calculation",
            tables=_extremes_table(rows) + _errors_table(rows),
        ),
        Finding(
            claim="The derivative drawn in Fig. 1(b) is Mish's",
            published=f"a curve with maximum {DRAWN[1.9]} near 1.9 and {DRAWN[0.0]} at 0 (digitised)",
            found=f"At {furthest:g} the drawn derivative is {DRAWN[furthest]:.3f} and Mish's is "
            f"{at('mish', [furthest], 1)[0]:.3f}. The exact derivative has its maximum {number(mish, 'slope'):.4f} at "
            f"{number(mish, 'slope x'):.3f} and is {at('mish', [0.0], 1)[0]:.4g} at 0. The drawn function itself was "
            "not digitised.",
            brief=f"{abs(off[furthest]):.3f} off at {furthest:g}; {MARGIN} counts",
            verdict="contradicted" if abs(off[furthest]) > MARGIN else "supported",
            part="derivative",
            note="a calculation",
        ),
    ]


def _extremes_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    def shown(row: Row, column: str) -> str:
        if row.get(column) is None:
            return "none"
        if row.get(f"{column} x") is None:
            return f"{number(row, column):.5g}"
        place = round(number(row, f"{column} x"), 6) + 0.0  # no negative zero
        return f"{number(row, column):.5g} at {place:.4g}"

    def bound(row: Row, column: str) -> str:
        return "unbounded" if row.get(column) is None else f"{number(row, column):.5g}"

    return table(
        f"Range, minimum (none if it is not at a single point), largest slope and largest absolute second derivative "
        f"(between -{WIDE:g} and {WIDE:g}), and the jump of the first derivative at 0",
        ("activation", "from", "to", "minimum", "slope", "second derivative", "jump"),
        (
            [
                str(row["act"]),
                *(bound(row, column) for column in ("lower bound", "upper bound")),
                *(shown(row, column) for column in ("minimum", "slope", "curvature")),
                f"{number(row, 'jump d1 at 0'):.2g}",
            ]
            for row in rows
        ),
    )


def _errors_table(rows: Sequence[Row]) -> tuple[Table, ...]:
    columns = {
        f"{precision} {what}": f"{precision} d{order}" for precision in PRECISIONS for order, what in enumerate(ORDERS)
    }
    return table(
        "Largest relative error of the modules' values and first derivatives, and largest absolute error of their "
        "second derivatives",
        ("activation", *columns),
        ([str(row["act"]), *(f"{number(row, f'error {column}'):.1g}" for column in columns.values())] for row in rows),
    )


def draw(rows: Sequence[Row], figure: "Figure") -> None:
    """Mish's derivatives with the drawn points, and the accuracy of each activation."""
    *panels, accuracy = figure.subplots(1, 4, width_ratios=(1, 1.15, 1, 1.2))
    for order, axis in enumerate(panels):
        for name in ("relu", "silu", "mish"):
            x, orders = curves(name)
            axis.plot(x, orders[order], label=f"{LABELS[name]}, exact", linewidth=1.4, color=COLOURS[name])
        axis.set(xlabel="input x", xlim=(LEFT, RIGHT))
        axis.grid(alpha=0.3)
    values, slopes, curvatures = panels
    slopes.plot(list(DRAWN), list(DRAWN.values()), "kx", label="Mish, as drawn in the paper's Fig. 1(b)")
    values.set(ylabel="f(x)", ylim=(-0.7, 4), title="Value")
    slopes.set(ylabel="f'(x)", ylim=(-0.25, 1.65), title="First derivative: the drawn one is not Mish's")
    curvatures.set(ylabel="f''(x)", ylim=(-0.3, 0.95), title="Second derivative (ReLU has none at 0)")
    for axis in panels:
        axis.legend(loc="upper left", fontsize=8)
    _draw_errors(accuracy, rows)


def _draw_errors(axis: "Axes", rows: Sequence[Row]) -> None:
    names = [str(row["act"]) for row in rows]
    for precision, marker, color in (("fp64", "o", "C0"), ("fp32", "s", "C1")):
        for order, filled in ((0, True), (1, False)):
            column = f"error {precision} d{order}"
            shown = [max(number(row, column), 1e-18) for row in rows]
            face, label = color if filled else "none", f"{ORDERS[order]}, {precision}"
            axis.plot(shown, names, marker, markersize=4, color=color, markerfacecolor=face, label=label)
    axis.set(
        xscale="log",
        xlim=(5e-19, 30),
        xlabel="largest relative error (1e-18: exact)",
        title=f"Error of the modules, |x| up to {REACH}",
    )
    axis.set_ylim(len(rows) + 0.22 * len(rows), -1)  # with room for the legend
    axis.tick_params(axis="y", labelsize=7)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, loc="lower center", ncols=2)


# ----------------------------------------------------------------------------------------------------- measurements


def derivatives(name: str, points: Tensor) -> list[Tensor]:
    """An activation's values, first and second derivatives at points (N,), in the points' precision."""
    function = activation(name).to(points.dtype).eval()  # rrelu is deterministic in eval()
    x = points.detach().clone().requires_grad_()
    orders = [function(x)]
    for _ in range(2):
        y = orders[-1]
        if y.requires_grad:
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
            orders.append(torch.zeros_like(x) if slope is None else slope)
        else:  # a constant
            orders.append(torch.zeros_like(x))
    return [y.detach() for y in orders]


def curves(name: str) -> tuple[Tensor, list[Tensor]]:
    """Points (N,) float64 between LEFT and RIGHT, and the `derivatives` there."""
    x = torch.linspace(LEFT, RIGHT, POINTS, dtype=torch.float64)
    return x, derivatives(name, x)


def at(name: str, points: Sequence[float], order: int) -> list[float]:
    """The values (order 0) or derivatives of an activation at points, in float64."""
    return [float(y) for y in derivatives(name, torch.tensor(points, dtype=torch.float64))[order]]


def extremes(name: str) -> Row:
    """Range, minimum, largest slope and largest absolute second derivative, each with its x if at a single one."""
    ends, further = at(name, [-1e4, 1e4], 0), at(name, [-2e4, 2e4], 0)
    minimum, slope = _peak(lambda x: [-y for y in at(name, x, 0)]), _peak(lambda x: at(name, x, 1))
    curvature = _peak(lambda x: [abs(y) for y in at(name, x, 2)])
    bounded = [end if abs(end - other) < 1e-3 else None for end, other in zip(ends, further, strict=True)]
    attained = minimum[1] is not None
    return {
        "lower bound": -minimum[0] if attained else bounded[0],
        "upper bound": bounded[1],
        "minimum": -minimum[0] if attained else None,
        "minimum x": minimum[1],
        "slope": slope[0],
        "slope x": slope[1],
        "curvature": curvature[0],
        "curvature x": curvature[1],
    }


def jumps(name: str) -> Row:
    """The jump of the first derivative at 0, and the largest of the first two derivatives at any multiple of 1/16.

    The difference between BESIDE to the right and to the left; corners of the activations are at such multiples.
    """
    x = torch.arange(-16 * WIDE, 16 * WIDE + 1, dtype=torch.float64) / 16
    right, left = derivatives(name, x + BESIDE), derivatives(name, x - BESIDE)
    first, second = ((right[order] - left[order]).abs() for order in (1, 2))
    return {"jump d1 at 0": float(first[x == 0]), "jump d1": float(first.max()), "jump d2": float(second.max())}


def errors(name: str) -> Row:
    """The largest relative errors of values (d0) and first derivatives (d1) against 50 digits, by precision.

    Of the second derivatives (d2) the largest absolute error. The points are odd multiples of 1 / (2 SPACING), exact in
    both precisions and no corners.
    """
    points = [(index + 0.5) / SPACING for index in range(-REACH * SPACING, REACH * SPACING)]
    wanted, found = exact(name, points), {}
    for precision, dtype in PRECISIONS.items():
        for order, y in enumerate(derivatives(name, torch.tensor(points, dtype=dtype))):
            with mp.workdps(DIGITS):
                each = [
                    abs(mpf(a) - b) / (abs(b) if order < 2 and b else 1)
                    for a, b in zip(y.tolist(), wanted[order], strict=True)
                ]
            found[f"error {precision} d{order}"] = float(max(each))
    return dict(found)


def _peak(function: Callable[[Sequence[float]], list[float]]) -> tuple[float, float | None]:
    """The largest value between -WIDE and WIDE, and where; None unless it exceeds both ends and its surroundings."""
    grid = np.linspace(-WIDE, WIDE, 4001)
    values = np.array(function(list(grid)))
    best = int(values.argmax())
    if values[best] <= max(values[0], values[-1]) + 1e-4 or (values >= values[best] - 1e-12).sum() > 2:
        return float(values[best]), None
    step = grid[1] - grid[0]
    bounds = (grid[best] - step, grid[best] + step)
    found = minimize_scalar(
        lambda x: -function([float(x)])[0], bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    better = -float(found.fun) > values[best]
    return (-float(found.fun), float(found.x)) if better else (float(values[best]), float(grid[best]))


# -------------------------------------------------------------------------------------------------- all activations


def main(argv: Sequence[str] | None = None) -> int:
    """Plot activations with their first and second derivatives."""
    parser = Parser(prog="python -m studies.curves", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="ACTIVATION", help="those to plot; default: all")
    parser.add_argument("--output", default="activations.png", metavar="FILE", help="picture (png, pdf, svg)")
    arguments = parser.parse_args(argv)
    output = Path(arguments.output)
    if output.suffix not in PICTURES or output.is_dir():
        raise ValueError(f"--output {output}: expected the name of a picture, ending with {', '.join(PICTURES)}")
    if not output.parent.is_dir():
        raise ValueError(f"--output {output}: there is no folder {output.parent}")
    draw_all(output, arguments.names or list(TABLE))
    print(output)
    return 0


def draw_all(path: Path, names: Sequence[str]) -> None:
    """Draw one panel per activation."""
    from engine.pictures.figures import new_figure, write_figure  # matplotlib is slow to import

    columns = min(5, len(names) + 1)  # with room for the legend
    lines = len(names) // columns + 1
    figure = new_figure(3 * columns, 2.4 * lines)
    axes = figure.subplots(lines, columns, sharex=True, sharey=True).flatten()
    for axis, name in zip(axes, names, strict=False):
        x, orders = curves(name)
        for y, label in zip(orders, ORDERS, strict=True):
            axis.plot(x, y, label=label, linewidth=1.2)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(-1.5, 2.5)
        axis.grid(alpha=0.3)
    for axis in axes[len(names) :]:
        axis.axis("off")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower right")
    write_figure(figure, path)


if __name__ == "__main__":
    run_script(main)
