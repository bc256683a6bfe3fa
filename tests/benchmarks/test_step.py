"""benchmarks/step.py: the time of a step by operator."""

import time

import torch

from benchmarks.step import operator_table


def test_the_time_of_an_operator_is_what_it_takes():
    """A large product beside a small sum, and a pause of Python."""
    large, small = torch.randn(600, 600), torch.randn(8)

    def step() -> None:
        torch.mm(large, large)
        small + small
        time.sleep(0.02)

    rows = operator_table({"one": step, "other": lambda: torch.mm(large, large)}, rounds=3).splitlines()
    assert rows[0] == "| operator, ms | one | other |"
    found = {
        name.strip(): [float(each) for each in values]
        for name, *values in (row.strip("|").split("|") for row in rows[2:])
    }
    assert "add" not in found and all(each > 0 for each in found["mm"])
    assert found["Python and autograd"][0] >= 20 > found["Python and autograd"][1]
    one = found["all"][0]
    assert abs(one - found["mm"][0] - found["Python and autograd"][0]) < 0.2
