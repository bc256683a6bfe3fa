"""Isolated timing: what is timed and in which order, and a short real measurement."""

import csv
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from comparison.step_timing import WARMUP_ROUNDS, interleave, main, preload, summary
from configs.schema import load
from core.seal import seal_of
from tests.support.checkpoints import write_data
from tests.support.scripts import run

pytestmark = pytest.mark.slow


class Machine:
    """A clock advanced by the steps, each of which is slower than the one before by `drift`."""

    def __init__(self, drift: float) -> None:
        self.now, self.drift, self.taken = 0.0, drift, []

    def step(self, name: str, seconds: float):
        def take(batch: str) -> None:
            self.now += seconds * (1 + self.drift) ** len(self.taken)
            self.taken.append((name, batch))

        return take


def test_rounds_are_in_random_order_and_share_batches() -> None:
    def taken(seed: int) -> list[tuple[str, str]]:
        machine = Machine(0.0)
        steps = {name: machine.step(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
        ends: list[float] = []
        times = interleave(
            steps, ["x", "y", "z"], rounds=60, block=2, seed=seed, clock=lambda: machine.now,
            end_of_round=lambda: ends.append(machine.now),
        )  # fmt: skip
        assert {name: {round(each) for each in values} for name, values in times.items()} == {
            "a": {1000}, "b": {2000}, "c": {3000},
        }  # fmt: skip
        assert ends == pytest.approx([12.0 * (number + 1) for number in range(60 + WARMUP_ROUNDS)])
        return machine.taken[6 * WARMUP_ROUNDS :]

    counted = taken(0)
    assert counted == taken(0) != taken(1)
    rounds = [counted[first : first + 6] for first in range(0, len(counted), 6)]
    for each in rounds:
        assert sorted(name for name, _ in each[::2]) == ["a", "b", "c"]
        batches = [batch for _, batch in each]
        assert batches[:2] == batches[2:4] == batches[4:]
    before = [(one[0], other[0]) for one, other in pairwise(counted[::2]) if one[0] != other[0]]
    assert len(set(before)) == 6  # every network follows every other


def test_ratios_are_robust_to_drift() -> None:
    machine = Machine(0.004)
    steps = {name: machine.step(name, seconds) for name, seconds in (("a", 1.0), ("b", 1.2))}
    rows = summary(interleave(steps, ["x"], rounds=30, block=2, clock=lambda: machine.now), batch=4)
    assert rows[0].ratio == rows[0].low == rows[0].high == 1.0
    assert rows[1].low < 1.2 < rows[1].high and rows[1].ratio == pytest.approx(1.2, rel=0.003)


def test_a_real_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path, train=8)
    options = ["--data", data, "--imgsz", 64, "--batch", 2, "--rounds", 3, "--block", 1, "--output", tmp_path / "out"]
    acts = ["relu", "{name: swish, learnable: true}", "mish"]
    assert run(main, "comparison.step_timing", "--acts", *acts, "--norm-act", "fused", "plain", *options) == 0
    content = json.loads((tmp_path / "out/timing.json").read_text())
    labels = [row["label"] for row in content["rows"]]
    assert labels == ["relu, fused", "relu, plain", "swish(learnable=true), plain", "mish, fused", "mish, plain"]
    assert content["other_cores"] >= 0 and content["seal"] == seal_of(content, b"")
    assert content["batches_per_epoch"] == {"train": 4, "val": 3}
    for row in content["rows"]:
        assert len(content["times_ms"][row["label"]]) == 3 and row["least_ms"] <= row["median_ms"]
        assert row["low"] <= row["ratio"] <= row["high"]
    assert content["rows"][3]["implementation"].startswith("ops.norm_act") != content["rows"][4][
        "implementation"
    ].startswith("ops.norm_act")
    with open(tmp_path / "out/timing.csv", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == labels
    assert all(label in capsys.readouterr().out for label in labels[:1])


def test_batches_have_the_shape_of_those_in_training(tmp_path: Path) -> None:
    given = {"data": str(write_data(tmp_path, train=8)), "train.imgsz": 128, "train.batch": 1}
    for rect in (False, True):
        batches, _, _ = preload(load("yolo-mish.yaml", {**given, "train.rect": rect}), torch.device("cpu"))
        shapes = [tuple(batch.images.shape[2:]) for batch in batches]
        assert (set(shapes) == {(128, 128)}) == (not rect) and all(max(shape) == 128 for shape in shapes)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--acts", "mich"], "mich.*mish"),
        (["--acts", "relu", "relu"], "duplicate"),
        (["--acts", "relu", "--rounds", "1"], "2"),
    ],
)
def test_invalid_arguments(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(main, "comparison.step_timing", *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(said, error)
