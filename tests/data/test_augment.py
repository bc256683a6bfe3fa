"""Photometric augmentation: independent transforms, keyed random streams, no network access."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

from data.augment import Augmentation, PhotometricAugment, shift_hsv
from ops import colours

IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
BOXES, LABELS = np.array([[10, 12, 30, 40]], np.float32), np.array([4])


class Fixed:
    """A generator that returns given values."""

    def __init__(self, *values):
        self.values = np.array(values)

    def uniform(self, low, high, size):
        return self.values


@pytest.fixture
def by_opencv(monkeypatch):
    monkeypatch.setattr("ops.colours.shift_hsv", lambda *_: None)


@pytest.mark.parametrize("compiled", [True, False])
def test_colours_change_by_the_gains_that_are_drawn(compiled, request):
    if not compiled:
        request.getfixturevalue("by_opencv")
    smooth = cv2.GaussianBlur(IMAGE, (0, 0), 2)
    changed = shift_hsv(smooth, (0.5, 0.5, 0.5), Fixed(-0.5, 0.2, -0.4))
    hsv = rgb_to_hsv(smooth / 255)
    expected = hsv_to_rgb(np.stack([hsv[..., 0] * 0.75, np.minimum(hsv[..., 1] * 1.1, 1), hsv[..., 2] * 0.8], axis=-1))
    assert np.abs(changed - expected * 255).max() <= (0.501 if compiled and colours.prepare() else 6)
    assert np.abs(changed - expected * 255).mean() < 1.5


def test_hsv_tables_match_the_formula(by_opencv):
    changed = shift_hsv(IMAGE, (0.5, 0.5, 0.5), Fixed(-0.5, 0.2, -0.4))
    hsv = cv2.cvtColor(IMAGE, cv2.COLOR_RGB2HSV).astype(float)
    expected = np.stack(
        [hsv[..., 0] * 0.75 % 180, np.minimum(hsv[..., 1] * 1.1, 255), np.minimum(hsv[..., 2] * 0.8, 255)], axis=2
    ).astype(np.uint8)
    np.testing.assert_array_equal(changed, cv2.cvtColor(expected, cv2.COLOR_HSV2RGB))
    assert np.abs(shift_hsv(IMAGE, (0, 0, 0), Fixed(1, 1, 1)).astype(int) - IMAGE).max() <= 12  # 8-bit HSV rounds


def test_factors_are_rounded_down_whichever_way_they_are_applied(by_opencv):
    """Saturation and value are scaled by arithmetic or, where float32 could round up, by a table; the result is the
    same."""
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    hsv, levels = cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.arange(256.0)
    rng = np.random.default_rng(1)
    draws = [*rng.uniform(-1, 1, (60, 3)).tolist(), (1, 1, 1), (-1, -1, -1), (0, 0, 0), (0.5, -0.5, 0.25)]
    draws += [(0, 0.0999999, -0.00000001)]  # a hair below whole numbers: arithmetic would round up
    for draw in draws:
        hue, saturation, value = 1 + np.array(draw)
        expected = np.stack(
            [
                ((levels * hue) % 180).astype(np.uint8)[hsv[..., 0]],
                np.clip(levels * saturation, 0, 255).astype(np.uint8)[hsv[..., 1]],
                np.clip(levels * value, 0, 255).astype(np.uint8)[hsv[..., 2]],
            ],
            axis=-1,
        )
        expected = cv2.cvtColor(expected, cv2.COLOR_HSV2RGB)
        np.testing.assert_array_equal(shift_hsv(image, (1, 1, 1), Fixed(*draw)), expected)


@pytest.mark.slow
def test_transforms_fire_independently():
    """Four transforms of p = 0.5: each fires half of the time, each pair a quarter, all sixteen patterns occur.

    Within one Compose seeded as a whole they would always fire together.
    """
    extra = [{"name": "InvertImg", "p": 0.5}, {"name": "HorizontalFlip", "p": 0.5}]
    appearance = PhotometricAugment(Augmentation(blur=0.5, gray=0.5, extra=extra), seed=0, size=64)
    flat = np.full((64, 64, 3), (50, 100, 30), np.uint8)
    flat[:, :32] = (20, 60, 90)
    count, fired = 800, []
    for index in range(count):
        image, boxes, _ = appearance(flat, BOXES, LABELS, epoch=0, index=index)
        mirrored = boxes[0, 0] > 20
        gray = bool((image[..., 0] == image[..., 2]).all())
        blurred = bool((image[20, 31] != image[20, 20]).any())  # the edge in the middle has reached its neighbours
        inverted = image.mean() > 127
        fired.append((mirrored, gray, blurred, inverted))
    fired = np.array(fired)
    spread = 4 * np.sqrt(0.25 / count)
    assert np.abs(fired.mean(0) - 0.5).max() < spread
    for first in range(4):
        for second in range(first):
            assert abs((fired[:, first] & fired[:, second]).mean() - 0.25) < spread
    assert len({tuple(row) for row in fired}) == 16


def test_results_depend_on_the_key_alone():
    appearance = PhotometricAugment(
        Augmentation(hsv=(0.1, 0.7, 0.4), blur=0.5, extra=[{"name": "GaussNoise", "p": 1.0}]), seed=0, size=64
    )
    first, _, _ = appearance(IMAGE, BOXES, LABELS, epoch=1, index=5)
    for epoch, index, same in ((1, 5, True), (2, 5, False), (1, 6, False)):
        again, _, _ = appearance(IMAGE, BOXES, LABELS, epoch=epoch, index=index)
        assert np.array_equal(first, again) == same


def test_extra_transforms_move_boxes_and_keep_labels():
    appearance = PhotometricAugment(Augmentation(extra=[{"name": "HorizontalFlip", "p": 1.0}]), seed=0, size=64)
    image, boxes, labels = appearance(IMAGE, BOXES, LABELS, epoch=0, index=0)
    np.testing.assert_array_equal(image, IMAGE[:, ::-1])
    np.testing.assert_allclose(boxes, [[34, 12, 54, 40]], atol=1e-4)
    assert labels.tolist() == [4]
    _, boxes, labels = appearance(IMAGE, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), epoch=0, index=0)
    assert boxes.shape == (0, 4) and labels.shape == (0,)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "RandomFogg"}, "RandomFog"),
        ({"name": "os.system"}, "no transform"),
        ({"name": "Compose"}, "no transform"),
        ({}, "name"),
        ({"name": 3}, "name"),
        ({"name": "Blur", "p": 2}, "probability"),
        ({"name": "Blur", "blur_limits": 3}, "blur_limits"),
        ({"name": "Blur", "blur_limit": "x"}, "Blur"),
        ({"name": "RandomCrop", "height": 32, "width": 32}, "no change"),
        ({"name": "RandomCrop", "height": 320, "width": 320}, "fails|no change"),
    ],
)
def test_invalid_transforms_are_refused_before_training(entry, message):
    with pytest.raises(ValueError, match=message):
        PhotometricAugment(Augmentation(extra=[entry]), seed=0, size=64)


@pytest.mark.slow
def test_no_network_access():
    """By default, albumentations queries a server for its newest version at import."""
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = refuse; socket.create_connection = refuse; socket.getaddrinfo = refuse\n"
        "import data\n"
        "from data.augment import PhotometricAugment, Augmentation\n"
        "PhotometricAugment(Augmentation(blur=0.1, extra=[{'name': 'RandomFog'}]), seed=0, size=64)\n"
    )
    subprocess.run([sys.executable, "-W", "error::ResourceWarning", "-c", code], check=True, timeout=60)
