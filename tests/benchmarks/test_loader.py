"""The loaders' benchmark: its table, and a run of our side alone."""

import pytest

from benchmarks import loader
from tests.support.checkpoints import write_data
from tests.support.scripts import run


def epoch(images: int, seconds: float, processor: float) -> dict[str, float]:
    return {"images": images, "seconds": seconds, "processor": processor}


def test_a_row_has_medians_of_both_sides_and_of_the_ratios():
    """Of 200 images, 4, 5 and 6 ms of ours against 10, 15 and 9; 100, 50 and 200 images/s against 50."""
    row = {"imgsz": 320, "cache": "off", "workers": 2}
    found = [
        [epoch(200, 2, 0.8), epoch(200, 4, 2.0)],
        [epoch(200, 4, 1.0), epoch(200, 4, 3.0)],
        [epoch(200, 1, 1.2), epoch(200, 4, 1.8)],
    ]
    expected = "| 320 | off | 2 | 5.00 | 10.00 | 2.50 (1.50 to 3.00) | 100 | 50 | 2.00 (1.00 to 4.00) |"
    assert loader.report(row, found) == expected
    assert loader.report(row, [each[:1] for each in found]) == "| 320 | off | 2 | 5.00 | 100 |"


@pytest.mark.slow
def test_our_side_alone(here, capsys):
    data = write_data(here / "data")
    options = ("--imgsz", 64, "--cache", "off", "ram", "--workers", 0, "--rounds", 1, "--batch", 2)
    assert run(loader.main, "loader", "--data", data, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| imgsz | cache | workers | ours, ms | ours, images/s |"
    assert [line.split(" | ")[:3] for line in lines[2:]] == [["| 64", "off", "0"], ["| 64", "ram", "0"]]
