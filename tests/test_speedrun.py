"""The speedrun: its rules, its test of the mean, its table by hand, and a short run of it."""

import sys

import pytest
from scipy import stats

from benchmarks.peer import METRICS
from benchmarks.trainings import ROOT, Run
from speedrun import __main__ as speedrun


def run(value: float, seconds: float) -> Run:
    metrics = dict.fromkeys(METRICS, value)
    return Run(data="shapes", name="ours", seed=0, metrics=metrics, seconds=seconds + 9, training=seconds)


def test_the_table_by_hand() -> None:
    good, bad = [0.63, 0.62, 0.64], [0.63, 0.57, 0.64]
    runs = {
        "first": [run(value, seconds) for value, seconds in zip(good, (10, 20, 90), strict=True)],
        "second": [run(value, 10) for value in bad],
    }
    first, second = speedrun.table(runs, 0.6).splitlines()[-2:]
    mean, error = 0.03, 0.01 / 3**0.5
    p = stats.t.sf(mean / error, 2)
    assert first == f"| first | 3 | 0.630, 0.010 | {p:.2g} | no | 20 | 1.00 |" and 0.01 < p < 0.05
    assert second.endswith("| no | 10 | 0.50 |")
    assert "| yes |" in speedrun.table({"first": [*runs["first"], *runs["first"]]}, 0.6)
    assert (speedrun.p_value([0.7, 0.7], 0.6), speedrun.p_value([0.6, 0.6], 0.6)) == (0, 1)
    assert len(speedrun.to_csv(runs).splitlines()) == 7


@pytest.mark.parametrize("entry", sorted((ROOT / "speedrun/records").glob("*.yaml")), ids=lambda entry: entry.name)
def test_all_records_follow_the_rules(entry) -> None:
    speedrun.require_rules(str(entry), "shapes.yaml")


@pytest.mark.parametrize("line", ["val: {conf: 0.1}", "train: {imgsz: 320}", "weights: best.pt", "train: {threads: 8}"])
def test_what_the_rules_fix_is_refused(tmp_path, line: str) -> None:
    entry = tmp_path / "entry.yaml"
    entry.write_text(f"base: yolo.yaml\n{line}\n")
    key = line.split(":")[0]
    with pytest.raises(ValueError, match=rf"entry.yaml: {key}\S*: found .*rules fix"):
        speedrun.require_rules(str(entry), "shapes.yaml")


def test_a_wrong_interpreter_is_named_before_the_first_training(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(speedrun, "trained", None)
    entry = str(ROOT / "speedrun/records/01-adamw.yaml")
    with pytest.raises(ValueError, match="no/such: cannot be run"):
        speedrun.main([entry, "--python", "no/such", "--out", str(tmp_path)])


def test_bad_command_lines(capsys) -> None:
    for words, wrong in ((["a.yaml", "--seeds", "2"], "--seeds"), (["a/x.yaml", "b/x.yaml"], "different names")):
        with pytest.raises(SystemExit):
            speedrun.parse(words)
        assert wrong in capsys.readouterr().err


@pytest.mark.slow
def test_an_entry_is_run_with_every_seed_once(tmp_path, place, warm_python, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "executable", warm_python)
    entry = tmp_path / "short.yaml"
    entry.write_text("base: yolo.yaml\ntrain: {epochs: 1, batch: 4}\nmodel: {levels: [3, 4]}\n")
    words = [str(entry), "--data", str(place / "shapes.yaml"), "--seeds", "3", "--out", str(tmp_path / "out")]
    assert speedrun.main(words) == 0
    out = capsys.readouterr().out
    assert out.count("training\n") == 3 and "| short | 3 |" in out and "| no |" in out
    assert len((tmp_path / "out/shapes/runs.csv").read_text().splitlines()) == 4
    assert speedrun.main(words) == 0 and ": training" not in capsys.readouterr().out
