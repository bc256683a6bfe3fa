"""Images of any common kind as a viewer shows them: uint8 RGB (H, W, 3)."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 150_000_000  # beyond this an image is refused from its header, before any pixel is decoded
UNSUSPICIOUS_PIXELS = 10_000_000
MOST_PIXELS_A_BYTE = 10_000  # the best that PNG can do, with one bit a pixel, are 8,256
MOST_BYTES = 1 << 30
PNG = b"\x89PNG\r\n\x1a\n"
OPENCV_FORMATS = ("BMP", "DIB", "JPEG", "PNG", "PPM", "WEBP")
EXIF_ORIENTATION = 0x0112
# What is tried by content, whatever the file is called. Pillow knows forty more, among them some that start another
# program (EPS) or that nobody has fed with hostile files.
FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# What Pillow's decoders raise for damaged files.
DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, MemoryError, OverflowError, TypeError, LookupError, AttributeError,
    RuntimeError, ZeroDivisionError, struct.error,
)  # fmt: skip
# Transposition by EXIF orientation 2 to 8, on arrays (H, W, 3).
UPRIGHT = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: np.rot90(image, 1),
}


class ImageError(ValueError):
    """An image that cannot be used; `kind` is one of data.issues.KINDS."""

    def __init__(self, kind: str, what: str):
        super().__init__(what)
        self.kind = kind
        self.what = what


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file as uint8 RGB (H, W, 3), upright by its EXIF tag, transparency on white, 16 bits scaled to 8.

    Raises ImageError (a ValueError) that says what is wrong with the file.
    """
    return decode_image(_read_bytes(path))


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of an image file, as read_image does; a JPEG cut off at its end still gives what there is."""
    header = _open(data)
    orientation = _orientation(header)
    # OpenCV is faster, and right for these. It trusts what other kinds, or a damaged PNG, say about their own length.
    if header.mode in ("L", "RGB") and header.format in OPENCV_FORMATS and _lengths_hold(data):
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if decoded is not None and decoded.shape[1::-1] == header.size:
            image = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
            return np.ascontiguousarray(UPRIGHT[orientation](image)) if orientation in UPRIGHT else image
    try:
        return _by_pillow(header)
    except DAMAGE as error:
        raise ImageError("damaged", f"cannot be decoded: {_reason(error)}") from error


def verify_image(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Decode an image file to its end and return its upright (width, height); ImageError if anything is missing."""
    header = _open(_read_bytes(path))
    try:
        header.load()
    except DAMAGE as error:
        raise ImageError("damaged", f"cannot be decoded: {_reason(error)}") from error
    width, height = header.size
    return (height, width) if _orientation(header) in (5, 6, 7, 8) else (width, height)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        if os.path.getsize(path) > MOST_BYTES:
            raise ImageError("too-large", f"is larger than {MOST_BYTES} bytes")
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError("missing", "does not exist") from error
    except OSError as error:
        raise ImageError("missing", f"cannot be read: {error.strerror}") from error
    if not data:
        raise ImageError("empty", "is empty")
    return data


def _open(data: bytes) -> Image.Image:
    """The header of an image; no pixel is decoded yet."""
    try:
        header = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", f"has more than {MOST_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError("not-an-image", "is no image in a known format") from error
    except DAMAGE as error:
        raise ImageError("damaged", f"has a damaged header: {_reason(error)}") from error
    width, height = header.size
    if width * height > MOST_PIXELS:
        raise ImageError("too-large", f"has {width} x {height} pixels, at most {MOST_PIXELS} are read")
    if width * height > max(UNSUSPICIOUS_PIXELS, MOST_PIXELS_A_BYTE * len(data)):
        raise ImageError("damaged", f"claims {width} x {height} pixels in {len(data)} bytes")
    return header


def _lengths_hold(data: bytes) -> bool:
    """Whether no chunk of a PNG claims more bytes than are left; OpenCV takes the memory before it reads them."""
    if not data.startswith(PNG):
        return True
    place = len(PNG)
    while place + 8 <= len(data):
        place += 12 + int.from_bytes(data[place : place + 4], "big")  # length, name, content, checksum
    return place <= len(data)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _orientation(header: Image.Image) -> int:
    try:
        value = header.getexif().get(EXIF_ORIENTATION, 1)
    except DAMAGE:
        return 1  # a damaged EXIF block is no reason to refuse the pixels
    return value if isinstance(value, int) else 1


def _by_pillow(header: Image.Image) -> np.ndarray:
    """The kinds that OpenCV would show wrongly: transparency, palettes, CMYK, 16 and 32 bits a pixel."""
    orientation = _orientation(header)
    if header.mode in ("I", "F") or header.mode.startswith("I;16"):
        values = np.asarray(header).astype(np.float64)
        # Grey of 16 bits fills 0..65535; an "I" image that stays within a byte is one of 8 bits in a wide container.
        if header.mode != "F" and (header.mode.startswith("I;16") or values.max(initial=0) > 255):
            values = values / 257
        grey = np.clip(np.nan_to_num(values).round(), 0, 255).astype(np.uint8)
        image = np.repeat(grey[..., None], 3, axis=2)
        return np.ascontiguousarray(UPRIGHT[orientation](image)) if orientation in UPRIGHT else image
    upright = ImageOps.exif_transpose(header)
    if upright.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, layer)
    return np.ascontiguousarray(np.asarray(upright.convert("RGB")))
