"""Tiles cover an image, and objects up to the overlap."""

import pytest

from core.tiles import OVERLAP, tile_places


@pytest.mark.parametrize(("width", "height", "side"), [(100, 60, 32), (33, 32, 32), (640, 2000, 320), (50, 20, 32)])
def test_every_object_up_to_the_overlap_is_whole_in_some_tile(width: int, height: int, side: int) -> None:
    tiles = tile_places(width, height, side)
    assert all(l >= 0 and t >= 0 and r <= width and b <= height for l, t, r, b in tiles)  # noqa: E741
    assert {(r - l, b - t) for l, t, r, b in tiles} == {(min(side, width), min(side, height))}  # noqa: E741
    size = int(side * OVERLAP)
    for left in range(0, max(1, width - size), 3):
        for top in range(0, max(1, height - size), 3):
            right, bottom = min(left + size, width), min(top + size, height)
            assert any(l <= left and t <= top and r >= right and b >= bottom for l, t, r, b in tiles)  # noqa: E741


def test_one_tile_for_an_image_that_is_no_larger() -> None:
    assert tile_places(32, 20, 32) == [(0, 0, 32, 20)]
