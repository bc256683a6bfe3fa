"""The processes that train one network together, as torchrun or train.py starts them: a process has a rank of a world.

Without such processes the world is 1, and nothing here communicates. All others call these functions alike, in the same
order. Control messages go through gloo on the CPU, so that they neither wait for a GPU nor hang when a process is lost.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar
from uuid import uuid4

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
TIMEOUT = timedelta(hours=1)  # of a collective: rank 0 scores a validation while the others wait
HEAD_START = 0.5  # seconds that rank 0 has to report an error that all processes have
LATECOMER_SECONDS = 5.0  # in which a launcher ends the processes that have nothing to report
LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "socket closed")

_blocked = [0.0]  # seconds that this process was blocked in collectives since `take_blocked`


def launched() -> int:
    """The number of processes that the launcher of this one has started; 1 if there is none."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def local_rank() -> int:
    """The number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched() > 1 else 0


def local_world() -> int:
    """How many processes of the training are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(launched()))) if launched() > 1 else 1


def world() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes of the launcher, if it started several.

    An error leaves through one of them only, the first that has it; the others end without a word.
    """
    if launched() == 1:
        yield
        return
    with_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    backend, store = "cpu:gloo,cuda:nccl" if with_gpus else "gloo", _launcher_store()
    if store is None:
        dist.init_process_group(backend, timeout=TIMEOUT)
    else:
        number, count = int(os.environ["RANK"]), launched()
        own = dist.PrefixStore(_meet(store, number, count), store)
        dist.init_process_group(backend, timeout=TIMEOUT, store=own, rank=number, world_size=count)
    try:
        yield
    except Exception as error:  # any: whatever ends this process must be reported by one of them, and only one
        if may_report():
            raise
        raise SystemExit(2 if isinstance(error, ValueError | OSError) else 1) from None
    dist.destroy_process_group()


def _meet(store: dist.Store, rank: int, world: int) -> str:
    """A name that these processes agree on, for keys of their own: the launcher keeps its store when it restarts them.

    Rank 0 replies to whoever says hello until all have acknowledged; what earlier processes said has no effect.
    """
    if rank > 0:
        token = uuid4().hex
        store.set(f"hello/{rank}", token)
        name = store.get(f"reply/{token}").decode()  # waits for it
        store.set(f"acknowledged/{name}/{rank}", "")
        return name
    name, missing, end = uuid4().hex, set(range(1, world)), time.monotonic() + TIMEOUT.total_seconds()
    while missing:
        for other in sorted(missing):
            if store.check([f"acknowledged/{name}/{other}"]):
                missing.remove(other)
            elif store.check([f"hello/{other}"]):
                store.set(f"reply/{store.get(f'hello/{other}').decode()}", name)
        if time.monotonic() > end:
            raise RuntimeError(f"rank {min(missing)} has not joined the training")
        time.sleep(0.02)
    return name


def may_report() -> bool:
    """Whether this process is the one that reports an error: the first one. The others wait to be ended.

    An error that only one process has comes first in it: the others notice it by that process's end.
    """
    if world() == 1:
        return True
    if not is_main():
        time.sleep(HEAD_START)
    try:
        first = dist.distributed_c10d._get_default_store().add("yolo-mish/reports", 1) == 1
    except (RuntimeError, ValueError):  # the process that has the store is lost, or the group has been left
        first = is_main()
    if not first:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(LATECOMER_SECONDS)
    return first


def lost(error: BaseException) -> bool:
    """Whether an error says that another process of the training has ended."""
    text = str(error).lower()
    return world() > 1 and (
        isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(each in text for each in LOST))
    )


# -------------------------------------------------------------------------------------------------------- collectives


def all_sum(value: Tensor) -> Tensor:
    """The sum of a tensor over all processes, a new tensor; the tensor itself in a world of 1."""
    if world() == 1:
        return value
    value = value.clone()
    with _blocking():
        dist.all_reduce(value)
    return value


def all_rows(row: Tensor) -> Tensor:
    """(world, n) the tensors (n,) of all processes, by rank."""
    if world() == 1:
        return row[None]
    rows = row.new_empty((world(), *row.shape))
    with _blocking():
        dist.all_gather_into_tensor(rows.flatten(), row.contiguous())
    return rows


def exchange(*values: int) -> list[list[int]]:
    """The numbers of all processes, by rank."""
    if world() == 1:
        return [list(values)]
    return all_rows(torch.tensor(values, dtype=torch.int64)).tolist()


def largest(values: Sequence[float]) -> list[float]:
    """The largest of each of the numbers over all processes."""
    if world() == 1 or not values:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor.tolist()


def gather(value: T) -> list[T] | None:
    """On rank 0 the values of all processes, by rank; None elsewhere."""
    if world() == 1:
        return [value]
    values: list[T] | None = [value] * world() if is_main() else None
    dist.gather_object(value, values)
    return values


def from_main(make: Callable[[], T]) -> T:
    """What rank 0 makes, on all processes."""
    if world() == 1:
        return make()
    values = [make() if is_main() else None]
    dist.broadcast_object_list(values)
    return values[0]  # type: ignore[return-value]


@contextmanager
def main_first() -> Iterator[None]:
    """Rank 0 runs the block before the others: it makes what all of them then find."""
    if not is_main():
        exchange(0)
    yield
    if is_main():
        exchange(0)


def copy_from_main(tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors by those of rank 0."""
    for tensor in tensors if world() > 1 else ():
        dist.broadcast(tensor, 0)


@contextmanager
def _blocking() -> Iterator[None]:
    start = time.perf_counter()
    yield
    _blocked[0] += time.perf_counter() - start


def take_blocked() -> float:
    """Seconds that this process was blocked in collectives since the previous call; on a GPU they do not block."""
    seconds, _blocked[0] = _blocked[0], 0.0
    return seconds


def share(count: int, rank: int, world: int) -> range:
    """The places of a batch of `count` that a rank has: contiguous, in the order of ranks, of sizes that differ by at
    most 1. Only if there are fewer images than ranks, the last ranks have none."""
    return range(-(-count * rank // world), -(-count * (rank + 1) // world))


# ------------------------------------------------------------------------------------- what outlives a worker group


def remember_folder(folder: str) -> None:
    """Tell the launcher's store the folder of the run, for the processes that it starts in place of lost ones."""
    if is_main() and (store := _launcher_store()) is not None:
        store.set("yolo-mish/folder", folder)


def remembered_folder() -> str | None:
    """The folder of the run that earlier processes of the same launcher began; None in the first ones."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0 or (store := _launcher_store()) is None:
        return None
    return store.get("yolo-mish/folder").decode() if store.check(["yolo-mish/folder"]) else None


def _launcher_store() -> dist.TCPStore | None:
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=TIMEOUT)
