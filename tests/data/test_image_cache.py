"""The image cache: complete or absent, shared, and chosen by available memory."""

import errno
import os
import pickle

import numpy as np
import pytest

from data import image_cache as store
from data import verify
from data.coco import read_coco
from data.image_cache import ImageStore, choose_cache, disk_store

SHAPES = [(4, 6), (1, 1), (8, 3)]


def picture(index: int) -> np.ndarray:
    return np.full((*SHAPES[index], 3), 10 * index + 5, np.uint8)


def test_memory_cache_returns_its_images():
    held = ImageStore(SHAPES)
    held.fill(picture, title="", progress=False)
    assert held.nbytes == 3 * (24 + 1 + 24) and len(held) == 3
    for index in range(3):
        np.testing.assert_array_equal(held[index], picture(index))
    with pytest.raises(ValueError, match="forked"):
        pickle.dumps(held)
    with pytest.raises(ValueError, match="expected"):
        held.fill(lambda _: np.zeros((2, 2, 3), np.uint8), title="", progress=False)


def test_disk_cache_is_filled_once_per_key(tmp_path):
    first = disk_store(SHAPES, picture, folder=tmp_path, key=["a", 1], progress=False)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first))[2], picture(2))

    def refuse(_):
        raise AssertionError("filled again")

    again = disk_store(SHAPES, refuse, folder=tmp_path, key=["a", 1], progress=False)
    np.testing.assert_array_equal(again[0], picture(0))
    with pytest.raises(AssertionError):
        disk_store(SHAPES, refuse, folder=tmp_path, key=["a", 2], progress=False)
    assert len(list(tmp_path.iterdir())) == 1  # the failed attempt left nothing behind


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space cannot be reserved here")
def test_a_disk_too_small_is_noticed_before_a_write_to_it_kills(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"cannot be written \(147 bytes\): No space left") as caught:
        disk_store(SHAPES, picture, folder=tmp_path, key=["a"], progress=False)
    assert caught.value.errno == errno.ENOSPC and str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_automatic_choice(monkeypatch):
    monkeypatch.setattr(store, "available_memory", lambda: 1000)
    assert choose_cache("auto", 250) == "ram" and choose_cache("auto", 251) == "off"
    monkeypatch.setattr(store, "available_memory", lambda: 1 << 50)
    assert choose_cache("auto", 4 << 30) == "ram" and choose_cache("auto", (4 << 30) + 1) == "off"
    assert choose_cache("ram", 1 << 60) == "ram" and choose_cache(None, 1) == choose_cache("off", 1) == "off"
    with pytest.raises(ValueError, match="cache"):
        choose_cache("tape", 1)


def test_available_memory_is_plausible():
    assert store.available_memory() >= 0


@pytest.mark.parametrize("decode", [False, True])
def test_verified_images_are_not_read_again_until_they_change(decode, tmp_path, monkeypatch):
    from tests.support.small_sets import box, write_coco

    monkeypatch.setattr(verify, "MANY_IMAGES", 0)
    path = write_coco(tmp_path, {"a.png": (40, 30), "b.png": (30, 30)}, [box(1, 1, [1, 1, 5, 5])])
    found = read_coco(path, tmp_path / "images", progress=False)
    seen = []
    name = "verify_image" if decode else "inspect_image"
    original = getattr(verify, name)
    monkeypatch.setattr(verify, name, lambda file: seen.append(file) or original(file))
    for _ in range(2):
        usable = verify.verify_images(found, decode=decode, progress=False)
        assert usable.sizes.tolist() == [[40, 30], [30, 30]]
    assert len(seen) == 2
    (tmp_path / "images" / "a.png").write_bytes(b"damaged since")
    usable = verify.verify_images(found, decode=decode, progress=False)
    assert [issue.file for issue in usable.issues] == ["a.png"] and len(seen) == 3
