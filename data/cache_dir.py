"""Where caches of a data set are kept between runs, and the hash that identifies its content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from core.files import user_cache_folder
from core.progress import progress_bar

CHUNK = 8 << 20


def cache_folder(beside: str | Path) -> Path:
    """The folder for caches of an annotation file: `.cache` next to it, or the user's cache folder if that is not
    writable."""
    for folder in (Path(beside).absolute().parent / ".cache", user_cache_folder()):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    fallback = Path(tempfile.gettempdir()) / "yolo-mish"
    with contextlib.suppress(OSError):
        fallback.mkdir(exist_ok=True)
    return fallback


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
