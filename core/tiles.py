"""Overlapping tiles of a large image."""

OVERLAP = 0.25  # of a tile with the next one; objects up to this size lie whole in some tile

Place = tuple[int, int, int, int]
"""left, top, right, bottom in pixels of the image."""


def tile_places(width: int, height: int, side: int, *, overlap: float = OVERLAP) -> list[Place]:
    """Tiles of `side` pixels that cover an image and overlap by `overlap` or more; one if the image is no larger.

    The last tile of a row or column is moved inside.
    """

    def starts(length: int) -> list[int]:
        if length <= side:
            return [0]
        count = -(-(length - side) // max(1, round(side * (1 - overlap))))
        return [round(place * (length - side) / count) for place in range(count + 1)]

    return [
        (left, top, min(left + side, width), min(top + side, height))
        for top in starts(height)
        for left in starts(width)
    ]
