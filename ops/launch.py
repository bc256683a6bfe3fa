"""Launches of CUDA kernels, of which one call from Python makes several.

Each kernel takes one struct by value: addresses, and constants that follow them. With a C++ compiler a few lines of C++
(csrc/launch.cpp) make the launches of a call; without one, Python makes each through ctypes, which takes longer.
"""

import ctypes
import functools
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from ctypes import byref, c_char_p, c_void_p
from weakref import WeakValueDictionary

from ops import build
from ops.grid import THREADS

# The constants in the argument of kernels, and these kernels with their grids (x, y).
Launch = tuple[bytes, Sequence[tuple[c_void_p, int, int]]]

CONFIG = struct.Struct("@7I2PI0P")  # CUlaunchConfig of cuda.h: grid, block, shared memory, stream, attributes
KERNEL = struct.Struct("@2Pq3I0P")  # the struct Kernel of csrc/launch.cpp
HEAD = struct.Struct("@4P2q")  # the beginning of its struct Call
STREAM = struct.Struct("@P")  # what follows, before the addresses
INVALID_CONTEXT = 201  # of CUDA's errors


class Launches:
    """Launches of kernels one after the other, all of which take the same addresses: calls begin with `head`."""

    def __init__(self, launches: Sequence[Launch], addresses: int, driver: tuple[int, int, int]):
        """`driver`: the addresses of cuLaunchKernelEx and cuCtxGetCurrent, and the context of the kernels."""
        self.launches = launches
        constants = [ctypes.create_string_buffer(each, len(each)) for each, _ in launches]
        rows = [
            KERNEL.pack(function.value or 0, ctypes.addressof(buffer), len(buffer), width, height, THREADS)
            for buffer, (_, kernels) in zip(constants, launches, strict=True)
            for function, width, height in kernels
        ]
        table = ctypes.create_string_buffer(b"".join(rows), KERNEL.size * len(rows))
        self.head = HEAD.pack(*driver, ctypes.addressof(table), len(rows), STREAM.size * addresses)
        self._memory = constants, table  # what `head` points to


class _Thread(threading.local):
    entered = False


class Launcher:
    """Makes launches through a driver, in the current context, which must be that of the kernels.

    `launch_all` takes a head, the stream and the addresses, packed one after the other, and returns 0 or the code of
    the first launch that failed; INVALID_CONTEXT, and launches nothing, in another context. Python, which takes long to
    ask for the context, does that only in threads whose `entered` is not set.
    """

    def __init__(self, driver: ctypes.CDLL, context: int):
        self.driver, self.thread = driver, _Thread()
        compiled = _compiled() if isinstance(driver, ctypes.CDLL) else None
        self.launch_all: Callable[[bytes], int] = compiled or self._launch_all
        self._driver = (0, 0, 0)
        if compiled is not None:
            self._driver = _address(driver.cuLaunchKernelEx), _address(driver.cuCtxGetCurrent), context
        # By head, where Python finds what C++ finds by the address in it. Weak: plans come and go with their shapes.
        self.prepared: WeakValueDictionary[bytes, Launches] = WeakValueDictionary()

    def prepare(self, launches: Sequence[Launch], addresses: int) -> Launches:
        """Launches for `launch_all`, to be kept as long as their head is used."""
        prepared = Launches(launches, addresses, self._driver)
        self.prepared[prepared.head] = prepared
        return prepared

    def _launch_all(self, call: bytes) -> int:
        """As csrc/launch.cpp."""
        if not self.thread.entered:
            return INVALID_CONTEXT
        launch, begin = self.driver.cuLaunchKernelEx, HEAD.size + STREAM.size
        (stream,), addresses = STREAM.unpack_from(call, HEAD.size), call[begin:]
        for constants, kernels in self.prepared[call[: HEAD.size]].launches:
            argument = byref(c_char_p(addresses + constants))
            for function, width, height in kernels:
                if code := launch(config(width, height, stream), function, argument, None):
                    return int(code)
        return 0


def _address(function: object) -> int:
    return ctypes.cast(function, c_void_p).value or 0  # type: ignore[arg-type]


@functools.cache
def _compiled() -> Callable[[bytes], int] | None:
    """`launch_all` of csrc/launch.cpp, built if necessary; None without a compiler."""
    if sys.platform == "win32":
        return None
    try:
        return ctypes.CDLL(str(build.launch_library())).launch_all
    except (build.Unavailable, OSError, AttributeError):
        return None


@functools.lru_cache(maxsize=4096)
def config(width: int, height: int, stream: int) -> bytes:
    """The CUlaunchConfig of a grid in a stream: one argument for many, each of which takes ctypes time."""
    return CONFIG.pack(width, height, 1, THREADS, 1, 1, 0, stream, 0, 0)
