"""Commands that programs print work when they are pasted: every place that makes one, from any folder."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import compare
import detect
import export
import train
import val
from comparison.report import report
from core import commands
from core.commands import ROOT, command
from data.tools import convert, download, tile
from engine.final_results import next_command
from engine.run import TrainingRun
from tests.comparison.made_runs import write_run
from tests.support.scripts import run
from tests.test_imports import modules
from weights import publish
from yolo import YOLO

PARSERS: dict[str, Callable[[Sequence[str]], object]] = {
    "train.py": train.parse,
    "val.py": val.parse,
    "detect.py": detect.parse,
    "compare.py": compare.parse,
}
# Files with calls of `command`; each is covered by a test here.
MAKERS = {
    "engine/final_results.py",
    "compare.py",
    "export.py",
    "configs/cli.py",
    "comparison/report.py",
    "engine/run.py",
    "engine/training.py",
} | {
    "data/tools/convert.py",
    "data/tools/download.py",
    "data/tools/tile.py",
    "weights/publish.py",
}
WRITTEN_OUT = re.compile(r"\bpython3? (-m |\S*\.py\b)|\b(train|val|detect|compare)\.py -|\b-m (data|models|ops)\.")


def calls(tree: ast.AST) -> bool:
    """Whether a module calls `command`."""
    return any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command"
        for node in ast.walk(tree)
    )


def written_out(tree: ast.AST) -> list[str]:
    """Texts with a command in them, but docstrings and names of programs for their usage."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr):
                skipped.add(id(first.value))
        if isinstance(node, ast.keyword) and node.arg == "prog":
            skipped.add(id(node.value))
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in skipped
        and WRITTEN_OUT.search(node.value)
    ]


@pytest.mark.slow
def test_all_commands_are_made_in_one_place() -> None:
    made = set()
    for path in modules():
        name, tree = path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
        if name.startswith(("benchmarks/", "studies/")):
            continue
        assert written_out(tree) == ["use detect.py --save-txt; val.py always writes predictions.json"] * (
            name == "configs/foreign_flags.py"
        ), name
        if calls(tree):
            made.add(name)
    assert made == MAKERS


@pytest.fixture(params=["here", "elsewhere"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a name that a shell would split, as working folder or not."""
    place = tmp_path / "my  'data' $HOME"
    place.mkdir()
    monkeypatch.chdir(place if request.param == "here" else tmp_path)
    return place


def check(line: str, program: str) -> list[str]:
    """The arguments of a command, read by a shell and by the program's own parser."""
    words = shlex.split(line)
    assert words[1] == str(ROOT / program) and Path(words[0]).name.startswith("python")
    PARSERS[program](words[2:])
    return words[2:]


def leads_to(path: str) -> Path:
    return Path.cwd() / path


def test_after_training(folder: Path) -> None:
    image = folder / "images/a b.jpg"
    arguments = check(next_command(str(image), folder / "run"), "detect.py")
    assert leads_to(arguments[3]) == image and leads_to(arguments[1]) == folder / "run/weights/best.pt"


def test_to_train_on_several_devices(folder: Path) -> None:
    with pytest.raises(ValueError, match="start a process each with") as error:
        YOLO("yolo-mish.yaml").train(device="cpu,cpu")
    line = str(error.value).partition("each with ")[2].removesuffix(" ...")
    assert check(f"{line} --cfg yolo-mish.yaml", "train.py")[:2] == ["--device", "cpu,cpu"]


def test_to_resume_a_run(folder: Path) -> None:
    line = TrainingRun._resume_command(SimpleNamespace(folder=folder / "exp"))  # type: ignore[arg-type]
    arguments = check(line, "train.py")
    assert arguments[0] == "--resume" and leads_to(arguments[1]) == folder / "exp/weights/last.pt"


def test_to_resume_a_run_that_a_report_lacks(folder: Path) -> None:
    for act in ("relu", "mish"):
        write_run(folder / f"{act}-s0", act=act, seed=0, last=0.4)
    written = folder / "mish-s0/results.csv"
    written.write_text("\n".join(written.read_text().splitlines()[:-1]) + "\n")
    record = folder / "mish-s0/run.json"
    record.write_text(record.read_text().replace('"results"', '"result"'))
    with pytest.raises(ValueError, match="not finished") as error:
        report([folder], folder / "report")
    found = re.search(r"resume it with (.*), or leave it out", str(error.value))
    assert found and leads_to(check(found[1], "train.py")[1]) == folder / "mish-s0/weights/last.pt"


def test_to_resume_a_comparison(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--acts", "{name: swish, beta: 2}", "mish", "--project", str(folder)]
    assert check(command("compare.py", *words), "compare.py") == words


def test_weights_that_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(val.main, "val.py") == 2
    found = re.search(r"run (.*), then use (.*)", capsys.readouterr().err)
    assert found
    check(found[1], "train.py")
    assert shlex.split(found[2]) == ["--weights", "runs/train/exp/weights/best.pt"]
    best = tmp_path / "runs/train/my  exp/weights/best.pt"
    best.parent.mkdir(parents=True)
    best.touch()
    assert run(val.main, "val.py") == 2
    said = capsys.readouterr().err.strip()
    assert shlex.split(said.partition(" are ")[2]) == ["--weights", "runs/train/my  exp/weights/best.pt"]


@pytest.mark.parametrize("splits", [("train",), ("train", "val")])
def test_after_a_conversion(folder: Path, splits: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    from configs.schema import load

    for split in splits:
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / f"images/{split}/a.png")
        (folder / f"labels/{split}/a.txt").write_text("0 .5 .5 .5 .5\n")
    assert convert.main([str(folder)]) == 0
    arguments = check(capsys.readouterr().out.partition("train with: ")[2].strip(), "train.py")
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    options = dict([given["--set"].split("=")]) if "--set" in given else {}
    config = load(given["--cfg"], {"data": given["--data"], **{key: float(value) for key, value in options.items()}})
    assert config.data.root == str(folder) and ("--set" in given) == ("val" not in splits)


@pytest.mark.parametrize("splits", [("train",), ("train", "val")])
def test_after_cutting_into_tiles(folder: Path, splits: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    from configs.schema import load

    for split in splits:
        for kind in ("images", "labels"):
            (folder / "whole" / kind / split).mkdir(parents=True)
        Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(folder / f"whole/images/{split}/a.png")
        (folder / f"whole/labels/{split}/a.txt").write_text("0 .5 .5 .5 .5\n")
    assert tile.main([str(folder / "whole"), "--out", str(folder / "tiles"), "--side", "64"]) == 0
    arguments = check(capsys.readouterr().out.partition("train with: ")[2].strip(), "train.py")
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    holdout = {"train.holdout": 0.1} if "--set" in given else {}
    config = load(given["--cfg"], {"data": given["--data"], "train.imgsz": int(given["--imgsz"]), **holdout})
    assert config.data.root == str(folder / "tiles") and ("--set" in given) == ("val" not in splits)


@pytest.mark.parametrize("split, program", [("train", "train.py"), ("val", "val.py")])
def test_after_a_download(
    folder: Path, split: str, program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(download, "download", lambda *_: None)
    assert download.main(["coco2017", "--splits", split, "--to", str(folder)]) == 0
    arguments = check(capsys.readouterr().out.partition(" with: ")[2].strip(), program)
    assert leads_to(arguments[arguments.index("--data") + 1]) == folder


def test_after_an_export(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = SimpleNamespace(mish="", imgsz=(96, 96), dynamic=False, outputs="boxes", precision="fp32")
    done = SimpleNamespace(metadata=metadata, parity=object(), path=folder / "a.torchscript")
    monkeypatch.setattr(YOLO, "export", lambda *_, **__: done)
    assert run(export.main, "export.py", "--weights", place / "best.pt", "--format", "torchscript") == 0
    arguments = check(capsys.readouterr().out.partition("use it: ")[2].strip(), "detect.py")
    assert leads_to(arguments[arguments.index("--weights") + 1]) == folder / "a.torchscript"


def test_after_publishing(folder: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--to", str(folder / "net"), "--license", "mit", "--data-license", "drawn"]
    assert publish.main([str(place / "best.pt"), *words]) == 0
    arguments = check(capsys.readouterr().out.partition("try it with: ")[2].strip(), "detect.py")
    assert leads_to(arguments[arguments.index("--weights") + 1]) == folder / "net"


def test_the_shortest_form_is_printed_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
    monkeypatch.setattr(commands.shutil, "which", lambda name: f"{Path(sys.executable).parent}/python")
    assert command("train.py", "--resume") == "python train.py --resume"
    assert command("data.check", "my data.yaml") == "python -m data.check 'my data.yaml'"
    monkeypatch.setattr(commands.shutil, "which", lambda name: "/usr/bin/other/python")
    assert command("train.py").endswith(f"{Path(sys.executable).name} train.py")


@pytest.mark.slow
def test_a_shell_runs_them(folder: Path) -> None:
    for line in (command("train.py", "--help"), command("data.convert", "--help")):
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0 and "usage" in done.stdout, done.stderr
