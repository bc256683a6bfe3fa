"""Which files are images, by name and content: one answer for data sets, detection and downloads."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from core.text import printable
from data.pixels import DAMAGE

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
COMPANIONS = frozenset(("classes.txt", "_darknet.labels", "notes.json", "desktop.ini", "thumbs.db"))
HEIC = (b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")  # kinds of ISO media files
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NOT_READ = "which is not read; convert it to JPEG or PNG"


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


def starts_like_an_image(data: bytes) -> bool:
    """Whether the first bytes of a file are those of an image in one of FORMATS."""
    Image.init()
    tests = [Image.OPEN[name][1] for name in FORMATS if name != "DIB"]  # DIB has no signature
    return any(test is not None and test(data[:16]) is True for test in tests)


def is_animation(file: str | os.PathLike[str] | bytes) -> bool:
    """Whether a file, by its path or bytes, is a GIF with more than one picture, which is a video to detection."""
    stream = io.BytesIO(file) if isinstance(file, bytes) else file
    with contextlib.suppress(*DAMAGE), Image.open(stream, formats=["GIF"]) as picture:
        return bool(getattr(picture, "is_animated", False))
    return False


def split_images(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """The images among paths, and the other files that are worth a word, both in the order given.

    Folders, hidden files, and the usual company of images (a.txt or a.xml beside a.jpg, classes.txt) are in neither.
    A symbolic link to a file that does not exist is an image if its name is that of one.
    """
    files = [path for path in paths if not path.name.startswith(".") and (path.is_file() or _is_broken_link(path))]
    images = [path for path in files if is_image(path)]
    stems = {path.with_suffix("") for path in images}
    return images, [path for path in files if path.with_suffix("") not in stems and path.name.lower() not in COMPANIONS]


def _is_broken_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


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


def unread_format(data: bytes) -> str | None:
    """What to say about a file, by its first bytes, that users take for an image but that is not read; else None."""
    text = data[:1024].lstrip().lower()
    if data[4:8] == b"ftyp" and data[8:12] in HEIC and b"avif" not in data[:64]:
        return f"is a HEIC image, {NOT_READ}"
    if data.startswith(TIFFS):
        return "is a TIFF of a kind that is not read; expected grey, RGB or RGBA of 8 or 16 bits, or grey floats"
    if text.startswith(b"<") and b"<svg" in text:
        return f"is an SVG drawing, {NOT_READ}"
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not an image"
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the image itself; run git lfs pull"
    return None
