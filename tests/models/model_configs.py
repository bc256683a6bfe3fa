"""The `model` section as plain objects, so that these tests need no configuration file."""

from types import SimpleNamespace
from typing import Any


def section(act: Any = None, **stages: Any) -> SimpleNamespace:
    """A part's section: its activation and those of its stages."""
    return SimpleNamespace(act=act, stages={name: SimpleNamespace(act=spec) for name, spec in stages.items()})


def model_config(act: Any = "silu", *, size: str = "n", **changes: Any) -> SimpleNamespace:
    """A whole model section; `changes` replace whole keys."""
    values = {
        "kind": "yolo",
        "size": size,
        "act": act,
        "backbone": section(),
        "neck": section(),
        "head": section(),
        "norm_act": "plain",
        "reg_max": 16,
        "loss": SimpleNamespace(box=7.5, cls=0.5, dfl=1.5),
        "assign": SimpleNamespace(topk=10, alpha=0.5, beta=6.0),
    }
    return SimpleNamespace(**{**values, **changes})
