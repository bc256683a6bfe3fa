"""Energy counters of the hardware: NVML on a GPU (with pynvml), RAPL on a CPU where it may be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
Reading = list[tuple[float, float]] | None
"""Of each package or GPU: the counter, and the value at which it starts again from 0, in joules."""


class EnergyMeter:
    """Joules between two readings: of the whole GPU, or of all CPU packages, other processes included."""

    def __init__(self, device: torch.device, *, powercap: Path = POWERCAP) -> None:
        self._read, self.source = _nvml(device) if device.type == "cuda" else _rapl(powercap)
        self._last = self._read()

    def joules(self) -> float | None:
        """The energy since the previous reading; None where nothing can be read."""
        last, self._last = self._last, self._read()
        if last is None or self._last is None:
            return None
        used = [(now - before) % limit for (now, limit), (before, _) in zip(self._last, last, strict=True)]
        return sum(used)


def _nvml(device: torch.device) -> tuple[Callable[[], Reading], str]:
    nothing: tuple[Callable[[], Reading], str] = (lambda: None, "not measured")
    try:
        import pynvml  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return nothing
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError:  # no driver that fits
        return nothing

    def read() -> Reading:
        try:
            return [(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, float(2**64))]
        except pynvml.NVMLError:  # a GPU without the counter, or lost: no reason to end a training
            return None

    return nothing if read() is None else (read, "NVML")


def _rapl(powercap: Path) -> tuple[Callable[[], Reading], str]:
    packages = sorted(path for path in powercap.glob("intel-rapl:*") if path.name.count(":") == 1)

    def read() -> Reading:
        try:
            return [(_joules(path / "energy_uj"), _joules(path / "max_energy_range_uj")) for path in packages] or None
        except (OSError, ValueError):  # readable by root only on most systems
            return None

    return read, "not measured" if read() is None else "RAPL"


def _joules(file: Path) -> float:
    return int(file.read_text()) / 1e6
