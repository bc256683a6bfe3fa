"""How the tests run: in several processes (pytest-xdist, see pyproject.toml), files with slow tests first."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.support.warm_python

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: processes that share the cores, one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files that contain the most slow tests, so that no process is left with one at the end."""
    slow: dict[Path, int] = {}
    for item in items:
        slow[item.path] = slow.get(item.path, 0) - (item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: slow[item.path])


@pytest.fixture(scope="session")
def warm_python() -> Iterator[str]:
    """A program that is called like Python, with the libraries already loaded."""
    with tests.support.warm_python.warm_python() as python:
        yield python


@pytest.fixture
def warm_runs(warm_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes that compare.py starts are of `warm_python`."""
    from comparison.job import ROOT
    from comparison.runner import train_all

    trainer = (warm_python, str(ROOT / "train.py"))
    monkeypatch.setattr(sys, "executable", warm_python)
    monkeypatch.setattr(train_all, "__kwdefaults__", {**train_all.__kwdefaults__, "trainer": trainer})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training without what takes most of the time of a short run."""
    from tests.support.training import leave_out_pictures

    leave_out_pictures(monkeypatch)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set (shapes/, shapes.yaml) and the weights of an untrained detector (best.pt)."""
    from tests.support.checkpoints import class_names, write_checkpoint, write_data

    folder = tmp_path_factory.mktemp("place")
    data = write_data(folder)
    write_checkpoint(folder / "best.pt", data, class_names(folder / "shapes"))
    return folder
