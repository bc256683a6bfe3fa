"""Tuning before a comparison: equal budgets, fresh seeds, held-out images, the frozen choice, the report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import compare
from comparison import runner, tuning
from comparison.choices import Tuning, TuningCurve, TuningSummary
from comparison.cli_spec import arms_from
from comparison.journal import note
from comparison.plan import Plan, read_plan
from comparison.report import report, summarise
from comparison.runs import Run
from comparison.summary import PRIMARY, Timing
from configs.cli import overrides
from configs.schema import load
from tests.comparison.made_runs import declare, edit_record, plan_of, write_comparison, write_run
from tests.comparison.test_runner import STUB
from tests.support.checkpoints import write_data
from tests.support.scripts import run

SMALL = ("--imgsz", 64, "--batch", 4, "--workers", 0, "--amp", "off", "--epochs", 1, "--probe", 0, "--device", "cpu")
LR = "train.lr=0.001,0.002,0.004"
COMMON = load("yolo.yaml").train.lr


def grid_of(*words: str) -> tuning.Grid:
    arguments = compare.parse(list(words))
    given = overrides(arguments)
    return tuning.grid_from(arguments, arms_from(arguments, given), given)


def outcomes(grid: tuning.Grid, scores: dict[str, dict[float, list[float | None]]]) -> list[Run]:
    """Runs of the tuning with these mAPs by arm and value; None for a failed run."""
    runs = []
    for act, by_value in scores.items():
        for value, each in by_value.items():
            for seed, score in zip(grid.plan.seeds, each, strict=True):
                rows = () if score is None else ({"epoch": 1.0, PRIMARY: 0.9}, {"epoch": 2.0, PRIMARY: score})
                status = "failed" if score is None else "finished"
                label = f"{act}, train.lr={value}"
                runs.append(Run(folder=Path(label), act=label, seed=seed, status=status, record={}, rows=rows))
    return runs


def test_every_arm_gets_the_same_values_and_seeds_and_no_validation_image() -> None:
    grid = grid_of("--acts", "relu", "mish", "--tune", LR, "--tune-seeds", "3")
    plan = grid.plan
    assert plan.seeds == (1000, 1001, 1002) and len(plan.runs) == 2 * 3 * 3
    tried = [(plan.arms[each.act]["model.act"], plan.arms[each.act]["train.lr"], each.seed) for each in plan.runs]
    assert sorted(tried) == [
        (act, value, seed) for act in ("mish", "relu") for value in (0.001, 0.002, 0.004) for seed in plan.seeds
    ]
    assert all(plan.overrides_of(each)["train.holdout"] == tuning.HOLDOUT for each in plan.runs)
    assert "train.lr" in plan.varies and grid.common == COMMON


def test_the_largest_mean_of_the_last_epoch_is_chosen() -> None:
    grid = grid_of("--acts", "relu", "mish", "--tune", LR)
    scores: dict[str, dict[float, list[float | None]]] = {
        "relu": {0.001: [0.30, 0.30], 0.002: [0.20, 0.41], 0.004: [0.25, 0.25]},  # means 0.30, 0.305, 0.25
        "mish": {0.001: [0.40, 0.20], 0.002: [0.30, 0.30], 0.004: [None, 0.90]},  # a tie; the third failed once
    }
    chosen = tuning.choose(grid, outcomes(grid, scores), common_trained=False)
    assert chosen.chosen == {"relu": 0.002, "mish": 0.001} and chosen.scores["mish"][2] == (None, 0.90)
    scores["mish"] = {value: [None, 0.5] for value in (0.001, 0.002, 0.004)}
    with pytest.raises(ValueError, match=r"every value of train\.lr failed for mish"):
        tuning.choose(grid, outcomes(grid, scores), common_trained=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tune", "train.lr=0.001"], "two or more values"),
        (["--tune", "train.lrr=0.001,0.002"], "train.lrr"),
        (["--tune", "train.lr=0.001,-1"], "train.lr"),
        (["--tune", "train.seed=1,2"], "set by the comparison itself"),
        (["--tune", LR, "--tune-seeds", "0"], "--tune-seeds 0"),
        (["--tune", LR, "--seeds", "0,1001"], "seed 1001 is one of --seeds"),
        (["--tune", LR, "--budget", "time"], "--budget time"),
        (["--tune", LR, "--set", "train.holdout=0.1"], "--tune: with train.holdout=0.1"),
    ],
)
def test_invalid_tuning(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        grid_of("--acts", "relu", "mish", *words)
    assert "\n" not in str(error.value)


def test_arms_that_set_the_tuned_key_are_refused() -> None:
    with pytest.raises(ValueError, match="the arms differ in it already"):
        grid_of("--arm", "A", "train.lr=0.001", "--arm", "B", "augment.mosaic=0", "--tune", LR)


@pytest.mark.slow
def test_the_choice_is_frozen_before_fresh_seeds_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner.train_all, "__kwdefaults__", {**runner.train_all.__kwdefaults__, "trainer": STUB})
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    folder = tmp_path / "runs/compare/exp"
    (folder / "tuning").mkdir(parents=True)
    behaviour = {"relu_train.lr=0.004-s1000": {"map": 0.5}, "mish_train.lr=0.001-s1000": {"map": 0.5}}
    (folder / "tuning/behaviour.json").write_text(json.dumps(behaviour))
    words = ["--acts", "relu", "mish", "--seeds", 2, "--tune", LR, "--data", write_data(tmp_path), *SMALL]
    assert run(compare.main, "compare.py", *words, "--tune-common") == 0
    plan = read_plan(folder)
    assert plan is not None and plan.tuning is not None
    assert plan.tuning.chosen == {"relu": 0.004, "mish": 0.001} and plan.tuning.common == COMMON
    assert {each.act: plan.overrides_of(each)["train.lr"] for each in plan.runs} == {"relu": 0.004, "mish": 0.001}
    assert all("train.holdout" not in plan.overrides_of(each) for each in plan.runs)
    written, begun = (
        (folder / "plan.json").stat().st_mtime,
        json.loads((folder / "started.jsonl").read_text().splitlines()[0])["time"],
    )
    tuned = [json.loads(line)["time"] for line in (folder / "tuning/started.jsonl").read_text().splitlines()]
    assert max(tuned) <= written <= begun and len(tuned) == 2 * 3 * 2
    out = capsys.readouterr().out
    assert "relu, mish chose the end of the range" in out or "relu and mish chose the end of the range" in out
    report = json.loads((folder / "report.json").read_text())
    assert report["tuning"]["curves"][0]["means"] == [10.0, 10.0, 30.0] and report["tuning"]["curves"][0]["chosen"] == 2
    assert len(report["tuning"]["common_verdicts"]) == 1
    common = read_plan(folder / "common")
    assert common is not None and {common.overrides_of(each)["train.lr"] for each in common.runs} == {COMMON}

    (folder / "tuning/behaviour.json").write_text(json.dumps({"mish_train.lr=0.002-s1000": {"map": 0.9}}))
    before = len(tuned)
    assert run(compare.main, "compare.py", *words, "--tune-common") == 0  # resumed: nothing is chosen again
    assert read_plan(folder) == plan
    assert len((folder / "tuning/started.jsonl").read_text().splitlines()) == before
    assert run(compare.main, "compare.py", *words[:-2], "--device", "cpu", "--tune", "train.lr=0.001,0.002") == 2


def test_the_page_shows_the_curve_and_what_was_not_run(tmp_path: Path) -> None:
    from comparison import figure_style, figures, render, wording
    from comparison.analysis import analyse
    from comparison.runs import read_runs

    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(2))
    tuned = Tuning(
        key="train.lr", values=(0.001, 0.004), seeds=(1000,), holdout=0.2, common=0.001, common_trained=False,
        scores={"relu": ((0.3,), (0.2,)), "mish": ((None,), (0.4,))}, chosen={"relu": 0.001, "mish": 0.004},
    )  # fmt: skip
    curves = (
        TuningCurve(act="relu", means=(30.0, 20.0), runs=((30.0,), (20.0,)), chosen=0, at_edge=True),
        TuningCurve(act="mish", means=(None, 40.0), runs=((None,), (40.0,)), chosen=1, at_edge=True),
    )
    shown = TuningSummary(
        key="train.lr", values=(0.001, 0.004), common=0.001, curves=curves, common_verdicts=(),
        words=wording.captions.tuning(tuned, curves, compared=False),
    )  # fmt: skip
    runs, plan = read_runs([tmp_path]), plan_of(("relu", "mish"), range(2), tuning=tuned)
    outcome, larger = analyse(runs, plan)
    summary = summarise(outcome, larger, runs, plan, timing=Timing(), tuning=shown)
    palette = figure_style.Palette(outcome.acts, baseline="relu")
    figure = figures.plot_tuning(shown, palette)
    lines = {tuple(map(float, line.get_ydata())) for line in figure.axes[0].lines}
    assert {(30.0, 20.0), (40.0,)} <= lines and figure.axes[0].get_xscale() == "log"
    page = render.page(summary, {"tuning": figure}, palette)
    assert "was not run (--tune-common)" in page and 'id="tuning"' in page and "failed" in page
    assert "20 % of the training images" in page


LABEL = "{}, train.lr={}"
VARIES = ("model.act", "train.lr")


def write_arms(folder: Path, rates: dict[str, float], *, seeds: range = range(3), **fields: Any) -> Plan:
    """Finished runs of relu and mish at these learning rates, with their plan."""
    write_comparison(folder, gains={"relu": 0.0, "mish": 3.0}, seeds=seeds)
    for file in folder.glob("*/run.json"):

        def change(record: dict[str, Any]) -> None:
            act = record["config"]["model"]["act"]["name"]
            record["config"]["model"]["act"] = act
            record["config"]["train"]["lr"] = rates[act]
            record["config"]["run"] = {"arm": act, "varies": list(VARIES)}

        edit_record(file.parent, change)
    arms = {act: {"model.act": act, "train.lr": rate} for act, rate in rates.items()}
    plan = plan_of(tuple(rates), seeds, varies=VARIES, **fields).model_copy(update={"arms": arms})
    plan.write(folder)
    declare(folder, plan)
    return plan


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A tuned comparison: its runs, those of the tuning, and those at the common value."""
    tuned = Tuning(
        key="train.lr", values=(0.001, 0.004), seeds=(1000,), holdout=0.2, common=0.002, common_trained=True,
        scores={"relu": ((0.3,), (0.4,)), "mish": ((0.5,), (0.2,))}, chosen={"relu": 0.004, "mish": 0.001},
    )  # fmt: skip
    write_arms(tmp_path, {"relu": 0.004, "mish": 0.001}, tuning=tuned)
    write_arms(tmp_path / "common", {"relu": 0.002, "mish": 0.002})
    arms = {}
    for act, rows in tuned.scores.items():
        for rate, (score,) in zip(tuned.values, rows, strict=True):
            place, label = tmp_path / "tuning" / f"{act}_train.lr={rate}-s1000", LABEL.format(act, rate)
            assert score is not None
            write_run(place, act=act, seed=1000, last=score)
            arms[label] = {"model.act": act, "train.lr": rate}
            edit_record(
                place,
                lambda record, label=label: record["config"].update(run={"arm": label, "varies": list(VARIES)}),
            )
    plan_of(tuple(arms), (1000,), varies=VARIES).model_copy(update={"arms": arms}).write(tmp_path / "tuning")
    return tmp_path


def words_of(folder: Path) -> str:
    """What the report says of the tuning."""
    report([folder], folder)
    return " ".join(json.loads((folder / "report.json").read_text())["tuning"]["words"])


def test_a_choice_that_its_runs_confirm_stands(tuned: Path, undrawn: None) -> None:
    assert "cannot be checked" not in words_of(tuned) and "not those of the plan" not in words_of(tuned)


def test_tuning_runs_that_are_gone_or_have_other_scores_are_named(tuned: Path, undrawn: None) -> None:
    shutil.rmtree(tuned / "tuning/relu_train.lr=0.001-s1000")
    assert "missing: relu, train.lr=0.001, seed 1000" in words_of(tuned)
    shutil.rmtree(tuned / "tuning/mish_train.lr=0.004-s1000")
    write_run(tuned / "tuning/mish_train.lr=0.004-s1000", act="mish", seed=1000, last=0.9)
    run = {"arm": LABEL.format("mish", 0.004), "varies": list(VARIES)}
    edit_record(tuned / "tuning/mish_train.lr=0.004-s1000", lambda record: record["config"].update(run=run))
    assert "scores are not those of the plan: mish, train.lr=0.004, seed 1000" in words_of(tuned)
    shutil.rmtree(tuned / "tuning")
    assert "The runs of the tuning are not in this folder" in words_of(tuned)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda place: None, ""),
        (lambda place: note(place, "relu_train.lr=0.001-s1000", "started"), "trained again"),
        (lambda place: shutil.rmtree(place / "relu_train.lr=0.001-s1000"), "relu_train.lr=0.001-s1000: the journal"),
        (lambda place: replaced(place / "relu_train.lr=0.001-s1000"), "are not those of the plan"),
        (lambda place: (place / "journal.jsonl").unlink(), "the journal of the comparison has no such end"),
        (shutil.rmtree, "the runs of the tuning were removed"),
    ],
)
def test_a_tuning_that_was_repeated_or_edited_gives_no_verdict(
    tuned: Path, undrawn: None, change: Callable[[Path], object], reason: str
) -> None:
    for each in ("tuning", "common", "."):
        with_journal(tuned / each)
    change(tuned / "tuning")
    report([tuned], tuned)
    reasons = json.loads((tuned / "report.json").read_text(encoding="utf-8"))["exploratory"]
    assert any(reason in each for each in reasons) if reason else reasons == []


def with_journal(place: Path) -> None:
    """Let the runs of a comparison be those that its journal notes."""
    plan = read_plan(place)
    assert plan is not None
    plan = plan.model_copy(update={"journaled": True})
    plan.write(place)
    declare(place, plan)
    for each in plan.runs:
        note(place, each.name, "started")
        note(place, each.name, "finished")


def replaced(run: Path) -> None:
    """Another run in the place of one of the tuning."""
    varied = json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]["run"]
    shutil.rmtree(run)
    write_run(run, act="relu", seed=1000, last=0.9)
    edit_record(run, lambda record: record["config"].update(run=varied))


def test_an_edited_run_of_the_tuning_is_refused(tuned: Path, undrawn: None) -> None:
    results = tuned / "tuning/mish_train.lr=0.001-s1000/results.csv"
    results.write_text(results.read_text().replace("0.5", "0.6"))
    with pytest.raises(ValueError, match=r"mish_train\.lr=0\.001-s1000: run\.json or results\.csv was changed"):
        report([tuned], tuned)


def test_another_comparison_is_not_that_at_the_common_value(tuned: Path, undrawn: None) -> None:
    assert "with train.lr=0.002 for all:" in words_of(tuned)
    common = tuned / "common"
    shutil.rmtree(common)
    write_arms(common, {"relu": 0.008, "mish": 0.008})
    with pytest.raises(ValueError, match="common: not this comparison at train.lr=0.002.*settings of relu"):
        report([tuned], tuned)
    shutil.rmtree(common)
    write_arms(common, {"relu": 0.002, "mish": 0.002}, seeds=range(5, 8), margin=0.03)
    with pytest.raises(ValueError, match="common: not this comparison at train.lr=0.002.*seeds, margin"):
        report([tuned], tuned)
    shutil.rmtree(common)
    plan = write_arms(common, {"relu": 0.002, "mish": 0.002})
    for file in common.glob("*/run.json"):
        edit_record(file.parent, lambda record: record.update(data={"train": "cc" * 32, "val": "dd" * 32}))
    assert plan.seeds == (0, 1, 2)
    with pytest.raises(ValueError, match="common: not this comparison at train.lr=0.002.*data.train, data.val"):
        report([tuned], tuned)
