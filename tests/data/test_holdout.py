"""Images held out of the training set."""

from pathlib import Path

import pytest

from configs.schema import load
from data import hold_out, load_dataset
from data.annotations import Annotations
from engine.setup import build
from tests.support.checkpoints import write_data


@pytest.fixture
def images(tmp_path: Path) -> Annotations:
    return load_dataset(load("yolo.yaml", {"data": str(write_data(tmp_path, train=10, val=2))}).data, "train")


def test_the_parts_are_disjoint_and_complete(images: Annotations) -> None:
    rest, held = hold_out(images, 0.3)
    assert (len(rest), len(held)) == (7, 3)
    assert sorted([*rest.paths, *held.paths]) == sorted(images.paths)
    assert len(rest.boxes) + len(held.boxes) == len(images.boxes)
    assert len({images.sha256, rest.sha256, held.sha256}) == 3  # caches and records tell them apart
    assert hold_out(images, 0.3)[1].sha256 == held.sha256 != hold_out(images, 0.2)[1].sha256


def test_the_choice_does_not_depend_on_the_order_of_the_file(images: Annotations) -> None:
    _, held = hold_out(images, 0.3)
    others = [index for index, path in enumerate(images.paths) if path not in held.paths]
    fewer = images.without(others[:4])  # some of those that were not held out are gone
    assert set(hold_out(fewer, 0.5)[1].paths) == set(held.paths)


def test_both_parts_have_an_image(images: Annotations) -> None:
    assert [len(part) for part in hold_out(images, 0.001)] == [9, 1]
    assert [len(part) for part in hold_out(images, 0.999)] == [1, 9]
    with pytest.raises(ValueError, match="found 1 images"):
        hold_out(images.without(range(9)), 0.2)


@pytest.mark.slow
def test_training_validates_on_held_out_training_images_only(tmp_path: Path) -> None:
    data = write_data(tmp_path, train=10, val=2)
    config = load("yolo.yaml", {"data": str(data), "train.imgsz": 64, "train.holdout": 0.3, "train.device": "cpu"})
    setup = build(config)
    assert {name: len(each) for name, each in setup.splits.items()} == {"train": 7, "val": 3}
    assert all("train" in path for each in setup.splits.values() for path in each.paths)
    assert set(setup.splits["train"].paths).isdisjoint(setup.splits["val"].paths)
