"""The command line: familiar spellings, one-line refusals, an instant --help."""

import re
import subprocess
import sys
from argparse import SUPPRESS
from pathlib import Path

import pytest

from configs.cli import Parser, add_config_flags, overrides
from configs.foreign_flags import INSTEAD
from configs.schema import flatten, load

ROOT = Path(__file__).parents[2]


def parse(*words: str) -> dict:
    parser = Parser(prog="train.py")
    add_config_flags(parser)
    return overrides(parser.parse_args(words))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--img", "320"], {"train.imgsz": 320}),
        (["--imgsz", "320"], {"train.imgsz": 320}),
        (["--batch-size", "8"], {"train.batch": 8}),
        (["--batch", "8"], {"train.batch": 8}),
        (["--batch_size=8"], {"train.batch": 8}),
        (["--cache"], {"train.cache": "ram"}),
        (["--cache", "disk"], {"train.cache": "disk"}),
        (["--cos-lr"], {"train.schedule": "cosine"}),
        (["--exist-ok", "--name", "a"], {"run.exist_ok": True, "run.name": "a"}),
        (["--optimizer", "SGD"], {"train.optimizer": "sgd"}),
        (["--freeze", "backbone,neck.N3"], {"train.freeze": ["backbone", "neck.N3"]}),
        (["--noval"], {"train.val": False}),
        (["--multi-scale"], {"train.multi_scale": 0.5}),
        (["--rect", "--class-balance"], {"train.rect": True, "train.class_balance": 0.1}),
        (["--class-balance", "0.02"], {"train.class_balance": 0.02}),
        (["--set", "a.b=1", "c=x", "--set", "d=true"], {"a.b": 1, "c": "x", "d": True}),
        (["--epochs", "3", "--set", "train.epochs=4"], {"train.epochs": 4}),
        ([], {}),
    ],
    ids=" ".join,
)
def test_spellings(words: list[str], expected: dict) -> None:
    assert parse(*words) == expected


@pytest.mark.parametrize("flag", sorted(INSTEAD["train.py"]))
def test_a_flag_without_meaning_is_answered(flag: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(flag)
    assert exit_.value.code == 2
    message = capsys.readouterr().err
    assert flag in message and message.count("\n") == 1


@pytest.mark.parametrize("words", [["--epoch", "3"], ["--epochs", "x"], ["--cache", "tape"], ["--set", "train.lr"]])
def test_wrong_words_are_one_line(words: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises((SystemExit, ValueError)):
        parse(*words)
    assert capsys.readouterr().err.count("\n") <= 1


def test_hyperparameter_files_of_the_peers_are_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "hyp.yaml").write_text("lr0: 0.01\nfliplr: 0.0\nbgr: 0.1\n")
    assert parse("--hyp", str(tmp_path / "hyp.yaml")) == {"train.lr": 0.01, "augment.flip_lr": 0.0}
    assert "bgr" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["train.py", "val.py", "detect.py", "compare.py"])
def test_help_needs_no_torch(script: str) -> None:
    code = (
        "import runpy, sys; sys.argv = [sys.argv[1], '--help']\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules and 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, script], cwd=ROOT, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["-m", "data.check", "missing.yaml"], "python -m data.check"),
        (["-m", "studies", "--page", "x.md", "--project", "missing"], "python -m studies"),
        (["train.py", "--cfg", "missing.yaml"], "train.py"),
    ],
)
def test_errors_name_the_program_as_it_was_called(command: list[str], name: str) -> None:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 2 and done.stderr.startswith(f"{name}: error: ") and done.stderr.count("\n") == 1


def test_help_states_the_defaults_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # no line of the help is wrapped
    parser = Parser(prog="train.py")
    add_config_flags(parser, replaced_help={"train.patience": SUPPRESS, "run.project": "folder; default: elsewhere"})
    entries = re.split(r"\n  (?=--)", parser.format_help().rstrip())
    lines = {re.split(r"[ ,]", entry)[0]: entry for entry in entries}
    values = flatten(load("yolo.yaml").model_dump(mode="json"))
    for flag, key in {"--batch": "batch", "--seed": "seed", "--close-mosaic": "close_mosaic"}.items():
        assert lines[flag].endswith(f"(default: {values[f'train.{key}']})")
    assert lines["--loggers"].endswith("(default: tensorboard)")
    assert lines["--project"].endswith("folder; default: elsewhere") and "--patience" not in lines
    assert "default" not in lines["--noval"] + lines["--freeze"]


def help_of(script: str) -> str:
    command = [sys.executable, script, "--help"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, encoding="utf-8", timeout=60).stdout


@pytest.mark.parametrize("script", ["train.py", "val.py", "detect.py", "compare.py"])
def test_help_prints_no_value_that_the_user_cannot_give(script: str) -> None:
    assert not re.search(r"default:\s+(None|False|\[\]|==SUPPRESS==)", help_of(script))


def test_help_of_compare_lists_the_comparison_first_and_no_flag_that_it_rejects() -> None:
    text = help_of("compare.py")
    assert text.index("\n  --acts") < text.index("\n  --cfg")
    assert not re.search(r"--(seed|exist-ok|profile|patience)\b(?!s)", text) and "--seeds" in text


def test_settings_without_dashes_are_answered_with_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser(prog="train.py")
    add_config_flags(parser)
    for words, hint in (
        (["data=my.yaml", "batch_size=8"], "; write --data my.yaml --batch-size 8\n"),
        (["model=yolov8n.pt", "epochs=3"], "; write --epochs 3\n"),
        (["detect", "train.lr=0.1"], "; write --set train.lr=0.1\n"),
        (["--train.lr=0.1"], "; write --set train.lr=0.1\n"),
        (["--img", "64", "extra"], "unrecognized arguments: extra\n"),
    ):
        with pytest.raises(SystemExit) as end:
            parser.parse_args(words)
        error = capsys.readouterr().err
        assert end.value.code == 2 and error.endswith(hint) and error.count("\n") == 1
