"""Cache of decoded images in one buffer that all workers share, in memory or in a file on disk."""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from core.files import is_disk_full
from core.progress import map_in_threads
from data.pixels import DECODING_VERSION

MAX_AUTO_BYTES = 4 << 30
MAX_AUTO_FRACTION = 0.25  # of the free memory


def available_memory() -> int:
    """Bytes of memory available without swapping, within the limit of a container; 0 if unknown."""
    free = 0
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        if limit.isdigit():
            used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
            free = min(free, max(0, int(limit) - used))
    except (OSError, KeyError, ValueError):
        if not free and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free


class ImageStore:
    """Images of known shapes in one uint8 buffer. Indexing returns a view; forked workers share the pages."""

    def __init__(self, shapes: Sequence[tuple[int, int]], *, path: Path | None = None):
        """`shapes` are (height, width); `path` is the file for the buffer, None for memory."""
        self.shapes = np.asarray(shapes, np.int64).reshape(-1, 2)
        self.starts = np.concatenate([[0], np.cumsum(self.shapes.prod(axis=1) * 3)])
        self.path = path
        if path is None and sys.platform != "linux":  # spawned workers can only share a file
            handle, name = tempfile.mkstemp(prefix="yolo-mish-images-")
            os.close(handle)
            self.path = Path(name)
            weakref.finalize(self, self.path.unlink, missing_ok=True)
        if self.path is not None and self._file_size() != self.nbytes:
            _make_file(self.path, max(self.nbytes, 1))
        self._buffer = self._map()

    @property
    def nbytes(self) -> int:
        """Total size of all images."""
        return int(self.starts[-1])

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> np.ndarray:
        """Image (H, W, 3) uint8, a view that must not be modified."""
        height, width = self.shapes[index]
        return self._buffer[self.starts[index] : self.starts[index + 1]].reshape(height, width, 3)

    def fill(self, produce: Callable[[int], np.ndarray], *, title: str, progress: bool = True) -> None:
        """Set every image to `produce(index)`, in threads: decoding releases the GIL."""

        def put(index: int) -> None:
            image = produce(index)
            if image.shape[:2] != tuple(self.shapes[index]):
                raise ValueError(f"image {index} has the shape {image.shape[:2]}, expected {tuple(self.shapes[index])}")
            self[index][:] = image

        for _ in map_in_threads(put, len(self), title, show=progress and len(self) >= 200):
            pass

    def _file_size(self) -> int:
        return self.path.stat().st_size if self.path is not None and self.path.exists() else -1

    def _map(self) -> np.ndarray:
        if self.path is not None:
            return np.memmap(self.path, np.uint8, mode="r+")
        # Anonymous shared memory: visible to forked workers and not limited by the small /dev/shm of containers.
        return np.frombuffer(mmap.mmap(-1, max(self.nbytes, 1)), np.uint8)

    def __getstate__(self) -> dict[str, object]:
        if self.path is None:
            raise ValueError("images cached in memory are shared with forked workers only; use workers=0 or cache=disk")
        return {key: value for key, value in self.__dict__.items() if key != "_buffer"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._buffer = self._map()


def _make_file(path: Path, nbytes: int) -> None:
    """Make a file of this size; OSError, naming it, if the disk is too small: a write to the mapped file would kill the
    process."""
    with open(path, "wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, nbytes)
        except OSError as error:
            if is_disk_full(error):
                raise OSError(error.errno, f"{path} cannot be written ({nbytes:,} bytes): {error.strerror}") from error
        file.truncate(nbytes)  # all there is on systems that cannot reserve space


def disk_store(
    shapes: Sequence[tuple[int, int]],
    produce: Callable[[int], np.ndarray],
    *,
    folder: Path,
    key: Sequence[object],
    progress: bool = True,
) -> ImageStore:
    """A store in a file of `folder` whose name contains a hash of `key`, filled if it does not exist yet.

    It is filled under another name and then renamed, so an interrupted process leaves no incomplete cache behind.
    """
    name = f"images-{hashlib.sha256(repr([DECODING_VERSION, *key]).encode()).hexdigest()[:32]}.bin"
    path = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    nbytes = int(np.asarray(shapes, np.int64).reshape(-1, 2).prod(axis=1).sum() * 3)
    if not (path.exists() and path.stat().st_size == nbytes):
        handle, temporary = tempfile.mkstemp(prefix=f".{name}-", dir=folder)
        os.close(handle)
        try:
            store = ImageStore(shapes, path=Path(temporary))
            store.fill(produce, title="caching images on disk", progress=progress)
            del store  # some systems cannot rename a mapped file
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return ImageStore(shapes, path=path)


def choose_cache(cache: str | None, nbytes: int) -> str:
    """`ram`, `disk` or `off` as requested; `auto` is ram if the images fit 4 GiB and a quarter of the free memory."""
    if cache in ("ram", "disk"):
        return cache
    if cache in (None, "off"):
        return "off"
    if cache != "auto":
        raise ValueError(f"cache: {cache!r}, expected auto, ram, disk or off")
    return "ram" if nbytes <= min(int(available_memory() * MAX_AUTO_FRACTION), MAX_AUTO_BYTES) else "off"
