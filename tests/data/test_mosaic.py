"""Geometric augmentation: compared with hand calculations, OpenCV and albumentations."""

import math

import cv2
import numpy as np
import pytest

from data.mosaic import (
    Tile,
    centre_place,
    clip_polygon,
    lay_out,
    mosaic_places,
    move,
    move_boxes,
    paint,
    project,
    random_pose,
)

PLAIN = {
    "degrees": 0.0,
    "translate": 0.0,
    "scale": 0.0,
    "shear": 0.0,
    "perspective": 0.0,
    "flip_lr": 0.0,
    "flip_ud": 0.0,
}


def tile(width: int, height: int, boxes, value: int = 200) -> Tile:
    """A black image with filled boxes."""
    image = np.zeros((height, width, 3), np.uint8)
    for left, top, right, bottom in boxes:
        image[int(top) : int(bottom), int(left) : int(right)] = value
    return Tile(image, np.array(boxes, np.float32).reshape(-1, 4), np.arange(len(boxes)))


def test_without_augmentation_the_result_is_the_letterbox():
    from core.geometry import letterbox

    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (48, 96, 3), dtype=np.uint8)
    boxes = np.array([[10, 5, 60, 40]], np.float32)
    source = Tile(image, boxes, np.zeros(1, np.int64))
    pose = random_pose(96, rng, **PLAIN)
    canvas, moved, labels = lay_out([source], [pose @ centre_place(source)], 96)
    expected, geometry = letterbox(image, 96)
    np.testing.assert_array_equal(canvas[..., :3], expected)
    np.testing.assert_allclose(moved, geometry.to_network(boxes))


def test_rotation_by_a_quarter_by_hand():
    """90 degrees about the centre of a 100 x 100 canvas map (x, y) to (100 - y, x), with y pointing down."""
    source = tile(100, 100, [(10, 20, 40, 30)])
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    canvas, moved, _ = lay_out([source], [move(50, 50) @ quarter @ move(-50, -50)], 100)
    np.testing.assert_allclose(moved, [[70, 10, 80, 40]], atol=1e-4)
    x, y, width, height = cv2.boundingRect((canvas[..., 0] > 150).astype(np.uint8))
    assert [x, y, x + width, y + height] == [70, 10, 80, 40]


@pytest.mark.parametrize("kind", ["scale", "translate", "flip_lr", "flip_ud", "degrees", "shear", "perspective", "all"])
def test_boxes_stay_on_their_objects(kind):
    """OpenCV finds a filled square within a pixel of its transformed box (or polygon's box)."""
    strength = {
        "scale": 0.5,
        "translate": 0.2,
        "flip_lr": 1.0,
        "flip_ud": 1.0,
        "degrees": 180.0,
        "shear": 20.0,
        "perspective": 0.001,
    }
    ranges = {**PLAIN, **(strength if kind == "all" else {kind: strength[kind]})}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        left, top = rng.integers(20, 90, 2)
        source = tile(160, 128, [(left, top, left + 40, top + 30)])
        corners = np.array([[left, top], [left + 40, top], [left + 40, top + 30], [left, top + 30]], float)
        matrix = random_pose(160, rng, **ranges) @ centre_place(source)
        source = Tile(source.image, source.boxes, source.labels, lambda _, corners=corners: [corners])
        canvas, moved, _ = lay_out([source], [matrix], 160)
        bright = (canvas[..., 0] > 157).astype(np.uint8)  # between the padding's 114 and the object's 200
        if not len(moved):
            assert bright.sum() < 0.16 * 40 * 30 * 2.25
            continue
        x, y, width, height = cv2.boundingRect(bright)
        np.testing.assert_allclose(moved[0], [x, y, x + width, y + height], atol=2.5 if kind == "all" else 1.6)


def test_affine_transforms_match_albumentations():
    """Scale, rotation and translation compared with an independent implementation."""
    from data.augment import import_albumentations

    library = import_albumentations()
    boxes = np.array([[30, 40, 70, 60], [50, 20, 90, 90]], np.float32)
    for angle, scale in ((0, 0.8), (30, 1.0), (-75, 1.2)):
        affine = library.Affine(rotate=(angle, angle), scale=(scale, scale), rotate_method="largest_box", p=1.0)
        compose = library.Compose([affine], bbox_params=library.BboxParams("pascal_voc", label_fields=["rows"]))
        theirs = compose(image=np.zeros((128, 128, 3), np.uint8), bboxes=boxes, rows=[0, 1])["bboxes"]
        radians = math.radians(-angle)  # albumentations rotates in the other direction
        turn = scale * np.array([[math.cos(radians), -math.sin(radians)], [math.sin(radians), math.cos(radians)]])
        matrix = np.eye(3)
        matrix[:2, :2] = turn
        for sign in (1, -1):
            matrix[0, 1], matrix[1, 0] = sign * turn[0, 1], sign * turn[1, 0]
            mine, kept = move_boxes(boxes, None, move(64, 64) @ matrix @ move(-64, -64), 128)
            if np.abs(mine - theirs).max() < 1.5:
                break
        else:
            pytest.fail(f"{angle} degrees: {mine} is not {theirs}")
        assert kept.all()


def test_polygons_keep_boxes_tight_after_rotation():
    turn = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    circle = 50 + 20 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    boxes = np.array([[30, 30, 70, 70]], np.float32)
    angle = math.radians(45)
    matrix = np.eye(3)
    matrix[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    matrix = move(50, 50) @ matrix @ move(-50, -50)
    with_outline, _ = move_boxes(boxes, lambda _: [circle], matrix, 100)
    without, _ = move_boxes(boxes, None, matrix, 100)
    np.testing.assert_allclose(with_outline, [[30, 30, 70, 70]], atol=0.1)
    np.testing.assert_allclose(without, [[50 - 28.284, 50 - 28.284, 50 + 28.284, 50 + 28.284]], atol=0.01)


def test_polygon_clipping_by_hand():
    triangle = np.array([[-10.0, 0], [10, 0], [10, 20]])  # cut by x >= 0: (0, 0), (10, 0), (10, 20), (0, 10)
    cut = clip_polygon(triangle, 100)
    assert {tuple(point) for point in cut} == {(0.0, 0.0), (10.0, 0.0), (10.0, 20.0), (0.0, 10.0)}
    assert len(clip_polygon(triangle - 200, 100)) == 0
    np.testing.assert_array_equal(clip_polygon(triangle + 50, 100), triangle + 50)


def test_clipped_random_polygons_match_their_pixels():
    rng = np.random.default_rng(0)
    for _ in range(30):
        corner = rng.uniform(-60, 160, 2)
        turn = np.sort(rng.uniform(0, 2 * math.pi, 9))
        polygon = corner + rng.uniform(20, 60) * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        mask = np.zeros((1600, 1600), np.uint8)  # 16 x 16 pixels per unit
        cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 1)
        cut = clip_polygon(polygon, 100)
        assert (len(cut) > 0) == mask.any()
        if len(cut):
            x, y, width, height = cv2.boundingRect(mask)
            found = np.array([x, y, x + width, y + height]) / 16
            np.testing.assert_allclose([*cut.min(0), *cut.max(0)], found, atol=1)


def test_boxes_are_clipped_and_slivers_dropped():
    boxes = np.array(
        [[-30, 10, 10, 50], [-38, 10, 2, 50], [98.5, 10, 140, 50], [10, 10, 20, 20], [110, 0, 120, 9]], float
    )
    moved, kept = move_boxes(boxes, None, np.eye(3), 100)
    assert kept.tolist() == [True, False, False, True, False]
    np.testing.assert_allclose(moved[kept], [[0, 10, 10, 50], [10, 10, 20, 20]])


def test_mosaic_tiles_meet_without_gaps_or_overlaps():
    tiles = [
        Tile(np.full((64, 48 + 16 * k, 3), 40 * k + 20, np.uint8), np.zeros((0, 4)), np.zeros(0)) for k in range(4)
    ]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pose = random_pose(64, rng, **{**PLAIN, "translate": 0.1})
        canvas, boxes, labels = lay_out(tiles, [pose @ place for place in mosaic_places(tiles, 64, rng)], 64)
        assert boxes.shape == (0, 4) and labels.shape == (0,)
        assert set(np.unique(canvas[..., :3])) <= {20, 60, 100, 140, 114}  # no mixed colours between tiles


@pytest.mark.parametrize("kind", ["scale", "degrees", "perspective"])
def test_the_fourth_channel_changes_no_pixel(kind):
    """lay_out warps four channels because that is faster; paint on three channels gives the same."""
    strength = {"scale": 0.5, "degrees": 20.0, "perspective": 0.001}
    rng = np.random.default_rng(3)
    tiles = [
        Tile(rng.integers(0, 256, (70, 96, 3), dtype=np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        for _ in range(4)
    ]
    for _ in range(10):
        pose = random_pose(96, rng, **{**PLAIN, "translate": 0.1, kind: strength[kind]})
        matrices = [pose @ place for place in mosaic_places(tiles, 96, rng)]
        expected = np.full((96, 96, 3), 114, np.uint8)
        for each, matrix in zip(tiles, matrices, strict=True):
            paint(expected, each.image, matrix)
        np.testing.assert_array_equal(lay_out(tiles, matrices, 96)[0][..., :3], expected)
        with_fourth = [Tile(np.dstack([each.image, each.image[..., 0]]), each.boxes, each.labels) for each in tiles]
        np.testing.assert_array_equal(lay_out(with_fourth, matrices, 96)[0][..., :3], expected)


@pytest.mark.parametrize("kind", ["scale", "degrees", "perspective"])
def test_boxes_of_a_mosaic_are_those_of_each_tile_alone(kind):
    strength = {"scale": 0.5, "degrees": 20.0, "perspective": 0.001}
    rng = np.random.default_rng(4)
    image = np.zeros((70, 96, 3), np.uint8)
    tiles, start = [], 0
    for count, outlined in ((5, True), (0, False), (7, False), (6, True)):
        corners = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (count, 2))], axis=1).astype(np.float32)
        # A triangle in the box; every third box has none.
        outlines = [[box[[0, 1, 2, 1, 2, 3]].reshape(3, 2)] if row % 3 else [] for row, box in enumerate(boxes)]
        polygons = (lambda row, outlines=outlines: outlines[row]) if outlined else None
        tiles.append(Tile(image, boxes, np.arange(start, start + count), polygons))
        start += count
    for _ in range(10):
        pose = random_pose(96, rng, **{**PLAIN, "translate": 0.1, kind: strength[kind]})
        matrices = [pose @ place for place in mosaic_places(tiles, 96, rng)]
        _, boxes, labels = lay_out(tiles, matrices, 96)
        alone = [move_boxes(t.boxes, t.polygons, m, 96) for t, m in zip(tiles, matrices, strict=True)]
        np.testing.assert_array_equal(boxes, np.concatenate([moved[kept] for moved, kept in alone]))
        expected = [t.labels[kept] for t, (_, kept) in zip(tiles, alone, strict=True)]
        assert labels.tolist() == np.concatenate(expected).tolist()


def test_painting_beyond_the_canvas_and_tiny_images():
    canvas = np.zeros((10, 10, 3), np.uint8)
    paint(canvas, np.full((5, 5, 3), 9, np.uint8), move(100, 100))
    assert not canvas.any()
    paint(canvas, np.full((1, 1, 3), 9, np.uint8), move(3, 4))
    assert canvas.sum() == 27 and canvas[4, 3, 0] == 9


def test_ranges_do_not_shift_the_random_numbers():
    """Enabling rotation does not change scale and translation."""
    first = random_pose(100, np.random.default_rng(1), **{**PLAIN, "scale": 0.5, "translate": 0.1})
    second = random_pose(100, np.random.default_rng(1), **{**PLAIN, "scale": 0.5, "translate": 0.1, "degrees": 10})
    assert not (first[0, 1] or first[1, 0]) and second[0, 1] and second[1, 0]
    np.testing.assert_allclose(np.linalg.det(first[:2, :2]), np.linalg.det(second[:2, :2]))
    np.testing.assert_allclose(project(np.zeros((1, 2)), first), project(np.zeros((1, 2)), second))
