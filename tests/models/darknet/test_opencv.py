"""Every published cfg with random weights against OpenCV 4.10's Darknet reader, an independent implementation.

It needs a separate environment, as OpenCV 5 has no such reader: make one (uv venv cv; uv pip install --python
cv/bin/python opencv-python-headless==4.10.0.84) and set YOLO_MISH_OPENCV410=cv/bin/python.
"""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from models import build_model
from models.darknet.weights import Header, write_weights
from tests.models.darknet.test_network import CFGS, section
from tests.support.shared import shared

SIDE = 128


@pytest.fixture(scope="module")
def python() -> str:
    found = os.environ.get("YOLO_MISH_OPENCV410")
    if not found:
        pytest.skip("set YOLO_MISH_OPENCV410 to the Python of an environment with opencv-python-headless 4.10")
    return found


@pytest.mark.parametrize("name", [name for name in CFGS if name != "csdarknet53-omega"])
def test_heads_and_boxes_are_those_of_opencv(name: str, python: str, tmp_path: Path) -> None:
    text = shared(f"darknet/{name}.cfg").read_text()
    text = re.sub(r"(?m)^(width|height)\s*=.*$", rf"\1={SIDE}", text)
    model = build_model(section(text), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
            norm.momentum = 1.0  # one pass sets the statistics, without which features fade or grow from layer to layer
            norm.weight.uniform_(0.5, 1.5, generator=generator)
            norm.bias.uniform_(-0.5, 0.5, generator=generator)
        model.train()(torch.rand(2, 3, SIDE, SIDE, generator=generator))
        image = torch.rand(1, 3, SIDE, SIDE, generator=generator)
        outputs = model.eval()(image)
    write_weights(tmp_path / "x.weights", model, header=Header())
    (tmp_path / "x.cfg").write_text(text.replace("[yolo]", "[yolo]\nthresh=0"))  # it drops scores below 0.2 otherwise
    np.save(tmp_path / "image.npy", image.numpy())
    numbers = [layer.index for layer in model.plan.heads]
    names = [f"{kind}_{number}" for kind in ("permute", "yolo") for number in numbers]
    files = [str(tmp_path / each) for each in ("x.cfg", "x.weights", "image.npy", "out.npz")]
    script = str(Path(__file__).with_name("opencv_410.py"))
    subprocess.run([python, script, *files, *names], check=True, timeout=120)
    found = np.load(tmp_path / "out.npz")
    theirs = [torch.from_numpy(found[f"permute_{number}"]).permute(0, 3, 1, 2) for number in numbers]
    with torch.no_grad():
        exact = model.double()(image.double())
    for raw, other, truth in zip(outputs, theirs, exact, strict=True):
        # Layers of random numbers multiply the last bits of float32, some values a thousandfold; both are held against
        # float64, of which PyTorch stays as near.
        ours, distance = (raw - truth).abs().mean(), (other - truth).abs().mean()
        assert distance < 1e-3 * truth.std() and ours <= 2 * distance
    boxes, scores = model.decode(theirs)
    rows = torch.from_numpy(np.concatenate([found[f"yolo_{number}"] for number in numbers]))
    centres = torch.cat(((boxes[0, :, :2] + boxes[0, :, 2:]) / 2, boxes[0, :, 2:] - boxes[0, :, :2]), dim=1) / SIDE
    torch.testing.assert_close(centres, rows[:, :4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores[0], rows[:, 5:], rtol=1e-4, atol=1e-6)
