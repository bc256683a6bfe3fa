"""The text of detections."""

import numpy as np
import pytest

from data.sources import Frame
from engine.detections import Result


@pytest.mark.parametrize(
    ("name", "text"),
    [("cat", "2 cats"), ("box", "2 boxes"), ("猫", "2 猫"), ("قطة", "2 قطة"), ("🐶", "2 🐶"), ("type 2", "2 type 2")],
)
def test_counts_by_class(name: str, text: str) -> None:
    """Only words in Latin letters get the plural of English."""
    frame = Frame(np.zeros((8, 8, 3), np.uint8), "a", "a.jpg", 0)
    boxes, scores, labels = np.zeros((2, 4), np.float32), np.ones(2, np.float32), np.zeros(2, np.int64)
    assert Result(boxes, scores, labels, [name], frame, {}, (8, 8)).summary() == text
