"""benchmarks/step.py: the time of a step by operator."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from benchmarks import step


def test_the_time_of_an_operator_is_between_its_call_and_its_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by a second at each look: an operator takes one, a step one more than two for each."""
    ticks = itertools.count()
    monkeypatch.setattr(step, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    x = torch.ones(3, 3)

    def one() -> None:
        torch.mm(x, x)
        torch.mm(x, x)
        x + x

    rows = step.operator_table({"one": one, "other": lambda: torch.mm(x, x)}, rounds=3).splitlines()
    assert rows[0] == "| operator, ms | one | other |"
    found = {
        name.strip(): [float(each) for each in values]
        for name, *values in (row.strip("|").split("|") for row in rows[2:])
    }
    assert found == {
        "all": [7000, 3000], "Python and autograd": [4000, 2000], "mm": [2000, 1000], "add": [1000, 0],
    }  # fmt: skip
