"""`--batch auto`: the largest batch size whose training step fits into memory, from the peaks of two small ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from configs.schema import Config
from core.device import DeviceConfig, out_of_memory, place, process_count, use_threads
from core.types import Targets
from data.image_cache import available_memory
from engine.grad_checkpointing import checkpointed
from engine.machine import PeakMemory
from models import build_model

MEASURED = (2, 6)  # batch sizes
# Larger ones bring no more images/s on a CPU, and take steps from short trainings on a GPU.
MOST = {"cpu": 16, "cuda": 64}
SHARE = {"cpu": 0.5, "cuda": 0.85}  # of the memory; on a CPU, cached images and data workers need some too
COPIES = 3  # of the parameters, besides those that a step without optimizer holds: two of AdamW, one of the EMA


@dataclass(frozen=True)
class Need:
    """Peak memory of a training step in MiB, `fixed` + `per_image` times the batch size, and how much there is."""

    fixed: float
    per_image: float
    room: float

    def of(self, batch: int) -> float:
        """The peak with a batch size."""
        return self.fixed + batch * self.per_image

    def largest(self, most: int) -> int:
        """The largest power of two up to `most` that fits, 0 if none does."""
        sizes = [2**power for power in range(most.bit_length()) if 2**power <= most]
        return max((size for size in sizes if self.of(size) <= self.room), default=0)


def choose_batch(config: Config) -> tuple[int, str]:
    """The batch size of `--batch auto`, and a sentence on it.

    ValueError if not even one image fits, or for several devices.
    """
    if process_count(config.train.device) > 1:
        raise ValueError("--batch auto: it is measured for one device; give the batch size of all devices together")
    use_threads(config.train.threads)
    device = place(config.train.device, amp=config.train.amp, channels_last=config.train.channels_last)
    pixels = f"{config.train.imgsz} pixels"
    try:
        need = measure(config, device)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise ValueError(
            f"--batch auto: {MEASURED[-1]} images of {pixels} do not fit into memory; try --batch 1"
        ) from error
    batch = need.largest(MOST[device.device.type])
    if not batch:
        raise ValueError(
            f"--batch auto: a training step with one image of {pixels} needs {need.of(1):,.0f} MiB, there are "
            f"{need.room:,.0f}; try a smaller --imgsz or model.size, or --grad-checkpointing"
        )
    return batch, (
        f"--batch auto: {batch} images of {pixels}, for which a step needs about {need.of(batch):,.0f} MiB of the "
        f"{need.room:,.0f} that it may use (measured with {MEASURED[0]} and {MEASURED[1]} images: {need.per_image:.1f} "
        f"MiB an image; at most {MOST[device.device.type]} are chosen)"
    )


def measure(config: Config, device: DeviceConfig) -> Need:
    """What training steps of a configuration need, from forward and backward passes on random images."""
    model = build_model(config.model, seed=0)
    device.move(model.train())
    forward = checkpointed(model) if config.train.grad_checkpointing else model
    assert config.train.imgsz is not None  # resolved by load

    def peak(batch: int) -> float:
        memory = PeakMemory(device.device)
        images = torch.rand(batch, 3, config.train.imgsz or 0, config.train.imgsz or 0)
        images = images.to(device.device, memory_format=device.memory_format)
        with device.autocast():
            outputs = forward(images)
        loss, _ = model.loss(outputs, _targets(batch).to(device.device))
        loss.backward()
        model.zero_grad(set_to_none=True)
        return memory.base + memory.mib()

    peak(MEASURED[0])  # what only the first step needs
    low, high = (peak(batch) for batch in MEASURED)
    per_image = max(high - low, 0.0) / (MEASURED[1] - MEASURED[0])
    copies = COPIES * sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    return Need(low - MEASURED[0] * per_image + copies, per_image, _room(device))


def _targets(batch: int) -> Targets:
    """An object in each image."""
    boxes = torch.tensor([8.0, 8.0, 48.0, 48.0]).expand(batch, 1, 4)
    return Targets(boxes, torch.zeros(batch, 1, dtype=torch.int64), torch.ones(batch, 1, dtype=torch.bool))


def _room(device: DeviceConfig) -> float:
    """MiB that a training may use, with what this process has already."""
    if device.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device.device)
        return SHARE["cuda"] * (free + torch.cuda.memory_reserved(device.device)) / 2**20
    return PeakMemory(device.device).base + SHARE["cpu"] * available_memory() / 2**20


def fitting_batch(config: Config, device: DeviceConfig) -> int | None:
    """The largest batch size that fits, after one did not; None if that cannot be measured."""
    if device.device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        most = measure(config, device).largest(config.train.batch // 2)
    except (RuntimeError, MemoryError, ValueError):
        return None
    return most or None
