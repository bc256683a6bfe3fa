"""`--batch auto`: what it measures, chooses, says and records, and where it is refused."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

import compare
import train
from configs.schema import Config, load
from core.device import place
from engine import batch_size
from engine.batch_size import Need, choose_batch, fitting_batch
from tests.support.checkpoints import write_data
from tests.support.scripts import run
from tests.support.training import SMALL, start
from tests.test_imports import ROOT


def small(**overrides: object) -> Config:
    return load(SMALL, {"train.imgsz": 128, "train.device": "cpu", "train.amp": "off"} | overrides)


def test_the_largest_power_of_two_that_fits() -> None:
    need = Need(fixed=100, per_image=10, room=200)
    assert need.of(10) == 200 and need.largest(64) == 8 and need.largest(7) == 4
    assert Need(100, 10, 109).largest(64) == 0 and Need(100, 0, 100).largest(48) == 32


MEASURE = """
from core.device import place
from engine.batch_size import measure
from tests.engine.test_batch_size import small

for side in (64, 256):
    need = measure(small(**{"train.imgsz": side}), place("cpu", amp="off"))
    print(need.per_image, need.of(1), need.room)
"""


@pytest.mark.slow
def test_larger_images_need_more(tmp_path: Path, warm_python: str) -> None:
    """In a new process: this one would reuse memory that earlier tests have freed."""
    (tmp_path / "measure.py").write_text(MEASURE)
    command = [warm_python, str(tmp_path / "measure.py")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    small_images, large_images = ([float(word) for word in line.split()] for line in done.stdout.splitlines())
    assert 0 <= small_images[0] < large_images[0]
    assert large_images[0] > 256 * 256 * 3 * 4 / 2**20  # the images alone
    assert large_images[2] > large_images[1]


def test_what_is_chosen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "measure", lambda config, device: Need(1000, 50, 1500))
    batch, what = choose_batch(small())
    assert batch == 8
    assert "8 images of 128 pixels" in what and "1,400 MiB of the 1,500" in what and "50.0 MiB an image" in what
    monkeypatch.setattr(batch_size, "measure", lambda config, device: Need(0, 1, 10**6))
    assert choose_batch(small())[0] == 16  # on a CPU


def test_images_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "measure", lambda config, device: Need(1000, 50, 1040))
    with pytest.raises(ValueError, match=r"one image of 128 pixels needs 1,050 MiB, there are 1,040.*--imgsz"):
        choose_batch(small())

    def fail(config: Config, device: object) -> Need:
        raise MemoryError

    monkeypatch.setattr(batch_size, "measure", fail)
    with pytest.raises(ValueError, match="6 images of 128 pixels do not fit"):
        choose_batch(small())
    assert fitting_batch(small(), place("cpu", amp="off")) is None


def test_after_running_out_of_memory_the_largest_smaller_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    device = place("cpu", amp="off")
    for room, expected in ((10**6, 16), (500, 4), (90, None)):
        monkeypatch.setattr(batch_size, "measure", lambda config, device, room=room: Need(100, 100, room))
        assert fitting_batch(small(**{"train.batch": 32}), device) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_the_choice_is_recorded(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch_size, "measure", lambda config, device: Need(0, 1, 3))
    data = write_data(here / "data")
    assert start(data, "--epochs", 1, "--batch", "auto") == 0
    assert "--batch auto: 2 images of" in capsys.readouterr().out
    folder = here / "runs/train/exp"
    recorded = json.loads((folder / "run.json").read_text())["config"]["train"]
    for content in (recorded, yaml.safe_load((folder / "config.yaml").read_text())["train"]):
        assert content["batch"] == content["nominal_batch"] == 2


def test_a_resumed_run_and_a_comparison_refuse_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(train.main, "train.py", "--resume", "last.pt", "--batch", "auto") == 2
    assert "a resumed run keeps its batch size" in capsys.readouterr().err
    assert run(compare.main, "compare.py", "--acts", "relu", "mish", "--batch", "auto") == 2
    assert "all runs of a comparison need the same batch size" in capsys.readouterr().err
