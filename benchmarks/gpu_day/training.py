"""Trainings of the GPU day: killed and resumed against uninterrupted, and the price of ``--deterministic``."""

import contextlib
import csv
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_day.plan import TINY, train_device
from benchmarks.gpu_day.start import parse
from engine.checkpoint import load_checkpoint

PRICED_EPOCHS = 3  # the first is not counted
MAP, SECONDS = "metrics/mAP50-95", "time_train_s"


def main() -> int:
    """Train, print and write what is found; exit code 1 if the resumed run ends differently."""
    arguments = parse(__doc__)
    trainings = Trainings(arguments)
    content: dict[str, Any] = {"summary": []}

    def write(part: dict[str, Any], line: str) -> None:  # after each part: a job that is stopped keeps the first
        content.update(part)
        content["summary"].append(line)
        print(line, flush=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    whole, resumed = trainings.kill_and_resume()
    equal = whole == resumed
    scores = f"mAP50-95 {whole[1]} uninterrupted, {resumed[1]} killed at half and resumed"
    write(
        {"whole": whole, "resumed": resumed, "equal": equal},
        f"{scores}; weights {'equal bit for bit' if equal else 'DIFFER'} ({whole[0][:12]}, {resumed[0][:12]})",
    )
    plain, deterministic = trainings.seconds_per_epoch(), trainings.seconds_per_epoch("--deterministic")
    write(
        {"epoch_s": plain, "deterministic_epoch_s": deterministic},
        f"an epoch takes {plain:.2f} s, with --deterministic {deterministic:.2f} s ({deterministic / plain:.2f}x)",
    )
    return 0 if equal else 1


class Trainings:
    """Runs of train.py on the day's data, in the folder of the results."""

    def __init__(self, arguments: Any) -> None:
        self.arguments, self.folder = arguments, arguments.out / "runs"
        self.epochs = int(json.loads(Path(arguments.data).read_text(encoding="utf-8"))["embedded"]["epochs"])

    def start(self, name: str, *more: str) -> "subprocess.Popen[bytes]":
        """Start a new run in a folder of this name."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        words = ["--cfg", "yolo-mish.yaml", "--data", self.arguments.data, "--seed", "0"]
        words += ["--device", train_device(self.arguments.device), "--project", str(self.folder), "--name", name]
        return self._launch(name, *words, *more, *(TINY if self.arguments.dry else ()))

    def _launch(self, name: str, *words: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "train.py", *words]
        with (self.arguments.out / "logs" / f"train-{name}.txt").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def finish(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        """Wait for a run; RuntimeError with its last line if it failed."""
        if process.wait():
            log = self.arguments.out / "logs" / f"train-{name}.txt"
            last = (log.read_text(encoding="utf-8", errors="replace").split("\n")[-2:] or [""])[0]
            raise RuntimeError(f"train.py, run {name}: exit code {process.returncode}: {last}")

    def rows(self, name: str) -> list[dict[str, str]]:
        """The epochs of a run so far."""
        try:
            with (self.folder / name / "results.csv").open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            return []

    def kill_and_resume(self) -> tuple[list[str], list[str]]:
        """Hash of the final state and mAP of a run, and of the same one killed by SIGKILL at half of its epochs."""
        whole, cut = self.start("whole", "--deterministic"), self.start("cut", "--deterministic")
        while len(self.rows("cut")) < self.epochs // 2 and cut.poll() is None:
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(cut.pid, signal.SIGKILL)  # its data workers too
        if cut.wait() != -signal.SIGKILL:
            raise RuntimeError(f"train.py, run cut: ended with exit code {cut.returncode} before it was killed")
        self.finish("cut", self._launch("cut", "--resume", str(self.folder / "cut" / "weights" / "last.pt")))
        self.finish("whole", whole)
        return self.result("whole"), self.result("cut")

    def result(self, name: str) -> list[str]:
        """Hash of the final state of a run, and its last mAP."""
        content = load_checkpoint(self.folder / name / "weights" / "last.pt")
        return [state_sha256({key: content[key] for key in ("model", "ema", "optimizer")}), self.rows(name)[-1][MAP]]

    def seconds_per_epoch(self, *more: str) -> float:
        """Median training time of an epoch of a short run, without the first."""
        name = "price" + "".join(more)
        self.finish(name, self.start(name, "--epochs", str(PRICED_EPOCHS), "--noval", *more))
        return statistics.median(float(row[SECONDS]) for row in self.rows(name)[1:])


def state_sha256(value: Any) -> str:
    """SHA-256 over nested mappings and sequences of tensors and plain values."""
    digest = hashlib.sha256()

    def add(path: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key in sorted(value, key=str):
                add(f"{path}.{key}", value[key])
        elif isinstance(value, list | tuple):
            for number, each in enumerate(value):
                add(f"{path}[{number}]", each)
        elif isinstance(value, torch.Tensor):
            digest.update(f"{path} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{path} {value!r}".encode())

    add("", value)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
