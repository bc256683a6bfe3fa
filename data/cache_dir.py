"""Where things made from the data are kept between runs, and what tells one content from another."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
from pathlib import Path

from core.progress import progress_bar

CHUNK = 8 << 20


def cache_folder(beside: str | Path) -> Path:
    """The folder for caches of an annotation file: `.cache` beside it, or in the user's cache folder if that is not
    writable."""
    near = Path(beside).absolute().parent / ".cache"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolo-mish"
    for folder in (near, home):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    last = Path(tempfile.gettempdir()) / "yolo-mish"
    with contextlib.suppress(OSError):
        last.mkdir(exist_ok=True)
    return last


def is_there(path: str | Path, *, folder: bool) -> bool:
    """Whether there is a file, or a folder; a name that is longer than any can be names none."""
    try:
        return Path(path).is_dir() if folder else Path(path).is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def content_hash(path: str | Path, *, progress: bool = False) -> str:
    """SHA-256 of a file's content in hexadecimal."""
    digest = hashlib.sha256()
    size = os.path.getsize(path)
    nothing: tuple[bytes, ...] = ()
    bar = progress_bar(nothing, f"reading {Path(path).name}", total=size, unit="B", show=progress and size > 64 << 20)
    with open(path, "rb") as file, bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
