"""Train a detector: ``python train.py --cfg yolo-mish.yaml --data my.yaml --img 640 --epochs 100``.

Without --data it trains on the embedded data set, which it draws first. Results go to runs/train/exp*/;
``--resume`` goes on with the newest run, ``--resume runs/train/exp/weights/last.pt`` with that one.
"""

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from configs.cli import Parser, add_config_flags, overrides, run_script
from core.progress import usable_cores

NEWEST = "newest"
MAY_CHANGE_ON_RESUME = ("train.device", "train.workers", "train.save_minutes")  # the result stays what it is
RUN_FOLDER = ("run.project", "run.name", "run.exist_ok")  # a resumed run stays in its folder


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    arguments = parse(argv)
    config, checkpoint = configure(arguments)

    from data.loader import LoaderError, as_loader_error
    from engine.evaluation.evaluate import evaluate
    from engine.run import TrainingRun
    from engine.trainer import Stopped

    run = TrainingRun(**build(config), checkpoint=checkpoint, folder=resumed_folder(arguments))
    trainer, state, clock = run.trainer, run.trainer.state, run.trainer.clock
    print(run.banner(), flush=True)
    try:
        with trainer.stops_on_signals():
            while state.epoch < config.train.epochs and not run.out_of_patience():
                losses = trainer.one_epoch(run.train_loader, title=run.title(), **run.watching)
                result = None
                if config.train.val or state.epoch + 1 == config.train.epochs:
                    with clock.span("validation"):
                        batches = trainer.until_stopped(run.val_loader)
                        result = evaluate(trainer.evaluated, batches, truth=run.truth, **run.val_options, loss=True)
                row = run.close_epoch(losses, result)
                with clock.span("saving"):
                    run.keep(row, result)
                print(run.line(row), flush=True)
        print(run.finish(next_command(config, run.folder)), flush=True)
    except Stopped:
        return run.stopped()
    except (OSError, MemoryError, FloatingPointError, LoaderError, RuntimeError) as error:
        return run.failed(as_loader_error(error))
    return 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="train.py", description=__doc__)
    parser.add_argument(
        "--resume", nargs="?", const=NEWEST, metavar="LAST.PT", help="go on with a run that was cut off, as it was"
    )
    add_config_flags(parser)
    arguments = parser.parse_args(argv)
    if arguments.cfg is None and arguments.resume is None:
        parser.error("--cfg is needed, as in --cfg yolo-mish.yaml (or --resume to go on with a run)")
    return arguments


def configure(arguments: Namespace) -> tuple[Any, dict[str, Any] | None]:
    """Return the configuration and, for a run that is resumed, its checkpoint."""
    from configs import schema

    given = overrides(arguments)
    if arguments.resume is None:
        return schema.load(arguments.cfg, given), None

    from engine.checkpoint import load_checkpoint

    path = last_checkpoint(arguments.resume)
    checkpoint = load_checkpoint(path, kind="training")
    kept = schema.Config.model_validate(checkpoint["config"])
    if finished(path):
        raise ValueError(f"{path}: the run is finished ({kept.train.epochs} epochs), there is nothing to resume")
    own = schema.flatten(checkpoint["config"])
    asked = given
    if arguments.cfg is not None:
        config, _ = adapted(schema.load(arguments.cfg, given), len(checkpoint["names"]))
        asked = schema.flatten(config.model_dump(mode="json"))
    free = (*MAY_CHANGE_ON_RESUME, *(RUN_FOLDER if arguments.cfg is not None else ()))
    wrong = {key: value for key, value in asked.items() if key not in free and own.get(key) != value}
    if wrong:
        listed = ", ".join(f"{key}={value} (the run has {own.get(key)})" for key, value in wrong.items())
        raise ValueError(f"--resume goes on with the run as it was; it cannot be changed to {listed}")
    changes = {key.removeprefix("train."): value for key, value in given.items() if key in MAY_CHANGE_ON_RESUME}
    return kept.model_copy(update={"train": kept.train.model_copy(update=changes)}), checkpoint


def finished(checkpoint: Path) -> bool:
    """Whether the run of a checkpoint has ended with its summary; one that was killed just before still gets it."""
    record = checkpoint.resolve().parents[1] / "run.json"
    try:
        return "results" in json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def last_checkpoint(resume: str) -> Path:
    """Return the checkpoint that ``--resume`` names, or the newest last.pt below runs/train."""
    if resume != NEWEST:
        path = Path(resume)
        return path / "weights" / "last.pt" if path.is_dir() else path
    found = sorted(Path("runs/train").glob("*/weights/last.pt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError("--resume: no runs/train/*/weights/last.pt; name the checkpoint to go on with")
    return found[-1]


def resumed_folder(arguments: Namespace) -> Path | None:
    """Return the run folder that is gone on with, None for a new run."""
    return None if arguments.resume is None else last_checkpoint(arguments.resume).resolve().parents[1]


def build(config: Any) -> dict[str, Any]:
    """Build device, network and loaders; nothing of a run is written yet, so what is refused here leaves no trace."""
    import torch

    from core.device import keep_freed_memory, place, set_deterministic
    from data import build_eval_loader, build_train_loader, load_dataset
    from models import build_model, census, flops, format_census
    from models.activations import activation_parameters
    from ops.mish import dispatch, prepare
    from ops.norm_act import prepare as prepare_pair

    train = config.train
    placement = place(train.device, amp=train.amp, channels_last=train.channels_last)
    set_deterministic(train.deterministic)
    keep_freed_memory()
    torch.manual_seed(train.seed)
    with torch.device("meta"):
        build_model(config.model)  # a wrong activation is refused before the data are read
    options = {"strict": train.strict_data, "single_cls": train.single_cls}
    splits = {split: load_dataset(config.data, split, **options) for split in ("train", "val")}
    names = splits["train"].classes
    splits["val"] = splits["val"].relabelled(names, splits["train"].category_ids)
    config, notes = adapted(config, len(names))
    model = build_model(config.model, names=names, seed=train.seed)
    shared = {
        "imgsz": train.imgsz,
        "cache": train.cache,
        "workers": loader_workers(train.workers),
        "pin_memory": placement.device.type == "cuda",
    }
    train_loader = build_train_loader(
        splits["train"],
        batch=train.batch,
        seed=train.seed,
        augment=config.augment,
        mosaic_until=train.epochs - closing_epochs(train.close_mosaic, train.epochs),
        **model.fitting,
        **shared,
    )
    val_batch = config.val.batch or 2 * train.batch
    val_loader = build_eval_loader(
        splits["val"], batch=val_batch, preprocess=model.preprocess, rect=config.val.rect, **shared
    )
    used = any(spec.name == "mish" for spec in model.activations.values())
    if config.model.norm_act == "fused":
        prepare_pair(placement.device)  # kernels are built before any clock starts
    elif used:
        prepare(placement.device)
    rows = census(model, device=placement.device, dtype=placement.amp_dtype)
    mish = dispatch(placement.device, placement.amp_dtype or torch.float32)
    return {
        "config": config,
        "notes": notes,
        "read_weights": weights_reader(config),
        "model": model,
        "placement": placement,
        "splits": splits,
        "data_sha256": {split: annotations.sha256 for split, annotations in splits.items()},
        "train_loader": train_loader,
        "val_loader": val_loader,
        "census": rows,
        "census_text": format_census(rows),
        "gflops": flops(model, train.imgsz),
        "operator": {
            "implementation": mish.implementation if used else "none",
            "reason": mish.reason if used else "no site uses it",
        },
        "learnable": [name for name, _ in activation_parameters(model)],
    }


def adapted(config: Any, classes: int) -> tuple[Any, list[str]]:
    """Return the configuration with a Darknet cfg made fit for the data and the side of training, and what to say."""
    import models

    section, notes = models.adapted(config.model, classes=classes, side=config.train.imgsz)
    return config.model_copy(update={"model": section}), notes


def weights_reader(config: Any) -> Callable[..., list[str]]:
    """Return what reads the weights to start from: a checkpoint's, or for a Darknet network any other file's."""
    from engine.run import start_from
    from models.darknet.weights import start_from_weights

    suffix = Path(config.weights or "").suffix
    if config.model.kind != "darknet" and suffix == ".weights":
        raise ValueError(f"{config.weights}: a Darknet .weights; expected the --cfg X.cfg of its network, or a .pt")
    if config.model.kind != "darknet" or suffix == ".pt":
        return start_from
    return partial(start_from_weights, text=config.model.text)


def loader_workers(asked: int | None) -> int:
    """Return the number of loader processes: as asked, or one a usable core, at most 8."""
    return min(8, usable_cores()) if asked is None else asked


def closing_epochs(length: float, epochs: int) -> int:
    """Return how many epochs at the end have no mosaic: below 1 a fraction of the run, from 1 on that many."""
    return min(epochs, round(length if length >= 1 else length * epochs))


def next_command(config: Any, folder: Path) -> str:
    """Return the detect.py line to try after the run."""
    images = sorted(path for path in Path(config.data.val.images).rglob("*") if path.is_file())[:1]
    source = images[0] if images else Path(config.data.val.images)
    parts = [relative(path) for path in (folder / "weights" / "best.pt", source)]
    return f"{Path(sys.executable).name} detect.py --weights {shlex.quote(parts[0])} --source {shlex.quote(parts[1])}"


def relative(path: Path) -> str:
    """Return a path as seen from here where it lies below."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    run_script(main)
