"""Exponential moving average (EMA) of the weights, which is evaluated and kept as best."""

from copy import deepcopy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from core.types import DetectorModel, StateDict

MAX_SPAN = 10_000  # steps; the decay of 0.9999 that long COCO schedules use


class ModelEMA:
    """EMA over about the last ``span`` steps; the decay rises from 0.1, so that the first steps are soon forgotten.

    Parameters and floating-point buffers (batch statistics) are averaged, integer buffers copied. The lists of tensors
    are built once: an update is two grouped operations.
    """

    def __init__(self, model: DetectorModel, *, span: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.decay = 1 - 1 / max(1.0, min(span, MAX_SPAN))
        self.updates = 0
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Add the current weights of the model to the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, weights = [average for average, _ in self._averaged], [weight for _, weight in self._averaged]
        get_ema_multi_avg_fn(decay)(averages, weights, self.updates)
        for average, value in self._copied:
            average.copy_(value)

    def state_dict(self) -> StateDict:
        """Return the averaged weights and the number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: StateDict) -> None:
        """Restore the average from a ``state_dict``."""
        self.model.load_state_dict(state["model"])
        self.updates = int(state["updates"])
