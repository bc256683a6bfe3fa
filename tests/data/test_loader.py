"""Batches do not depend on workers, history or caches; evaluation does not depend on the batch size."""

import gc
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import data.recent_images
import data.samples
from core.geometry import letterbox
from data import build_eval_loader, build_train_loader, load_dataset
from data.image import read_image
from tests.support.small_sets import box, write_coco


def augment(**changes):
    """The config section with every augmentation enabled."""
    values = {
        "mosaic": 0.8,
        "mixup": 0.5,
        "copy_paste": 0.0,
        "hsv_h": 0.015,
        "hsv_s": 0.7,
        "hsv_v": 0.4,
        "flip_lr": 0.5,
        "flip_ud": 0.2,
        "degrees": 5.0,
    }
    values |= {"translate": 0.1, "scale": 0.5, "shear": 1.0, "perspective": 0.0, "blur": 0.2, "gray": 0.2, "clahe": 0.2}
    return SimpleNamespace(**{**values, "extra": [{"name": "GaussNoise", "p": 0.3}], **changes})


def preprocess(image, size, *, rect=False):
    """As the detector preprocesses images, with a stride of 32."""
    return letterbox(image, size, rect_stride=32 if rect else None)


def train_loader(tiny, **options):
    given = {"imgsz": 64, "batch": 5, "augment": augment(), "mosaic_until": 2, "cache": "off", "progress": False}
    return build_train_loader(load_dataset(tiny, "train", progress=False), **{**given, **options})


def content(loader, epochs):
    """All batches of some epochs as bytes and lists."""
    found = []
    for epoch in epochs:
        loader.set_position(epoch)
        for batch in loader:
            targets = batch.targets
            found.append((batch.images.numpy().tobytes(), targets.boxes.numpy().tobytes(), targets.labels.tolist()))
            found[-1] += (targets.mask.tolist(), batch.indices.tolist(), batch.image_ids, batch.paths)
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    images = {f"{k}.png": (60 + 4 * k, 90 - 3 * k) for k in range(12)}
    annotations = [box(2 * k + j, k + 1, [5 + j * 20, 6, 18, 30], (3, 7)[j]) for k in range(12) for j in (0, 1)]
    path = write_coco(tmp_path_factory.mktemp("reference"), images, annotations)
    split = SimpleNamespace(images=str(path.parent / "images"), annotations=str(path))
    section = SimpleNamespace(root=str(path.parent), train=split, val=split, test=None, embedded=None)
    return section, content(train_loader(section), range(4))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_do_not_depend_on_the_number_of_workers(reference, workers):
    section, expected = reference
    assert content(train_loader(section, workers=workers), range(4)) == expected


@pytest.mark.parametrize("cache", ["ram", "disk", "auto"])
def test_caches_do_not_change_batches(reference, cache):
    section, expected = reference
    for _ in range(2):  # the second time, the disk cache exists
        assert content(train_loader(section, cache=cache), range(4)) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_resumes_at_an_exact_position(reference, workers):
    section, expected = reference
    loader = train_loader(section, workers=workers)
    assert len(loader) == 3
    loader.set_position(0)
    iterator = iter(loader)
    next(iterator)  # stopped in the middle of an epoch
    del iterator
    loader.set_position(2, 1)
    found = [batch.images.numpy().tobytes() for batch in loader]
    assert found == [row[0] for row in expected[7:9]]
    assert [batch.images.numpy().tobytes() for batch in loader] == [row[0] for row in expected[9:12]]  # the next epoch
    loader.set_position(1, 3)
    assert list(loader) == []
    with pytest.raises(ValueError, match="position"):
        loader.set_position(0, 4)


@pytest.fixture
def blocks(monkeypatch):
    """Slots for six images of 64 pixels, and so blocks of three."""
    monkeypatch.setattr(data.recent_images, "RECENT_BYTES", 6 * 3 * 64 * 64)
    monkeypatch.setattr(data.samples, "SMALLEST_BLOCK", 3)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_batches_of_large_data_sets_do_not_depend_on_workers_and_caches(reference, blocks, monkeypatch):
    section, without = reference
    expected = content(train_loader(section), range(2))
    assert expected != without[:6]  # other partners
    assert content(train_loader(section, workers=2), range(2)) == expected
    assert content(train_loader(section, cache="ram"), range(2)) == expected
    loader = train_loader(section)
    loader.set_position(1, 2)
    assert loader.dataset.recent is not None
    assert [batch.images.numpy().tobytes() for batch in loader] == [expected[5][0]]
    monkeypatch.setattr(data.recent_images, "available_memory", lambda: 0)
    loader = train_loader(section)
    assert loader.dataset.recent is None and content(loader, [1]) == expected[3:6]


def test_partners_come_from_the_block_of_the_epochs_order(reference, blocks, monkeypatch):
    """Of twelve images, the mosaics of places 0 to 2 consist of those three, and so on; each is decoded once."""
    decoded = []
    base_image = data.samples.base_image
    monkeypatch.setattr(data.samples, "base_image", lambda *given: decoded.append(given[1]) or base_image(*given))
    samples = train_loader(reference[0], augment=augment(mosaic=1.0, mixup=1.0)).dataset
    seen: list[int] = []
    image = samples._image
    monkeypatch.setattr(samples, "_image", lambda epoch, index: seen.append(index) or image(epoch, index))
    for epoch in range(2):
        order = data.samples.epoch_order(12, seed=0, epoch=epoch).tolist()
        for first in range(0, 12, 3):
            block, start, known = order[first : first + 3], len(seen), len(decoded)
            for index in block:
                samples.sample(epoch, index)
            assert set(seen[start:]) == set(block) and len(seen) - start == 3 * 8
            assert set(decoded[known:]) <= set(block) and len(decoded) - known <= 3
    assert len(decoded) >= 12


def test_small_data_sets_are_decoded_once(reference, monkeypatch):
    decoded = []
    base_image = data.samples.base_image
    monkeypatch.setattr(data.samples, "base_image", lambda *given: decoded.append(given[1]) or base_image(*given))
    section, expected = reference
    assert content(train_loader(section), range(2)) == expected[:6]
    assert sorted(decoded) == list(range(12))


def test_large_jpegs_are_decoded_at_a_fraction_of_their_size(tmp_path, monkeypatch):
    """At 64 pixels, a side of 128 is halved, of 300 and 540 decoded at a quarter and an eighth; 127 is not reduced."""
    asked = []
    read = data.samples.read_image
    monkeypatch.setattr(
        data.samples, "read_image", lambda path, *, reduce=1: asked.append(reduce) or read(path, reduce=reduce)
    )
    images = {"a.jpg": (127, 90), "b.jpg": (128, 96), "c.jpg": (300, 200), "d.jpg": (301, 540)}
    path = write_coco(tmp_path, images, [box(k + 1, k, [10, 12, 40, 50], 3) for k in range(4)])
    for name, size in images.items():  # without detail that no reduced image can show
        noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        picture = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(path.parent / "images" / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    split = SimpleNamespace(images=str(path.parent / "images"), annotations=str(path))
    section = SimpleNamespace(root=str(tmp_path), train=split, val=split, test=None, embedded=None)
    loader = train_loader(section, augment=None)
    expected = {"a.jpg": 1, "b.jpg": 2, "c.jpg": 4, "d.jpg": 8}
    for index in range(4):
        sample = loader.dataset.sample(0, index)
        name = os.path.basename(loader.annotations.path(index))
        assert asked.pop() == expected[name]
        whole, geometry = letterbox(read(loader.annotations.path(index)), 64)
        assert np.abs(sample.image.astype(int) - whole).mean() < 3
        boxes = geometry.to_network(loader.annotations.training_boxes(index)[0])
        np.testing.assert_allclose(sample.boxes, boxes, atol=1e-4)
    loader = train_loader(section, augment=None, smooth=False)  # of networks trained on aliased images
    assert loader.dataset.sample(0, 3).image.shape == (64, 64, 3) and asked == [1]


def test_epochs_and_seeds_differ_and_contain_each_image_once(reference):
    section, expected = reference
    orders = [sum((row[4] for row in expected[3 * epoch : 3 * epoch + 3]), []) for epoch in range(4)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert content(train_loader(section, seed=1), [0]) != expected[:3]


def test_global_random_states_are_neither_used_nor_changed(reference):
    section, expected = reference
    np.random.seed(5)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert content(train_loader(section), [0]) == expected[:3]
    assert torch.equal(before, torch.get_rng_state())  # unchanged


def test_mosaic_and_mixup_end_at_their_epoch(tiny):
    """After the closing epoch, without other augmentation, samples are the plain letterboxed images."""
    quiet = augment(**dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "flip_lr", "flip_ud", "degrees"), 0.0))
    for name in ("translate", "scale", "shear", "blur", "gray", "clahe"):
        setattr(quiet, name, 0.0)
    quiet.extra, quiet.mosaic = [], 1.0
    loader = train_loader(tiny, augment=quiet, mosaic_until=1)
    for epoch, plain in ((0, False), (1, True)):
        loader.set_position(epoch)
        batch = next(iter(loader))
        for image, path in zip(batch.images, batch.paths, strict=True):
            expected = letterbox(read_image(path), 64)[0]
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected) == plain


def test_training_boxes_match_the_letterbox(tiny):
    loader = train_loader(tiny, augment=None)
    batch = next(iter(loader))
    for row, index in enumerate(batch.indices.tolist()):
        width, height = loader.annotations.sizes[index]
        _, geometry = letterbox(np.zeros((height, width, 3), np.uint8), 64)
        expected = geometry.to_network(loader.annotations.training_boxes(index)[0])
        np.testing.assert_allclose(batch.targets.boxes[row][batch.targets.mask[row]].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("rect", [True, False])
def test_evaluation_does_not_depend_on_the_batch_and_boxes_map_back(tiny, rect):
    annotations = load_dataset(tiny, "val", progress=False)
    seen: dict[int, bytes] = {}
    for batch_size, cache, workers in ((1, "off", 0), (4, "ram", 0), (7, "off", 2)):
        loader = build_eval_loader(
            annotations, imgsz=64, batch=batch_size, preprocess=preprocess, rect=rect, cache=cache, workers=workers
        )
        indices = []
        for batch in loader:
            assert len(batch.images) <= batch_size
            assert batch.images.shape[2] % 32 == 0 and batch.images.shape[3] % 32 == 0
            for row, index in enumerate(batch.indices.tolist()):
                indices.append(index)
                assert (
                    seen.setdefault(index, batch.images[row].numpy().tobytes()) == batch.images[row].numpy().tobytes()
                )
                boxes = batch.targets.boxes[row][batch.targets.mask[row]]
                back = batch.geometries[row].to_image(boxes).numpy()
                np.testing.assert_allclose(back, annotations.training_boxes(index)[0], atol=1e-3)
                assert batch.image_ids[row] == annotations.image_id(index)
        assert sorted(indices) == list(range(12))


def test_a_file_deleted_during_a_run_is_a_clear_error(tiny):
    for workers in (0, 1):
        loader = train_loader(tiny, workers=workers)
        victim = loader.annotations.path(0)
        os.rename(victim, victim + ".gone")
        with pytest.raises(ValueError, match=r"0\.png does not exist"):
            list(loader)
        os.rename(victim + ".gone", victim)


def test_missing_splits_and_folders_are_named(tiny, tmp_path):
    with pytest.raises(ValueError, match="test"):
        load_dataset(tiny, "test")
    with pytest.raises(ValueError, match="cache"):
        build_eval_loader(
            load_dataset(tiny, "val", progress=False), imgsz=64, batch=1, preprocess=preprocess, cache="gpu"
        )
    tiny.train.images = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_dataset(tiny, "train")


def test_embedded_set_is_drawn_on_first_use(tmp_path):
    root = tmp_path / "shapes"
    names = ("train", "val", "test")
    splits = {
        n: SimpleNamespace(images=str(root / "images" / n), annotations=str(root / "annotations" / f"{n}.json"))
        for n in names
    }
    embedded = SimpleNamespace(train=4, val=2, test=1, side=64, seed=0, epochs=1)
    section = SimpleNamespace(root=str(root), embedded=embedded, **splits)
    assert len(load_dataset(section, "val", progress=False)) == 2
    assert len(load_dataset(section, "train", progress=False, single_cls=True).classes) == 1


@pytest.mark.slow
def test_a_thousand_batches_leak_no_memory_and_files(tiny):
    """Neither open files nor memory (beyond noise) grow."""
    descriptors = "/proc/self/fd"
    if not os.path.isdir(descriptors):
        pytest.skip("no /proc/self/fd here")
    loader = train_loader(tiny, cache="ram", augment=augment(extra=[]))

    def epochs(count):
        for epoch in range(count):
            loader.set_position(epoch)
            for _ in loader:
                pass
        with open("/proc/self/statm") as file:
            return len(os.listdir(descriptors)), int(file.read().split()[1]) * 4096

    files, memory = epochs(20)
    files_later, memory_later = epochs(150)
    assert files_later <= files and memory_later - memory < 16 << 20


def copied_by_a_collection() -> int:
    """KiB of private memory that a full garbage collection costs a forked process."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        before = own_kib()
        gc.collect()
        os.write(writing, str(own_kib() - before).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        return int(answer.read())


def own_kib() -> int:
    """KiB of private memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork() and /proc")
def test_workers_keep_sharing_the_memory_of_the_main_process(tiny):
    gc.unfreeze()
    copied = copied_by_a_collection()
    train_loader(tiny, workers=1)
    assert copied_by_a_collection() < copied / 5
    gc.unfreeze()
