"""`model` sections for these tests."""

from typing import Any

from configs.schema import YoloModel


def part(act: Any = None, *, name: str | None = None, **stages: Any) -> dict[str, Any]:
    """The section of a part: its activation and those of its stages."""
    section = {"act": act, "stages": {stage: {"act": spec} for stage, spec in stages.items()}}
    return section if name is None else {**section, "name": name}


def model_config(act: Any = "silu", **changes: Any) -> YoloModel:
    """A whole section, with batch norm and activation computed separately by default."""
    return YoloModel.model_validate({"act": act, "norm_act": "plain", **changes})
