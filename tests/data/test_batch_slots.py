"""Batches in slots are those without slots, whoever keeps them for however long, and slots come back."""

import gc
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data import build_train_loader, load_dataset
from data.batch_slots import SPARE, BatchSlots
from data.loader import PREFETCH, TrainLoader
from data.workers import LentBatch
from tests.support.small_sets import box, write_coco

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]
BATCHES = 12


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    images = {f"{k}.png": (40 + k, 50) for k in range(BATCHES)}
    path = write_coco(tmp_path_factory.mktemp("set"), images, [box(k + 1, k + 1, [5, 6, 18, 30]) for k in range(6)])
    split = SimpleNamespace(images=str(path.parent / "images"), annotations=str(path))
    return SimpleNamespace(root=str(path.parent), train=split, val=split, test=None, embedded=None)


def loader_of(section: SimpleNamespace, workers: int, **options: object) -> TrainLoader:
    annotations = load_dataset(section, "train", progress=False)
    given = {"imgsz": 64, "batch": 1, "workers": workers, "cache": "off", "progress": False, **options}
    return build_train_loader(annotations, **given)  # type: ignore[arg-type]


def slots_of(loader: TrainLoader) -> BatchSlots:
    slots = loader._loader.collate_fn.keywords["slots"]  # type: ignore[attr-defined]
    assert isinstance(slots, BatchSlots)
    return slots


def free(slots: BatchSlots) -> int:
    gc.collect()
    return slots._taken[:].count(0)


def test_training_uses_the_same_memory_again(section: SimpleNamespace) -> None:
    loader, expected = loader_of(section, 1), [batch.images for batch in loader_of(section, 0)]
    places, images = set(), []
    for batch in loader:
        places.add(batch.images.data_ptr())
        images.append(batch.images.clone())
    del batch
    assert len(places) <= PREFETCH + SPARE < BATCHES
    assert all(map(torch.equal, images, expected))
    assert free(slots_of(loader)) == PREFETCH + SPARE


def test_batches_that_are_kept_stay_as_they_are(section: SimpleNamespace) -> None:
    loader = loader_of(section, 2)
    kept = [batch.images for batch in loader]
    assert free(slots_of(loader)) == 0  # the others went another way
    loader.set_position(1)
    list(loader)
    assert all(map(torch.equal, kept, (batch.images for batch in loader_of(section, 0))))
    del loader
    assert all(map(torch.equal, kept, (batch.images for batch in loader_of(section, 0))))


def test_part_of_a_batch_keeps_its_slot(section: SimpleNamespace) -> None:
    loader = loader_of(section, 1, batch=4)
    first = next(iter(loader)).images[1:2]
    assert free(slots_of(loader)) <= PREFETCH + SPARE - 1
    assert torch.equal(first, next(iter(loader_of(section, 0, batch=4))).images[1:2])


def test_epochs_that_are_not_finished_return_their_slots(section: SimpleNamespace) -> None:
    loader = loader_of(section, 2)
    for _ in range(5):
        loader.set_position(0)
        next(iter(loader))
    loader.set_position(0)
    assert [batch.crc32 for batch in loader] == [batch.crc32 for batch in loader_of(section, 0)]
    assert free(slots_of(loader)) == 2 * PREFETCH + SPARE


def test_each_process_of_a_training_has_slots_of_its_share(section: SimpleNamespace) -> None:
    loader = loader_of(section, 1, batch=5, rank=0, world=2)
    assert slots_of(loader).nbytes == 3 * 3 * 64 * 64
    shares = [batch.crc32 for batch in loader]
    assert shares == [batch.crc32 for batch in loader_of(section, 0, batch=5, rank=0, world=2)]


def test_what_does_not_fit_gets_no_slot() -> None:
    slots = BatchSlots(1, 12)
    assert slots.take((2, 3, 2, 2)) is None and slots.take((0, 3, 2, 2)) is None
    loan = slots.take((1, 3, 2, 2))
    assert loan is not None and slots.take((1, 3, 2, 2)) is None
    loan.array()[:] = 7
    back = pickle.loads(pickle.dumps(loan))  # noqa: S301 - as from a worker
    assert back.shape == (1, 3, 2, 2) and (back == 7).all()
    tensor = torch.from_numpy(back)
    del back
    assert free(slots) == 0
    del tensor
    assert free(slots) == 1 and slots.take((1, 3, 2, 2)) is not None


def test_short_memory_or_no_semaphores_mean_no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BatchSlots.fitting(2, 0) is None
    assert BatchSlots.fitting(2, 1 << 50) is None

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BatchSlots, "__init__", refuse)
    assert BatchSlots.fitting(2, 100) is None


def test_a_lent_batch_is_pinned_from_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """The DataLoader's thread calls pin_memory of what workers send, and the slot is free afterwards."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    slots = BatchSlots(1, 12)
    loan = slots.take((1, 3, 2, 2))
    assert loan is not None
    loan.array()[:] = 5
    targets = {"boxes": np.zeros((1, 0, 4), np.float32), "labels": np.zeros((1, 0), np.int64)}
    targets["mask"] = np.zeros((1, 0), bool)
    others = {"image_ids": [1], "geometries": [], "paths": ["p"]}
    sent = pickle.dumps(LentBatch(loan, targets, np.zeros(1, np.int64), others))
    batch = pickle.loads(sent).pin_memory()  # noqa: S301
    assert (batch.images == 5).all() and free(slots) == 1
