"""The clock: spans and steps add up, warm-up is apart, totals are carried over."""

import time

import pytest
import torch

from core.limits import WARMUP_STEPS
from engine.clock import Clock


def test_times_add_up_and_carry_over() -> None:
    clock = Clock(torch.device("cpu"))
    for _ in range(WARMUP_STEPS + 2):
        with clock.step():
            time.sleep(0.002)
    with clock.span("data"):
        time.sleep(0.002)
    steps = clock.state_dict()["steps"]
    halfway = Clock(torch.device("cpu"))
    halfway.load_state_dict(clock.state_dict())
    epoch = clock.close_epoch()
    assert halfway.close_epoch() == epoch  # an epoch that was cut off keeps its times
    assert epoch["warmup"] >= 0.002 * WARMUP_STEPS
    assert epoch["train"] == pytest.approx(sum(steps)) and len(steps) == 2
    assert epoch["data"] >= 0.002 and epoch["validation"] == 0
    later = Clock(torch.device("cpu"))
    later.load_state_dict(clock.state_dict())
    with later.span("data"):
        pass
    later.close_epoch()
    assert later.total["train"] == pytest.approx(clock.total["train"])
    assert later.total["data"] >= clock.total["data"]
