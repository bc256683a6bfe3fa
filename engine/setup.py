"""What a training run is built from, how it is built, and the trainer built from it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import models
from configs.schema import Config
from core.allocator import keep_freed_memory
from core.device import DeviceConfig, device_of_process, place, process_count, set_deterministic, use_threads
from core.distributed import from_main, is_main, local_rank, local_world, main_first, rank, world
from core.options import NmsOptions
from core.types import DetectorModel
from data import build_eval_loader, build_train_loader, hold_out, load_dataset
from data.annotations import Annotations
from data.loader import EvalLoader, TrainLoader
from data.plausibility import nothing_to_train_on
from data.workers import most_workers
from engine.clock import Clock
from engine.data_parallel import needs_sync_norms, replicate
from engine.ema import ModelEMA
from engine.forward import Forward, refuse_impossible, training_forward
from engine.optim import build_optimizer, freeze, learning_rate
from engine.trainer import Trainer
from models import build_model, census, format_census
from models.activations import activation_parameters
from models.census import CensusRow
from ops import mish, norm_act
from ops.sync_norm import synchronise


def require_shares(config: Config) -> int:
    """The number of processes that train.

    ValueError if they cannot share the batch, or if what is set needs a single process.
    """
    train = config.train
    count = process_count(train.device)
    if train.batch % count:
        more = -(-train.batch // count) * count
        raise ValueError(
            f"train.batch: found {train.batch}; expected a multiple of the {count} processes, such as {more}"
        )
    single = {
        "compile": train.compile,
        "graphs": train.graphs == "on",
        "grad_checkpointing": train.grad_checkpointing,
    }
    for key, wrong in single.items():
        if wrong and count > 1:
            raise ValueError(f"train.{key}: several processes train without it; leave it out, or use one device")
    one_shape = {
        "compile": train.compile,
        "graphs": train.graphs == "on",
        "multi_scale": train.multi_scale > 0,
    }
    for key, wrong in one_shape.items():
        if wrong and train.rect:
            raise ValueError(f"train.{key}: with --rect, batches differ in shape; leave one of the two out")
    if train.rect and config.model.kind == "darknet":
        raise ValueError("train.rect: Darknet networks are trained on images stretched to a square; leave it out")
    return count


@dataclass(frozen=True)
class TrainSetup:
    """Everything that `build` makes before the run exists; nothing has been written yet."""

    config: Config
    model: DetectorModel
    device: DeviceConfig
    splits: Mapping[str, Annotations]  # train and val
    data_sha256: Mapping[str, str]  # of the annotation files, by split
    train_loader: TrainLoader
    val_loader: EvalLoader
    nms: NmsOptions  # of the validation
    census: Sequence[CensusRow]
    census_text: str
    gflops: float  # of one image
    operator: Mapping[str, str]  # the Mish implementation and the reason for it
    learnable: Sequence[str]  # names of learnable activation parameters
    notes: list[str] = field(default_factory=list)  # to print before the run

    @property
    def epochs(self) -> int:
        """Number of epochs; configs.schema.load resolves the null of the file."""
        assert self.config.train.epochs is not None
        return self.config.train.epochs

    @property
    def images(self) -> dict[str, int]:
        """Number of usable images of each split."""
        return {split: len(annotations) for split, annotations in self.splits.items()}

    def batches(self, epoch: int) -> int:
        """Number of batches of an epoch, counted from 0; `train.last_epoch_batches` shortens the last one."""
        full, last = len(self.train_loader), self.config.train.last_epoch_batches
        return full if last is None or epoch + 1 < self.epochs else min(full, last)

    @property
    def imgsz(self) -> int:
        """Image size in pixels; configs.schema.load resolves the null of the file."""
        assert self.config.train.imgsz is not None
        return self.config.train.imgsz

    @property
    def accumulate(self) -> int:
        """Batches per optimizer step."""
        train = self.config.train
        return max(1, round((train.nominal_batch or train.batch) / train.batch))


def build_trainer(setup: TrainSetup) -> Trainer:
    """The trainer of a run, its model on the device."""
    train, device = setup.config.train, setup.device
    assert train.lr is not None  # resolved by load
    model = setup.model
    device.move(model)
    frozen = freeze(model, train.freeze)
    if frozen:
        setup.notes.append(f"frozen: {', '.join(train.freeze)} ({len(frozen)} tensors)")
    clock, sync_norms = Clock(device.device), needs_sync_norms(setup.config.model.sync_bn, batch=train.batch)
    if sync_norms:
        synchronise(model)
    forward: Forward
    if world() > 1:
        forward, how = replicate(model, clock, device=device.device, sync_norms=sync_norms), ""
        norms = "those of all processes" if sync_norms else "a process's own; those of rank 0 are kept"
        setup.notes.append(f"batch norm statistics: {norms} (model.sync_bn={setup.config.model.sync_bn})")
    else:
        batch = min(train.batch, len(setup.splits["train"]))
        forward, how = training_forward(
            model,
            device,
            shape=(batch, 3, setup.imgsz, setup.imgsz),
            compiled=train.compile,
            graphs="off" if train.rect else train.graphs,  # a graph has one shape
            accumulate=setup.accumulate,
            multi_scale=train.multi_scale,
            checkpointing=train.grad_checkpointing,
        )
    steps_per_epoch = -(-len(setup.train_loader) // setup.accumulate)
    total_steps = (setup.epochs - 1) * steps_per_epoch + -(-setup.batches(setup.epochs - 1) // setup.accumulate)
    warmup_epochs = train.warmup if train.warmup >= 1 else train.warmup * setup.epochs
    return Trainer(
        model=model,
        forward=forward,
        forward_name=how,
        optimizer=build_optimizer(
            model,
            name=train.optimizer,
            lr=train.lr,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            amp_dtype=device.amp_dtype,
        ),
        ema=ModelEMA(model, span=train.ema * total_steps) if train.ema > 0 else None,
        scaler=torch.amp.GradScaler(device.device.type, enabled=device.needs_scaler),
        device_config=device,
        learning_rate=learning_rate(
            train.schedule,
            total_steps=total_steps,
            warmup_steps=round(warmup_epochs * steps_per_epoch),
            lr=train.lr,
            lr_final=train.lr_final,
        ),
        clock=clock,
        accumulate=setup.accumulate,
        clip=train.clip,
        imgsz=setup.imgsz,
        multi_scale=train.multi_scale,
        seed=train.seed,
        loss_names=tuple(model.loss_names),
        sync_norms=sync_norms,
    )


def adapt_config(config: Config, *, classes: int) -> tuple[Config, list[str]]:
    """The config with a Darknet network adapted to the data and the image size, and notes on what was changed."""
    section, notes = models.adapted(config.model, classes=classes, side=config.train.imgsz or 0)
    return config.model_copy(update={"model": section}), notes


def load_splits(
    config: Config, *, verify: Collection[str] = ("train", "val"), progress: bool = True
) -> dict[str, Annotations]:
    """The images to train on and to validate on, with the same classes; with `train.holdout`, both are of train.

    `verify`: the splits of the data set whose images are all examined, to exclude damaged ones.
    """
    train = config.train
    splits = {
        split: load_dataset(
            config.data,
            split,
            strict=train.strict_data,
            single_cls=train.single_cls,
            allow_skipped=train.allow_skipped,
            verify=split in verify,
            progress=progress,
        )
        for split in (("train",) if train.holdout else ("train", "val"))
    }
    if train.holdout:
        splits["train"], splits["val"] = hold_out(splits["train"], train.holdout)
    nothing = nothing_to_train_on(splits["train"])
    if nothing:
        raise ValueError(nothing)
    splits["val"] = splits["val"].relabelled(splits["train"].classes, splits["train"].category_ids)
    return splits


def prepare_operator(config: Config, model: models.Detector | models.Darknet, device: DeviceConfig) -> dict[str, str]:
    """Compile the kernels before any clock starts; return which Mish implementation runs, and why."""
    used = any(spec.name == "mish" for spec in model.activations.values())
    if config.model.norm_act == "fused":
        norm_act.prepare(
            device.device,
            dtype=device.amp_dtype or torch.float32,
            memory_format=device.memory_format,
            activations={type(module) for module in model.modules()},
        )
    elif used:
        mish.prepare(device.device)
    if not used:
        return {"implementation": "none", "reason": "not used by any layer"}
    chosen = mish.dispatch(device.device, device.amp_dtype or torch.float32, compiled=config.train.compile)
    return {"implementation": chosen.implementation, "reason": chosen.reason}


def build(config: Config) -> TrainSetup:
    """Build device, network and loaders. Nothing is written yet, so wrong input leaves no trace of a run."""
    train, val = config.train, config.val
    own = train.device
    if world() > 1:
        own = device_of_process(train.device, number=local_rank(), processes=local_world())
    use_threads(train.threads)
    device = place(own, amp=train.amp, channels_last=train.channels_last)
    refuse_impossible(
        device,
        compiled=train.compile,
        graphs="off" if train.rect else train.graphs,
        checkpointing=train.grad_checkpointing,
        multi_scale=train.multi_scale,
    )
    if device.device.type == "cuda" and world() > 1:
        torch.cuda.set_device(device.device)
    set_deterministic(train.deterministic)
    keep_freed_memory()
    torch.manual_seed(train.seed)
    with torch.device("meta"):
        build_model(config.model)  # report a wrong activation before reading the data
    splits = from_main(lambda: load_splits(config))
    names = splits["train"].classes
    config, notes = adapt_config(config, classes=len(names))
    model = build_model(config.model, names=names, seed=train.seed)
    with main_first():
        train_loader, val_loader = build_loaders(config, splits, model, pin_memory=device.device.type == "cuda")
    assert val.iou is not None and train.imgsz is not None  # resolved by load
    operator = prepare_operator(config, model, device)  # before the census, which says what was built
    rows = census(model, device=device.device, dtype=device.amp_dtype, compiled=train.compile)
    return TrainSetup(
        config=config,
        model=model,
        device=device,
        splits=splits,
        data_sha256={split: annotations.sha256 for split, annotations in splits.items()},
        train_loader=train_loader,
        val_loader=val_loader,
        nms=NmsOptions(conf=val.conf, iou=val.iou, max_det=val.max_det, multi_label=True),
        census=rows,
        census_text=format_census(rows),
        gflops=models.flops(model, train.imgsz),
        operator=operator,
        learnable=[name for name, _ in activation_parameters(model)],
        notes=notes,
    )


def build_loaders(
    config: Config, splits: Mapping[str, Annotations], model: DetectorModel, *, pin_memory: bool
) -> tuple[TrainLoader, EvalLoader]:
    """The loaders of this process for training and validation."""
    train, val = config.train, config.val
    assert train.epochs is not None and train.imgsz is not None  # resolved by load
    both: dict[str, Any] = {
        "imgsz": train.imgsz,
        "workers": most_workers() if train.workers is None else train.workers,
        "cache": train.cache,
        "progress": is_main(),
        "pin_memory": pin_memory,
        "rank": rank(),
        "world": world(),
    }
    train_loader = build_train_loader(
        splits["train"],
        batch=train.batch,
        seed=train.seed,
        augment=config.augment,
        mosaic_until=train.epochs - closing_epochs(train.close_mosaic, train.epochs),
        rect=train.rect,
        class_balance=train.class_balance,
        stride=model.stride,
        **(both | dict(model.fitting)),
    )
    val_loader = build_eval_loader(
        splits["val"],
        batch=val.batch or 2 * train.batch,
        preprocess=model.preprocess,
        rect=val.rect,
        **both,
    )
    return train_loader, val_loader


def closing_epochs(length: float, epochs: int) -> int:
    """Return the number of epochs without mosaic at the end; a length below 1 is a fraction of the run."""
    return min(epochs, round(length if length >= 1 else length * epochs))
