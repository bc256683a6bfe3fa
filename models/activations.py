"""The one table of activations: name -> factory, parameters with their defaults, and what computes it.

To add one, write a line in `TABLE` and a row in tests/models/test_activations.py. The name states the implementation:
`mish` is the operator of ops/mish.py, `mish_torch` is torch.nn.Mish, `mish_eager` is the formula in three operations.

Nothing here works in place. In-place ReLU and leaky ReLU would save a tensor a layer while in-place SiLU or Mish make
autograd copy their input first; one policy for all keeps a comparison of activations from measuring that difference.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.text import did_you_mean
from ops.mish import Mish, dispatch
from ops.norm_act import ACTIVATIONS as FUSED

Spec = str | Mapping[str, Any] | Any


class Swish(nn.Module):
    """x sigmoid(beta x), beta fixed or learnable, one a site (Ramachandran et al., arXiv 1710.05941, sec. 4)."""

    def __init__(self, beta: float = 1.0, learnable: bool = False):
        super().__init__()
        self.beta: float | nn.Parameter = nn.Parameter(torch.tensor(float(beta))) if learnable else float(beta)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to a tensor of any shape; the result keeps its type."""
        beta = self.beta.to(x.dtype) if isinstance(self.beta, Tensor) else self.beta
        return x * torch.sigmoid(beta * x)


class ESwish(nn.Module):
    """beta x sigmoid(x) (Alcaide, arXiv 1801.07145, eq. 1)."""

    def __init__(self, beta: float = 1.75):
        super().__init__()
        self.beta = float(beta)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return self.beta * F.silu(x)


class ELiSH(nn.Module):
    """x sigmoid(x) from 0 on, (e^x - 1) sigmoid(x) below (Basirat and Roth, arXiv 1808.00783, eq. 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to a tensor of any shape; the result keeps its type."""
        # expm1 of a large x would be infinite, and an infinity in the branch not taken is NaN in the gradient.
        below = torch.expm1(x.clamp(max=0)).to(x.dtype)
        return torch.where(x >= 0, x, below) * torch.sigmoid(x)


class SReLU(nn.Module):
    """Piecewise linear in three parts, all four of its numbers learned (Jin et al., arXiv 1512.07030, eq. 1).

    t_right + a_right (x - t_right) from t_right on, x between, t_left + a_left (x - t_left) up to t_left.
    The four are shared by the channels of a site. The paper sets t_right from the data after some epochs; here it is
    a value of its own, so that two networks start alike whatever the data.
    """

    def __init__(self, t_left: float = 0.0, a_left: float = 0.2, t_right: float = 1.0, a_right: float = 1.0):
        super().__init__()
        self.t_left = nn.Parameter(torch.tensor(float(t_left)))
        self.a_left = nn.Parameter(torch.tensor(float(a_left)))
        self.t_right = nn.Parameter(torch.tensor(float(t_right)))
        self.a_right = nn.Parameter(torch.tensor(float(a_right)))

    def forward(self, x: Tensor) -> Tensor:
        """Apply to a tensor of any shape; the result keeps its type."""
        t_left, a_left, t_right, a_right = (
            each.to(x.dtype) for each in (self.t_left, self.a_left, self.t_right, self.a_right)
        )
        right = torch.where(x >= t_right, t_right + a_right * (x - t_right), x)
        return torch.where(x <= t_left, t_left + a_left * (x - t_left), right)


class ISRU(nn.Module):
    """x / sqrt(1 + alpha x^2) (Carlile et al., arXiv 1710.09967, eq. 1)."""

    def __init__(self, alpha: float = 1.0):
        super().__init__()
        if alpha < 0:
            raise ValueError(f"isru: alpha is {alpha}, expected 0 or more")
        self.alpha = float(alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to a tensor of any shape; the result keeps its type."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # the square would leave fp16's range
        return (wide * torch.rsqrt(1 + self.alpha * wide * wide)).to(x.dtype)


class HardMish(nn.Module):
    """(x / 2) min(2, max(0, x + 2)), Mish from straight pieces (H-Mish, by the Mish authors' repository)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return 0.5 * x * (x + 2).clamp(0, 2)


class MishEager(nn.Module):
    """Mish as its definition reads, three operations that each keep a tensor (Misra, arXiv 1908.08681, eq. 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to a tensor of any shape; the result keeps its type."""
        return x * torch.tanh(F.softplus(x)).to(x.dtype)


def _gelu(approximate: str = "none") -> nn.GELU:
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is {approximate!r}, expected 'none' or 'tanh'")
    return nn.GELU(approximate=approximate)


def _rrelu(lower: float = 1 / 8, upper: float = 1 / 3) -> nn.RReLU:
    if lower > upper:
        raise ValueError(f"rrelu: lower is {lower}, above upper, which is {upper}")
    return nn.RReLU(lower=lower, upper=upper)


@dataclass(frozen=True)
class Activation:
    """A row of the table; `kind` is the class of the modules made, by which they are recognised in a network."""

    kind: type[nn.Module]
    implementation: str
    parameters: Mapping[str, float | bool | str] = field(default_factory=dict)
    factory: Callable[..., nn.Module] | None = None  # where it is not the class itself

    def make(self, parameters: Mapping[str, Any]) -> nn.Module:
        """A new module with these parameters."""
        return (self.factory or self.kind)(**parameters)


TABLE: dict[str, Activation] = {
    "relu": Activation(nn.ReLU, "torch.nn.functional.relu"),  # Nair and Hinton, ICML 2010
    "leaky_relu": Activation(  # Maas et al., ICML workshop 2013
        nn.LeakyReLU, "torch.nn.functional.leaky_relu", {"negative_slope": 0.01}
    ),
    "prelu": Activation(nn.PReLU, "torch.nn.functional.prelu", {"init": 0.25}),  # arXiv 1502.01852
    "rrelu": Activation(  # Xu et al., arXiv 1505.00853
        nn.RReLU, "torch.nn.functional.rrelu", {"lower": 1 / 8, "upper": 1 / 3}, _rrelu
    ),
    "elu": Activation(nn.ELU, "torch.nn.functional.elu", {"alpha": 1.0}),  # Clevert et al., arXiv 1511.07289
    "celu": Activation(nn.CELU, "torch.nn.functional.celu", {"alpha": 1.0}),  # Barron, arXiv 1704.07483
    "selu": Activation(nn.SELU, "torch.nn.functional.selu"),  # Klambauer et al., arXiv 1706.02515
    "gelu": Activation(  # Hendrycks and Gimpel, arXiv 1606.08415
        nn.GELU, "torch.nn.functional.gelu", {"approximate": "none"}, _gelu
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
    "isru": Activation(ISRU, "formula of 5 operations", {"alpha": 1.0}),
    "hardswish": Activation(nn.Hardswish, "torch.nn.functional.hardswish"),  # Howard et al., arXiv 1905.02244
    "hard_mish": Activation(HardMish, "formula of 4 operations"),
    "mish": Activation(Mish, "ops.mish"),
    "mish_torch": Activation(nn.Mish, "torch.nn.functional.mish"),
    "mish_eager": Activation(MishEager, "formula of 3 operations"),
    "identity": Activation(nn.Identity, "none"),
}
LARGEST = 1e30  # of a parameter; tensors of float32 hold no more than 3.4e38
KINDS = {row.kind: name for name, row in TABLE.items()}


def check_activation(spec: Spec) -> dict[str, Any]:
    """The full form {"name": ..., **every parameter} of a name, a mapping or an object with a name.

    ValueError for a name or a parameter that is not in the table, naming the nearest, and for a wrong type or value.
    """
    name, given = _split(spec)
    if name not in TABLE:
        raise ValueError(
            f"there is no activation {name[:100]!r}{did_you_mean(name, TABLE)}; there are {', '.join(TABLE)}"
        )
    defaults = TABLE[name].parameters
    for key, value in given.items():
        if key not in defaults:
            there = f"it has {', '.join(defaults)}" if defaults else "it has none"
            raise ValueError(f"activation {name} has no parameter {key!r}{did_you_mean(key, defaults)}; {there}")
        _check_type(name, key, value, defaults[key])
    full = {**defaults, **given}
    TABLE[name].make(full)  # a value out of range is refused by the factory
    return {"name": name, **full}


def make_activation(spec: Spec) -> nn.Module:
    """A new module for this specification, never shared and never in place; draws no random numbers."""
    full = check_activation(spec)
    module = TABLE[full["name"]].make({key: value for key, value in full.items() if key != "name"})
    module.spec = full  # type: ignore[assignment]  # a plain value: what was asked for, for the census
    return module


def implementation(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """What computes the activation `name` on this device in eager code, with the reason where there is a choice."""
    if name != "mish":
        return TABLE[name].implementation
    chosen = dispatch(device, dtype)
    return f"{chosen.implementation} ({chosen.reason})"


def has_fused_form(spec: Spec) -> bool:
    """Whether ops/norm_act.py can compute this activation as one with its batch norm, on some device."""
    return TABLE[check_activation(spec)["name"]].kind in FUSED


def activation_parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The learnable parameters that belong to activations, by their full names; they want no weight decay."""
    return list(_activation_parameters(model))


def _activation_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for path, module in model.named_modules():
        if type(module) in KINDS:
            for key, parameter in module.named_parameters(recurse=False):
                yield f"{path}.{key}" if path else key, parameter


def _split(spec: Spec) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    given = dict(spec) if isinstance(spec, Mapping) else dict(getattr(spec, "__dict__", {}))
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(
            f"an activation is a name or has a name, as {{name: swish, beta: 1.0}} does; found {str(spec)[:100]!r}"
        )
    return name, given


def _check_type(name: str, key: str, value: Any, default: Any) -> None:
    if isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        good, expected = number and abs(value) <= LARGEST, f"a number up to {LARGEST:g}"  # NaN is not
    else:
        good, expected = isinstance(value, type(default)), "true or false" if isinstance(default, bool) else "a string"
    if not good:
        raise ValueError(f"activation {name}: {key} is {value!r}, expected {expected}")
