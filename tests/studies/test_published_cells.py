"""Cells of the published page, measured again by the code as it is: a default that had changed would change them.

Trainings are chaotic, so that another processor or another PyTorch ends elsewhere; tolerances allow for that.
"""

import csv
from pathlib import Path

import pytest
import torch

from studies.rows import Row, number
from studies.study import load_study

PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "paper"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "chosen", "column", "off_by"),
    [
        ("curves", {"act": "mish"}, "slope", 1e-9),
        ("landscape", {"kind": "outputs", "shape": "shallow", "act": "mish", "seed": 0}, "roughness", 1e-6),
        ("width", {"width": 8, "blocks": 1, "act": "Mish", "seed": 0}, "test_accuracy", 1.5),
        ("width", {"detector": "half of n", "act": "ReLU", "seed": 0}, "map", 4.0),
    ],
)
def test_a_cell_is_what_was_published(study: str, chosen: Row, column: str, off_by: float) -> None:
    (cell,) = (each for each in load_study(study).cells(quick=False) if chosen.items() <= each.items())
    with open(PUBLISHED / f"{study}.csv", newline="", encoding="utf-8") as stream:
        (row,) = (each for each in csv.DictReader(stream) if all(each[key] == str(cell[key]) for key in cell))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = number(load_study(study).measure(dict(cell)), column)
    finally:
        torch.set_num_threads(before)
    assert found == pytest.approx(float(row[column]), abs=off_by)
