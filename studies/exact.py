"""The activations in closed form with mpmath, independent of the code they check, with derivatives to 50 digits."""

from collections.abc import Callable, Sequence

from mpmath import diff, erf, exp, log1p, mp, mpf, sqrt, tanh

DIGITS = 50
Formula = Callable[[mpf], mpf]


def _sigmoid(x: mpf) -> mpf:
    return 1 / (1 + exp(-x))


def _mish(x: mpf) -> mpf:
    return x * tanh(log1p(exp(x)))


def _silu(x: mpf) -> mpf:
    return x * _sigmoid(x)


def _elu(x: mpf) -> mpf:
    return x if x > 0 else exp(x) - 1


def _selu(x: mpf) -> mpf:  # the constants of arXiv 1706.02515, appendix, to more digits (pytorch.org, SELU)
    return mpf("1.0507009873554804934193349852946") * (
        x if x > 0 else mpf("1.6732632423543772848170429916717") * (exp(x) - 1)
    )


def _leaky(slope: str) -> Formula:
    return lambda x: x if x > 0 else mpf(slope) * x


FORMULAS: dict[str, Formula] = {
    "relu": lambda x: max(x, mpf(0)),
    "leaky_relu": _leaky("0.01"),
    "prelu": _leaky("0.25"),
    "rrelu": lambda x: x if x > 0 else mpf(11) / 48 * x,  # in evaluation mode, (1/8 + 1/3) / 2
    "elu": _elu,
    "celu": _elu,
    "selu": _selu,
    "gelu": lambda x: x * (1 + erf(x / sqrt(2))) / 2,
    "softplus": lambda x: log1p(exp(x)),
    "tanh": tanh,
    "sigmoid": _sigmoid,
    "swish": _silu,
    "e_swish": lambda x: mpf("1.75") * _silu(x),
    "silu": _silu,
    "elish": lambda x: (x if x >= 0 else exp(x) - 1) * _sigmoid(x),
    "srelu": lambda x: x if x > 0 else mpf(13421773) / 2**26 * x,  # the fp32 number nearest to 0.2, its parameter
    "isru": lambda x: x / sqrt(1 + x * x),
    "hardswish": lambda x: x * min(max(x + 3, mpf(0)), mpf(6)) / 6,
    "hard_mish": lambda x: x * min(max(x + 2, mpf(0)), mpf(2)) / 2,
    "mish": _mish,
    "mish_torch": _mish,
    "mish_eager": _mish,
    "identity": lambda x: +x,
}


def exact(name: str, points: Sequence[float]) -> list[list[mpf]]:
    """Values, first and second derivatives of an activation with its default parameters, each (N,), at no corner."""
    with mp.workdps(DIGITS):
        return [[diff(FORMULAS[name], mpf(x), order) for x in points] for order in range(3)]
