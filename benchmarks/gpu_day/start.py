"""The first stage of the GPU day: what is here, and whether our kernels are what runs."""

import argparse
import importlib.util
import json
import platform
import shutil
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

NEEDED = (  # modules
    *("albumentations", "cv2", "hotcoco", "jinja2", "matplotlib", "msgspec", "numpy", "PIL", "psutil", "pycocotools"),
    *("pydantic", "pytest", "pytest_timeout", "scipy", "tensorboard", "torch", "torchvision", "tqdm", "xdist", "yaml"),
)
COPIED_BYTES = 1_000_000_000


def main() -> int:
    """Print and write what is found; exit code 1 with the reason in the last line if nothing should be measured."""
    arguments = parse(__doc__)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"missing packages: {', '.join(missing)}; bring them as wheels (docs/gpu_day.md)")
        return 1

    import torch

    if arguments.device != "cpu" and not torch.cuda.is_available():
        print("PyTorch finds no GPU")
        return 1
    device = torch.zeros(0, device=arguments.device).device
    if device.type == "cuda" and shutil.which("nvidia-smi"):
        words = ["nvidia-smi", "-q", "-d", "CLOCK"]
        print(subprocess.run(words, capture_output=True, text=True, check=False).stdout)
    reason = why_not_ours(device)
    if reason:
        print(reason)
        return 1

    from ops.backend import choose
    from ops.bench import machine

    choice = choose(device)
    rate = copy_rate(device, COPIED_BYTES // 1000 if arguments.dry else COPIED_BYTES)
    versions = f"Python {platform.python_version()}, CUDA {torch.version.cuda}"
    lines = [f"{machine(device)}, {versions}", f"{choice.implementation} ({choice.reason})", f"copy: {rate:.0f} GB/s"]
    print("\n".join(lines))
    content = {"machine": machine(device), "copy_gb_per_s": rate, "summary": lines}
    arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(text: str | None) -> argparse.Namespace:
    """The options that the stages of this package share, and --data."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--dry", action="store_true", help="tiny sizes")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--json", type=Path, required=True, help="file for the figures")
    parser.add_argument("--data", help="data YAML of the trainings")
    return parser.parse_args()


def why_not_ours(device: "torch.device") -> str:  # type: ignore[name-defined]  # noqa: F821
    """Why our kernels would not run on the device, in one line; empty if they would."""
    import torch
    from torch import nn

    from ops.backend import choose
    from ops.mish import Mish
    from ops.norm_act import fusion, prepare

    prepare(device)
    choice = choose(device)
    if choice.kernels is None:
        return f"{choice.implementation} runs in place of our kernels: {choice.reason}"
    if fusion(nn.BatchNorm2d(8), Mish(), device, torch.bfloat16) is None:
        return "the fused batch norm and activation failed its comparison with PyTorch before first use, see above"
    return ""


def copy_rate(device: "torch.device", size: int) -> float:  # type: ignore[name-defined]  # noqa: F821
    """Bandwidth of a copy of so many bytes in GB/s, reading and writing counted."""
    import torch

    from ops.timing import gb_per_s, measure

    x = torch.zeros(size // 2, dtype=torch.bfloat16, device=device)
    out = torch.empty_like(x)
    taken = measure({"copy": lambda number: partial(out.copy_, x)}, 10, device)
    return gb_per_s(x, 2, statistics.median(taken["copy"]))


if __name__ == "__main__":
    sys.exit(main())
