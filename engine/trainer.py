"""The training of one network on one device: ``Trainer.one_epoch`` over ``Trainer.one_step``."""

import math
import signal
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from core.device import DeviceConfig
from core.progress import Progress
from engine.clock import Clock
from engine.ema import ModelEMA
from engine.optim import hold_frozen

READ_EVERY = 10  # steps between two readings of losses from a GPU, each of which waits for it


@dataclass
class State:
    """How far a run has come."""

    epoch: int = 0
    batch: int = 0  # batches of `epoch` that are done
    step: int = 0  # optimiser steps
    best: float = -1.0
    best_epoch: int = -1
    rows: list[dict[str, Any]] = field(default_factory=list)
    loss_sums: torch.Tensor | None = None  # of the open epoch: float64, one a loss term, and the number of batches
    batches_crc32: int = 0  # of the open epoch: over the checksums of its batches

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain values and a tensor."""
        return {**vars(self), "rows": [dict(row) for row in self.rows]}

    def close_epoch(self) -> None:
        """Go on to the next epoch: this one is trained and, where asked for, validated."""
        self.epoch, self.batch, self.loss_sums, self.batches_crc32 = self.epoch + 1, 0, None, 0


class Stopped(Exception):  # noqa: N818 - no error
    """A signal has asked to stop, and the state of the training stands behind a whole optimiser step."""


@dataclass
class Trainer:
    """Trains ``model``; everything it needs is given, nothing is looked up."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: ModelEMA | None
    scaler: torch.amp.GradScaler
    placement: DeviceConfig
    learning_rate: Callable[[int], float]
    clock: Clock
    accumulate: int
    clip: float
    imgsz: int
    multi_scale: float
    seed: int
    loss_names: tuple[str, ...]  # terms of the model's loss
    state: State = field(default_factory=State)
    stop_signal: int = 0

    @property
    def evaluated(self) -> nn.Module:
        """The network whose mAP counts: the moving average, or the model itself without one."""
        return self.ema.model if self.ema is not None else self.model

    def one_epoch(
        self,
        loader: Any,
        *,
        title: str,
        watch: Callable[[int, Any], None] | None = None,
        save: Callable[[], None] | None = None,
        save_seconds: float = math.inf,
    ) -> dict[str, float]:
        """Train the open epoch from the batch where it stands to its end; return the mean of each loss term.

        ``watch`` is shown each batch and its number before the step; ``save`` is called every ``save_seconds``. The
        epoch stays open: what is saved from now on goes on with its validation.

        Raises Stopped where a signal asked to stop; there, and when ``save`` is called, the state stands behind a whole
        optimiser step. Raises FloatingPointError when a loss is not finite.
        """
        state, device = self.state, self.placement.device
        self.model.train()
        hold_frozen(self.model)
        if state.loss_sums is None:
            state.loss_sums = torch.zeros(len(self.loss_names) + 1, dtype=torch.float64)
        sums = state.loss_sums.to(device)
        loader.set_position(state.epoch, state.batch)
        batches, count, saved = self._timed(iter(loader)), len(loader), time.monotonic()
        with Progress(count, title=title, initial=state.batch) as progress:
            for batch in batches:
                if watch is not None:
                    watch(state.batch, batch)
                first = state.batch - state.batch % self.accumulate
                group = min(self.accumulate, count - first)
                last = state.batch + 1 - first == group
                with self.clock.step():
                    items = self.one_step(batch, share=1 / group, update=last)
                    sums += torch.cat([items, items.new_ones(1)])
                state.batch += 1
                state.batches_crc32 = zlib.crc32(batch.crc32.to_bytes(4), state.batches_crc32)
                if device.type == "cpu" or state.batch % READ_EVERY == 0 or state.batch == count:
                    self._require_finite(sums, batch)
                progress.update(partial(self._text, sums))
                due = save is not None and time.monotonic() - saved >= save_seconds
                if last and (self.stop_signal or due):
                    self._require_finite(sums, batch)
                    state.loss_sums = sums.cpu()
                    self.stop_if_asked()
                    if save is not None:
                        with self.clock.span("saving"):
                            save()
                    saved = time.monotonic()
        state.loss_sums = sums.cpu()
        means = (sums[:-1] / sums[-1]).tolist()
        return dict(zip(self.loss_names, means, strict=True))

    def one_step(self, batch: Any, *, share: float, update: bool) -> torch.Tensor:
        """Forward and backward of a batch, whose gradient counts ``share``; with ``update`` also the optimiser's step.

        Returns the loss terms as a float64 tensor on the device, without waiting for it.
        """
        images, targets = self.prepare(batch)
        with self.placement.autocast():
            outputs = self.model(images)
        loss, items = self.model.loss(outputs, targets)  # type: ignore[operator]
        self.scaler.scale(loss * share).backward()
        if update:
            self.update()
        return torch.stack([items[name].detach().double() for name in self.loss_names])

    def update(self) -> None:
        """Clip the gradient, step the optimiser at the schedule's learning rate, and update the moving average."""
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

    def prepare(self, batch: Any) -> tuple[torch.Tensor, Any]:
        """Bring a batch to the device as fp32 images in 0..1, at this batch's side where multi-scale is on."""
        device = self.placement.device
        images = batch.images.to(device, non_blocking=True)
        images = images.to(torch.float32, memory_format=self.placement.memory_format).div_(255)
        targets = batch.targets.to(device, non_blocking=True)
        side = self.side()
        if side != self.imgsz:
            targets = targets.scaled(side / self.imgsz, side / self.imgsz)
            images = functional.interpolate(images, size=(side, side), mode="bilinear", align_corners=False)
        return images, targets

    def side(self) -> int:
        """The side of the present batch's images: a multiple of the stride, keyed by (seed, epoch, batch)."""
        if not self.multi_scale:
            return self.imgsz
        random = np.random.default_rng([self.seed, self.state.epoch, self.state.batch])
        scale = random.uniform(1 - self.multi_scale, 1 + self.multi_scale)
        stride = int(self.model.stride)  # type: ignore[arg-type]
        return max(2 * stride, round(self.imgsz * scale / stride) * stride)  # one cell has no batch statistics

    @contextmanager
    def stops_on_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM ask the training to stop behind a whole step; a second one ends it at once."""

        def ask(number: int, frame: Any) -> None:
            self.stop_signal = number
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_if_asked(self) -> None:
        """Raise Stopped where a signal has asked for it."""
        if self.stop_signal:
            raise Stopped

    def until_stopped(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches of a validation, which a signal interrupts: its epoch is trained and will be validated anew."""
        for batch in batches:
            self.stop_if_asked()
            yield batch

    def _timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.clock.span("data"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _require_finite(self, sums: torch.Tensor, batch: Any) -> None:
        if not math.isfinite(float(sums.sum())):
            terms = ", ".join(f"{name} {float(value):.3g}" for name, value in zip(self.loss_names, sums, strict=False))
            raise FloatingPointError(
                f"the loss is not finite at epoch {self.state.epoch + 1}, batch {self.state.batch} (sums: {terms}; "
                f"learning rate {self.learning_rate(self.state.step):.3g}; first images: "
                f"{', '.join(map(str, batch.image_ids[:4]))}): try a lower --lr0, --amp off, or a longer train.warmup"
            )

    def _text(self, sums: torch.Tensor) -> str:
        means = (sums[:-1] / sums[-1]).tolist()
        losses = " ".join(f"{name} {value:.3f}" for name, value in zip(self.loss_names, means, strict=True))
        return f"{losses} lr {self.optimizer.param_groups[0]['lr']:.2g}"
