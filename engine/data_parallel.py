"""A step of one training by several processes: whose gradients are summed while the backward pass goes on, and the
checksum of a batch of which each process has a share."""

import functools

import torch
import torch.distributed as dist
from torch.nn.functional import pad
from torch.nn.parallel import DistributedDataParallel

from core.distributed import exchange, is_main, world
from core.types import Batch, DetectorModel
from data.loader import checksum
from engine.clock import Clock

SYNC_BELOW = 16  # images of a process: with fewer, the statistics of its own batch norms would be poor


def needs_sync_norms(choice: str, *, batch: int) -> bool:
    """Whether batch norms take the statistics of all processes, by `model.sync_bn` and the size of the whole batch."""
    return world() > 1 and (choice == "on" or (choice == "auto" and batch < SYNC_BELOW * world()))


def replicate(model: DetectorModel, clock: Clock, *, device: torch.device, sync_norms: bool) -> DistributedDataParallel:
    """The forward pass of a model whose gradients are summed over the processes, in buckets during the backward pass.

    The weights of rank 0 are copied to all. Without `sync_norms`, so are its running statistics, before each step.
    """
    replica = DistributedDataParallel(
        model,
        device_ids=[device.index or 0] if device.type == "cuda" else None,
        forward_sync_buffers=not sync_norms,
        gradient_as_bucket_view=True,
    )
    replica.register_comm_hook(clock, _sum)
    return replica


def _sum(clock: Clock, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Start to sum a bucket of gradients; the losses of the processes are parts of one, so nothing is averaged."""
    clock.mark_ready()
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda future: future.value()[0])


def batch_checksum(batch: Batch) -> int:
    """The checksum of the whole batch, for any number of processes that of a single one; needed on rank 0 only."""
    if world() == 1:
        return batch.crc32
    boxes, labels = batch.targets.boxes, batch.targets.labels
    (widest,) = map(max, zip(*exchange(boxes.shape[1]), strict=True))
    more = widest - boxes.shape[1]  # targets are padded to the image with the most, in any share
    parts = (pad(boxes, (0, 0, 0, more)), pad(labels, (0, more)))
    sums = [checksum(each.numpy()) for each in parts]
    sizes = [batch.images.nbytes, *(each.nbytes for each in parts)]
    rows = exchange(batch.images_crc32, *sums, *sizes)
    if not is_main():
        return 0
    crc32 = 0
    for part in range(3):
        for row in rows:
            crc32 = combined_crc32(crc32, row[part], row[3 + part])
    return crc32


def combined_crc32(first: int, second: int, length: int) -> int:
    """The CRC-32 of two byte strings, one after the other, from that of each and the length of the second."""
    return _product(_power(length), first) ^ second


def _product(a: int, b: int) -> int:
    """The product of two polynomials over GF(2) modulo that of CRC-32; the highest bit is the constant term."""
    result = 0
    for place in range(31, -1, -1):
        if a >> place & 1:
            result ^= b
        b = (b >> 1) ^ (0xEDB88320 if b & 1 else 0)
    return result


@functools.lru_cache(maxsize=4096)
def _power(length: int) -> int:
    """x to the power of 8 `length`, by which a polynomial is multiplied if so many zero bytes follow it."""
    result, square = 1 << 31, 1 << 23  # 1, x^8
    while length:
        if length & 1:
            result = _product(result, square)
        square, length = _product(square, square), length >> 1
    return result
