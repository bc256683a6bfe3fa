"""Run folders and atomic writes."""

import threading
from pathlib import Path

import pytest

from core import files
from core.files import increment_path


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
