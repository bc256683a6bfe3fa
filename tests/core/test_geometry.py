"""Fitting images into the network's input, against cases worked by hand and against OpenCV."""

import cv2
import numpy as np
import pytest
import torch

from core.geometry import Geometry, letterbox, resize, stretch
from core.types import Targets


def test_letterbox_of_a_wide_image_by_hand():
    image = np.full((100, 200, 3), 7, dtype=np.uint8)
    fitted, geometry = letterbox(image, 64)
    assert fitted.shape == (64, 64, 3)
    assert geometry == Geometry(0.32, 0.32, 0, 16, 200, 100)
    assert (fitted[16:48] == 7).all() and (fitted[:16] == 114).all() and (fitted[48:] == 114).all()
    box = np.array([[50.0, 25.0, 150.0, 75.0]], dtype=np.float32)
    np.testing.assert_allclose(geometry.to_network(box), [[16, 24, 48, 40]], rtol=1e-6)


def test_rectangle_is_the_smallest_multiple_of_the_stride():
    image = np.zeros((90, 200, 3), dtype=np.uint8)
    fitted, geometry = letterbox(image, 160, rect_stride=32)
    assert fitted.shape == (96, 160, 3)  # 90 * 0.8 = 72 -> 96
    assert (geometry.pad_x, geometry.pad_y) == (0, 12)


@pytest.mark.parametrize("shape", [(37, 211), (211, 37), (64, 64), (1, 500), (499, 331)])
@pytest.mark.parametrize("fitter", [letterbox, stretch])
def test_boxes_come_back(shape, fitter):
    height, width = shape
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1, (50, 2, 2)) * [width, height]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1).astype(np.float32)
    fitted, geometry = fitter(np.zeros((height, width, 3), np.uint8), 96)
    assert fitted.shape == (96, 96, 3)
    there = geometry.to_network(boxes)
    assert there.min() >= -1e-3 and there.max() <= 96 + 1e-3
    np.testing.assert_allclose(geometry.to_image(there), boxes, atol=2e-3)
    as_tensor = geometry.to_image(geometry.to_network(torch.from_numpy(boxes)))
    np.testing.assert_allclose(as_tensor.numpy(), boxes, atol=2e-3)


def test_to_image_clips():
    geometry = Geometry(0.5, 0.5, 0, 10, 100, 60)
    np.testing.assert_array_equal(geometry.to_image(np.array([-5.0, 0.0, 90.0, 90.0])), [0, 0, 100, 60])


def test_a_drawn_square_lands_where_its_box_says():
    """A white square in the image must fill exactly the box that the geometry predicts, found again by OpenCV."""
    image = np.zeros((240, 400, 3), np.uint8)
    cv2.rectangle(image, (100, 60), (199, 139), (255, 255, 255), -1)
    for size in (400, 200, 800):
        fitted, geometry = letterbox(image, size, fill=0)
        x, y, width, height = cv2.boundingRect((fitted[..., 0] > 127).astype(np.uint8))
        predicted = geometry.to_network(np.array([100.0, 60.0, 200.0, 140.0]))
        np.testing.assert_allclose([x, y, x + width, y + height], predicted, atol=1)


def test_resize_averages_when_shrinking():
    checkers = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = resize(np.repeat(checkers[..., None], 3, axis=2), 16, 16)
    assert np.abs(small.astype(int) - 127).max() <= 1


def test_original_size_is_what_the_geometry_leads_back_to():
    half = np.zeros((50, 100, 3), np.uint8)
    _, geometry = letterbox(half, 100, original=(200, 100))
    assert (geometry.scale_x, geometry.width, geometry.height) == (0.5, 200, 100)


@pytest.mark.parametrize("size", [0, -3])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="size"):
        letterbox(np.zeros((4, 4, 3), np.uint8), size)


def test_targets_are_padded_and_masked():
    boxes = [np.ones((2, 4), np.float32), np.zeros((0, 4), np.float32), np.full((3, 4), 2, np.float32)]
    labels = [np.array([4, 5]), np.array([], dtype=np.int64), np.array([1, 2, 3])]
    targets = Targets.collate(boxes, labels)
    assert targets.boxes.shape == (3, 3, 4) and targets.boxes.dtype == torch.float32
    assert targets.mask.sum(1).tolist() == [2, 0, 3]
    assert targets.labels[2].tolist() == [1, 2, 3]
    assert Targets.collate([np.zeros((0, 4))], [np.zeros(0)]).boxes.shape == (1, 0, 4)
    assert targets.scaled(2.0, 3.0).boxes[0, 0].tolist() == [2, 3, 2, 3]


@pytest.mark.parametrize("shape", [(100, 200), (200, 100), (30, 300), (96, 64)])
def test_letterbox_into_height_and_width(shape):
    """The image touches two opposite borders; with a stride, only whole strides of padding are left."""
    image = np.full((*shape, 3), 255, np.uint8)
    fitted, geometry = letterbox(image, (96, 64), fill=0)
    assert fitted.shape == (96, 64, 3)
    rows, columns = np.flatnonzero(fitted.any(axis=(1, 2))), np.flatnonzero(fitted.any(axis=(0, 2)))
    scale = min(96 / shape[0], 64 / shape[1])
    assert len(rows) == round(shape[0] * scale) and len(columns) == round(shape[1] * scale)
    corners = geometry.to_network(np.array([[0, 0, shape[1], shape[0]]], np.float32))[0]
    np.testing.assert_allclose(corners, [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=1e-4)
    cut, _ = letterbox(image, (96, 64), fill=0, rect_stride=32)
    assert cut.shape[0] == -(-len(rows) // 32) * 32 and cut.shape[1] == -(-len(columns) // 32) * 32
