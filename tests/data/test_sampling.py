"""Class balance and batches of like aspect."""

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data import build_train_loader, load_dataset
from data.image import read_image
from data.loader import EpochSampler
from data.samples import Sample
from data.sampling import Arrangement, balanced, by_aspect, crop, repeat_factors
from tests.data.test_loader import augment, content
from tests.support.small_sets import box, write_coco


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Ten images, five wide and five tall; class 3 is in all of them, class 7 in the last one."""
    images = {f"{k}.png": (96, 40 + k) if k % 2 else (40 + k, 96) for k in range(10)}
    annotations = [box(k, k + 1, [4, 4, 30, 30], 3) for k in range(10)] + [box(10, 10, [20, 20, 20, 20], 7)]
    path = write_coco(tmp_path_factory.mktemp("sampling"), images, annotations)
    split = SimpleNamespace(images=str(path.parent / "images"), annotations=str(path))
    return SimpleNamespace(root=str(path.parent), train=split, val=split, test=None, embedded=None)


def loader(section: SimpleNamespace, **options: object):  # type: ignore[no-untyped-def]
    given = {"imgsz": 96, "batch": 4, "augment": augment(), "cache": "off", "progress": False}
    return build_train_loader(load_dataset(section, "train", progress=False), **{**given, **options})


def test_repeat_factors_against_the_formula_of_the_paper(section: SimpleNamespace) -> None:
    annotations = load_dataset(section, "train", progress=False)
    assert repeat_factors(annotations, 0.4).tolist() == [1.0] * 9 + [2.0]  # sqrt(0.4 / 0.1)
    assert repeat_factors(annotations, 0.1).tolist() == [1.0] * 10
    assert repeat_factors(annotations, 1.0)[-1] == pytest.approx(math.sqrt(10))


def test_a_balanced_epoch_has_each_image_in_proportion_to_its_factor() -> None:
    factors = np.array([1.0] * 90 + [3.0] * 10)
    totals: Counter[int] = Counter()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        drawn = balanced(rng.permutation(100), factors, rng)
        counts = Counter(drawn.tolist())
        assert len(drawn) == 100 and all(counts[k] in (2, 3) for k in range(90, 100))  # 3 / 1.2 = 2.5
        totals.update(counts)
    means = np.array([totals[k] / 200 for k in range(100)])
    assert abs(means[:90] - 1 / 1.2).max() < 0.15 and abs(means[90:] - 2.5).max() < 0.2
    permutation = np.random.default_rng(0).permutation(100)
    assert np.array_equal(balanced(permutation, np.ones(100), np.random.default_rng(1)), permutation)


@pytest.mark.parametrize(("count", "batch"), [(10, 4), (8, 4), (3, 5), (11, 1)])
def test_batches_of_like_aspect_have_each_image_once(count: int, batch: int) -> None:
    aspects = np.random.default_rng(1).permutation(np.linspace(0.5, 2.0, count))
    orders = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        order = by_aspect(rng.permutation(count), aspects, batch, rng)
        assert sorted(order.tolist()) == list(range(count))
        orders.append(order.tolist())
        ranks, whole = np.argsort(np.argsort(aspects))[order], count // batch * batch
        short, others = ranks[whole:], np.argsort(np.argsort(ranks[:whole]))  # of these without the short batch
        assert not len(short) or np.ptp(short) == len(short) - 1
        assert all(np.ptp(others[k : k + batch]) == batch - 1 for k in range(0, whole, batch))
    assert count <= batch or len({tuple(order) for order in orders}) > 1


def test_rectangular_batches_are_as_small_as_their_images_allow(section: SimpleNamespace) -> None:
    found = loader(section, rect=True)
    shapes = [tuple(batch.images.shape[2:]) for batch in found]
    sizes = load_dataset(section, "train", progress=False).sizes
    found.set_position(0)
    for batch in found:
        images = batch.indices.tolist()
        width, height = sizes[images].max(0)  # their long sides are that of training
        assert tuple(batch.images.shape[2:]) == (math.ceil(height / 32) * 32, math.ceil(width / 32) * 32)
    assert (64, 96) in shapes and (96, 64) in shapes
    assert "batches of like aspect, without mosaic, copy-paste and mixup" in found.describe()


def test_without_augmentation_an_image_is_whole_in_its_batch(section: SimpleNamespace) -> None:
    annotations = load_dataset(section, "train", progress=False)
    for batch in loader(section, rect=True, augment=None):
        for image, boxes, index in zip(batch.images, batch.targets.boxes, batch.indices.tolist(), strict=True):
            width, height = annotations.sizes[index]
            left = batch.images.shape[3] // 2 - math.ceil(width / 2)
            top = batch.images.shape[2] // 2 - math.ceil(height / 2)
            expected = annotations.training_boxes(index)[0] + np.array([left, top, left, top])
            assert np.abs(boxes[: len(expected)].numpy() - expected).max() < 1e-3
            inside = image[:, top : top + height, left : left + width].permute(1, 2, 0).numpy()
            assert np.array_equal(inside, read_image(annotations.path(index)))


def test_clipped_boxes_follow_the_rule_of_mosaics() -> None:
    boxes = np.array([[0, 0, 40, 40], [10, 0, 30, 34], [40, 40, 60, 60], [0, 0, 96, 96]], np.float32)
    image = np.arange(96 * 96 * 3, dtype=np.uint32).astype(np.uint8).reshape(96, 96, 3)
    cut = crop(Sample(image, boxes, np.arange(4), 0), 32, 64)  # rows 32 to 63, columns 16 to 79
    assert np.array_equal(cut.image, image[32:64, 16:80])
    # Of the first box 24 x 8 of 40 x 40 is left, 12 %: dropped; of the second 14 x 2 of 20 x 34: dropped.
    assert cut.labels.tolist() == [2, 3] and cut.boxes.tolist() == [[24, 8, 44, 28], [0, 0, 64, 32]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("options", [{"rect": True}, {"class_balance": 0.4}, {"rect": True, "class_balance": 0.4}])
def test_batches_are_keyed_by_seed_and_epoch(section: SimpleNamespace, options: dict[str, object]) -> None:
    expected = content(loader(section, **options), range(2))
    assert content(loader(section, workers=2, **options), range(2)) == expected
    resumed = loader(section, **options)
    resumed.set_position(1, 1)
    assert [batch.images.numpy().tobytes() for batch in resumed] == [row[0] for row in expected[4:]]
    assert content(loader(section, seed=1, **options), range(2)) != expected
    shares = [loader(section, rank=rank, world=2, **options) for rank in (0, 1)]
    for whole, *parts in zip(loader(section, **options), *shares, strict=True):
        assert {part.images.shape[2:] for part in parts} == {whole.images.shape[2:]}
        assert sum((part.indices.tolist() for part in parts), []) == whole.indices.tolist()


def test_without_them_the_order_is_the_permutation() -> None:
    sampler = EpochSampler(10, batch=4, seed=5)
    expected = np.random.default_rng([5, 0]).permutation(10).tolist()
    assert [index for batch in sampler for _, index in batch] == expected
    assert Arrangement(5, 4).describe() == ""


def test_settings_that_need_squares_are_refused(tmp_path: Path) -> None:
    from configs.schema import load
    from engine.setup import require_shares

    for key, value in (("compile", True), ("graphs", "on"), ("multi_scale", 0.5)):
        with pytest.raises(ValueError, match=f"^train.{key}: with --rect, batches differ in shape"):
            require_shares(load("yolo.yaml", {"train.rect": True, f"train.{key}": value}))
