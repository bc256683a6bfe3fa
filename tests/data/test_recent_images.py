"""Slots of decoded images: what is found is what was put there, in this process and in others."""

import os
import pickle
import sys

import numpy as np
import pytest

from data import recent_images
from data.recent_images import RecentImages, slots_for


def picture(value: int, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(value).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_image_is_found_until_another_takes_its_slot():
    recent = RecentImages(3, 8, shared=False)
    assert recent.get(1, 0) is None  # although nothing but zeros is there
    recent.put(1, 4, picture(4))
    recent.put(2, 5, picture(5, 8, 8))
    for slot, index, expected in ((1, 4, picture(4)), (2, 5, picture(5, 8, 8))):
        found = recent.get(slot, index)
        assert found is not None and np.array_equal(found[..., :3], expected)
    assert recent.get(0, 4) is None and recent.get(1, 5) is None
    copy = recent.get(1, 4)
    recent.put(1, 7, picture(7, 8, 1))
    assert recent.get(1, 4) is None and np.array_equal(copy[..., :3], picture(4))
    assert np.array_equal(recent.get(1, 7)[..., :3], picture(7, 8, 1))


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_forked_workers_share_the_slots():
    recent = RecentImages(2, 8, shared=True)
    child = os.fork()
    if child == 0:
        recent.put(1, 3, picture(3))
        os._exit(0)
    os.waitpid(child, 0)
    assert np.array_equal(recent.get(1, 3)[..., :3], picture(3))


def test_a_spawned_worker_starts_with_empty_slots():
    recent = RecentImages(2, 8, shared=True)
    recent.put(0, 0, picture(1))
    other = pickle.loads(pickle.dumps(recent))  # noqa: S301
    assert other.get(0, 0) is None
    other.put(0, 0, picture(2))
    assert np.array_equal(recent.get(0, 0)[..., :3], picture(1))


def test_short_memory_or_semaphores_mean_no_slots(monkeypatch):
    monkeypatch.setattr(recent_images, "available_memory", lambda: 4 << 30)
    assert RecentImages.fitting(1000, 640, shared=False).slots == slots_for(640) == 436
    assert RecentImages.fitting(10, 640, shared=False).slots == 10
    monkeypatch.setattr(recent_images, "available_memory", lambda: 46 << 20)
    assert RecentImages.fitting(10, 640, shared=False) is None
    monkeypatch.setattr(recent_images, "available_memory", lambda: 47 << 20)
    assert RecentImages.fitting(10, 640, shared=False) is not None

    class Context:
        def Lock(self):  # noqa: N802
            raise OSError("No space left on device")

    monkeypatch.setattr(recent_images, "WorkerContext", Context)
    monkeypatch.setattr(sys, "platform", "linux")
    assert RecentImages.fitting(10, 640, shared=True) is None
