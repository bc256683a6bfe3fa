"""Run folders and atomic writes."""

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core import files
from core.files import increment_path, is_disk_full, make_run_folder, write_text


def test_folders_are_numbered(tmp_path):
    created = [increment_path(tmp_path / "runs" / "train", "exp").name for _ in range(3)]
    assert created == ["exp", "exp2", "exp3"]
    assert increment_path(tmp_path / "runs" / "train", "exp", exist_ok=True).name == "exp"
    assert increment_path(tmp_path, "a/b").is_dir()


def test_runs_started_at_once_get_different_folders(tmp_path):
    created: list[Path] = []
    start = threading.Barrier(8)

    def create() -> None:
        start.wait()
        created.append(increment_path(tmp_path, "exp"))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == len(set(created)) == 8


def test_impossible_folders_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    for project, name, exist_ok in (
        (tmp_path / "file", "exp", False),
        (tmp_path / "file" / "deep", "exp", False),
        (tmp_path, "file", True),
        (tmp_path, "../outside", False),
        (tmp_path, "/absolute", False),
        (tmp_path, "", False),
    ):
        with pytest.raises(ValueError, match="expected|cannot"):
            increment_path(project, name, exist_ok)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    path.write_text("old")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        files.write_text(path, "new")
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("before", [None, "old"])
def test_a_full_disk_names_the_file_and_leaves_the_old_one(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.csv"
    if before is not None:
        path.write_text(before)
    monkeypatch.setattr("core.files.open", lambda *_, **__: open("/dev/full", "w"), raising=False)  # noqa: SIM115
    with pytest.raises(OSError, match=r"results\.csv cannot be written: No space left") as caught:
        write_text(path, "new")
    assert caught.value.errno == errno.ENOSPC and ("intact" in str(caught.value)) == (before is not None)
    assert not path.exists() if before is None else path.read_text() == before


def test_a_quota_that_is_used_up_is_a_full_disk() -> None:
    full = [OSError(errno.ENOSPC, "x"), OSError(errno.EDQUOT, "x")]
    other = [OSError(errno.EACCES, "x"), OSError("x"), ValueError("x")]
    assert [is_disk_full(error) for error in [*full, *other]] == [True, True, False, False, False]


@pytest.mark.parametrize("name", ["config.yaml", "results.csv", "weights/last.pt"])
def test_a_run_does_not_take_the_folder_of_another_program(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "weights").mkdir(parents=True)
    assert make_run_folder(tmp_path, "mine", exist_ok=True) == folder  # nothing in it
    (folder / name).write_text("my settings")
    with pytest.raises(ValueError, match=f"{name}.*--name"):
        make_run_folder(tmp_path, "mine", exist_ok=True)
    assert make_run_folder(tmp_path, "mine", exist_ok=False) == tmp_path / "mine2"
    (folder / "run.json").write_text("{}")
    assert make_run_folder(tmp_path, "mine", exist_ok=True) == folder


HOLD = """
import sys, time
from pathlib import Path
from core import files
if sys.argv[2] == "windows":
    files.POSIX = False
held = files.lock_run_folder(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("system", ["posix", "windows"])
def test_a_run_folder_belongs_to_one_process_until_it_ends(tmp_path, monkeypatch, system):
    """With and without fcntl, which Windows lacks."""
    if system == "windows":
        monkeypatch.setattr(files, "POSIX", False)
    (tmp_path / f".last.pt.1{files.UNFINISHED}").write_text("half")
    assert not files.is_locked(tmp_path)
    command = [sys.executable, "-c", HOLD, str(tmp_path), system]
    with subprocess.Popen(
        command, cwd=files.__file__.rsplit("core", 1)[0], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        owner = f"process {process.pid}" if system == "posix" else "another process"
        assert files.is_locked(tmp_path) and not list(tmp_path.glob(f".*{files.UNFINISHED}"))
        with pytest.raises(ValueError, match=rf"locked by {owner}; .* choose another --name"):
            files.lock_run_folder(tmp_path)
        process.kill()
        process.wait()
    assert not files.is_locked(tmp_path)
    held = files.lock_run_folder(tmp_path)
    held.close()
    assert not files.is_locked(tmp_path)


APPEND = """
import sys
from pathlib import Path
from core import files
if sys.argv[2] == "windows":
    files.POSIX = False
    import filelock
print("ready", flush=True)
sys.stdin.readline()
for _ in range(200):
    with files.appending(Path(sys.argv[1])) as file:
        file.seek(0)
        file.write(b"%d\\n" % len(file.read()))
"""


@pytest.mark.parametrize("system", ["posix", "windows"])
def test_processes_that_append_to_a_file_wait_for_each_other(tmp_path, system):
    """Each line is the size of the file before it: of two that had read the same file, one would be wrong."""
    path = tmp_path / "lines"
    command = [sys.executable, "-c", APPEND, str(path), system]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=files.__file__.rsplit("core", 1)[0], **pipes) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    size, lines = 0, path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 400
    for line in lines:
        assert int(line) == size
        size += len(line)
