"""Train a detector: ``python train.py --cfg yolo-mish.yaml --data my.yaml --img 640 --epochs 100``.

Without --data it trains on the embedded data set, which is drawn first. Results go to runs/train/exp*/.
``--resume`` continues the newest run, ``--resume runs/train/exp/weights/last.pt`` that one, in its folder; a checkpoint
that was copied elsewhere goes on in a new folder. ``--device 0,1`` trains on several devices, one process each, as does
``torchrun --nproc-per-node N train.py ...``.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.cli import AUTO, Parser, add_config_flags, overrides, run_script
from core.commands import command, near

if TYPE_CHECKING:
    from configs.schema import Config
    from core.types import DetectorModel
    from data.annotations import Annotations
    from data.loader import EvalLoader, TrainLoader
    from engine.setup import TrainSetup

NEWEST = "newest"


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    arguments = parse(argv)

    from core.distributed import joined

    with joined():
        return train(arguments, sys.argv[1:] if argv is None else argv)


def train(arguments: Namespace, argv: Sequence[str]) -> int:
    """Train in this process, alone or with the others of its launcher; or launch a process for each of the devices."""
    from configs.schema import load
    from core.distributed import is_main, launched, may_report
    from engine.batch_size import choose_batch
    from engine.failures import FAILURES
    from engine.final_results import finish
    from engine.launch import launch
    from engine.resume import naming_data_flag, restarted, resume
    from engine.run import TrainingRun
    from engine.setup import require_shares
    from engine.trainer import Stopped

    given, resumed = overrides(arguments), restarted()
    if resumed is None and given.get("train.batch") == AUTO:
        if arguments.resume is not None:
            raise ValueError("--batch auto: a resumed run keeps its batch size; leave it out")
        given["train.batch"], chosen = choose_batch(load(arguments.cfg, {**given, "train.batch": 1}))
        print(chosen, flush=True)
    if resumed is None and arguments.resume is not None:
        resumed = resume(arguments.resume, cfg=arguments.cfg, overrides=given)
    config = resumed.config if resumed is not None else load(arguments.cfg, given)
    processes = require_shares(config)
    if processes > 1 and launched() == 1:
        return launch(processes, argv)
    with naming_data_flag(resumed):
        setup = build(config)
    run = TrainingRun(setup, resumed)
    trainer, state, clock = run.trainer, run.trainer.state, run.trainer.clock
    try:
        with run:
            with trainer.stop_on_signals():
                while state.epoch < run.setup.epochs and not run.out_of_patience():
                    losses = trainer.one_epoch(
                        run.train_loader,
                        title=run.title,
                        count=run.setup.batches(state.epoch),
                        on_batch=run.before_step,
                        save=run.save_last,
                        save_seconds=run.save_seconds,
                    )
                    result = None
                    if config.train.val or state.epoch + 1 == run.setup.epochs:
                        with clock.span("validation"):
                            result = run.validate()
                    run.end_epoch(losses, result)
            finish(run, next_command(run.setup.splits["val"].path(0), run.folder))
    except Stopped:
        run.save_last()
        if is_main():
            print(run.stop_message(), flush=True)
        return 128 + trainer.stopping
    except FAILURES as error:
        message = run.failure_message(error)
        if message is None:
            raise
        if not may_report():
            return 1
        print(f"{Path(sys.argv[0]).name}: error: {message}", file=sys.stderr)
        return 1
    return 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="train.py", description=__doc__)
    parser.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="LAST.PT",
        help="resume an interrupted run with its own settings; --data says where its data are now",
    )
    add_config_flags(parser)
    arguments = parser.parse_args(argv)
    if arguments.cfg is None and arguments.resume is None:
        parser.error("--cfg is required, as in --cfg yolo-mish.yaml (or --resume to continue a run)")
    return arguments


def build(config: Config) -> TrainSetup:
    """Build device, network and loaders. Nothing is written yet, so wrong input leaves no trace of a run."""
    import torch

    from core.allocator import keep_freed_memory
    from core.device import device_of_process, place, set_deterministic, use_threads
    from core.distributed import from_main, local_rank, local_world, main_first, world
    from core.options import NmsOptions
    from engine.setup import TrainSetup, adapt_config, load_splits, prepare_operator
    from models import build_model, census, flops, format_census
    from models.activations import activation_parameters

    train, val = config.train, config.val
    own = train.device
    if world() > 1:
        own = device_of_process(train.device, number=local_rank(), processes=local_world())
    use_threads(train.threads)
    device = place(own, amp=train.amp, channels_last=train.channels_last)
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
        gflops=flops(model, train.imgsz),
        operator=prepare_operator(config, model, device),
        learnable=[name for name, _ in activation_parameters(model)],
        notes=notes,
    )


def build_loaders(
    config: Config, splits: Mapping[str, Annotations], model: DetectorModel, *, pin_memory: bool
) -> tuple[TrainLoader, EvalLoader]:
    """The loaders of this process for training and validation."""
    from core.distributed import is_main, rank, world
    from data import build_eval_loader, build_train_loader
    from data.workers import most_workers

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


def next_command(image: str, folder: Path) -> str:
    """Return the detect.py command to try after the run, on an image."""
    weights = near(folder.absolute() / "weights" / "best.pt")
    return command("detect.py", "--weights", weights, "--source", near(Path(image)))


if __name__ == "__main__":
    run_script(main)
