"""The bound of a search: ratios within a round, what enters, what a disturbed or edited measurement does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import compare
from comparison import bound, search
from comparison.arms import Arm, parse_arms
from comparison.bound import Disturbed, ratios_of, read, unlike, within
from comparison.plan import Plan
from comparison.timing_probe import time_steps
from tests.comparison.test_search import ACTS, SEARCH, Killed, space_of, trainer
from tests.support.checkpoints import write_data
from tests.support.scripts import run

NAMES = ("silu", "mish", "hardswish", "leaky_relu", "gelu", "elu")


def arms(*names: str) -> list[Arm]:
    return parse_arms(names, {}, cfg="yolo.yaml")


class Clock:
    """A measurement with these ratios to the baseline in every round, on a machine whose speed drifts."""

    def __init__(self, ratios: Mapping[str, float], *, cores: float | None = 0.0) -> None:
        self.ratios, self.cores, self.calls = {"relu": 1.0, **ratios}, cores, list[list[str]]()

    def __call__(self, timed: Sequence[Arm]) -> Mapping[str, Any]:
        self.calls.append([arm.name for arm in timed])
        times = {arm.name: [4.0 * self.ratios[arm.name] * drift for drift in (1.0, 1.7, 0.8)] for arm in timed}
        return {"times_ms": times, "other_cores": self.cores}


def test_a_ratio_is_the_median_over_rounds_of_that_within_a_round() -> None:
    times = {"relu": [2.0, 4.0, 10.0], "mish": [3.0, 4.4, 12.0], "silu": [2.0, 2.0, 2.0]}
    assert ratios_of({"times_ms": times}) == {"mish": 1.2, "silu": 0.5}  # of 1.5, 1.1, 1.2 and 1, 0.5, 0.2


def test_the_first_within_the_bound_enter_and_nothing_is_measured_twice(tmp_path: Path) -> None:
    (baseline,), batches = arms("relu"), [arms(*NAMES[:3]), arms(*NAMES[3:5]), arms(NAMES[5])]
    clock = Clock({"silu": 1.04, "mish": 1.45, "hardswish": 1.1, "leaky_relu": 1.07, "gelu": 1.0, "elu": 1.0})
    found, inside = within(("onnx", 1.1), baseline, batches, tmp_path, clock, 3)
    assert inside == ["silu", "hardswish", "leaky_relu"]
    assert clock.calls == [["relu", *NAMES[:3]], ["relu", *NAMES[3:5]]]  # as many as are needed
    assert found.ratios == pytest.approx({name: clock.ratios[name] for name in NAMES[:5]}, abs=1e-4)
    assert (found.place, found.limit, found.baseline) == ("onnx", 1.1, "relu") and unlike(found, tmp_path) == []
    assert within(("onnx", 1.1), baseline, batches, tmp_path, clock, 3) == (found, inside) and len(clock.calls) == 2
    assert within(("onnx", 1.1), baseline, batches, tmp_path, clock, 5)[1] == [*inside, "gelu", "elu"]
    assert len(clock.calls) == 3
    with pytest.raises(ValueError, match="measured for onnx"):
        within(("step", 1.1), baseline, batches, tmp_path, clock, 3)
    with pytest.raises(ValueError, match="other mixtures"):
        within(("onnx", 1.1), baseline, batches[1:], tmp_path, clock, 3)


def test_none_within_the_bound_names_the_fastest(tmp_path: Path) -> None:
    (baseline,), clock = arms("relu"), Clock({"silu": 1.3, "mish": 1.25})
    with pytest.raises(ValueError, match=r"onnx=1\.1: none of 2 mixtures .* mish, takes 1\.250 times as long as relu"):
        within(("onnx", 1.1), baseline, [arms("silu"), arms("mish")], tmp_path, clock, 3)


@pytest.mark.parametrize("cores", [0.4, None])
def test_a_disturbed_measurement_does_not_count(tmp_path: Path, cores: float | None) -> None:
    (baseline,), batches = arms("relu"), [arms("silu"), arms("mish")]
    with pytest.raises(Disturbed, match="other processes used"):
        within(("onnx", 2.0), baseline, batches, tmp_path, Clock({"silu": 1.0}, cores=cores), 2)
    assert read(tmp_path) == {}
    clock = Clock({"silu": 1.0, "mish": 1.5})
    assert within(("onnx", 2.0), baseline, batches, tmp_path, clock, 2)[1] == ["silu", "mish"]


def test_an_edited_measurement_is_refused(tmp_path: Path) -> None:
    (baseline,) = arms("relu")
    found, _ = within(("onnx", 2.0), baseline, [arms("silu")], tmp_path, Clock({"silu": 1.25}), 1)
    forged = found.model_copy(update={"ratios": {"silu": 1.2}})
    assert unlike(forged, tmp_path) == ["silu"] == unlike(forged, tmp_path / "none")
    file = tmp_path / bound.FILE
    content = json.loads(file.read_text())
    content["batches"][0]["times_ms"]["silu"][0] = 1.0
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="the seal does not match"):
        read(tmp_path)
    file.write_text("[1, 2")
    with pytest.raises(ValueError, match="damaged"):
        read(tmp_path)


def test_only_mixtures_within_the_bound_race(tmp_path: Path) -> None:
    space = space_of(*ACTS, *SEARCH)
    names = [arm.name for arm in space.arms(space.mixtures)]
    fast = {names[1], names[4], names[13]}
    clock = Clock({name: 1.02 if name in fast else 1.3 for name in names})
    found, mixtures = search.bounded(space, arms("relu")[0], ("onnx", 1.1), tmp_path, clock)
    assert [space.text(each) for each in mixtures] == [names[1], names[4], names[13]]
    assert len(found.ratios) == len(names) == 14 and [len(call) for call in clock.calls] == [13, 3]
    scores = {names[1]: [0.2], names[4]: [0.3, 0.3], names[13]: [0.25, 0.4]}
    chosen = search.race(space, mixtures, tmp_path, trainer(scores, []), bound=found)
    assert chosen.chosen == names[13] and chosen.bound == found and space.matches(chosen, ("onnx", 1.1))
    assert not space.matches(chosen, ("onnx", 1.2)) and not space.matches(chosen, None)
    shown = search.summary_of(chosen)
    assert [row.ratio for row in shown.rows] == [1.02] * 3 and "3 of the 14 that were measured" in " ".join(shown.words)


@pytest.mark.parametrize(("word", "place"), [("relu", "torchscript"), ("mish", "step")])
def test_a_comparison_hands_the_bound_to_the_race(
    here: Path, word: str, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to the first training, which is left out; a disturbed measurement ends with 1 and goes on afterwards."""
    others = [0.7, 0.0]
    asked: list[tuple[object, ...]] = []

    def measure(target: str, threads: int, timed: Sequence[Arm], common: object, *, cfg: str) -> Mapping[str, Any]:
        asked.append((target, threads, timed[0].name))
        slow = [1.0, *(1.0 + 0.01 * number for number in range(1, len(timed)))]
        return {
            "times_ms": {arm.name: [x] for arm, x in zip(timed, slow, strict=True)},
            "other_cores": others.pop(0),
        }

    def steps(plan: Plan, *, rounds: int, environment: Mapping[str, str]) -> Mapping[str, Any]:
        return measure("step", 2, arms(*plan.acts), plan.overrides, cfg=plan.cfg)

    def train(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr("comparison.course.measure_latency", measure)
    monkeypatch.setattr("comparison.timing_probe.time_steps", steps)
    monkeypatch.setattr("comparison.runner.train_all", train)
    words = [*ACTS, "--search", "--budget-runs", 6, "--search-bound", f"{place}=1.045", "--deploy-threads", 2]
    words += ["--probe", 0, "--baseline", word, "--cfg", "yolo.yaml"]
    assert run(compare.main, "compare.py", *words) == 1
    assert "other processes used 0.70 cores" in capsys.readouterr().err
    with pytest.raises(Killed):
        run(compare.main, "compare.py", *words)
    out = capsys.readouterr().out
    assert asked == [(place, 2, word)] * 2 and "4 of 12 mixtures within" in out
    assert "4 with seed 1000, 2 with seed 1001" in out and "6 of at most 6" in out


@pytest.mark.slow
def test_the_training_step_of_mixtures_is_measured(tmp_path: Path) -> None:
    given = {"data": str(write_data(tmp_path)), "train.imgsz": 64, "train.batch": 2, "train.workers": 0}
    space = replace(space_of(*ACTS, *SEARCH), common=given)
    timed = [*parse_arms(["relu"], given, cfg=space.cfg), *space.arms(space.mixtures[:2])]
    content = time_steps(search.round_plan(space, timed, 1), rounds=2)
    assert list(content["times_ms"]) == [arm.name for arm in timed] and "other_cores" in content
    assert set(ratios_of(content)) == {arm.name for arm in timed[1:]} and min(ratios_of(content).values()) > 0


@pytest.mark.slow
def test_the_latency_of_untrained_mixtures_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from comparison import untrained_latency
    from deploy import export
    from engine.contention import OtherProcesses

    exported = []
    real = export.export_file

    def recorded(trained: export.Trained, *rest: Any, **options: Any) -> object:
        exported.append({f"{row.part}.{row.stage}": row.activation for row in trained.census})
        return real(trained, *rest, **options)

    monkeypatch.setattr(export, "export_file", recorded)
    monkeypatch.setattr(OtherProcesses, "cores", lambda self: 0.03)
    space = space_of(*ACTS, *SEARCH)
    mixture = space.mixtures[0]
    words = ["relu", space.text(mixture), "--target", "torchscript", "--rounds", 3, "--output", tmp_path / "found.json"]
    words += ["--imgsz", 64, "--data", write_data(tmp_path)]
    assert run(untrained_latency.main, "untrained_latency", "--acts", *words) == 0
    content = json.loads((tmp_path / "found.json").read_text())
    assert list(content["times_ms"]) == ["relu", space.text(mixture)] and content["other_cores"] == pytest.approx(0.03)
    assert all(len(times) == 3 and min(times) > 0 for times in content["times_ms"].values())
    by_stage = {stage: act for act, group in zip(mixture, space.groups.values(), strict=True) for stage in group}
    assert exported == [dict.fromkeys(by_stage, "relu"), by_stage]
