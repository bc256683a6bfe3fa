"""The clock: spans and steps add up, warm-up is apart, totals are carried over."""

import time

import pytest
import torch

from engine.clock import WARMUP_STEPS, Clock


def test_times_add_up_and_carry_over() -> None:
    clock = Clock(torch.device("cpu"))
    for _ in range(WARMUP_STEPS + 2):
        with clock.step():
            time.sleep(0.002)
    with clock.span("data"):
        time.sleep(0.002)
    epoch = clock.close_epoch()
    assert epoch["warmup"] >= 0.002 * WARMUP_STEPS
    assert epoch["train"] == pytest.approx(sum(clock.step_seconds)) and len(clock.step_seconds) == 2
    assert epoch["data"] >= 0.002 and epoch["validation"] == 0
    later = Clock(torch.device("cpu"))
    later.load_state_dict(clock.state_dict())
    with later.span("data"):
        pass
    later.close_epoch()
    assert later.total["train"] == pytest.approx(clock.total["train"])
    assert later.total["data"] >= clock.total["data"]
