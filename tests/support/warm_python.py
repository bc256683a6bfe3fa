"""A Python that has its libraries loaded: programs that tests start as processes begin at once instead of after ten
seconds of imports.

`warm_python` starts a server that imports the libraries, never the project, and gives a program to use in place of
`sys.executable`, with a script, ``-m`` or ``-c``. For each call the server forks a process that gets the caller's
arguments, folder, environment and open streams, imports the project anew, and ends as the program ends; so do the
processes that it starts. Signals are passed on, and a killed caller takes its process along.
"""

import atexit
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STREAMS = (0, 1, 2)
PROGRAM = "python"
FORWARDED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def warm_python() -> Iterator[str]:
    """The path of a program that is called like Python, with the libraries loaded; plain Python if the system does not
    allow it. Its server ends with the context, or with this process."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):  # not Linux, or one that does not permit it
        yield sys.executable
        return
    with tempfile.TemporaryDirectory() as folder:
        address, executable = Path(folder, "server"), Path(folder, PROGRAM)
        words = [sys.executable, "-S", "-E", __file__, "call", str(address)]
        executable.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
        executable.chmod(0o700)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
        words = [sys.executable, __file__, "serve", str(address)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            yield str(executable)


def serve(address: str) -> None:
    """Fork a process for each caller, and return in it."""
    import albumentations  # noqa: F401
    import cv2
    import matplotlib.figure  # noqa: F401
    import pycocotools.cocoeval  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch._dynamo
    import torch.utils.flop_counter
    import torch.utils.tensorboard  # noqa: F401
    import torchvision  # noqa: F401

    cv2.setNumThreads(0)  # threads do not survive a fork
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    callers: dict[int, tuple[socket.socket, int]] = {}  # by the process's pidfd: the caller and the process id
    with selectors.DefaultSelector() as events:
        events.register(listener, selectors.EVENT_READ)
        events.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in events.select():
                if key.fileobj is sys.stdin:  # closed
                    os._exit(0)
                if key.fileobj is listener:
                    caller, _ = listener.accept()
                    request, streams, _, _ = socket.recv_fds(caller, 1 << 20, len(STREAMS))
                    pid = os.fork()
                    if pid == 0:
                        listener.close()
                        caller.close()
                        become(json.loads(request), streams)
                        sys.executable = str(Path(address).with_name(PROGRAM))
                        return
                    for stream in streams:
                        os.close(stream)
                    handle = os.pidfd_open(pid)
                    callers[handle] = caller, pid
                    caller.sendall(pid.to_bytes(4, "big"))
                    events.register(handle, selectors.EVENT_READ)
                    events.register(caller, selectors.EVENT_READ, handle)
                elif isinstance(key.fileobj, socket.socket):  # the caller is gone
                    events.unregister(key.fileobj)
                    with suppress(ProcessLookupError):
                        os.kill(callers[key.data][1], signal.SIGKILL)
                else:
                    handle = key.fd
                    caller, pid = callers.pop(handle)
                    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with suppress(OSError):
                        caller.sendall(status.to_bytes(4, "big", signed=True))
                    with suppress(KeyError):
                        events.unregister(caller)
                    events.unregister(handle)
                    os.close(handle)
                    caller.close()


def become(wanted: dict[str, Any], streams: list[int]) -> None:
    """Take over the folder, environment, arguments and streams of a caller."""
    os.setsid()
    for stream, given in zip(STREAMS, streams, strict=True):
        os.dup2(given, stream)
        os.close(given)
    for number in FORWARDED:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    sys.argv = wanted["arguments"]


def execute() -> None:
    """Run what Python would run with the arguments ``SCRIPT ...``, ``-m MODULE ...`` or ``-c CODE ...``, and exit.

    Python's own end would clear all modules, which takes seconds in a process that shares its memory.
    """
    code: object = 0
    try:
        run()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def run() -> None:
    """Run the program of the arguments as the main module; torchrun puts -u, unbuffered output, before it."""
    if sys.argv[0] == "-u":
        del sys.argv[0]
    first = sys.argv[0]
    sys.path[0] = os.getcwd() if first in ("-c", "-m") else str(Path(first).resolve().parent)
    sys.path[1:1] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if first == "-c":
        code = sys.argv.pop(1)
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(first, run_name="__main__")


def call(address: str, arguments: list[str]) -> None:
    """Have the server run a program in place of this process, and end as it does."""
    request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [json.dumps(request).encode()], STREAMS)
        pid = int.from_bytes(server.recv(4), "big")
        for number in FORWARDED:
            signal.signal(number, lambda number, _: os.kill(pid, number))
        status = int.from_bytes(server.recv(4), "big", signed=True)
    if status < 0:
        with suppress(OSError):  # that of SIGKILL cannot be set
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    if sys.argv[1] == "call":
        call(sys.argv[2], sys.argv[3:])
    serve(sys.argv[2])
    execute()
