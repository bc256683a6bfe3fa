"""The networks of the studies: their shapes, and that initial weights depend on the seed alone."""

import pytest
import torch
from torch import nn

from studies.networks import initialise, random_network, resnet
from studies.width import layers


def test_a_resnet_has_its_layers() -> None:
    network = resnet("mish", 0, stages=2, blocks=2, width=8)
    assert network(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    assert len(convolutions) - 1 + 1 == layers(2) == 10  # but the shortcut's, and the linear layer
    assert len([each for each in network.modules() if type(each).__name__ == "Mish"]) == layers(2) - 1
    assert sum(each.numel() for each in resnet("mish", 0, stages=3, blocks=1, width=8).parameters()) == 19_810


def test_weights_depend_on_the_seed_only() -> None:
    makers = (
        lambda act, seed: random_network(act, (2, 4, 1), seed),
        lambda act, seed: resnet(act, seed, stages=3, blocks=1, width=8),
    )
    for make in makers:
        one, other, third = (list(make(*each).parameters()) for each in (("relu", 1), ("mish", 1), ("mish", 2)))
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True)) and not torch.equal(other[0], third[0])


@pytest.mark.parametrize(("rule", "variance"), [("glorot", 2 / (400 + 300)), ("he", 2 / 400)])
def test_initial_weights_have_the_variance_of_their_rule(rule, variance):
    layer = nn.Linear(400, 300)
    initialise(layer, rule, 0)
    assert float(layer.weight.detach().var()) == pytest.approx(variance, rel=0.02) and not layer.bias.any()
