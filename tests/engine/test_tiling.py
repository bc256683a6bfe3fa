"""Boxes of tiles, merged, are those of the objects."""

import numpy as np
import torch

from core.options import NmsOptions
from core.types import Detections
from data.sources import open_source
from engine.predictor import Predictor
from engine.tiling import merge_tiles


def part(place: tuple[int, int, int, int], *boxes: tuple[float, float, float, float, float, int]):
    table = np.array(boxes, np.float32).reshape(-1, 6)
    return place, table[:, :4], table[:, 4], table[:, 5].astype(np.int64)


def merged(*parts, agnostic: bool = False, max_det: int = 300):
    boxes, scores, labels = merge_tiles(parts, size=(100, 50), iou=0.7, max_det=max_det, agnostic=agnostic)
    return [
        (*box, round(score, 3), label)
        for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
    ]


def test_boxes_are_moved_and_duplicates_merged() -> None:
    left = part((0, 0, 60, 50), (45, 10, 55, 20, 0.8, 1))
    right = part((40, 0, 100, 50), (5, 10, 15, 20.5, 0.9, 1), (30, 30, 40, 40, 0.5, 0))
    assert merged(left, right) == [(45, 10, 55, 20.5, 0.9, 1), (70, 30, 80, 40, 0.5, 0)]
    assert merged(left, right, max_det=1) == [(45, 10, 55, 20.5, 0.9, 1)]


def test_boxes_of_several_classes_stay_unless_agnostic() -> None:
    one, other = part((0, 0, 60, 50), (5, 5, 20, 20, 0.8, 1)), part((0, 0, 100, 50), (5, 5, 20, 20, 0.7, 2))
    assert [row[5] for row in merged(one, other)] == [1, 2]
    assert [row[5] for row in merged(one, other, agnostic=True)] == [1]


def test_a_box_that_a_tile_cuts_off_is_left_out_but_not_at_the_border_of_the_image() -> None:
    cut = part((0, 0, 60, 50), (50, 10, 60, 20, 0.9, 0), (0, 30, 9, 50, 0.6, 0))
    whole = part((40, 0, 100, 50), (10, 10, 25, 20, 0.7, 0), (0.5, 5, 9, 9, 0.99, 0))
    assert [row[:4] for row in merged(cut, whole)] == [(50, 10, 65, 20), (0, 30, 9, 50)]


def test_nothing_found() -> None:
    assert merged(part((0, 0, 60, 50)), part((40, 0, 100, 50))) == []


class Bright(torch.nn.Module):
    """A detector of one white pixel: a box of 4 x 4 pixels around it."""

    stride, names = 8, ["dot"]

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def preprocess(self, image, size, *, rect=False, original=None):
        from core.geometry import letterbox

        return letterbox(image, size, rect_stride=self.stride if rect else None)

    def forward(self, images):
        return images.mean(1)

    def decode(self, maps):
        boxes, scores = torch.zeros(len(maps), 1, 4), torch.zeros(len(maps), 1, 1)
        for number, plane in enumerate(maps):
            for row, column in (plane > 0.9).nonzero()[:1].tolist():
                boxes[number, 0] = torch.tensor([column - 2, row - 2, column + 2, row + 2])
                scores[number] = 1
        return boxes, scores

    def nms(self, boxes, scores, options):
        rows = [score[:, 0] > options.conf for score in scores]
        return [
            Detections(each[row], score[row, 0], torch.zeros(int(row.sum()), dtype=torch.long))
            for each, score, row in zip(boxes, scores, rows, strict=True)
        ]


def predictor(tile: int | None, *, batch: int = 3) -> Predictor:
    return Predictor(
        Bright(), names=["dot"], device=torch.device("cpu"), nms=NmsOptions(0.5, 0.5, 10), imgsz=64, rect=True,
        batch=batch, classes=None, tile=tile,
    )  # fmt: skip


def test_a_pixel_that_shrinking_hides_is_found_in_its_tile() -> None:
    image = np.zeros((150, 200, 3), np.uint8)
    image[101, 131] = 255
    small = np.zeros((60, 64, 3), np.uint8)
    small[20, 30] = 255
    frames = [small, image, small]
    plain, tiled = ([*predictor(tile).run(open_source(frames), workers=0)] for tile in (None, 0))
    assert [len(each) for each in plain] == [1, 0, 1] and [len(each) for each in tiled] == [1, 1, 1]
    assert [each.path for each in tiled] == [each.path for each in plain]  # in order
    for before, after in zip(plain[::2], tiled[::2], strict=True):  # images that fit are not tiled
        assert np.array_equal(before.boxes, after.boxes) and before.shape == after.shape
    left, top, right, bottom = tiled[1].boxes[0]
    assert left <= 131 <= right and top <= 101 <= bottom and right - left == 4
    assert len([*predictor(500).run(open_source([image]), workers=0)][0]) == 0  # larger than the image
