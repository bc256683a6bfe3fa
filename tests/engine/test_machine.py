"""What is said of code, machine and memory."""

import subprocess
import sys

import pytest

from engine import machine


def test_source_hash_sees_every_change(tmp_path):
    (tmp_path / "ops" / "csrc").mkdir(parents=True)
    (tmp_path / "ops" / "__pycache__").mkdir()
    (tmp_path / "train.py").write_text("a = 1\n")
    (tmp_path / "ops" / "csrc" / "op.cu").write_text("// op\n")
    hashes = [machine.source_hash(tmp_path)]
    for change in ("ops/csrc/op.cu", "train.py", "ops/new.py"):
        (tmp_path / change).write_text("changed\n")
        hashes.append(machine.source_hash(tmp_path))
    (tmp_path / "train.py").rename(tmp_path / "other.py")
    hashes.append(machine.source_hash(tmp_path))
    assert len(set(hashes)) == 5
    for change in ("notes.txt", "ops/__pycache__/op.py"):
        (tmp_path / change).write_text("x")
    assert machine.source_hash(tmp_path) == hashes[-1]


@pytest.mark.parametrize(
    "name",
    [
        "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "KMP_AFFINITY", "OMP_PROC_BIND", "MKL_CBWR", "MALLOC_ARENA_MAX",
        "LD_PRELOAD", "NVIDIA_TF32_OVERRIDE", "PYTORCH_CUDA_ALLOC_CONF", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "ATEN_CPU_CAPABILITY", "GLIBC_TUNABLES",
    ],
)  # fmt: skip
def test_variables_that_change_kernels_are_recorded(name, monkeypatch):
    monkeypatch.setenv(name, "a value")
    monkeypatch.setenv("A_SECRET", "another")
    environment = machine.machine()["environment"]
    assert environment[name] == "a value" and "A_SECRET" not in environment


def test_fingerprint_tells_commit_and_changes(tmp_path):
    assert machine.fingerprint(tmp_path)["commit"] is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    if subprocess.run([*git, "init", "-q"], check=False).returncode:
        pytest.skip("git is not installed")
    (tmp_path / "train.py").write_text("a = 1\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    clean = machine.fingerprint(tmp_path)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "train.py").write_text("a = 2\n")
    changed = machine.fingerprint(tmp_path)
    assert changed["dirty"] is True and changed["source_sha256"] != clean["source_sha256"]
    (tmp_path / "inner").mkdir()  # a copy inside some other repository has no commit of its own
    assert machine.fingerprint(tmp_path / "inner")["commit"] is None


GROWTH = """
import numpy as np
import torch
from engine.machine import PeakMemory

before = np.ones(30 * 2**17)  # 30 MiB allocated before
memory = PeakMemory(torch.device("cpu"))
print(memory.mib())
big = np.ones(60 * 2**17)
del big
print(memory.mib())
"""


@pytest.mark.slow
def test_peak_memory_counts_growth_only():
    """In a separate process: memory that earlier tests freed but the allocator kept would be used first."""
    done = subprocess.run([sys.executable, "-c", GROWTH], cwd=machine.ROOT, capture_output=True, text=True, check=True)
    first, after = map(float, done.stdout.split())
    assert first < 30 and 50 < after - first < 90
