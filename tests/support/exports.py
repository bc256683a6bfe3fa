"""What the tests of exported files export: all activations at once, and small networks of both families."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy.metadata import Metadata, NmsDefaults
from deploy.network import Exportable
from deploy.options import ExportOptions, MishForm
from deploy.runtime import Runtime, open_runtime
from deploy.targets import TARGETS, module_of
from models.activations import ACTIVATION_NAMES, make_activation, parse_activation
from yolo import YOLO

METADATA = Metadata(
    target="onnx",
    names=["a", "b", "c"],
    stride=1,
    imgsz=(20, 20),
    dynamic=False,
    precision="fp32",
    outputs="boxes",
    mish="formula",
    nms=NmsDefaults(0.3, 0.5, 7),
    preprocess={},
    census=[],
    weights={"file": "none"},
    names_from=None,
    config={},
)


class Everything(nn.Module):
    """All activations on one input."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        specs: list[object] = [*ACTIVATION_NAMES, {"name": "swish", "beta": 1.3, "learnable": True}]
        self.layers = nn.ModuleList(make_activation(parse_activation(spec)) for spec in specs).eval()

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([layer(images) for layer in self.layers])

    def fused(self) -> nn.Module:
        return self

    def decode(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        return outputs, outputs + 1


def run_everything(target: str, form: MishForm, folder: Path) -> tuple[Tensor, Tensor]:
    """Inputs from -100 to 100, and what a target's runtime makes of them: (activations, 1, 3, 20, 20)."""
    x = torch.linspace(-100, 100, 1200).view(1, 3, 20, 20)
    network = Exportable(Everything(), mish=form, dtype=torch.float32)  # type: ignore[arg-type]
    path = folder / f"all{TARGETS[target].suffix}"
    module_of(target).write_file(network, path, ExportOptions(), METADATA)
    runtime: Runtime = open_runtime(path, threads=1)
    assert runtime.metadata == METADATA
    return x, torch.from_numpy(runtime.run(x.numpy())[0])


def export(model: YOLO, target: str, folder: Path, *, dynamic: bool = False) -> Path:
    """A file in an empty folder; a test without the packages is skipped.

    It has another name if its own check fails, which compares detections: an untrained network has thousands, whose
    suppression hangs on the last digits.
    """
    for package in (*TARGETS[target].packages, *(TARGETS[target].runtime or ())):
        pytest.importorskip(package, reason=f"uv sync --extra {TARGETS[target].extra}")
    with suppress(FloatingPointError):
        model.export(target, output=folder / f"x{TARGETS[target].suffix}", progress=False, dynamic=dynamic)
    (written,) = folder.glob("x*")
    return written


@torch.no_grad()
def predictions(model: YOLO, images: Tensor) -> list[np.ndarray]:
    """Boxes and scores of the network in PyTorch."""
    network = model.model.fused()
    return [each.numpy() for each in network.decode(network(images))]
