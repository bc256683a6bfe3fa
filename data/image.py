"""Decoding of common image formats into uint8 RGB (H, W, 3), as an image viewer displays them."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from core.text import printable
from data.limits import MAX_IMAGE_BYTES, MAX_PIXELS, MAX_PIXELS_PER_BYTE, MAX_PIXELS_UNCHECKED

PNG = b"\x89PNG\r\n\x1a\n"
OPENCV_FORMATS = ("AVIF", "BMP", "DIB", "JPEG", "PNG", "PPM", "WEBP")
EXIF_ORIENTATION = 0x0112
# Tried by content, whatever the file name. Pillow knows forty more, some of which start another program (EPS) or have
# not been tested with malicious files.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# Files with one of these suffixes are images; of others the content decides.
IMAGE_SUFFIXES = frozenset((
    ".avif", ".bmp", ".dib", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
))  # fmt: skip
# Cameras' raw files, in which Pillow would find the small preview.
RAW_SUFFIXES = frozenset((
    ".arw", ".cr2", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".srw",
))  # fmt: skip
# Usual company of images, not worth a word.
COMPANIONS = frozenset(("classes.txt", "notes.json", "desktop.ini", "thumbs.db"))
# Exceptions that Pillow's decoders raise for damaged files.
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


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether an existing file is taken for an image: by its suffix, by its content where the suffix says nothing."""
    suffix = Path(path).suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix in RAW_SUFFIXES:
        return suffix in IMAGE_SUFFIXES
    try:
        with Image.open(path, formats=FORMATS):  # reads the header only
            return True
    except Image.DecompressionBombError:
        return True  # refused with its reason where it is read
    except DAMAGE:
        return False


def split_images(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The images among paths, and the other files that are worth a word, both in the order given.

    Folders, hidden files, and the usual company of images (a.txt or a.xml beside a.jpg, classes.txt) are in neither.
    """
    files = [path for path in paths if not path.name.startswith(".") and path.is_file()]
    images = [path for path in files if is_image(path)]
    taken = set(images)
    stems = {path.with_suffix("") for path in images}
    others = [
        path
        for path in files
        if path not in taken and path.with_suffix("") not in stems and path.name.lower() not in COMPANIONS
    ]
    return images, others


def list_images(folder: str | os.PathLike[str]) -> tuple[list[Path], list[Path]]:
    """`split_images` of all files below a folder, each sorted by path."""
    return split_images(sorted(_files_below(folder)))


def _files_below(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Files in a folder and its subfolders, but hidden ones; symbolic links are followed, into each folder once."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names)


def passed_over(others: Sequence[Path]) -> str:
    """What to say about files that are no images: how many, and the first."""
    if len(others) == 1:
        return printable(f"1 file is not an image and was passed over: {others[0].name}")
    return printable(f"{len(others)} files are not images and were passed over, such as {others[0].name}")


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file as uint8 RGB (H, W, 3), rotated by its EXIF tag, transparency on white, 16 bits scaled to 8.

    Raises ImageError (a ValueError) that describes the fault.
    """
    return decode_image(_read_bytes(path))


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of an image file, as read_image does; a truncated JPEG gives the part that is there."""
    header = _open(data)
    orientation = _orientation(header)
    # OpenCV is faster, and correct for these. In other formats and damaged PNGs it trusts the lengths in the file.
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
    """Decode an image file completely and return its (width, height) after EXIF rotation; ImageError if incomplete."""
    header = _open(_read_bytes(path))
    try:
        header.load()
    except DAMAGE as error:
        raise ImageError("damaged", f"cannot be decoded: {_reason(error)}") from error
    width, height = header.size
    return (height, width) if _orientation(header) in (5, 6, 7, 8) else (width, height)


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    try:
        if os.path.getsize(path) > MAX_IMAGE_BYTES:
            raise ImageError("too-large", f"is larger than {MAX_IMAGE_BYTES} bytes")
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError("missing", "does not exist") from error
    except OSError as error:
        raise ImageError("missing", f"cannot be read: {error.strerror}") from error
    if not data:
        raise ImageError("empty", "is empty")
    return data


def _open(data: bytes) -> Image.Image:
    """The header of an image, before any pixel is decoded."""
    try:
        header = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", f"has more than {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError("not-an-image", "is not an image in a known format") from error
    except DAMAGE as error:
        raise ImageError("damaged", f"has a damaged header: {_reason(error)}") from error
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise ImageError("too-large", f"has {width} x {height} pixels, at most {MAX_PIXELS} are read")
    if width * height > max(MAX_PIXELS_UNCHECKED, MAX_PIXELS_PER_BYTE * len(data)):
        raise ImageError("damaged", f"claims {width} x {height} pixels in {len(data)} bytes")
    return header


def _lengths_hold(data: bytes) -> bool:
    """Whether no chunk of a PNG claims more bytes than remain; OpenCV allocates the memory before reading them."""
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
        return 1  # the pixels may be fine even if the EXIF block is damaged
    return value if isinstance(value, int) else 1


def _by_pillow(header: Image.Image) -> np.ndarray:
    """Formats that OpenCV decodes incorrectly: transparency, palettes, CMYK, 16 and 32 bits per channel."""
    orientation = _orientation(header)
    if header.mode in ("I", "F") or header.mode.startswith("I;16"):
        values = np.asarray(header).astype(np.float64)
        # 16-bit grey spans 0..65535; an "I" image with values within a byte is an 8-bit image in a wide container.
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
