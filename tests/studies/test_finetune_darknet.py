"""The study of fine-tuning: which runs it starts, that it goes on, and its table worked out by hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from studies import finetune_darknet


def test_cells_are_trained_once_and_make_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def trained(words: list[str], **options: object) -> SimpleNamespace:
        started.append(words[2:])
        if "--resume" in words:
            folder = Path(words[-1]).parents[1]
        else:
            folder = Path(words[words.index("--project") + 1]) / words[words.index("--name") + 1]
        score = 0.3 + 0.02 * int(folder.name[-1]) if folder.name.startswith("finetuned-mish") else 0.1
        folder.mkdir(exist_ok=True)
        (folder / "run.json").write_text(json.dumps({"results": {}}))
        (folder / "results.csv").write_text(
            f"epoch,metrics/mAP50,metrics/mAP50-95,time_train_s,time_val_s\n1,0.1,0.1,2,1\n2,0.5,{score},3,\n"
        )
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(finetune_darknet.subprocess, "run", trained)
    (tmp_path / "scratch-seed1/weights").mkdir(parents=True)
    (tmp_path / "scratch-seed1/weights/last.pt").touch()  # of a run that was killed
    command = [
        "--cfg",
        "x.cfg",
        "--weights",
        "x.weights",
        "--data",
        "d.yaml",
        "--project",
        str(tmp_path),
        "--seeds",
        "2",
    ]
    assert finetune_darknet.main(command) == 0
    assert len(started) == 6 and [words[0] == "--resume" for words in started] == [False] * 5 + [True]
    weights, acts = [["--weights" in words for words in started], ["model.act=mish" in words for words in started]]
    assert weights == [True, True, False, True, True, False] and acts == [False, True, False, False, True, False]
    lines = capsys.readouterr().out.splitlines()
    # 30 and 32 points: mean 31, deviation sqrt(2); 2 + 1 + 3 seconds.
    assert "| finetuned-mish | 31.0 ± 1.4 | 50.0 ± 0.0 | 6 s |" in lines and "| scratch | 10.0 ± 0.0" in "".join(lines)
    assert (tmp_path / "table.md").read_text() in "\n".join(lines) + "\n"
    assert finetune_darknet.main(command) == 0 and len(started) == 6


def test_a_run_that_fails_ends_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finetune_darknet.subprocess, "run", lambda *words, **options: SimpleNamespace(returncode=2))
    command = ["--cfg", "x.cfg", "--weights", "x.weights", "--data", "d.yaml", "--project", str(tmp_path)]
    assert finetune_darknet.main(command) == 2
    assert "finetuned-seed0: train.py ended with 2; see " in capsys.readouterr().err
