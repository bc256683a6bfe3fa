"""All GPU measurements in one command: ``python -m benchmarks.gpu --out docs/results/gpu.md``.

Runs each part in a separate process with a time limit: the operator's tests, its benchmark eager and compiled, the
training step eager and compiled, compute-sanitizer over the operator's tests, a training, and a comparison. The output
of every command, including those that fail or are unavailable, is written to one Markdown file with machine and date.
"""

import argparse
import datetime
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from configs.cli import run_script

PYTHON = sys.executable
STEP = (PYTHON, "-m", "benchmarks.activation_step", "--device", "cuda", "--amp", "bf16", "--rounds", "60")
TESTS = (PYTHON, "-m", "pytest", "-q", "-n0", "tests/ops/test_mish_cuda.py", "tests/ops/test_norm_act_cuda.py")
PARTS: dict[str, tuple[tuple[str, ...], int]] = {  # name: command, longest time in seconds
    "tests": (TESTS, 300),
    "operator": ((PYTHON, "-m", "ops.bench", "--device", "cuda", "--sides", "20", "80", "160"), 240),
    "operator-compiled": ((PYTHON, "-m", "ops.bench", "--device", "cuda", "--compiled", "--sides", "160"), 300),
    "step": (STEP, 240),
    "step-compiled": ((*STEP, "--compiled"), 420),
    "sanitizer": (("compute-sanitizer", "--error-exitcode", "1", *TESTS, "-k", "not large and not 16_bit"), 600),
    "training": ((PYTHON, "train.py", "--cfg", "yolo-mish.yaml", "--device", "0", "--name", "gpu"), 300),
    "comparison": (
        (PYTHON, "compare.py", "--acts", "relu", "silu", "mish", "--seeds", "3", "--device", "0", "--name", "gpu"),
        1200,
    ),
}


def main() -> int:
    """Run the parts and write what they print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.md"), help="Markdown file to append to")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise ValueError("PyTorch finds no GPU; all parts need one")
    name = torch.cuda.get_device_name()
    failed = 0
    for part in arguments.parts:
        command, seconds = PARTS[part]
        code, output, taken = run(command, seconds)
        failed += code != 0
        shown = shlex.join(["python", *command[1:]] if command[0] == PYTHON else command)
        heading = f"## {part}\n\n`{shown}`, {name}, PyTorch {torch.__version__}, {datetime.date.today()}; "
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(f"{heading}exit code {code} after {taken:.0f} s\n\n```\n{output}\n```\n\n")
        print(f"{part}: exit code {code} after {taken:.0f} s", flush=True)
    return 1 if failed else 0


def run(command: tuple[str, ...], seconds: int) -> tuple[int, str, float]:
    """A command's exit code (124 after a timeout, 127 if not installed), its output, and seconds taken."""
    start = time.monotonic()
    if shutil.which(command[0]) is None:
        return 127, f"{command[0]} is not installed", 0.0
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as error:
        kept = error.stdout or b""
        return 124, kept.decode(errors="replace") if isinstance(kept, bytes) else kept, time.monotonic() - start
    return done.returncode, (done.stdout + done.stderr).strip(), time.monotonic() - start


if __name__ == "__main__":
    run_script(main)
