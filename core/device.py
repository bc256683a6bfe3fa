"""Device, precision and memory format of a run, chosen by static rules."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from core.cores import usable_cores
from core.distributed import launched


@dataclass(frozen=True)
class DeviceConfig:
    """Device, autocast type (None: off) and memory format of a network, with the reasons as text."""

    device: torch.device
    amp_dtype: torch.dtype | None
    memory_format: torch.memory_format
    reasons: dict[str, str]

    @property
    def needs_scaler(self) -> bool:
        """Whether gradients need loss scaling: fp16 underflows, bf16 has the exponent range of fp32."""
        return self.amp_dtype == torch.float16

    def autocast(self) -> torch.autocast:
        """Return the autocast context, which does nothing if mixed precision is off."""
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    def move(self, model: torch.nn.Module) -> None:
        """Move a model to the device, in the memory format."""
        model.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]  # not in its annotation

    def describe(self) -> str:
        """Device, precision and memory format with their reasons, in one line."""
        precision = "fp32" if self.amp_dtype is None else str(self.amp_dtype).removeprefix("torch.") + " autocast"
        layout = "channels_last" if self.memory_format == torch.channels_last else "contiguous"
        return (
            f"{self.reasons['device']}; {precision} ({self.reasons['amp']}); {layout} ({self.reasons['channels_last']})"
        )


def place(device: str = "auto", *, amp: str = "auto", channels_last: str = "auto") -> DeviceConfig:
    """Choose device, precision and memory format; raises ValueError for an unavailable device."""
    where, device_reason = pick_device(device)
    dtype, amp_reason = _pick_amp(where, amp)
    if channels_last == "auto":
        chosen, layout_reason = True, "auto: faster convolutions in oneDNN and cuDNN"
        if where.type == "cuda" and dtype is None:
            chosen, layout_reason = False, "auto: no gain on a GPU in fp32"
    else:
        chosen, layout_reason = channels_last == "on", "requested"
    layout = torch.channels_last if chosen else torch.contiguous_format
    return DeviceConfig(
        where, dtype, layout, {"device": device_reason, "amp": amp_reason, "channels_last": layout_reason}
    )


def use_threads(count: int | None) -> None:
    """Compute with this number of threads on a CPU; None: PyTorch's own number, but not more than usable cores."""
    own = torch.get_num_threads()
    count = min(own, usable_cores()) if count is None else count
    if count != own:
        torch.set_num_threads(count)


def pick_device(device: str = "auto") -> tuple[torch.device, str]:
    """The torch device for ``auto``, ``cpu``, ``cuda``, ``cuda:1``, a GPU number or ``mps``, and its description.

    ``auto`` never chooses ``mps``, on which nothing of this project has been run.
    """
    text = str(device).strip().lower()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text in ("auto", ""):
        text = "cuda" if count else "cpu"
    if text.isdecimal():
        text = f"cuda:{text}"
    if text == "cpu":
        return torch.device("cpu"), f"CPU, {torch.get_num_threads()} threads"
    if text == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError(f"device {device!r}: PyTorch {torch.__version__} has no Metal device on this machine")
        return torch.device("mps"), "Apple GPU (mps), not tested by this project"
    name, _, number = text.partition(":")
    if name != "cuda" or (number and not number.isdecimal()):
        raise ValueError(f"device {device!r}: expected auto, cpu, cuda, cuda:N, the number of one GPU, or mps")
    index = int(number or 0)
    if index >= count:
        raise ValueError(f"device {device!r}: {count} CUDA GPUs are visible to PyTorch {torch.__version__}")
    return torch.device("cuda", index), f"{torch.cuda.get_device_name(index)} (cuda:{index})"


def device_list(device: str) -> list[str]:
    """The devices of ``0,1`` or ``cpu,cpu``, one for each process; a list of one for any other text.

    ValueError for a list of anything but different GPU numbers, or cpu.
    """
    names = [part.strip().lower() for part in str(device).split(",")]
    if len(names) == 1:
        return names
    gpus = all(name.isdecimal() for name in names) and len(set(names)) == len(names)
    if not gpus and set(names) != {"cpu"}:
        raise ValueError(f"device {device!r}: expected different GPU numbers, as in 0,1, or cpu for each process")
    return names


def process_count(device: str) -> int:
    """The number of processes that train: those of the launcher of this one, else one for each device."""
    return launched() if launched() > 1 else len(device_list(device))


def device_of_process(device: str, *, number: int, processes: int) -> str:
    """The device of a process, the ``number``-th of those on its machine, as ``pick_device`` takes it."""
    names = device_list(device)
    if len(names) == processes:
        return names[number]
    if len(names) > 1:
        raise ValueError(f"device {device!r}: {len(names)} devices, expected one for each of {processes} processes")
    if names[0] in ("auto", "", "cuda"):
        return f"cuda:{number}" if torch.cuda.is_available() else "cpu"
    if names[0] != "cpu":
        raise ValueError(f"device {device!r}: one GPU for {processes} processes; expected auto, or one each, as in 0,1")
    return "cpu"


def _pick_amp(device: torch.device, amp: str) -> tuple[torch.dtype | None, str]:
    if amp == "off":
        return None, "requested"
    if amp in ("bf16", "fp16"):
        if amp == "fp16" and device.type == "cpu":
            raise ValueError("amp fp16 needs a GPU: on a CPU use bf16 or off")
        return (torch.bfloat16 if amp == "bf16" else torch.float16), "requested"
    if device.type == "cpu":
        if cpu_has_bf16():
            return torch.bfloat16, "auto: this CPU has bf16 instructions"
        return None, "auto: this CPU has no bf16 instructions"
    if device.type == "mps":
        return None, "auto: not tested on mps"
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16, "auto: this GPU supports bf16 natively"
    return torch.float16, "auto: this GPU supports fp16 but not bf16 natively"


def cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 dot products (AVX512-BF16 or AMX), according to Linux's cpuinfo."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory; PyTorch has a type for it on GPUs only."""
    texts = ("can't allocate memory", "not enough memory", "cannot allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error).lower() for text in texts)
    )


def synchronize(device: torch.device) -> None:
    """Wait for the device to finish; returns at once on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def set_deterministic(wanted: bool) -> None:
    """Use deterministic algorithms, an error if a GPU has none; new tensors are not filled."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass over every new tensor
