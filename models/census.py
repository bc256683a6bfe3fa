"""The census, a summary of the activations of a network read from its modules, and its check against the configuration.

An activation layer is the `act` of a ConvNormAct, ConvAct or AddAct; the paths of modules read part.stage.rest.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.activations import NAMES_BY_KIND, TABLE, ActivationSpec, Value, implementation
from models.blocks import AddAct, ConvAct, ConvNormAct
from models.darknet.network import Darknet
from models.detector import Detector
from ops.norm_act import fusion

# Elementwise nonlinearities: one of these outside an activation layer cannot be switched by a configuration.
POINTWISE = (
    *NAMES_BY_KIND,
    *(getattr(nn.modules.activation, name) for name in nn.modules.activation.__all__ if name != "MultiheadAttention"),
)


@dataclass(frozen=True)
class CensusRow:
    """The activation layers of one stage that have the same activation and implementation."""

    part: str
    stage: str
    activation: str
    parameters: dict[str, Value]  # those of the configuration, defaults included
    sites: int  # number of activation layers
    implementation: str


def census(
    model: Detector | Darknet,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    compiled: bool = False,
) -> list[CensusRow]:
    """Count the activation layers of the network as it is now, by stage, activation and implementation.

    `device` and `dtype` are those in which activations are computed (under autocast, its dtype); None: the weights'.
    `compiled`: by torch.compile instead of eagerly.
    """
    weight = next(model.parameters())
    device, dtype = device or weight.device, dtype or weight.dtype
    counts: Counter[tuple[str, str, str, tuple[tuple[str, Value], ...], str]] = Counter()
    for path, block in _blocks(model):
        part, stage = path.split(".")[:2]
        spec = _spec(block.act)
        name = NAMES_BY_KIND.get(type(block.act), type(block.act).__name__)
        by = _implementation(name, block, device, dtype, compiled=compiled)
        counts[part, stage, name, spec.values if spec else (), by] += 1
    return [CensusRow(part, stage, name, dict(values), n, by) for (part, stage, name, values, by), n in counts.items()]


def format_census(rows: Sequence[CensusRow]) -> str:
    """The census as a table, with equal stages of a part on one line."""
    merged: dict[tuple[str, str, str], tuple[list[str], int]] = {}
    for row in rows:
        spec = ActivationSpec(row.activation, tuple(row.parameters.items()))
        key = (row.part, str(spec), row.implementation)
        stages, layers = merged.get(key, ([], 0))
        merged[key] = ([*stages, row.stage], layers + row.sites)
    lines = [("part", "stages", "activation", "layers", "implementation")]
    for (part, name, by), (stages, layers) in merged.items():
        lines.append((part, " ".join(stages), name, str(layers), by))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def verify_census(model: Detector | Darknet) -> None:
    """Check that each activation layer is as requested, has its own instance, and that there is no other nonlinearity.

    ValueError naming the module otherwise.
    """
    layers = {f"{path}.act": block.act for path, block in _blocks(model)}
    paths_by_id: dict[int, str] = {}
    for path, module in layers.items():
        stage, requested = _requested(model.activations, path)
        if requested is None or type(module) is not TABLE[requested.name].kind or _spec(module) != requested:
            found = _spec(module) or type(module).__name__
            raise ValueError(f"{path}: the activation is {found}, but {requested} was requested for {stage}")
        if id(module) in paths_by_id:
            raise ValueError(
                f"{path}: shares its activation with {paths_by_id[id(module)]}; each layer must have its own instance"
            )
        paths_by_id[id(module)] = path
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, POINTWISE) and path not in layers:
            raise ValueError(f"{path}: {type(module).__name__} is hard-coded here, so no configuration can switch it")
    for stage in model.activations:
        if not any(path.startswith(f"{stage}.") for path in layers):
            raise ValueError(f"{stage}: an activation was requested, but the stage has no activation layer")


def _requested(activations: Mapping[str, ActivationSpec], path: str) -> tuple[str, ActivationSpec | None]:
    """The longest key of `activations`, a stage or a layer of one, that contains a path; and its activation."""
    words = path.split(".")
    for length in range(len(words), 2, -1):
        key = ".".join(words[:length])
        if key in activations:
            return key, activations[key]
    stage = ".".join(words[:2])
    return stage, activations.get(stage)


def _blocks(model: nn.Module) -> Iterator[tuple[str, ConvNormAct | ConvAct | AddAct]]:
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, ConvNormAct | ConvAct | AddAct):
            yield path, module


def _spec(module: nn.Module) -> ActivationSpec | None:
    spec = getattr(module, "spec", None)
    return spec if isinstance(spec, ActivationSpec) else None


def _implementation(name: str, block: nn.Module, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> str:
    if isinstance(block, ConvNormAct) and block.fuse and not compiled:
        fused = fusion(block.norm, block.act, device, dtype)
        if fused is not None:
            return f"{fused.implementation} ({fused.reason})"
    return implementation(name, device, dtype, compiled=compiled) if name in TABLE else "not in the table"
