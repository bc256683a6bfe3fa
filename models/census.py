"""The census: which activation stands at which stage, how often, and what computes it; and the check that it is so.

A site is the `act` of a ConvNormAct, ConvAct or AddAct of a stage; paths read part.stage.rest.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from models.activations import KINDS, TABLE, implementation
from models.blocks import AddAct, ConvAct, ConvNormAct
from models.darknet.network import Darknet
from models.detector import Detector
from ops.norm_act import fusion

# Classes of modules that shape values pointwise: one of these outside a site is an activation left unswitched.
POINTWISE = (
    *KINDS,
    *(getattr(nn.modules.activation, name) for name in nn.modules.activation.__all__ if name != "MultiheadAttention"),
)


@dataclass(frozen=True)
class CensusRow:
    """An activation of one stage."""

    part: str
    stage: str
    activation: str
    parameters: dict[str, Any]  # as the config gave them, with the defaults
    sites: int
    implementation: str


def census(
    model: Detector | Darknet, *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> list[CensusRow]:
    """The activations that stand in the network now, read from its modules; a row a stage, for each kind it holds.

    `device` and `dtype` are those in which activations will be computed, under autocast its type; the weights' else.
    """
    weight = next(model.parameters())
    place = (device or weight.device, dtype or weight.dtype)
    counts: Counter[tuple[str, str, str, tuple[tuple[str, Any], ...], str]] = Counter()
    for path, block in _blocks(model):
        part, stage = path.split(".")[:2]
        asked = tuple((key, value) for key, value in _spec(block.act).items() if key != "name")
        name = KINDS.get(type(block.act), type(block.act).__name__)
        counts[part, stage, name, asked, _implementation(name, block, *place)] += 1
    return [
        CensusRow(part, stage, name, dict(asked), sites, by) for (part, stage, name, asked, by), sites in counts.items()
    ]


def format_census(rows: Sequence[CensusRow]) -> str:
    """The census as a table to print, stages alike in a part on one line."""
    merged: dict[tuple[str, str, str], tuple[list[str], int]] = {}
    for row in rows:
        given = ", ".join(f"{key}={value}" for key, value in row.parameters.items())
        key = (row.part, f"{row.activation}({given})" if given else row.activation, row.implementation)
        stages, sites = merged.get(key, ([], 0))
        merged[key] = ([*stages, row.stage], sites + row.sites)
    lines = [("part", "stages", "activation", "sites", "implementation")]
    for (part, name, by), (stages, sites) in merged.items():
        lines.append((part, " ".join(stages), name, str(sites), by))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def verify_census(model: Detector | Darknet) -> None:
    """ValueError naming the module where an activation is not what the config asked for, is shared, or is no site."""
    sites = dict(_sites(model))
    held: dict[int, str] = {}
    for path, module in sites.items():
        stage, asked = _asked(model.activations, path)
        if asked is None or type(module) is not TABLE[asked["name"]].kind or _spec(module) != asked:
            found = _spec(module) or type(module).__name__
            raise ValueError(f"{path}: the activation is {found}, but {asked} was asked for at {stage}")
        if id(module) in held:
            raise ValueError(f"{path}: shares its activation with {held[id(module)]}; each site has its own")
        held[id(module)] = path
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, POINTWISE) and path not in sites:
            raise ValueError(f"{path}: {type(module).__name__} is built in there, so no config can switch it")
    for stage in model.activations:
        if not any(path.startswith(f"{stage}.") for path in sites):
            raise ValueError(f"{stage}: an activation was asked for, but the stage has no site for one")


def _asked(activations: Mapping[str, dict[str, Any]], path: str) -> tuple[str, dict[str, Any] | None]:
    """The narrowest key of what was asked for that holds a site, and the activation; a stage, or a layer of one."""
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


def _sites(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, block in _blocks(model):
        yield f"{path}.act", block.act


def _spec(module: nn.Module) -> dict[str, Any]:
    return getattr(module, "spec", {})


def _implementation(name: str, block: nn.Module, device: torch.device, dtype: torch.dtype) -> str:
    if isinstance(block, ConvNormAct) and block.fuse:
        fused = fusion(block.norm, block.act, device, dtype)
        if fused is not None:
            return f"{fused.implementation} ({fused.reason})"
    return implementation(name, device, dtype) if name in TABLE else "not in the table"
