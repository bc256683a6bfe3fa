"""Generated Darknet detectors against plain loops over floats; needs none of the published cfgs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core.types import Targets
from models import build_model
from models.darknet.graph import plan_network
from models.darknet.weights import Header, write_weights
from tests.models.darknet import oracle
from tests.models.darknet.cfgs import values
from tests.models.darknet.random_cfgs import SIZE, random_cfg
from tests.models.darknet.test_network import network, section

SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
def test_forward_and_boxes_equal_plain_loops(seed: int, tmp_path: Path) -> None:
    text = random_cfg(seed)
    assert plan_network(text, file="x.cfg").values == oracle.count(text)
    data = values(oracle.count(text), seed=seed)
    model = network(text, data, tmp_path)
    image = np.random.default_rng(seed).random((3, SIZE, SIZE))
    expected = oracle.run(text, image, data.tolist())
    with torch.no_grad():
        outputs = model(torch.from_numpy(image[None]).float())
    for output, maps in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output[0], torch.from_numpy(maps).float(), rtol=1e-3, atol=1e-4)
    rng = np.random.default_rng(seed + 1000)
    raw = [torch.from_numpy(rng.random(tuple(each.shape), np.float32)) for each in outputs]
    boxes, scores = model.decode(raw)
    heads = [options for kind, options in oracle.sections(text) if kind == "yolo"]
    pairs = [
        pair
        for options, head in zip(heads, raw, strict=True)
        for pair in oracle.boxes(options, head[0].numpy(), width=SIZE, height=SIZE)
    ]
    centres = torch.cat(((boxes[0, :, :2] + boxes[0, :, 2:]) / 2, boxes[0, :, 2:] - boxes[0, :, :2]), dim=1)
    torch.testing.assert_close(centres, torch.tensor([box for box, _ in pairs]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[0], torch.tensor([each for _, each in pairs]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_weights_are_written_back_byte_for_byte(seed: int, tmp_path: Path) -> None:
    text = random_cfg(seed)
    model = network(text, values(oracle.count(text), seed=seed), tmp_path)
    write_weights(tmp_path / "again.weights", model, header=Header(seen=12345))
    assert (tmp_path / "again.weights").read_bytes() == (tmp_path / "x.weights").read_bytes()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_against_the_gradient_lowers_the_loss(seed: int) -> None:
    torch.manual_seed(seed)
    model = build_model(section(random_cfg(seed)), seed=0).train()
    images = torch.rand(2, 3, 2 * SIZE, 2 * SIZE)
    targets = Targets(
        torch.tensor([[[4.0, 6, 40, 50], [30, 30, 60, 44]], [[10, 10, 20, 24], [0, 0, 0, 0]]]),
        torch.tensor([[0, 1], [1, 0]]),
        torch.tensor([[True, True], [True, False]]),
    )
    before, terms = model.loss(model(images), targets)
    before.backward()
    assert all(term.isfinite() for term in terms.values()) and terms["box"] > 0 and terms["cls"] > 0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all()
                parameter -= 1e-4 * parameter.grad / (parameter.grad.norm() + 1e-9) * parameter.norm()
        assert model.loss(model(images), targets)[0] < before
