"""A run counts only if it is whole, unchanged, distinct and planned: forgeries of a run folder are found."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comparison.integrity import check_runs, doubts, not_in_plan
from comparison.plan import read_plan
from comparison.report import report, write_report
from comparison.runs import read_runs
from tests.comparison.made_runs import declare, edit_record, plan_of, report_of, seal, write_comparison, write_run

pytestmark = pytest.mark.usefixtures("undrawn")

MAP = "metrics/mAP50-95"
Rows = list[dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A planned comparison of relu and mish with three seeds."""
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 4.0}, seeds=range(3))
    plan = plan_of(("relu", "mish"), range(3))
    plan.write(tmp_path)
    declare(tmp_path, plan)
    return tmp_path


def edit_rows(run: Path, change: Callable[[Rows], Rows], *, resealed: bool = False) -> None:
    """Change results.csv; if `resealed`, as a run that had written it so."""
    file = run / "results.csv"
    with open(file, newline="", encoding="utf-8") as stream:
        rows = change(list(csv.DictReader(stream)))
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if resealed:
        seal(run, json.loads((run / "run.json").read_text(encoding="utf-8")))


def with_value(rows: Rows, key: str, value: object, *, at: int = -1) -> Rows:
    rows[at][key] = value
    return rows


def test_an_unchanged_comparison_has_its_verdict(folder: Path) -> None:
    runs = read_runs([folder])
    check_runs(runs)
    plan = read_plan(folder)
    assert plan is not None
    assert doubts(runs, plan) == () and not_in_plan(runs, folder) == []


def test_a_refusal_names_the_earlier_report(folder: Path) -> None:
    report([folder], folder)
    edit_rows(folder / "mish-s1", lambda rows: with_value(rows, MAP, 0.9))
    with pytest.raises(ValueError, match=r"report\.html is of an earlier state and no longer holds"):
        report([folder], folder)


@pytest.mark.parametrize("resealed", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: with_value(rows, MAP, float(rows[-1][MAP]) + 0.03), "changed|mAP50-95 of the last epoch"),
        (lambda rows: rows[:-2], "changed|epochs 1, 2, 3, 4, 5, 6; expected 1 to 8"),
        (lambda rows: [*rows[:3], *rows[5:]], "changed|epochs"),
        (lambda rows: [rows[0], *rows], "changed|epochs"),
        (lambda rows: rows[::-1], "changed|epochs"),
        (lambda rows: [*rows, rows[0]], "changed|epochs"),
        (lambda rows: with_value(rows, MAP, 63.1, at=2), "changed|mAP50-95 of epoch 3 is 63.1"),
        (lambda rows: with_value(rows, "time_train_s", -3, at=2), "changed|time_train_s"),
        (lambda rows: with_value(rows, "time_train_s", "nan", at=2), "changed|time_train_s"),
        (lambda rows: with_value(rows, MAP, ""), "changed|mAP50-95 of the last epoch is None"),
    ],
)
def test_results_that_are_not_whole_are_rejected(folder: Path, change, words: str, resealed: bool) -> None:
    edit_rows(folder / "mish-s1", change, resealed=resealed)
    with pytest.raises(ValueError, match=f"mish-s1.*({words})"):
        report([folder], folder / "report")


def test_an_edited_record_is_rejected(folder: Path) -> None:
    file = folder / "mish-s2" / "run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["skipped"] = {"val: image damaged": 40}
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ValueError, match=r"mish-s2.*changed after the end"):
        report([folder], folder / "report")


def test_swapped_results_are_rejected(folder: Path) -> None:
    one, other = folder / "mish-s0" / "results.csv", folder / "mish-s1" / "results.csv"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with pytest.raises(ValueError, match="changed after the end"):
        report([folder], folder / "report")


def test_a_run_copied_to_another_seed_is_rejected(folder: Path) -> None:
    for name in ("run.json", "results.csv"):
        shutil.copy(folder / "mish-s0" / name, folder / "mish-s1" / name)
    edit_record(folder / "mish-s1", lambda record: record["config"]["train"].__setitem__("seed", 1))
    with pytest.raises(ValueError, match=r"mish-s0 and .*mish-s1 have the same .*copy"):
        report([folder], folder / "report")


@pytest.mark.parametrize("clue", ["initial_weights", "batches_crc32"])
def test_seeds_start_from_other_weights_and_see_other_batches(folder: Path, clue: str) -> None:
    first = read_runs([folder / "relu-s0"])[0]
    if clue == "initial_weights":
        edit_record(folder / "relu-s1", lambda record: record.__setitem__(clue, first.record[clue]))
    else:
        value = first.rows[0][clue]
        edit_rows(folder / "relu-s1", lambda rows: with_value(rows, clue, f"{value:.0f}", at=0))
        edit_record(folder / "relu-s1", lambda record: None)
    with pytest.raises(ValueError, match=r"relu-s0 and .*relu-s1 have the same"):
        check_runs(read_runs([folder]))


def test_pretrained_weights_are_equal_for_all_seeds(folder: Path) -> None:
    for run in folder.glob("*-s?"):
        edit_record(
            run,
            lambda record: (
                record.__setitem__("initial_weights", "5e") or record["config"].__setitem__("weights", "a.pt")
            ),
        )
    check_runs(read_runs([folder]))


def test_a_run_relabelled_as_another_activation_is_rejected(folder: Path) -> None:
    shutil.copy(folder / "relu-s0" / "results.csv", folder / "mish-s0" / "results.csv")
    edit_record(
        folder / "mish-s0",
        lambda record: record.__setitem__("last_epoch", {}),
    )
    with pytest.raises(ValueError, match=r"the same metrics and times"):
        report([folder], folder / "report")


def exploratory(folder: Path) -> list[str]:
    report([folder], folder / "report")
    reasons: list[str] = json.loads((folder / "report.json").read_text(encoding="utf-8"))["exploratory"]
    return reasons


def test_a_plan_chosen_after_the_runs_gives_no_verdict(folder: Path) -> None:
    assert exploratory(folder) == []
    (folder / "plan.json").unlink()
    plan_of(("relu", "mish"), range(2)).write(folder)
    assert any("do not name this plan" in reason for reason in exploratory(folder))


def test_a_margin_edited_afterwards_gives_no_verdict(folder: Path) -> None:
    file = folder / "plan.json"
    content = {**json.loads(file.read_text(encoding="utf-8")), "margin": 0.05}
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=r"plan\.json: changed after it was written"):
        report([folder], folder)
    del content["seal"]
    file.write_text(json.dumps(content), encoding="utf-8")
    assert any("do not name this plan" in reason for reason in exploratory(folder))


@pytest.mark.parametrize(("key", "value"), [("sigma_assumed", 0.001), ("notes", ["declared afterwards"])])
def test_what_a_plan_only_notes_cannot_be_edited_either(folder: Path, key: str, value: object) -> None:
    file = folder / "plan.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), key: value}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"plan\.json: changed after it was written"):
        report([folder], folder)


def test_a_plan_younger_than_its_runs_gives_no_verdict(folder: Path) -> None:
    for run in folder.glob("*-s?"):
        edit_record(run, lambda record: record["starts"][0].__setitem__("time", "2020-01-01T00:00:00+00:00"))
    assert any("the plan was written after" in reason for reason in exploratory(folder))


@pytest.mark.parametrize(("key", "planned"), [("train.lr", 0.01), ("train.epochs", 20)])
def test_settings_other_than_those_of_the_plan_give_no_verdict(folder: Path, key: str, planned: float) -> None:
    content: dict[str, Any] = (
        {"overrides": {key: planned}} if key == "train.lr" else {"epochs": {"relu": 8, "mish": planned}}
    )
    plan = plan_of(("relu", "mish"), range(3)).model_copy(update=content)
    plan.write(folder)
    for run in folder.glob("*-s?"):
        edit_record(run, lambda record: record["config"]["train"].setdefault("lr", 0.002))
    declare(folder, plan)
    assert any(f"{key} is" in reason and "mish-s1" in reason for reason in exploratory(folder))


def test_runs_without_a_seal_give_no_verdict(folder: Path) -> None:
    file = folder / "mish-s1" / "run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    del record["seal"]
    file.write_text(json.dumps(record), encoding="utf-8")
    assert any("mish-s1: no seal" in reason for reason in exploratory(folder))


def test_a_run_that_is_removed_gives_no_verdict(folder: Path) -> None:
    shutil.rmtree(folder / "mish-s1")
    assert any("1 of the 3 planned seeds" in reason for reason in exploratory(folder))


def test_a_run_stopped_by_patience_is_exploratory(tmp_path: Path) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 4.0}, seeds=range(2))
    for run in tmp_path.glob("*-s?"):
        edit_record(run, lambda record: record["config"]["train"].__setitem__("patience", 3))
    edit_rows(tmp_path / "mish-s1", lambda rows: rows[:5], resealed=True)
    edit_record(tmp_path / "mish-s1", lambda record: record.__setitem__("last_epoch", {}))
    report([tmp_path], tmp_path / "report")
    reasons = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["exploratory"]
    assert any("mish-s1 stopped after 5 of 8 epochs" in reason for reason in reasons)


def test_finished_runs_that_the_plan_does_not_name_are_counted(folder: Path) -> None:
    runs = read_runs([folder])
    write_run(folder / "silu-s7", act="silu", seed=7, last=0.7)
    plan = read_plan(folder)
    assert plan is not None
    text = write_report(folder, plan.as_compared(runs), plan=plan)
    assert "1 finished run of this folder (silu-s7)" in text


def test_validation_images_and_skipped_ones_must_agree(folder: Path) -> None:
    edit_record(folder / "mish-s1", lambda record: record.__setitem__("skipped", {"val: image damaged": 40}))
    with pytest.raises(ValueError, match=r"skipped.val: image damaged.*mish-s1"):
        report([folder], folder / "report")


@pytest.mark.parametrize("epochs", [range(8), range(4, 8)])  # of the whole run, since a resume
def test_other_validation_images_are_found(folder: Path, epochs: range) -> None:
    """Of the same names and annotations: the loader's checksum of what the network sees."""
    for run in folder.glob("*-s?"):
        changed = epochs if run.name == "mish-s1" else ()
        edit_rows(
            run,
            lambda rows, changed=changed: [{**row, "val_crc32": 7 + (k in changed)} for k, row in enumerate(rows)],
            resealed=True,
        )
        edit_record(run, lambda record: record["last_epoch"].pop("val_crc32", None))
    found = "8.0" if len(epochs) == 8 else "7.0, then 8.0"
    with pytest.raises(ValueError, match=rf"val\.images: 7\.0 \(.*\), {found} \(mish-s1\)"):
        report([folder], folder / "report")


def test_a_resume_elsewhere_is_a_difference(folder: Path) -> None:
    def moved(record: dict[str, Any]) -> None:
        start = record["starts"][0]
        record["starts"].append({**start, "machine": {**start["machine"], "threads": 1}})

    edit_record(folder / "mish-s1", moved)
    with pytest.raises(ValueError, match=r"machine\.threads.*2, then 1.*mish-s1"):
        report([folder], folder / "report")


def test_the_verdict_of_an_honest_comparison_stands(tmp_path: Path) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 4.0}, seeds=range(5))
    _, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(5)))
    assert numbers["verdicts"]["mish"]["kind"] == "higher"


def test_times_that_no_training_takes_are_rejected(folder: Path) -> None:
    edit_rows(folder / "mish-s0", lambda rows: with_value(rows, "time_train_s", 1e300, at=1), resealed=True)
    with pytest.raises(ValueError, match=r"mish-s0: time_train_s of epoch 2 is 1e\+300"):
        report([folder], folder)


def test_a_record_with_a_number_that_is_not_finite_is_named(folder: Path) -> None:
    file = folder / "mish-s0/run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**record, "energy": math.nan}), encoding="utf-8")
    with pytest.raises(ValueError, match="mish-s0: run.json has a number that is not finite"):
        report([folder], folder)


def test_a_finished_run_cannot_become_a_failed_one(folder: Path) -> None:
    """The worst run, its results taken out of run.json, with a failure.json as if the machine had killed it."""
    file = folder / "mish-s0/run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    del record["results"]
    file.write_text(json.dumps(record), encoding="utf-8")
    (folder / "mish-s0/failure.json").write_text('{"act": "mish", "seed": 0, "reason": "killed"}', encoding="utf-8")
    with pytest.raises(ValueError, match="mish-s0: run.json was sealed at the end of the run, but has no results"):
        report([folder], folder)
