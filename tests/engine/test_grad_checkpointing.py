"""Gradient checkpointing: what training computes stays the same, bit for bit, and blocks are computed twice."""

from pathlib import Path

import pytest
import torch
from torch import nn

from configs.schema import load
from core.device import place
from core.types import DetectorModel
from engine.forward import training_forward
from engine.grad_checkpointing import checkpointed
from models import build_model
from models.blocks import ConvNormAct

SMALL = str(Path(__file__).parents[1] / "support" / "small.yaml")
CFG = """
[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=mish
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky
[shortcut]
from=-2
activation=linear
[convolutional]
filters=24
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0,1,2
anchors=8,8, 16,16, 32,32
classes=3
num=3
"""


def network(tmp_path: Path, kind: str) -> DetectorModel:
    if kind == "darknet":
        (tmp_path / "x.cfg").write_text(CFG)
        return build_model(load(tmp_path / "x.cfg").model, num_classes=3, seed=0)
    overrides = {"rrelu": ["model.act=rrelu"], "plain": ["model.norm_act=plain"], "fused": []}[kind]
    return build_model(load(SMALL, overrides).model, num_classes=3, seed=0)


def trained(model: DetectorModel, *, checkpointing: bool) -> list[torch.Tensor]:
    """The outputs of three steps, the gradients of the last one, and parameters and running statistics after them."""
    torch.manual_seed(1)
    forward = checkpointed(model) if checkpointing else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.train()
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()  # as if it were frozen
    seen: list[torch.Tensor] = []
    for _ in range(3):
        optimizer.zero_grad()
        outputs = forward(torch.rand(2, 3, 64, 64))
        torch.stack([output.square().mean() for output in outputs]).sum().backward()
        optimizer.step()
        seen += [output.detach() for output in outputs]
    seen += [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [*seen, *(value.clone() for value in model.state_dict().values())]


@pytest.mark.parametrize("kind", ["fused", "plain", "rrelu", "darknet"])
def test_nothing_that_is_computed_changes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained(network(tmp_path, kind), checkpointing=False)
    calls, original = [], ConvNormAct.forward

    def forward(block: ConvNormAct, x: torch.Tensor) -> torch.Tensor:
        calls.append(block)
        return original(block, x)

    monkeypatch.setattr(ConvNormAct, "forward", forward)
    model = network(tmp_path, kind)
    found = trained(model, checkpointing=True)
    assert len(found) == len(expected)
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    blocks = [module for module in model.modules() if isinstance(module, ConvNormAct)]
    assert {block: calls.count(block) for block in blocks} == dict.fromkeys(blocks, 2 * 3)


def test_the_model_is_left_as_it_is(tmp_path: Path) -> None:
    """A copy, such as the EMA, computes with its own blocks."""
    model = network(tmp_path, "fused").train()
    forward, buffers = checkpointed(model), [id(buffer) for buffer in model.buffers()]
    forward(torch.rand(1, 3, 64, 64))[0].sum().backward()
    assert all("forward" not in vars(module) for module in model.modules())
    assert [id(buffer) for buffer in model.buffers()] == buffers
    with pytest.raises(RuntimeError):
        forward(torch.rand(1, 5, 64, 64))
    assert all("forward" not in vars(module) for module in model.modules())


def test_it_is_named_and_refused_beside_compilation(tmp_path: Path) -> None:
    model, device = network(tmp_path, "fused"), place("cpu", amp="off")
    shape = (1, 3, 64, 64)
    assert training_forward(model, device, shape=shape, checkpointing=True)[1] == "gradient checkpointing"
    for options in ({"compiled": True}, {"graphs": "on"}):
        with pytest.raises(ValueError, match=r"^train\.(grad_checkpointing: not with|graphs=on)"):
            training_forward(model, device, shape=shape, checkpointing=True, **options)
