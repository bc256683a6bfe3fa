"""What the C library does with freed memory: a policy of the whole process, so that programs set it, not libraries."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
ALL = 2**31 - 1  # bytes
MODERATE = 256 << 20  # bytes: the results of a large layer, for programs that do not train
_kept = 0  # the limit currently set in glibc


def keep_freed_memory(limit: int = ALL) -> bool:
    """Let this process keep up to `limit` bytes of freed memory, so that new tensors need no new pages.

    glibc returns freed memory above about 50 MiB to the system, which has to clear the pages again: as expensive as the
    operator that writes them, a tenth of an fp32 step on a CPU. With a limit, blocks above 32 MiB are still returned.

    Returns whether the limit is set: False with another C library, or if the environment has settings for it
    (MALLOC_TRIM_THRESHOLD_ and similar, GLIBC_TUNABLES), which are respected. A larger limit set before is kept.
    """
    global _kept
    if limit <= _kept:
        return True
    configured = any(f"MALLOC_{name}_" in os.environ for name in ("TRIM_THRESHOLD", "MMAP_THRESHOLD", "MMAP_MAX"))
    configured = configured or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if configured or mallopt is None:
        return False
    blocks = (M_MMAP_MAX, 0) if limit == ALL else (M_MMAP_THRESHOLD, 32 << 20)
    if all(mallopt(*option) == 1 for option in (blocks, (M_TRIM_THRESHOLD, limit))):
        _kept = limit
    return _kept == limit
