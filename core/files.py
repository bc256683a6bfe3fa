"""Files: atomic writes, the lock of a run folder, and questions about paths that users name."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: two processes in one run folder are not noticed there
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
UNFINISHED = ".unfinished"


@contextlib.contextmanager
def replacing(path: str | os.PathLike, mode: str = "wb", **options: Any) -> Iterator[IO]:
    """Open a file that takes the place of ``path`` at the end of the block: at any moment there is the old or the new.

    The new one is on the disk before it is renamed, and so is the renaming before the block is left. An error in the
    block leaves the old file as it was.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}{UNFINISHED}")
    try:
        with open(temporary, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows opens no folders, some network disks do not sync them
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in one step."""
    with replacing(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def lock_run_folder(folder: Path) -> IO:
    """Keep other processes out of a run folder for as long as the returned file is open; remove what killed ones left.

    The lock is the system's: it goes with the process, however that ends, and is not handed down to data workers.
    Raises ValueError where another process holds the folder.
    """
    file = open(folder / LOCK, "a+", encoding="ascii")  # noqa: SIM115 - it is the lock, open as long as it is held
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read(20).strip() or "unknown"
            file.close()
            raise ValueError(
                f"{folder}: a training is running in this folder (process {owner}); expected one that is free: wait "
                "for it to end, or choose another --name"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        for left in folder.rglob(f".*{UNFINISHED}"):
            left.unlink(missing_ok=True)
    return file


def is_locked(folder: Path) -> bool:
    """Whether another process has claimed a run folder; never on Windows."""
    if fcntl is None or not (folder / LOCK).is_file():
        return False
    with open(folder / LOCK, "r+", encoding="ascii") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def path_exists(path: str | os.PathLike[str], *, folder: bool) -> bool:
    """Whether a folder, or a file, of this name exists; False if the name is longer than the system allows."""
    try:
        return Path(path).is_dir() if folder else Path(path).is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def expand_user(path: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` or `~user` replaced; ValueError for an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{os.fspath(path)}: unknown user, there is no home folder of this name") from error


def user_cache_folder() -> Path:
    """The folder for caches of this project: $XDG_CACHE_HOME/yolo-mish, by default ~/.cache/yolo-mish."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yolo-mish"
