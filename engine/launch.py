"""Start a script as one process for each of several devices, by PyTorch's elastic launcher, as torchrun does."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from uuid import uuid4

from core.cores import usable_cores


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run this script with these arguments in so many processes; returns the exit code of the first one that fails.

    A signal to stop goes on to all of them. After a process that was killed from outside, it is 1. Afterwards
    signals are handled as before, which PyTorch's launcher leaves undone.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes report their errors
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        elastic_launch(config, sys.executable)(os.path.abspath(sys.argv[0]), *arguments)
    except ChildFailedError as error:
        rank, first = error.get_first_failure()
        if first.exitcode < 0:
            name = signal.Signals(-first.exitcode).name
            print(f"{os.path.basename(sys.argv[0])}: the process of rank {rank} was ended by {name}", file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 1
    except SignalException as stop:
        return 128 + int(stop.sigval)
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)
    return 0
