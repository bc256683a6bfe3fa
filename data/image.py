"""The pixels of image files as uint8 RGB (H, W, 3), and why a file has none that can be used."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from core.text import one_line
from data.image_files import FORMATS, TIFFS, unread_format
from data.limits import MAX_IMAGE_BYTES, MAX_PIXELS, MAX_PIXELS_PER_BYTE, MAX_PIXELS_UNCHECKED
from data.pixels import DAMAGE, RangeError, array_rgb, orientation, picture_rgb, to_bytes, upright

PNG = b"\x89PNG\r\n\x1a\n"
JPEG_END = b"\xff\xd9"
OPENCV_FORMATS = ("BMP", "DIB", "JPEG", "PNG", "WEBP")
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
BGR555 = "BGR;15"  # OpenCV makes 248 of white
# Of the rows of a JPEG that ends early, in training and evaluation: objects may lie in the missing part.
MAX_MISSING = 0.1
ENDS_EARLY = "ends early; what is there is used"
# The letter at the end of Pillow's raw modes of 16 bits is the order of the bytes: little, big, or native.
OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


class ImageError(ValueError):
    """An image that cannot be used; `kind` is one of data.issues.KINDS."""

    def __init__(self, kind: str, what: str):
        super().__init__(what)
        self.kind = kind
        self.what = what


class Verified(NamedTuple):
    """What was found out about an image that can be used."""

    width: int  # after EXIF rotation
    height: int
    fault: str | None = None  # of an image that is used although a part of it is missing


def read_image(path: str | os.PathLike[str], *, reduce: int = 1) -> np.ndarray:
    """An image file as uint8 RGB (H, W, 3), by the rule of data/pixels.py; ImageError for what cannot be used.

    `reduce`: 2, 4 or 8 where that fraction of each side is enough: most JPEGs are decoded at that size, rounded up,
    which is faster; all other images are not reduced.
    """
    return decode_what_is_there(read_bytes(path), reduce=reduce)[0]


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of an image file, as read_image does; a truncated JPEG gives the part that is there."""
    return decode_what_is_there(data)[0]


def decode_what_is_there(data: bytes, *, reduce: int = 1) -> tuple[np.ndarray, str | None]:
    """`decode_image`, and the fault of a picture of which a part is missing; `reduce` as for read_image."""
    header = open_header(data)
    deep = _is_deep(header)
    # OpenCV is faster, and correct for these. In other formats and damaged PNGs it trusts the lengths in the file.
    plain = header.mode in ("L", "RGB") and header.format in OPENCV_FORMATS and "transparency" not in header.info
    if plain and not deep and BGR555 not in _raw_modes(header) and chunks_hold(data):
        turned = orientation(header)
        factor = reduce if header.format == "JPEG" else 1
        flags = REDUCED[factor] | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if decoded is not None and decoded.shape[1::-1] == tuple(-(-side // factor) for side in header.size):
            return upright(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), turned), None
    picture, truncated = _load(data, header)
    image = _pixels(picture)
    image = _brightened(image, data) if deep and image.max() <= 15 else image
    return image, ENDS_EARLY if truncated else None


def convert_image(image: Image.Image | np.ndarray) -> np.ndarray:
    """A Pillow image or an array (see data.pixels.array_rgb) as read_image gives the same picture from a file.

    Raises ImageError.
    """
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise ImageError("empty", "has no pixels")
        if isinstance(image, ImageFile.ImageFile) and image.tile and image.fp is None:
            raise ImageError("missing", "was closed before its pixels were read; call its load() before")
        data = _unread_bytes(image)
        return _pixels(image) if data is None else decode_image(data)
    try:
        return array_rgb(image)
    except RangeError as error:
        raise ImageError("value-range", str(error)) from error


def verify_image(path: str | os.PathLike[str]) -> Verified:
    """Decode an image file completely.

    ImageError if it cannot be used; for training and evaluation, neither can a JPEG of which over a tenth is missing.
    """
    data = read_bytes(path)
    picture, truncated = _load(data, open_header(data))
    missing = _missing_rows(picture) if truncated else 0.0
    if missing > MAX_MISSING:
        raise ImageError("damaged", f"ends early, the lower {missing:.0%} of the picture are missing")
    if picture.mode not in ("L", "RGB") or picture.format == "TIFF":
        _pixels(picture)
    width, height = picture.size
    if orientation(picture) in (5, 6, 7, 8):
        width, height = height, width
    return Verified(width, height, ENDS_EARLY if truncated else None)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of an image file; ImageError if it cannot be read."""
    try:
        if os.path.getsize(path) > MAX_IMAGE_BYTES:
            raise ImageError("too-large", f"is larger than {MAX_IMAGE_BYTES} bytes")
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError("missing", "does not exist") from error
    except OSError as error:
        raise ImageError("missing", f"cannot be read: {error.strerror}") from error


def open_header(data: bytes, *, size: int | None = None) -> Image.Image:
    """The header of an image, before any pixel is decoded; `size`: bytes of the file, if `data` are its first ones."""
    if not data:
        raise ImageError("empty", "is empty")
    try:
        header = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", f"has more than {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        if _is_cut_tiff(data):
            raise ImageError("damaged", "ends early, before the end of a TIFF's directory") from error
        what = unread_format(data) or "is not an image in a known format"
        raise ImageError("not-an-image", what) from error
    except DAMAGE as error:
        raise ImageError("damaged", f"has a damaged header: {_reason(error)}") from error
    width, height = header.size
    size = len(data) if size is None else size
    if width * height > MAX_PIXELS:
        raise ImageError("too-large", f"has {width} x {height} pixels, at most {MAX_PIXELS} are read")
    if width * height > max(MAX_PIXELS_UNCHECKED, MAX_PIXELS_PER_BYTE * size):
        raise ImageError("damaged", f"claims {width} x {height} pixels in {size} bytes")
    return header


def _is_cut_tiff(data: bytes) -> bool:
    """Whether the data end before the first directory of a TIFF does."""
    if not data.startswith(TIFFS):
        return False
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    at, length, count, entry = (8, 8, 8, 20) if b"+" in data[:4] else (4, 4, 2, 12)  # BigTIFF
    start = int.from_bytes(data[at : at + length], order)
    entries = int.from_bytes(data[start : start + count], order)
    return start + count + entries * entry > len(data)


def chunks_hold(data: bytes) -> bool:
    """Whether each chunk of a PNG is there and has its checksum.

    Of others, OpenCV allocates the memory that they claim, and leaves what it cannot decode black.
    """
    if not data.startswith(PNG):
        return True
    view, place = memoryview(data), len(PNG)
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(view[place : place + 4], "big")  # length, name, content, checksum
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        place = end + 4
    return place == len(data)


def _reason(error: BaseException) -> str:
    return one_line(error)[:200] or type(error).__name__


def _load(data: bytes, header: Image.Image) -> tuple[Image.Image, bool]:
    """The picture with its pixels decoded, and whether it is a JPEG that ends early and was completed with grey."""
    try:
        header.load()
        return header, False
    except DAMAGE as error:
        if header.format in ("JPEG", "MPO"):
            with contextlib.suppress(*DAMAGE):
                completed = open_header(data + JPEG_END)  # then libjpeg fills the rest
                completed.load()
                return completed, True
        raise ImageError("damaged", f"cannot be decoded: {_reason(error)}") from error


def _pixels(picture: Image.Image) -> np.ndarray:
    try:
        return picture_rgb(picture)
    except RangeError as error:
        raise ImageError("value-range", str(error)) from error
    except DAMAGE as error:
        raise ImageError("damaged", f"cannot be decoded: {_reason(error)}") from error


def _missing_rows(picture: Image.Image) -> float:
    """The fraction of rows at the end of a picture that have one colour only, with which libjpeg fills."""
    pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)
    filled = (pixels == pixels[-1, -1]).all(axis=(1, 2))[::-1]
    return 1.0 if filled.all() else int(np.argmin(filled)) / len(filled)


def _is_deep(header: Image.Image) -> bool:
    """Whether a picture, not decoded yet, has colours of 16 bits, of which Pillow and OpenCV give the upper 8."""
    return header.mode == "RGB" and any(";16" in raw for raw in _raw_modes(header))


def _raw_modes(header: Image.Image) -> list[str]:
    """How the pixels of a picture, not decoded yet, are stored."""
    return [_raw_mode(tile) for tile in getattr(header, "tile", ())]


def _raw_mode(tile: ImageFile._Tile) -> str:
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _brightened(image: np.ndarray, data: bytes) -> np.ndarray:
    """A picture whose colours have 16 bits, of which none of the upper 4 is used, with its full range of values."""
    header = open_header(data)
    assert isinstance(header, ImageFile.ImageFile)
    tiles = []
    for tile in header.tile:  # with the bytes swapped, Pillow gives the lower 8 bits
        raw = _raw_mode(tile)
        swapped = raw[:-1] + OTHER_ORDER[raw[-1]]
        tiles.append(tile._replace(args=(swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped))
    header.tile = tiles
    return to_bytes(image.astype(np.uint16) * 256 + _pixels(header))


def _unread_bytes(picture: Image.Image) -> bytes | None:
    """The file of a Pillow image that nobody has changed or decoded yet, which is decoded like any file; else None."""
    if not isinstance(picture, ImageFile.ImageFile) or not picture.tile or picture.fp is None:
        return None
    with contextlib.suppress(*DAMAGE):
        place = picture.fp.tell()
        picture.fp.seek(0)
        data = picture.fp.read(MAX_IMAGE_BYTES)
        picture.fp.seek(place)
        header = open_header(data)
        same = (header.mode, header.size, 0) == (picture.mode, picture.size, picture.tell())
        return data if same else None
    return None
