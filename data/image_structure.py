"""Whether an image file is whole, from its structure, which takes a hundredth of the time of decoding it.

A JPEG must have a readable header and end with its end marker; a PNG must consist of whole chunks with their
checksums. What this cannot see is a JPEG with wrong coding tables and a PNG whose content was wrong when it was
compressed. Damaged values within the data of a JPEG are no error for decoders either.
"""

from __future__ import annotations

import contextlib
import os
from io import FileIO

from data.image import JPEG_END, PNG, ImageError, Verified, chunks_hold, open_header, verify_image
from data.limits import MAX_IMAGE_BYTES, MAX_PIXELS_UNCHECKED
from data.pixels import orientation

JPEG = b"\xff\xd8\xff"
HEADER_BYTES, LONG_HEADER_BYTES = 1 << 12, 1 << 17  # read of a JPEG; the latter has room for a thumbnail
START_OF_SCAN, BASELINE, PROGRESSIVE = 0xDA, (0xC0, 0xC1), 0xC2
# Segments of a JPEG without influence on size and colours: quantisation and Huffman tables, restart interval, JFIF,
# Photoshop, Adobe, comments.
OTHER_SEGMENTS = (0xDB, 0xC4, 0xDD, 0xE0, 0xED, 0xEE, 0xFE)
# Modes whose pixels have 8 bits or less: none of their values can be out of range.
MODES = {"JPEG": ("L", "RGB"), "PNG": ("1", "L", "LA", "P", "RGB", "RGBA")}
# In a PNG, these may contain an orientation, for which Pillow decodes the picture.
EXIF_KEYS = (b"eXIf", b"exif", b"xmp")


def inspect_image(path: str | os.PathLike[str]) -> Verified:
    """What `verify_image` finds: from the structure of a JPEG or PNG if that is sound, else by decoding the file.

    Raises ImageError.
    """
    with contextlib.suppress(ImageError, OSError):
        with open(path, "rb", buffering=0) as file:
            found = _read_structure(file)
        if found is not None:
            return found
    return verify_image(path)


def _read_structure(file: FileIO) -> Verified | None:
    """The size of an image whose structure is sound; None if that does not decide."""
    data = file.read(HEADER_BYTES)
    size = file.seek(0, os.SEEK_END)
    if size > MAX_IMAGE_BYTES:
        return None
    if data.startswith(JPEG):
        file.seek(size - len(JPEG_END))
        if file.read() != JPEG_END:
            return None
        plain = _plain_jpeg(data)
        if plain is not None and plain.width * plain.height <= MAX_PIXELS_UNCHECKED:
            return plain
        file.seek(0)
        data = file.read(LONG_HEADER_BYTES)
    elif data.startswith(PNG):
        file.seek(len(data))
        data += file.read()
        if not chunks_hold(data) or any(key in data for key in EXIF_KEYS):
            return None
    else:
        return None
    header = open_header(data, size=size)
    if header.mode not in MODES.get(header.format or "", ()):
        return None
    width, height = header.size
    return Verified(height, width) if orientation(header) in (5, 6, 7, 8) else Verified(width, height)


def _plain_jpeg(data: bytes) -> Verified | None:
    """The size of a JPEG from its first bytes; None if it has metadata or an encoding that need a closer look."""
    place, size = 2, None
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in BASELINE or marker == PROGRESSIVE:
            bits, channels = data[place + 4], data[place + 9]
            height, width = int.from_bytes(data[place + 5 : place + 7]), int.from_bytes(data[place + 7 : place + 9])
            if size is not None or bits != 8 or channels not in (1, 3) or not width * height:
                return None
            size = Verified(width, height)
        elif marker == START_OF_SCAN:
            return size
        elif marker not in OTHER_SEGMENTS:
            return None
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None
