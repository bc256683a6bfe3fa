"""A thousand hostile inputs: read correctly or refused in one line. ``python -m tests.stress.fuzz`` runs more."""

import os
import random
from pathlib import Path

import pytest

from tests.stress import fuzz
from tests.stress.fuzz_kinds import KINDS, require

pytestmark = pytest.mark.slow

SHARES = {"annotations": 300, "configs": 200, "data": 200, "checkpoints": 200, "darknet": 500, "images": 100}


@pytest.mark.parametrize("kind", SHARES)
def test_hostile_input_is_read_correctly_or_refused(kind: str) -> None:
    report = fuzz.run(fuzz.cases(SHARES[kind], 0, [kind]))
    assert report.findings == []
    assert report.count == SHARES[kind] and report.read[kind] > 0 and report.refused[kind] > 0


class Faulty:
    """A kind whose cases have every fault that is checked for."""

    named = ("file",)
    loud = False
    number = 0

    def __init__(self, folder: Path) -> None:
        pass

    def case(self, rng: random.Random) -> None:
        """One fault after the other."""
        number = Faulty.number
        Faulty.number += 1
        if number == 0:
            raise KeyError("file")
        if number == 1:
            raise ValueError("file: two\nlines")
        if number == 2:
            raise ValueError("nowhere")
        if number == 3:
            require(False, "it is wrong")
        if number == 4:
            os.write(2, b"file")
        if number == 5:
            while True:
                pass
        raise ValueError("file: as it should be")


def test_every_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "faulty", Faulty)
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    Faulty.number = 0
    report = fuzz.run(fuzz.cases(7, 10, ["faulty"]))
    words = ["KeyError", "no line", "where", "wrong", "says stderr", "more than"]
    assert [word in finding for word, finding in zip(words, report.findings, strict=True)] == [True] * 6
    assert [finding.split(": ")[0] for finding in report.findings] == [f"faulty:{10 + k}" for k in range(6)]
