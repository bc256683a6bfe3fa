"""Fixtures of the tests of data/."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.small_sets import box, write_coco


@pytest.fixture
def tiny(tmp_path: Path) -> SimpleNamespace:
    """Twelve images of several shapes with two boxes each, as a data section of a config."""
    images = {f"{k}.png": (60 + 4 * k, 90 - 3 * k) for k in range(12)}
    annotations = [box(2 * k + j, k + 1, [5 + j * 20, 6, 18, 30], (3, 7)[j]) for k in range(12) for j in (0, 1)]
    path = write_coco(tmp_path / "tiny", images, annotations)
    split = SimpleNamespace(images=str(path.parent / "images"), annotations=str(path))
    return SimpleNamespace(root=str(path.parent), train=split, val=split, test=None, embedded=None)
