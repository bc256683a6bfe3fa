"""The benchmark beside a busy program."""

import pytest

from benchmarks import shared_machine


@pytest.mark.slow
def test_a_table_of_all_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--threads 1 --busy 0 1 --imgsz 64 --batch 1 --seconds 0.1 --rounds 1 --amp off"
    assert shared_machine.main(words.split()) == 0
    _, _, quiet, beside = capsys.readouterr().out.splitlines()
    assert quiet.startswith("| 1 | 0 | ") and quiet.endswith("| 1.00 |") and beside.startswith("| 1 | 1 | ")
    assert float(beside.split("|")[3].split()[0]) > 0
