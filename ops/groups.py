"""Groups of CUDA kernels that are compiled and loaded together, so that a first use waits for those it needs only."""

from itertools import product
from typing import NamedTuple

from ops.kernels import NAMES

ELEMENTS = {"float32": "float", "bfloat16": "bf16", "float16": "f16"}  # of the pair, by their names in csrc/
WAYS = {"along": "Along", "across": "Across", "scalar": "Scalar"}  # access variants, by their classes in csrc/
ACTS = 4  # activations of the pair, by number: Mish, ReLU, SiLU, LeakyReLU
SUMS = ("norm_statistics", "norm_act_reduce")  # a second kernel completes their sums


class Group(NamedTuple):
    """The kernels of the fused pair for an element type, an access variant and an activation."""

    type: str
    variant: str
    act: int

    @property
    def name(self) -> str:
        """Part of the names of files."""
        return "-".join(map(str, self)) if self.type else self.variant

    @property
    def macros(self) -> tuple[str, ...]:
        """The options of the compiler that select it in csrc/kernels.cu."""
        if not self.type:
            return () if self == EVERYTHING else ("-DONLY_MISH",)
        way = f"{WAYS[self.variant]}<{ELEMENTS[self.type]}>"
        named = {"TYPE": self.type, "VARIANT": self.variant, "WAY": way, "ACT": self.act}
        return tuple(f"-DONLY_{key}={value}" for key, value in named.items())

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of its kernels."""
        if self == EVERYTHING:
            return tuple(dict.fromkeys(name for group in (MISH, *pairs()) for name in group.kernels))
        if self == MISH:
            parts = product(range(3), NAMES.values(), ("vector", "scalar"))
            return tuple(f"mish_{order}_{kind}_{way}" for order, kind, way in parts)
        passes = (
            "norm_statistics",
            "norm_act_backward",
            *(f"norm_act_{each}_{self.act}" for each in ("forward", "reduce")),
        )
        return (*(f"{name}_{self.type}_{self.variant}" for name in passes), *(f"{name}_end" for name in SUMS))


MISH = Group("", "mish", 0)
EVERYTHING = Group("", "all", 0)


def pairs() -> list[Group]:
    """All groups of the fused pair."""
    return [Group(*each) for each in product(ELEMENTS, WAYS, range(ACTS))]
