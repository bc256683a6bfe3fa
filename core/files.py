"""Files: atomic writes, run folders and their locks, and questions about paths that users name."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol

try:
    import fcntl

    POSIX = True
except ImportError:  # Windows, where filelock locks run folders
    POSIX = False

LOCK = ".lock"
UNFINISHED = ".unfinished"
RUN_RECORD = "run.json"
WRITTEN = ("config.yaml", "results.csv", "results.png", "weights/last.pt", "weights/best.pt")  # by a run
MIN_FREE = 1 << 20  # bytes, below which a disk is full
MAX_NAME_BYTES = 200  # of a folder; file systems allow 255, and a number may be appended


class Closable(Protocol):
    """What ends when it is closed."""

    def close(self) -> None:
        """End it."""


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def replacing(path: str | os.PathLike, mode: str = "wb", **options: Any) -> Iterator[IO]:
    """Open a file that replaces ``path`` at the end of the block, atomically.

    The data are synced to disk before the file is renamed, and the rename before the block is left. An error in the
    block leaves the old file unchanged; an OSError names the file.
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
    except OSError as error:
        if error.filename is not None or error.errno is None or not error.strerror:
            raise
        intact = "; the previous file is intact" if target.exists() else ""
        raise OSError(error.errno, f"{target} cannot be written: {error.strerror}{intact}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # Windows cannot open folders, some network disks cannot sync them
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def lock_run_folder(folder: Path) -> Closable:
    """Lock a run folder until the returned object is closed, and remove unfinished files of killed processes.

    The operating system holds the lock: it is released when the process ends, however it ends, and is not inherited by
    data workers. Raises ValueError if another process holds it.
    """
    held = _hold_posix(folder) if POSIX else _hold(folder)
    for left in folder.rglob(f".*{UNFINISHED}"):
        left.unlink(missing_ok=True)
    return held


def _hold_posix(folder: Path) -> Closable:
    """A POSIX lock, which unlike flock is not inherited by forked data workers; the file names its process."""
    file = open(folder / LOCK, "a+", encoding="ascii")  # noqa: SIM115 - the open file is the lock
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read(20).strip() or "unknown"
        file.close()
        raise _locked(folder, f"process {owner}") from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _hold(folder: Path) -> Closable:
    from filelock import FileLock, Timeout  # slow to import, and needed on Windows only

    held = contextlib.ExitStack()
    try:
        held.enter_context(FileLock(folder / LOCK, blocking=False))
    except Timeout as error:
        raise _locked(folder, "another process") from error
    return held


def _locked(folder: Path, owner: str) -> ValueError:
    return ValueError(f"{folder}: the run folder is locked by {owner}; wait for it to end or choose another --name")


def is_locked(folder: Path) -> bool:
    """Whether another process has locked a run folder."""
    if not (folder / LOCK).is_file():
        return False
    if not POSIX:
        try:
            _hold(folder).close()
        except ValueError:
            return True
        return False
    with open(folder / LOCK, "r+", encoding="ascii") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextlib.contextmanager
def appending(path: Path) -> Iterator[IO[bytes]]:
    """A file open to read and append to, once no other process has it open in this way."""
    with contextlib.ExitStack() as held:
        if not POSIX:
            from filelock import FileLock

            held.enter_context(FileLock(f"{path}{LOCK}"))
        file = held.enter_context(open(path, "a+b"))
        if POSIX:
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield file


def is_disk_full(error: Exception) -> bool:
    """Whether an error says that a disk, or a user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


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


def check_run_name(name: str) -> None:
    """Raise ValueError for a run name that leads out of its project folder or cannot be a folder name."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise ValueError(f"run name {name!r}: expected a plain folder name; --project says where the folder goes")
    if not name.isprintable() or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in parts):
        raise ValueError(f"run name {name[:40]!r}...: expected printable text of at most {MAX_NAME_BYTES} bytes")


def increment_path(project: str | os.PathLike, name: str = "exp", exist_ok: bool = False) -> Path:
    """Create and return the folder project/name, or project/name2, name3, ... if it exists and not `exist_ok`.

    Creating the folder reserves it, so two runs started at the same time get two folders.
    """
    check_run_name(name)
    first = Path(project) / name
    number = 1
    while True:
        folder = first if number == 1 else first.with_name(f"{first.name}{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=exist_ok)
        except NotADirectoryError as error:
            raise ValueError(f"{folder.parent} cannot be created: a part of the path is a file") from error
        except FileExistsError as error:
            if not folder.parent.is_dir():
                raise ValueError(f"{folder.parent} is a file; expected a folder for the runs") from error
            if exist_ok:
                raise ValueError(f"{folder} is a file; expected a run folder") from error
            number += 1
            continue
        return folder


def make_run_folder(project: str | os.PathLike, name: str, exist_ok: bool) -> Path:
    """Create the folder of a training run as `increment_path` does.

    Raises ValueError for an existing folder with files of a run's names but no run.json: another program's.
    """
    folder = increment_path(project, name, exist_ok)
    taken = [each for each in WRITTEN if (folder / each).exists()]
    if taken and not (folder / RUN_RECORD).is_file():
        raise ValueError(
            f"{folder}: no run folder ({RUN_RECORD} is missing), and --exist-ok would overwrite its "
            f"{', '.join(taken)}; choose another --name"
        )
    return folder
