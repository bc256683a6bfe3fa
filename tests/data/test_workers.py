"""Data workers: batches where shared memory is short, and failures that end in one line instead of a wait."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

import data.loader
from core.types import Batch, Targets
from data import build_train_loader, load_dataset, workers
from data.batch_slots import BatchSlots
from data.samples import TrainSamples
from data.workers import LoaderError, PipedBatch, hand_over, receive, worker_error
from tests.support.small_sets import box, write_coco

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    images = {f"{k}.png": (64, 48) for k in range(6)}
    path = write_coco(tmp_path_factory.mktemp("set"), images, [box(k + 1, k + 1, [5, 6, 18, 30]) for k in range(6)])
    split = SimpleNamespace(images=str(path.parent / "images"), annotations=str(path))
    return SimpleNamespace(root=str(path.parent), train=split, val=split, test=None, embedded=None)


def loader_of(section: SimpleNamespace, count: int) -> data.loader.TrainLoader:
    annotations = load_dataset(section, "train", progress=False)
    return build_train_loader(annotations, imgsz=64, batch=2, workers=count, cache="off", progress=False)


def made_batch() -> Batch:
    boxes = torch.arange(8, dtype=torch.float32).reshape(2, 1, 4)
    targets = Targets(boxes, torch.tensor([[1], [0]]), torch.tensor([[True], [False]]))
    return Batch(
        torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2),
        targets,
        torch.tensor([4, 7]),
        [1, "b"],
        [],
        ["p", "q"],
        9,
    )


@pytest.mark.parametrize("free", [0, workers.RESERVE + 1, 1 << 40])
def test_a_batch_is_the_same_on_every_way(free: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_free_shared_memory", lambda: free)
    sent = hand_over(made_batch())
    assert isinstance(sent, Batch) == (free == 1 << 40)
    back, expected = receive(sent, pin_memory=False), made_batch()
    assert torch.equal(back.images, expected.images) and torch.equal(back.indices, expected.indices)
    for name, value in vars(expected.targets).items():
        assert torch.equal(getattr(back.targets, name), value)
    assert (back.image_ids, back.paths, back.crc32) == ([1, "b"], ["p", "q"], 9)


def test_shared_memory_that_another_process_fills_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert isinstance(hand_over(made_batch()), PipedBatch)


@pytest.mark.slow
def test_short_shared_memory_changes_no_batch_and_is_said_once(
    section: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [batch.crc32 for batch in loader_of(section, 0)]
    workers._note_pipes.cache_clear()
    monkeypatch.setattr(workers, "_free_shared_memory", lambda: 0)
    monkeypatch.setattr(BatchSlots, "fitting", lambda *_: None)
    loader = loader_of(section, 2)
    for _ in range(2):
        loader.set_position(0)
        assert [batch.crc32 for batch in loader] == expected
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "/dev/shm" in said and "--shm-size" in said


def sleeping(*_: object) -> None:
    time.sleep(1000)


def failing(*_: object) -> None:
    raise OSError(5, "Input/output error")


def leaving(*_: object) -> None:
    os._exit(0)


def unsendable(batch: Batch, _: object) -> Callable[[], Batch]:
    return lambda: batch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "act", "words"),
    [
        ((TrainSamples, "sample"), sleeping, ("no batch", "--workers 0")),
        ((TrainSamples, "sample"), failing, ("Input/output error",)),
        ((TrainSamples, "sample"), leaving, ("worker", "died", "exited")),
        ((data.loader, "hand_over"), unsendable, ("worker died", "last words", "pickle")),
    ],
)
def test_workers_that_send_nothing_end_in_one_line(
    place: tuple[object, str],
    act: Callable[..., object],
    words: tuple[str, ...],
    section: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*place, act)
    monkeypatch.setattr(data.loader, "WAIT_SECONDS", 1.5)
    begun = time.monotonic()
    with pytest.raises(LoaderError) as caught:
        list(loader_of(section, 2))
    text = str(caught.value)
    assert time.monotonic() - begun < 20 and "\n" not in text and "Traceback" not in text
    assert all(word in text for word in words), text


def test_a_wait_can_be_stopped(section: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C: what is called between two looks for a batch may raise."""

    def stop() -> None:
        raise InterruptedError("asked to stop")

    monkeypatch.setattr(TrainSamples, "sample", sleeping)
    monkeypatch.setattr(data.loader, "POLL_SECONDS", 0.1)
    with pytest.raises(InterruptedError, match="asked to stop"):
        list(loader_of(section, 1).iterate(stop))
    workers.end_workers()


def test_a_system_without_semaphores_is_one_line(section: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens in /dev/shm without any space left, before a worker exists."""

    def full(self: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workers.WorkerContext, "Semaphore", full)
    monkeypatch.setattr(workers, "_free_shared_memory", lambda: 0)
    with pytest.raises(LoaderError, match=r"No space left.*/dev/shm is full.*--shm-size.*--workers 0"):
        list(loader_of(section, 1))


def test_a_connection_that_ends_without_a_message_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_free_shared_memory", lambda: float("inf"))
    assert str(worker_error(EOFError(), waited=1.0)) == "data workers cannot be used: EOFError; try --workers 0"


@pytest.mark.parametrize(("cores", "batches", "expected"), [(2, 100, 2), (64, 100, 8), (8, 5, 2), (8, 1, 0)])
def test_the_default_number_of_evaluation_workers(
    cores: int, batches: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "usable_cores", lambda: cores)
    assert workers.default_workers(batches) == expected
    monkeypatch.setattr(sys, "platform", "darwin")
    assert workers.default_workers(batches) == 0


def test_a_death_that_interrupts_something_else_is_still_the_cause() -> None:
    """PyTorch raises it from a signal handler, at any point: here within torch.save, whose end then fails too."""
    try:
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        finally:
            raise RuntimeError("unexpected pos 10 vs 5")
    except RuntimeError as error:
        found = workers.as_loader_error(error)
    assert isinstance(found, LoaderError) and "killed by signal" in str(found)
    other = RuntimeError("unexpected pos")
    assert workers.as_loader_error(other) is other
