"""What the C library is told about memory."""

import os
import platform
import subprocess
import sys

import pytest

from ops import build

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

STEPS = """
import ctypes
import resource
from core.allocator import keep_freed_memory

{said}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = (ctypes.c_void_p,)
libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
for mib in (46, 25):
    for step in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [libc.malloc(mib << 20) for _ in range(4)]
        for block in blocks:
            libc.memset(block, 1, mib << 20)
        for block in reversed(blocks):
            libc.free(block)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / (4 * mib * 256))
"""
LIMITED = "assert keep_freed_memory({} << 20)"


def new_pages(said: str, *, python: str = sys.executable, **environment: str) -> list[bool]:
    """Whether the last of some steps gets its pages from the system, with four blocks of 46 and with four of 25 MiB."""
    words = [python, "-c", STEPS.format(said=said)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, env={**os.environ, **environment})
    shares = list(map(float, done.stdout.split()))
    assert all(share < 0.05 or share > 0.9 for share in shares)
    return [share > 0.5 for share in shares]


@pytest.mark.slow
def test_the_blocks_of_the_next_step_need_no_new_pages() -> None:
    assert new_pages("assert keep_freed_memory()") == [False, False]
    assert new_pages("") == [True, True]


@pytest.mark.slow
def test_a_limit_keeps_what_it_says_and_blocks_above_32_mib_go_back() -> None:
    assert new_pages(LIMITED.format(256)) == [True, False]
    assert new_pages(LIMITED.format(40)) == [True, True]


@pytest.mark.slow
def test_loading_the_kernels_leaves_the_process_as_it_is(warm_python: str) -> None:
    if build.cpp_compiler() is None:
        pytest.skip("no C++ compiler")
    load = "from ops.mish import prepare; assert 'CPU kernel' in prepare('cpu').implementation"
    assert new_pages(load, python=warm_python) == [True, True]


@pytest.mark.slow
def test_a_later_smaller_limit_lowers_none() -> None:
    assert new_pages(f"assert keep_freed_memory(); {LIMITED.format(256)}") == [False, False]


@pytest.mark.slow
def test_settings_of_the_environment_stay() -> None:
    for own in ({"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}):
        assert new_pages("assert not keep_freed_memory()", **own) == [True, True]
