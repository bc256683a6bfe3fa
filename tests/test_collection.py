"""Test files can be collected in any order: none of them shadows a package of the project."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = ("tests/models/test_blocks.py", "tests/configs/test_schema.py")


@pytest.mark.slow
def test_order_of_files_does_not_matter(warm_python: str) -> None:
    """Not the order of a whole run, in which tests/configs comes before tests/models."""
    command = [warm_python, "-m", "pytest", "-n", "0", "-q", "--collect-only", *FILES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_folder_of_tests_has_fast_tests() -> None:
    """At least one file in each folder is not marked slow as a whole."""
    for folder in {path.parent for path in (ROOT / "tests").rglob("test_*.py")}:
        texts = [path.read_text(encoding="utf-8") for path in folder.glob("test_*.py")]
        assert any("pytestmark = pytest.mark.slow" not in text for text in texts), folder
