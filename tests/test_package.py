"""The installed package: its wheel has one import name, and its command works from an empty folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from configs import loading
from core import commands
from tests.support.checkpoints import write_data
from tests.support.training import BRIEF, SMALL
from tests.test_imports import ROOT

SCRIPTS = {"train", "val", "detect", "compare", "export"}
KINDS = (".py", ".yaml", ".html", ".h", ".cu", ".cpp")


def start(program: Path, *words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run Python on a program."""
    command = [sys.executable, *map(str, (program, *words))]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_the_command_names_what_it_can_run(tmp_path: Path) -> None:
    answer = start(ROOT, "--help", cwd=tmp_path)
    assert answer.returncode == 0 and all(f"\n  {name} " in answer.stdout for name in SCRIPTS)
    assert start(ROOT, cwd=tmp_path).stdout == answer.stdout
    wrong = start(ROOT, "trian", "--cfg", "x", cwd=tmp_path)
    assert wrong.returncode == 2 and wrong.stdout == ""
    assert wrong.stderr == "yolo-mish: error: 'trian' is not a command, did you mean 'train'?\n"
    assert start(ROOT, "predict", cwd=tmp_path).stderr == "yolo-mish: error: 'predict' is not a command, use 'detect'\n"
    for name, module in (("publish", "weights.publish"), ("tile", "data.tile")):
        answer = start(ROOT, name, "--help", cwd=tmp_path)
        assert answer.returncode == 0 and f"python -m {module}" in answer.stdout


@pytest.mark.slow
def test_an_error_of_a_command_names_it(tmp_path: Path) -> None:
    for name, words in (("train", ("--cfg", "none.yaml")), ("check", ("none",))):
        wrong = start(ROOT, name, *words, cwd=tmp_path)
        assert wrong.returncode == 2 and wrong.stderr.startswith(f"yolo-mish {name}: error: ")


def test_data_sets_of_an_installed_package_are_in_the_current_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert loading.load_data("shapes")["root"] == str(ROOT / "datasets" / "shapes")
    monkeypatch.setattr(loading, "INSTALLED", True)
    data = loading.load_data("shapes")
    assert data["root"] == str(here / "datasets" / "shapes")
    assert data["train"]["images"] == str(here / "datasets" / "shapes" / "images" / "train")
    Path("own.yaml").write_text("root: mine\ntrain: {images: i, annotations: a.json}\n")
    assert loading.load_data("own.yaml")["root"] == str(here / "mine")


def test_printed_commands_of_an_installed_package_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "INSTALLED", True)
    monkeypatch.setattr(commands.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert commands.command("train.py", "--resume", "a b.pt") == "yolo-mish train --resume 'a b.pt'"
    assert commands.command("data.convert", "x") == "yolo-mish convert x"
    monkeypatch.setattr(commands.shutil, "which", lambda name: None)
    monkeypatch.setattr(commands.sys, "executable", "/venv/bin/python")
    assert commands.command("val.py") == "/venv/bin/yolo-mish val"


@pytest.mark.slow
def test_a_wheel_trains_from_an_empty_folder(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    package = site / "yolo_mish"
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"yolo_mish"}
    parts = [ROOT / name for name in ("comparison", "configs", "core", "data", "deploy", "engine", "models", "ops")]
    needed = {path.relative_to(ROOT) for part in parts for path in part.rglob("*") if path.suffix in KINDS}
    needed |= {Path(f"{name}.py") for name in (*SCRIPTS, "yolo")}
    files = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    assert needed <= files and not any({"tests", "docs", "datasets", "runs"} & set(file.parts) for file in files)

    here = tmp_path / "here"
    here.mkdir()
    words = ("--cfg", SMALL, "--data", write_data(tmp_path), *BRIEF, "--epochs", 1)
    done = start(Path("-m"), "yolo_mish", "train", *words, cwd=here, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert (here / "runs/train/exp/weights/best.pt").is_file()
    assert "yolo-mish detect --weights" in done.stdout
    left = {path.relative_to(package) for path in package.rglob("*") if path.is_file()} - files
    assert all(path.suffix == ".pyc" for path in left)  # nothing is written into the package
