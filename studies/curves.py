"""Every activation of the table, its first and its second derivative: ``python -m studies.curves --output curves.png``.

The curves are those of the operators that training runs: values are computed by the modules themselves, derivatives by
autograd through them. (The figure of Mish's derivative in arXiv 1908.08681 is not that of its equation 1.)
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
    """Draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m studies.curves", description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="activations.png", metavar="FILE.png")
    arguments = parser.parse_args(argv)
    draw(Path(arguments.output))
    print(arguments.output)
    return 0


def curves(name: str) -> tuple[Tensor, list[Tensor]]:
    """The points (N,) float64 and, there, an activation's values, first and second derivatives."""
    activation = make_activation(parse_activation(name)).double().eval()  # rrelu is drawn as it is in evaluation
    x = torch.linspace(LEFT, RIGHT, POINTS, dtype=torch.float64, requires_grad=True)
    found = [activation(x)]
    for _ in range(2):
        y = found[-1]
        if y.requires_grad:
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
            found.append(torch.zeros_like(x) if slope is None else slope)
        else:  # a constant
            found.append(torch.zeros_like(x))
    return x.detach(), [each.detach() for each in found]


def draw(path: Path) -> None:
    """A small picture for each activation of the table."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 5
    lines = -(-len(TABLE) // columns)
    figure = Figure(figsize=(3 * columns, 2.4 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, sharex=True, sharey=True).flatten()
    for axis, name in zip(axes, TABLE, strict=False):
        x, found = curves(name)
        for y, label in zip(found, ("value", "first derivative", "second derivative"), strict=True):
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
