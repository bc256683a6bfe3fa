"""Reading run folders, valid and damaged."""

import json
from pathlib import Path

import pytest

from comparison.runs import by_key, read_run, read_runs
from tests.comparison.made_runs import write_run


def test_a_finished_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a", act={"name": "swish", "learnable": True}, seed=4, last=0.5, epochs=3)
    run = read_run(tmp_path / "a")
    assert (run.act, run.seed, run.status) == ("swish(learnable=true)", 4, "finished")
    assert [row["epoch"] for row in run.rows] == [1, 2, 3] and run.rows[-1]["metrics/mAP50-95"] == pytest.approx(0.5)


def test_status_of_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "a", act="mish", seed=0, last=0.5)
    record = json.loads((tmp_path / "a/run.json").read_text())
    del record["results"]
    (tmp_path / "a/run.json").write_text(json.dumps(record))
    assert read_run(tmp_path / "a").status == "unfinished"
    (tmp_path / "a/failure.json").write_text(json.dumps({"act": "mish", "seed": 0, "reason": "out of memory"}))
    assert (read_run(tmp_path / "a").status, read_run(tmp_path / "a").reason) == ("failed", "out of memory")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/failure.json").write_text(json.dumps({"act": "relu", "seed": 3, "reason": "gone"}))
    assert (read_run(tmp_path / "b").act, read_run(tmp_path / "b").rows) == ("relu", ())


def test_folders_of_runs(tmp_path: Path) -> None:
    for act, seed in (("relu", 0), ("mish", 0)):
        write_run(tmp_path / "x" / f"{act}-s{seed}", act=act, seed=seed, last=0.5)
    write_run(tmp_path / "y", act="relu", seed=0, last=0.5)
    (tmp_path / "x/logs").mkdir()
    runs = read_runs([tmp_path / "x", tmp_path / "y"])
    assert [run.folder.name for run in runs] == ["mish-s0", "relu-s0", "y"]
    with pytest.raises(ValueError, match=r"relu-s0 and .*y are both relu with seed 0"):
        by_key(runs)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("run.json", None, "not a run folder"),
        ("run.json", '{"config": {"model"', "run.json: not JSON"),
        ("run.json", "[]", "run.json: expected a mapping"),
        ("run.json", '{"config": {}}', "no activation or no seed"),
        ("run.json", '{"config": {"model": {"act": "mish"}, "train": {"seed": "x"}}}', "seed is 'x'"),
        ("results.csv", "epoch,a\n1,2\n2", "results.csv.*line 3"),
        ("results.csv", "epoch,a\n1,b\n", "results.csv.*'b'"),
        ("results.csv", "a,b\n1,2\n", "results.csv.*no column 'epoch'"),
        ("results.csv", None, "has no row"),
    ],
)
def test_invalid_run_folders(tmp_path: Path, file: str, text: str | None, said: str) -> None:
    write_run(tmp_path / "a", act="mish", seed=0, last=0.5)
    (tmp_path / "a" / file).unlink()
    if text is not None:
        (tmp_path / "a" / file).write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as error:
        read_run(tmp_path / "a")
    assert str(tmp_path / "a") in str(error.value) and "\n" not in str(error.value)
