"""Plot every activation with its first and second derivatives: ``python -m studies.curves --output curves.png``.

Values are computed by the modules used in training, derivatives by autograd through them. (The figure of Mish's
derivative in arXiv 1908.08681 does not match its equation 1.)
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.activations import TABLE, make_activation, parse_activation

LEFT, RIGHT, POINTS = -5.0, 5.0, 1001


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the plot."""
    parser = argparse.ArgumentParser(prog="python -m studies.curves", description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="activations.png", metavar="FILE.png", help="plot")
    arguments = parser.parse_args(argv)
    draw(Path(arguments.output))
    print(arguments.output)
    return 0


def curves(name: str) -> tuple[Tensor, list[Tensor]]:
    """Points (N,) float64, and an activation's values, first and second derivatives there."""
    activation = make_activation(parse_activation(name)).double().eval()  # in evaluation mode rrelu is deterministic
    x = torch.linspace(LEFT, RIGHT, POINTS, dtype=torch.float64, requires_grad=True)
    orders = [activation(x)]
    for _ in range(2):
        y = orders[-1]
        if y.requires_grad:
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
            orders.append(torch.zeros_like(x) if slope is None else slope)
        else:  # a constant
            orders.append(torch.zeros_like(x))
    return x.detach(), [y.detach() for y in orders]


def draw(path: Path) -> None:
    """Draw one panel per activation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 5
    lines = -(-len(TABLE) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, sharex=True, sharey=True).flatten()
    for axis, name in zip(axes, TABLE, strict=False):
        x, orders = curves(name)
        for y, label in zip(orders, ("value", "first derivative", "second derivative"), strict=True):
            axis.plot(x, y, label=label, linewidth=1.2)
        axis.set_title(name, fontsize=9)
        axis.set_ylim(-1.5, 2.5)
        axis.grid(alpha=0.3)
    for axis in axes[len(TABLE) :]:
        axis.axis("off")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
