"""How networks are trained and scored in the studies."""

import numpy as np
import pytest
import torch
from torch import nn

from studies.digits import Split
from studies.networks import initialise
from studies.training import batches, cross_entropy, scores, train


def test_training_depends_on_its_seed_alone_and_leaves_the_random_state():
    data = Split(torch.randn(12, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 10)
    outcomes = []
    for before in (1, 2):
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(0.5))
        initialise(model, "glorot", 0)
        torch.manual_seed(before)
        state = torch.get_rng_state()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train(model, cross_entropy(model, data), optimizer, batches(12, 4, steps=5, seed=3), seed=3)
        assert torch.equal(state, torch.get_rng_state()) and not model.training
        outcomes.append(model[1].weight.detach())
    assert torch.equal(*outcomes)


def test_each_image_is_seen_once_in_an_epoch():
    seen = torch.cat(list(batches(12, 4, steps=6, seed=0))).tolist()
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12)) and seen[:12] != seen[12:]
    assert [len(chosen) for chosen in batches(10, 4, steps=4, seed=0)] == [4] * 4
    assert [len(chosen) for chosen in batches(10, 4, steps=4, seed=0, drop_rest=False)] == [4, 4, 2, 4]


def test_scores_by_hand():
    model = nn.Identity()
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    loss, accuracy = scores(model, Split(logits, torch.tensor([1, 1])))
    assert loss == pytest.approx((np.log(4) - np.log(0.8)) / 2) and accuracy == 50
