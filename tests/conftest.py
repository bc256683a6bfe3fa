"""How the tests run: in several processes (pytest-xdist, see pyproject.toml), the longest files first."""

import os

import pytest

LONGEST = ("test_kills.py", "test_compare.py", "test_resume.py", "test_darknet_scripts.py")

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: processes that share the cores, one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no process is left with one at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
