"""The one rule for the pixels of a picture, whichever way it comes: uint8 RGB (H, W, 3), as an image viewer shows it.

- Upright by the EXIF orientation; transparency on white; palettes, CMYK, Lab and grey as colours.
- Integers of more than 8 bits: the range is 0 to 65535, or that of the bits that the file states. A picture that would
  be black that way, with no value above 4095 or 255, holds 12 or 8 bits in a wider container.
- Floating-point numbers: the range that the file states, else 0 to 1, else 0 to 255. NaN and GDAL's no-data are black.
- Any other range of values is refused.
"""

from __future__ import annotations

import contextlib
import math
import struct
from typing import SupportsFloat

import numpy as np
from PIL import Image, ImageCms

DECODING_VERSION = 3  # raise it with every change of the rule: cached images and verifications of another are made anew
EXIF_ORIENTATION = 0x0112
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
# Exceptions that Pillow's decoders raise for damaged files.
DAMAGE = (
    OSError, ValueError, SyntaxError, EOFError, MemoryError, OverflowError, TypeError, LookupError, AttributeError,
    RuntimeError, ZeroDivisionError, AssertionError, struct.error,
)  # fmt: skip
# TIFF tags: bits, sample ranges (for integers; for any type), type of number, GDAL's value for missing pixels.
BITS_PER_SAMPLE, MIN_SAMPLE, MAX_SAMPLE, SMIN_SAMPLE, SMAX_SAMPLE = 258, 280, 281, 340, 341
SAMPLE_FORMAT, GDAL_NODATA = 339, 42113
SIGNED = 2  # value of SAMPLE_FORMAT
INTEGER_RANGES = (255, 4095, 65535)
BLACK = 255 / 16  # a picture without a brighter pixel shows nothing
NEARLY = 1.01  # resampling leads slightly beyond 0..1

Range = tuple[float, float]


class RangeError(ValueError):
    """Values whose range is unknown."""


def picture_rgb(picture: Image.Image) -> np.ndarray:
    """The pixels of a Pillow image of any mode; RangeError for values of unknown range, and Pillow's errors."""
    picture.load()  # turns a TIFF upright, and then removes its orientation
    return upright(_colours(picture), orientation(picture))


def array_rgb(array: np.ndarray) -> np.ndarray:
    """The pixels of an array (H, W), (H, W, 1), grey and alpha (H, W, 2), RGB (H, W, 3) or RGBA (H, W, 4).

    RangeError for values of unknown range. An RGB array of uint8 is returned as it is.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype != np.uint8:
        array = to_bytes(array)
    if array.ndim == 3 and array.shape[2] == 3:
        return np.ascontiguousarray(array)
    return _colours(Image.fromarray(np.ascontiguousarray(array)))


def to_bytes(values: np.ndarray, stated: Range | None = None) -> np.ndarray:
    """Integers or floating-point numbers of any shape as uint8, by the rule of this module.

    `stated`: the range that the file states, used if it holds the values.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise RangeError("holds no finite value")
    low, high = float(finite.min()), float(finite.max())
    real = not np.issubdtype(values.dtype, np.integer)
    bounds = stated if stated is not None and stated[0] <= low and high <= stated[1] else _range(low, high, real=real)
    if bounds is None:
        found = f"{low:.6g} to {high:.6g}" if real else f"{low:.0f} to {high:.0f}"
        raise RangeError(
            f"holds values from {found}; expected "
            + ("numbers from 0 to 1 or 0 to 255, or" if real else "whole numbers from 0 to 65535, or")
            + " the range in the TIFF tags SMinSampleValue and SMaxSampleValue"
        )
    if values.dtype == np.uint16 and values.ndim == 3 and bounds[1] == 65535:
        return (values >> 8).astype(np.uint8)  # as all decoders do with colours of 16 bits
    scaled = (values.astype(np.float64) - bounds[0]) * (255 / (bounds[1] - bounds[0]))
    return np.clip(np.nan_to_num(scaled).round(), 0, 255).astype(np.uint8)


def upright(image: np.ndarray, value: int) -> np.ndarray:
    """An image (H, W, 3) turned as an EXIF orientation says; C-contiguous."""
    return np.ascontiguousarray(UPRIGHT[value](image)) if value in UPRIGHT else image


def orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 if there is none."""
    try:
        value = picture.getexif().get(EXIF_ORIENTATION, 1)
    except DAMAGE:
        return 1  # the pixels may be fine even if the EXIF block is damaged
    return value if isinstance(value, int) else 1


def _range(low: float, high: float, *, real: bool) -> Range | None:
    """The usual range that holds the values, None if there is none."""
    if real:
        if low >= 1 - NEARLY and high <= NEARLY:
            return 0, 1
        # Between 1 and 16, real numbers would be black in 0..255 and too bright in 0..1.
        return (0, 255) if low >= -1 and BLACK < high <= 256 else None
    return next(((0, top) for top in INTEGER_RANGES if low >= 0 and high <= top), None)


def _colours(picture: Image.Image) -> np.ndarray:
    """The pixels of a loaded Pillow image, not turned."""
    mode = picture.mode
    if mode in ("I", "F") or mode.startswith("I;16") or _is_signed(picture):
        values, stated = _values(picture), _stated_range(picture)
        return np.repeat(to_bytes(values, stated)[..., None], 3, axis=2)
    if mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        picture = ImageCms.profileToProfile(picture, lab, rgb, outputMode="RGB") or picture
    elif mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layer = (picture.convert("LA") if mode == "La" else picture).convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return np.ascontiguousarray(np.asarray(picture.convert("RGB")))


def _is_signed(picture: Image.Image) -> bool:
    """Whether a grey TIFF has integers from -128 to 127, which Pillow gives as if without sign."""
    return picture.mode == "L" and _number(_tags(picture).get(SAMPLE_FORMAT)) == SIGNED


def _values(picture: Image.Image) -> np.ndarray:
    """The values of a grey image of more than 8 bits, or of 8 with sign; missing ones as NaN."""
    values = np.asarray(picture)
    if picture.mode == "L":
        values = values.view(np.int8)
    nodata = _number(_tags(picture).get(GDAL_NODATA))
    if nodata is None or not (values == nodata).any():
        return values
    return np.where(values == nodata, np.nan, values.astype(np.float64))


def _stated_range(picture: Image.Image) -> Range | None:
    """The range of values that a TIFF states, None if it states none."""
    tags = _tags(picture)
    low, high = (_number(tags.get(s, tags.get(u))) for s, u in ((SMIN_SAMPLE, MIN_SAMPLE), (SMAX_SAMPLE, MAX_SAMPLE)))
    if picture.mode == "F":
        low = 0.0 if low is None else low
        return (low, high) if high is not None and low < high else None
    bits = _number(tags.get(BITS_PER_SAMPLE))
    if low is not None and high is not None and low < 0 < high:
        return low, high
    if high is not None and high > 255:  # many write the greatest value of the picture, not of the range
        return 0, 2 ** math.ceil(math.log2(high + 1)) - 1
    return (0, 2**bits - 1) if bits is not None and 8 < bits < 16 else None


def _tags(picture: Image.Image) -> dict[int, object]:
    return dict(getattr(picture, "tag_v2", {}))


def _number(value: object) -> float | None:
    """A finite number of a TIFF tag, which may be text, a fraction or one value per channel."""
    if isinstance(value, tuple | list):
        value = value[0] if value else None
    if not isinstance(value, str | SupportsFloat):
        return None
    with contextlib.suppress(ValueError, ZeroDivisionError, OverflowError):
        number = float(value.strip("\0 ") if isinstance(value, str) else value)
        return number if math.isfinite(number) else None
    return None
