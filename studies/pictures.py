"""What the pictures of the studies share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from studies.intervals import mean_and_reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "silu": "Swish (SiLU)",
    "swish": "Swish",
    "gelu": "GELU",
    "tanh": "tanh",
    "mish": "Mish",
}
COLOURS = {"relu": "tab:blue", "swish": "tab:orange", "silu": "tab:orange", "mish": "tab:green"}


def errorbars(axis: "Axes", places: Sequence[float], samples: Sequence[ArrayLike], label: str, **style: Any) -> None:
    """The mean of each sample with its 95 % interval."""
    means, reaches = zip(*map(mean_and_reach, samples), strict=True)
    axis.errorbar(places, means, yerr=reaches, label=label, **{"marker": "o", "markersize": 3, "capsize": 2, **style})
