"""The table of activations: each name with its module, its parameters and their defaults, and what computes it.

To add one, add an entry to `TABLE`, a row in tests/models/test_activations.py, and its name to the list in README.md
(tests compare all three). A name states the implementation: `mish` is the operator of ops/mish.py, `mish_torch` is
torch.nn.Mish, `mish_eager` evaluates the formula in three operations.

No activation works in place. In-place ReLU and leaky ReLU would save one tensor per layer, while in-place SiLU or Mish
make autograd copy their input first; a single policy keeps that difference out of comparisons between activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.text import did_you_mean
from ops.mish import Mish, dispatch
from ops.norm_act import ACTIVATIONS as FUSED

Value = float | bool | str


class Swish(nn.Module):
    """x sigmoid(beta x); beta is fixed, or learned per layer (Ramachandran et al., arXiv 1710.05941, sec. 4)."""

    def __init__(self, beta: float = 1.0, learnable: bool = False):
        super().__init__()
        self.beta: float | nn.Parameter = nn.Parameter(torch.tensor(float(beta))) if learnable else float(beta)

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape, keeping its dtype."""
        beta = self.beta.to(x.dtype) if isinstance(self.beta, Tensor) else self.beta
        return x * torch.sigmoid(beta * x)


class ESwish(nn.Module):
    """beta x sigmoid(x) (Alcaide, arXiv 1801.07145, eq. 1)."""

    def __init__(self, beta: float = 1.75):
        super().__init__()
        self.beta = float(beta)

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape."""
        return self.beta * F.silu(x)


class ELiSH(nn.Module):
    """x sigmoid(x) for x >= 0, (e^x - 1) sigmoid(x) for x < 0 (Basirat and Roth, arXiv 1808.00783, eq. 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape, keeping its dtype."""
        # Clamped because expm1 overflows for large x, and an infinity in the branch not taken makes the gradient NaN.
        negative = torch.expm1(x.clamp(max=0)).to(x.dtype)
        return torch.where(x >= 0, x, negative) * torch.sigmoid(x)


class SReLU(nn.Module):
    """Piecewise linear function of three segments with four learned parameters (Jin et al., arXiv 1512.07030, eq. 1).

    t_right + a_right (x - t_right) for x >= t_right, t_left + a_left (x - t_left) for x <= t_left, x in between.
    The parameters are shared by all channels of a layer. The paper sets t_right from the data after some epochs; here
    it has a constant initial value, so that the initial network does not depend on the data.
    """

    def __init__(self, t_left: float = 0.0, a_left: float = 0.2, t_right: float = 1.0, a_right: float = 1.0):
        super().__init__()
        self.t_left = nn.Parameter(torch.tensor(float(t_left)))
        self.a_left = nn.Parameter(torch.tensor(float(a_left)))
        self.t_right = nn.Parameter(torch.tensor(float(t_right)))
        self.a_right = nn.Parameter(torch.tensor(float(a_right)))

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape, keeping its dtype."""
        t_left, a_left, t_right, a_right = (
            parameter.to(x.dtype) for parameter in (self.t_left, self.a_left, self.t_right, self.a_right)
        )
        right = torch.where(x >= t_right, t_right + a_right * (x - t_right), x)
        return torch.where(x <= t_left, t_left + a_left * (x - t_left), right)


class ISRU(nn.Module):
    """x / sqrt(1 + alpha x^2) (Carlile et al., arXiv 1710.09967, eq. 1)."""

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        self.alpha = float(alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape, keeping its dtype."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # the square exceeds the range of fp16
        return (wide * torch.rsqrt(1 + self.alpha * wide * wide)).to(x.dtype)


class HardMish(nn.Module):
    """(x / 2) min(2, max(0, x + 2)), a piecewise approximation of Mish (H-Mish, from the Mish authors' repository)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape."""
        return 0.5 * x * (x + 2).clamp(0, 2)


class MishEager(nn.Module):
    """Mish by its definition: three operations, each of which saves a tensor (Misra, arXiv 1908.08681, eq. 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply elementwise to a tensor of any shape, keeping its dtype."""
        return x * torch.tanh(F.softplus(x)).to(x.dtype)


def _check_gelu(parameters: Mapping[str, Value]) -> None:
    if parameters["approximate"] not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is {parameters['approximate']!r}, expected 'none' or 'tanh'")


def _check_rrelu(parameters: Mapping[str, Value]) -> None:
    lower, upper = float(parameters["lower"]), float(parameters["upper"])
    if lower > upper:
        raise ValueError(f"rrelu: lower is {lower}, expected at most upper, which is {upper}")


def _check_isru(parameters: Mapping[str, Value]) -> None:
    if float(parameters["alpha"]) < 0:
        raise ValueError(f"isru: alpha is {parameters['alpha']}, expected 0 or more")


@dataclass(frozen=True)
class Activation:
    """An entry of the table; modules of exactly the class `kind` are recognised as this activation in a network."""

    kind: type[nn.Module]
    implementation: str
    parameters: Mapping[str, Value] = field(default_factory=dict)  # with their defaults
    check: Callable[[Mapping[str, Value]], None] | None = None  # raises ValueError for values out of range


TABLE: dict[str, Activation] = {
    "relu": Activation(nn.ReLU, "torch.nn.functional.relu"),  # Nair and Hinton, ICML 2010
    "leaky_relu": Activation(  # Maas et al., ICML workshop 2013
        nn.LeakyReLU, "torch.nn.functional.leaky_relu", {"negative_slope": 0.01}
    ),
    "prelu": Activation(nn.PReLU, "torch.nn.functional.prelu", {"init": 0.25}),  # arXiv 1502.01852
    "rrelu": Activation(  # Xu et al., arXiv 1505.00853
        nn.RReLU, "torch.nn.functional.rrelu", {"lower": 1 / 8, "upper": 1 / 3}, _check_rrelu
    ),
    "elu": Activation(nn.ELU, "torch.nn.functional.elu", {"alpha": 1.0}),  # Clevert et al., arXiv 1511.07289
    "celu": Activation(nn.CELU, "torch.nn.functional.celu", {"alpha": 1.0}),  # Barron, arXiv 1704.07483
    "selu": Activation(nn.SELU, "torch.nn.functional.selu"),  # Klambauer et al., arXiv 1706.02515
    "gelu": Activation(  # Hendrycks and Gimpel, arXiv 1606.08415
        nn.GELU, "torch.nn.functional.gelu", {"approximate": "none"}, _check_gelu
    ),
    "softplus": Activation(  # Dugas et al., NIPS 2000
        nn.Softplus, "torch.nn.functional.softplus", {"beta": 1.0, "threshold": 20.0}
    ),
    "tanh": Activation(nn.Tanh, "torch.tanh"),
    "sigmoid": Activation(nn.Sigmoid, "torch.sigmoid"),
    "swish": Activation(Swish, "formula of 3 operations", {"beta": 1.0, "learnable": False}),
    "e_swish": Activation(ESwish, "formula of 2 operations", {"beta": 1.75}),
    "silu": Activation(nn.SiLU, "torch.nn.functional.silu"),  # Elfwing et al., arXiv 1702.03118
    "elish": Activation(ELiSH, "formula of 6 operations"),
    "srelu": Activation(
        SReLU, "formula of 10 operations", {"t_left": 0.0, "a_left": 0.2, "t_right": 1.0, "a_right": 1.0}
    ),
    "isru": Activation(ISRU, "formula of 5 operations", {"alpha": 1.0}, _check_isru),
    "hardswish": Activation(nn.Hardswish, "torch.nn.functional.hardswish"),  # Howard et al., arXiv 1905.02244
    "hard_mish": Activation(HardMish, "formula of 4 operations"),
    "mish": Activation(Mish, "ops.mish"),
    "mish_torch": Activation(nn.Mish, "torch.nn.functional.mish"),
    "mish_eager": Activation(MishEager, "formula of 3 operations"),
    "identity": Activation(nn.Identity, "none"),
}
ACTIVATION_NAMES = tuple(TABLE)
NAMES_BY_KIND = {entry.kind: name for name, entry in TABLE.items()}
MAX_PARAMETER = 1e30  # absolute value; float32 represents at most 3.4e38


@dataclass(frozen=True)
class ActivationSpec:
    """A valid activation: a name of the table with a value for each of its parameters. Made by `parse_activation`."""

    name: str
    values: tuple[tuple[str, Value], ...] = ()  # in the order of the table, so that equal specifications compare equal

    @property
    def parameters(self) -> dict[str, Value]:
        """The parameters by name, defaults included."""
        return dict(self.values)

    def __str__(self) -> str:
        """As in reports: swish(beta=1.0, learnable=True)."""
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.values)})" if self.values else self.name


def parse_activation(value: object) -> ActivationSpec:
    """The specification for a name ("mish") or a mapping with a name ({"name": "swish", "beta": 2.0}).

    ValueError for an unknown name or parameter, with the nearest known one, and for a value of the wrong type or range.
    """
    given = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(
            f"expected the name of an activation, or a mapping such as {{name: swish, beta: 1.0}}; "
            f"found {str(value)[:100]!r}"
        )
    if name not in TABLE:
        raise ValueError(
            f"unknown activation {name[:100]!r}{did_you_mean(name, TABLE)}; known are {', '.join(ACTIVATION_NAMES)}"
        )
    entry = TABLE[name]
    for key, found in given.items():
        if key not in entry.parameters:
            known = ", ".join(entry.parameters) or "none"
            hint = did_you_mean(str(key), entry.parameters)
            raise ValueError(f"activation {name}: unknown parameter {key!r}{hint}; its parameters: {known}")
        _check_type(name, key, found, entry.parameters[key])
    parameters = {**entry.parameters, **given}
    if entry.check is not None:
        entry.check(parameters)
    return ActivationSpec(name, tuple(parameters.items()))


def make_activation(spec: ActivationSpec) -> nn.Module:
    """Build a new module, which is never shared and never works in place. Draws no random numbers."""
    module = TABLE[spec.name].kind(**spec.parameters)
    module.spec = spec  # type: ignore[assignment]  # a plain attribute, read by the census
    return module


def has_fused_form(spec: ActivationSpec) -> bool:
    """Whether a fused kernel exists for batch norm followed by this activation."""
    return TABLE[spec.name].kind in FUSED


def implementation(name: str, device: torch.device, dtype: torch.dtype, *, compiled: bool = False) -> str:
    """What computes the activation `name` on this device, eagerly or compiled, with the reason if there is a choice."""
    if name != "mish":
        return f"torch.compile of {TABLE[name].implementation}" if compiled else TABLE[name].implementation
    chosen = dispatch(device, dtype, compiled=compiled)
    return f"{chosen.implementation} ({chosen.reason})"


def activation_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The learnable parameters of activations by their full names; they are excluded from weight decay."""
    for path, module in model.named_modules():
        if type(module) in NAMES_BY_KIND:
            for key, parameter in module.named_parameters(recurse=False):
                yield f"{path}.{key}" if path else key, parameter


def _check_type(name: str, key: str, value: object, default: Value) -> None:
    if isinstance(default, float):
        valid = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_PARAMETER
        expected = f"a number up to {MAX_PARAMETER:g}"  # which NaN is not
    else:
        valid = isinstance(value, type(default))
        expected = "true or false" if isinstance(default, bool) else "a string"
    if not valid:
        raise ValueError(f"activation {name}: {key} is {value!r}, expected {expected}")
