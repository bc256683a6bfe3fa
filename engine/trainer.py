"""Training of one network on one device, or on one in each process: ``Trainer.one_epoch`` over ``Trainer.one_step``."""

import math
import os
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from core.device import DeviceConfig
from core.distributed import all_sum, exchange, is_main, world
from core.progress import Progress
from core.types import Batch, DetectorModel, Outputs, StateDict, Targets
from data.loader import EvalLoader, TrainLoader
from engine.clock import Clock
from engine.data_parallel import batch_checksum
from engine.ema import ModelEMA
from engine.optim import hold_frozen

READ_EVERY = 10  # steps between two readings of the losses from a GPU; each reading waits for it


@dataclass
class State:
    """The progress of a run."""

    epoch: int = 0
    batch: int = 0  # finished batches of `epoch`
    step: int = 0  # optimizer steps
    best: float | None = None  # mAP50-95; None: no epoch has one yet
    best_epoch: int | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    # Of the current epoch: float64, one per loss term, then the number of batches.
    loss_sums: torch.Tensor | None = None
    batches_crc32: int = 0  # of the current epoch: over the checksums of its batches

    def __post_init__(self) -> None:
        """Read the -1 of earlier checkpoints."""
        if self.best is not None and self.best < 0:
            self.best = self.best_epoch = None

    def state_dict(self) -> StateDict:
        """Return the state as plain values and a tensor."""
        return {**vars(self), "rows": [dict(row) for row in self.rows]}

    def close_epoch(self) -> None:
        """Advance to the next epoch, once this one is trained and validated."""
        self.epoch, self.batch, self.loss_sums, self.batches_crc32 = self.epoch + 1, 0, None, 0


class Stopped(Exception):  # noqa: N818 - no error
    """A signal requested a stop; the state of the training is that after a whole optimizer step."""


@dataclass
class Trainer:
    """Trains ``model``."""

    model: DetectorModel
    forward: Callable[[torch.Tensor], Outputs]  # of the model in training (engine.forward)
    forward_name: str  # empty for the model itself
    optimizer: torch.optim.Optimizer
    ema: ModelEMA | None
    scaler: torch.amp.GradScaler
    device_config: DeviceConfig
    learning_rate: Callable[[int], float]
    clock: Clock
    accumulate: int
    clip: float
    imgsz: int
    multi_scale: float
    seed: int
    loss_names: tuple[str, ...]
    sync_norms: bool = False
    state: State = field(default_factory=State)
    stop_signal: int = 0  # of this process
    stopping: int = 0  # the signal by which all processes stop
    parent: int = field(default_factory=os.getppid)

    @property
    def eval_model(self) -> DetectorModel:
        """The network to evaluate and keep: the EMA, or the model itself without one."""
        return self.ema.model if self.ema is not None else self.model

    @property
    def replica(self) -> DistributedDataParallel | None:
        """The model as one of those that several processes train together; None for a process that trains alone."""
        return self.forward if isinstance(self.forward, DistributedDataParallel) else None

    def one_epoch(
        self,
        loader: TrainLoader,
        *,
        title: str,
        count: int,
        on_batch: Callable[[int, Batch], None],
        save: Callable[[], None],
        save_seconds: float,
    ) -> dict[str, float]:
        """Train the current epoch from ``state.batch`` to its end; return the mean of each loss term.

        The epoch ends after ``count`` batches. ``on_batch`` is called with the number and the batch before each step,
        ``save`` every ``save_seconds``, in all of several processes. The epoch is not closed: a run resumed from a
        later checkpoint continues with its validation.

        Raises Stopped after a signal to stop; then, and when ``save`` is called, the state is that after a whole
        optimizer step. Raises FloatingPointError if a loss is not finite.
        """
        state, device = self.state, self.device_config.device
        self.model.train()
        hold_frozen(self.model)
        if state.loss_sums is None:
            state.loss_sums = torch.zeros(len(self.loss_names) + 1, dtype=torch.float64)
        sums = total = state.loss_sums.to(device)
        if not is_main():  # the sums of a checkpoint are those of all processes
            sums[:-1] = 0
        loader.set_position(state.epoch, state.batch)

        def complete_state(batch: Batch | None = None) -> None:
            total = self._total(sums)
            self._require_finite(total, batch)
            state.loss_sums = total.cpu()
            self.raise_if_stopped()

        def stop_between_steps() -> None:
            if world() == 1 and self.stop_signal and state.batch % self.accumulate == 0:
                complete_state()

        batches = self._timed(loader.iterate(stop_between_steps))
        if count < len(loader):
            batches = islice(batches, count - state.batch)
        saved = time.monotonic()
        with Progress(count, title=title, initial=state.batch) as progress:
            for batch in batches:
                on_batch(state.batch, batch)
                first = state.batch - state.batch % self.accumulate
                group = min(self.accumulate, count - first)
                last = state.batch + 1 - first == group
                with self.clock.step():
                    terms = self.one_step(batch, weight=1 / group, update=last)
                    sums += torch.cat([terms, terms.new_ones(1)])
                state.batch += 1
                state.batches_crc32 = zlib.crc32(batch_checksum(batch).to_bytes(4), state.batches_crc32)
                if device.type == "cpu" or state.batch % READ_EVERY == 0 or state.batch == count:
                    total = self._total(sums)
                    self._require_finite(total, batch)
                progress.update(partial(self._text, total))
                if last and self.agree(time.monotonic() - saved >= save_seconds):
                    complete_state(batch)
                    with self.clock.span("saving"):
                        save()
                    saved = time.monotonic()
        total = self._total(sums)
        state.loss_sums = total.cpu()
        means = (total[:-1] / total[-1]).tolist()
        return dict(zip(self.loss_names, means, strict=True))

    def one_step(self, batch: Batch, *, weight: float, update: bool) -> torch.Tensor:
        """Forward and backward of a batch, its gradient multiplied by ``weight``; with ``update``, an optimizer step.

        Returns the loss terms as a float64 tensor on the device, without waiting for it. Of several processes, each has
        a share of the batch and gets its part of the terms; with ``update``, their gradients are summed.
        """
        with nullcontext() if self.replica is None or update else self.replica.no_sync():
            loss, terms = self.loss(batch)
            self.scaler.scale(loss * weight).backward()
        self.clock.mark_summed()
        if update:
            self.update()
        return torch.stack([terms[name].detach().double() for name in self.loss_names])

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch, of several processes this one's part of it, and its detached terms by name."""
        images, targets = self.prepare(batch)
        with self.device_config.autocast(), self._without_statistics(images):
            outputs = self.forward(images)
        return self.model.loss(outputs, targets, **({} if self.replica is None else {"over_processes": all_sum}))

    @contextmanager
    def _without_statistics(self, images: torch.Tensor) -> Iterator[None]:
        """For the share without images of a process: batch norms of its own have nothing to take statistics of."""
        if len(images) or self.sync_norms:
            yield
            return
        self.model.eval()
        yield
        self.model.train()
        hold_frozen(self.model)

    def update(self) -> None:
        """Clip the gradient, step the optimizer at the scheduled learning rate, and update the EMA."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.state.step)
        if self.clip > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        if self.ema is not None:
            self.ema.update()

    def prepare(self, batch: Batch) -> tuple[torch.Tensor, Targets]:
        """Move a batch to the device as fp32 images in 0..1, resized if multi-scale training is on."""
        device = self.device_config.device
        images = batch.images.to(device, non_blocking=True)
        images = images.to(torch.float32, memory_format=self.device_config.memory_format).div_(255)
        targets = batch.targets.to(device, non_blocking=True)
        size = self.image_size()
        if size != self.imgsz:
            targets = targets.scaled(size / self.imgsz, size / self.imgsz)
            images = functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        return images, targets

    def image_size(self) -> int:
        """Image size in pixels of the current batch: a multiple of the stride, keyed by (seed, epoch, batch)."""
        if not self.multi_scale:
            return self.imgsz
        random = np.random.default_rng([self.seed, self.state.epoch, self.state.batch])
        scale = random.uniform(1 - self.multi_scale, 1 + self.multi_scale)
        stride = self.model.stride
        return max(2 * stride, round(self.imgsz * scale / stride) * stride)  # a single cell has no batch statistics

    @contextmanager
    def stop_on_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM stop the training after a whole step; a second one ends the process at once.

        A launcher of several processes repeats signals, and kills them itself if they take too long to end. Outside of
        the main thread, where Python takes no signals, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def request_stop(number: int, frame: FrameType | None) -> None:
            self.stop_signal = number
            if world() > 1:
                return
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

        before = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items() if world() == 1 else ():
                signal.signal(number, handler)

    def agree(self, due: bool = False) -> bool:
        """Whether any process has something ``due`` or a signal to stop, which then becomes that of all of them.

        A process whose launcher was killed stops as by SIGTERM: nothing else would ever end it.
        """
        if world() > 1 and os.getppid() != self.parent and not self.stop_signal:
            self.stop_signal = signal.SIGTERM
        flags = exchange(self.stop_signal, due)
        self.stopping = max(stop for stop, _ in flags)
        return any(map(any, flags))

    def raise_if_stopped(self) -> None:
        """Raise Stopped if a signal requested it; of several processes, if they have agreed on it."""
        if world() == 1:
            self.stopping = self.stop_signal
        if self.stopping:
            raise Stopped

    def until_stopped(self, batches: EvalLoader) -> Iterator[Batch]:
        """The batches of a validation, which a signal interrupts; a resumed run repeats the whole validation."""
        remaining = batches.iterate(self.raise_if_stopped)
        for _ in range(batches.rounds):  # in which another process may have a batch more
            batch = next(remaining, None)
            self.agree()
            self.raise_if_stopped()
            if batch is not None:
                yield batch

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            with self.clock.span("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _require_finite(self, sums: torch.Tensor, batch: Batch | None = None) -> None:
        if not math.isfinite(float(sums.sum())):
            terms = ", ".join(f"{name} {float(value):.3g}" for name, value in zip(self.loss_names, sums, strict=False))
            images = "" if batch is None else f"; first images: {', '.join(map(str, batch.image_ids[:4]))}"
            raise FloatingPointError(
                f"the loss is not finite at epoch {self.state.epoch + 1}, batch {self.state.batch} (sums: {terms}; "
                f"learning rate {self.learning_rate(self.state.step):.3g}{images}): try a lower --lr0, --amp off, or "
                "a longer train.warmup"
            )

    def _total(self, sums: torch.Tensor) -> torch.Tensor:
        """The sums of the loss terms over all processes, and the number of batches."""
        return sums if world() == 1 else torch.cat([all_sum(sums[:-1]), sums[-1:]])

    def _text(self, sums: torch.Tensor) -> str:
        means = (sums[:-1] / sums[-1]).tolist()
        losses = " ".join(f"{name} {value:.3f}" for name, value in zip(self.loss_names, means, strict=True))
        return f"{losses} lr {self.optimizer.param_groups[0]['lr']:.2g}"
