"""The code, machine and libraries of a run, and the memory that the training needs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import torch

from core.cores import cpu_quota, usable_cores
from core.distributed import gather, world

ROOT = Path(__file__).resolve().parents[1]
SOURCE_FOLDERS = ("configs", "core", "data", "engine", "models", "ops")  # of a training, besides the scripts
SOURCE_SUFFIXES = (".py", ".cpp", ".cu", ".h")
PACKAGES = (
    "torch", "torchvision", "numpy", "opencv-python-headless", "albumentations", "pycocotools", "hotcoco", "pydantic",
)  # fmt: skip
# Environment variables that change kernels, threads, memory or the choice of a GPU.
VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "LD_PRELOAD", "GLIBC_TUNABLES",
    "OPENBLAS_NUM_THREADS", "ATEN_CPU_CAPABILITY", "YOLO_MISH",
)  # fmt: skip
VARIABLE_PREFIXES = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "MALLOC_", "TORCH_", "PYTORCH_", "CUDNN_", "CUDA_LAUNCH",
)  # fmt: skip


def _output(*command: str) -> str | None:
    """The output of a short command, or None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def source_hash(root: Path = ROOT) -> str:
    """SHA-256 over the names and contents of the source files of a run."""
    files = [path for path in root.glob("*") if path.suffix in SOURCE_SUFFIXES]
    for folder in SOURCE_FOLDERS:
        for place, folders, names in os.walk(root / folder):
            folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
            files += [Path(place) / name for name in names if name.endswith(SOURCE_SUFFIXES)]
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def fingerprint(root: Path = ROOT) -> dict[str, object]:
    """The running code: git commit (None outside a repository), whether files differ from it, hash of the sources."""
    top = _output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    commit = dirty = None
    if top is not None and Path(top).resolve() == root.resolve():  # not an enclosing repository
        commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
        changes = _output("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
        dirty = None if changes is None else bool(changes)
    return {"commit": commit, "dirty": dirty, "source_sha256": source_hash(root)}


def machine() -> dict[str, object]:
    """The hardware and software that time and memory depend on."""
    return {
        "cpu": _cpu_name(),
        "cpu_instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "cores_usable": usable_cores(),
        "cpu_quota": cpu_quota(),
        "threads": torch.get_num_threads(),
        "ram_mib": _ram_mib(),
        "gpus": _gpus(),
        "driver": _driver() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "environment": {name: os.environ[name] for name in sorted(os.environ) if _matters(name)},
    }


def processes(device: torch.device, *, sync_norms: bool) -> dict[str, object] | None:
    """On rank 0, the processes that train together and their machines; None for a single process and elsewhere."""
    found = gather(machine()) if world() > 1 else None
    if found is None:
        return None
    ranks_of = [[rank for rank, other in enumerate(found) if other == each] for each in found]
    return {
        "world_size": world(),
        "backend": "nccl" if device.type == "cuda" else "gloo",
        "sync_bn": sync_norms,
        "machines": [{"ranks": ranks, **found[rank]} for rank, ranks in enumerate(ranks_of) if ranks[0] == rank],
    }


def processes_here() -> list[int]:
    """On rank 0, the ids of the processes that train together on its machine."""
    host = socket.gethostname()
    return [number for name, number in gather((host, os.getpid())) or [] if name == host]


def _matters(variable: str) -> bool:
    return variable in VARIABLES or (variable.startswith(VARIABLE_PREFIXES) and variable != "TORCH_HOME")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu_name() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()


def _ram_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):
        return None


def _gpus() -> list[dict[str, object]]:
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        capability = f"{properties.major}.{properties.minor}"
        found.append(
            {"name": properties.name, "memory_mib": properties.total_memory // 2**20, "capability": capability}
        )
    return found


def _driver() -> str | None:
    known = _read("/sys/module/nvidia/version").strip()
    listed = known or _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return listed.splitlines()[0] if listed else None


class PeakMemory:
    """Peak memory of a training: on a GPU what PyTorch allocated, on a CPU the growth of the process.

    On a CPU the memory resident when this object is created (Python, libraries, model, data set) is subtracted; data
    loader processes are not counted.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.base = 0.0 if self.device.type == "cuda" else self._resident("VmRSS")
        if self.device.type == "cpu" and sys.platform == "linux":
            # Reset the peak; if that is not permitted, the result is an upper bound.
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")

    def mib(self) -> float:
        """The peak so far in MiB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return max(self._resident("VmHWM") - self.base, 0.0)

    @staticmethod
    def _resident(field: str) -> float:
        for line in _read("/proc/self/status").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
        import resource  # other systems report the peak only

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 1024)
