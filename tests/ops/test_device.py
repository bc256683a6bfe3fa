"""What the C library is told about memory."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
from ops.device import keep_freed_memory

if {kept}:
    assert keep_freed_memory()
for step in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(12_000_000) for _ in range(3)]  # 46 MiB each
    del tensors
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept: bool) -> int:
    """Pages that the last of some steps gets from the system."""
    words = [sys.executable, "-c", STEPS.format(kept=kept)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_the_tensors_of_the_next_step_need_no_new_pages() -> None:
    assert faults(kept=True) < 1000 < 20_000 < faults(kept=False)
