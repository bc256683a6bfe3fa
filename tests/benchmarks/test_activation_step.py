"""The step's table: the GPU's busy time from a profile, options, figures."""

import pytest

from benchmarks import activation_step
from tests.support.scripts import run


def event(start: float, duration: float, kind: str = "kernel") -> dict[str, object]:
    return {"cat": kind, "ts": start, "dur": duration}


def test_busy_time_counts_parallel_work_once_and_nothing_but_work():
    assert activation_step.covered([]) == 0
    events = [event(5, 10), event(0, 2), event(8, 3), event(14, 4, "gpu_memcpy"), event(30, 1, "gpu_memset")]
    host = [event(0, 100, "cpu_op"), event(0, 100, "gpu_user_annotation"), {"ph": "M", "name": "process_name"}]
    assert activation_step.covered(host + events) == 2 + 13 + 1


def test_the_table_has_a_column_for_a_gpu_only():
    taken = {"mish, fused": [3.0, 2.0, 4.0]}
    assert activation_step.step_table(taken, {}).endswith("\n| mish, fused | 3.0, 2.0 |")
    assert activation_step.step_table(taken, {"mish, fused": 1.5}).endswith("| mish, fused | 3.0, 2.0 | 1.50 |")
    assert activation_step.step_table(taken, {"mish, fused": None}).endswith("| 3.0, 2.0 | unknown |")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--rounds", "0"], "--rounds: found 0"),
        (["--batch", "-1"], "--batch: found -1"),
        (["--imgsz", "33"], "--imgsz: found 33, expected a multiple of 32"),
        (["--device", "cuda:77"], "cuda:77"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_wrong_options_are_one_line(more, said, capsys):
    assert run(activation_step.main, "activation_step.py", *more) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize("more", [["--device", "cpu"], ["--device", "cuda", "--compiled"]])
def test_graphs_that_cannot_be_are_refused(more, capsys):
    assert run(activation_step.main, "activation_step.py", "--graphed", "relu, plain", *more) == 2
    assert "--graphed needs --device cuda, and not --compiled" in capsys.readouterr().err
