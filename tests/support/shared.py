"""The folder of downloaded data sets, published cfgs and trained weights that some tests compare with."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VARIABLE = "YOLO_MISH_SHARED"


def shared(path: str) -> Path:
    """A path in that folder, or skip the test: none of it belongs to the repository."""
    found = Path(os.environ.get(VARIABLE) or ROOT.parent / "shared") / path
    if not found.exists():
        pytest.skip(f"{found} does not exist; set {VARIABLE} to a folder that contains {path}")
    return found
