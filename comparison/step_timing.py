"""Time of a training step by activation: ``python -m comparison.step_timing --acts relu mish``.

Batches of the training data lie ready on the device. In one process, rounds of short blocks of steps: each round takes
every network once, in an order rotated round by round, over the same batches, so that a drift of the machine meets
all. A ratio is that of geometric means over the rounds, its interval simultaneous (``comparison.statistics``). With
``--norm-act fused plain`` each activation is timed in both forms, where it has both. The steps are those of training
(forward, loss, backward, clipping, optimiser, moving average); the learning rate is small, the network learns little.
"""

import json
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.cli import Parser, add_config_flags, overrides, run_script

FILES = ("timing.json", "timing.csv")
WARM_ROUNDS = 2
PRELOADED = 4  # batches
LEARNING_RATE = 1e-5
COLUMNS = (
    "label",
    "act",
    "norm_act",
    "implementation",
    "median_ms",
    "least_ms",
    "ratio",
    "low",
    "high",
    "images_per_s",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write timing.json and timing.csv where a folder is given."""
    arguments = parse(argv)
    content = measure(arguments)
    print(table(content), flush=True)
    if arguments.output is not None:
        write(Path(arguments.output), content)
    return 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m comparison.step_timing", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--acts", nargs="+", required=True, metavar="ACT", help="activations, the first is the baseline"
    )
    parser.add_argument(
        "--norm-act", nargs="+", choices=("fused", "plain"), help="forms to time; default: the config's"
    )
    parser.add_argument("--rounds", type=int, default=30, help=f"besides {WARM_ROUNDS} at the start")
    parser.add_argument("--block", type=int, default=2, help="steps of each network a round")
    parser.add_argument("--output", metavar="FOLDER", help="write timing.json and timing.csv there")
    add_config_flags(parser)
    arguments = parser.parse_args(argv)
    for name, least in (("rounds", 2), ("block", 1)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name}: found {getattr(arguments, name)}, expected {least} or more")
    arguments.cfg = arguments.cfg or "yolo-mish.yaml"
    return arguments


def measure(arguments: Namespace) -> dict[str, Any]:
    """The times of all networks and what they are compared to, as timing.json holds it."""
    import torch

    from core.device import keep_freed_memory, place, set_deterministic, synchronize
    from engine.machine import fingerprint, machine
    from ops.norm_act import prepare

    given = overrides(arguments)
    variants = list(networks(arguments, given))
    config = variants[0][3]
    train = config.train
    placement = place(train.device, amp=train.amp, channels_last=train.channels_last)
    set_deterministic(train.deterministic)
    prepare(placement.device)
    keep_freed_memory()  # as train.py does
    batches, counts, names = preload(config, placement.device)
    torch.manual_seed(train.seed)
    steps = {label: stepper(own, placement, names) for label, _, _, own in variants}
    taken = interleave(
        steps,
        batches,
        rounds=arguments.rounds,
        block=arguments.block,
        wait=lambda: synchronize(placement.device),
    )
    rows = summary(taken, batch=train.batch)
    for row, (_, act, norm_act, _) in zip(rows, variants, strict=True):
        row |= {"act": act, "norm_act": norm_act, "implementation": steps[row["label"]].implementation}
    return {
        "format": 1,
        "command": " ".join(sys.argv),
        "code": fingerprint(),
        "machine": machine(),
        "device": placement.describe(),
        "cfg": arguments.cfg,
        "imgsz": train.imgsz,
        "batch": train.batch,
        "batches_per_epoch": counts,
        "rounds": arguments.rounds,
        "block": arguments.block,
        "baseline": rows[0]["label"],
        "rows": rows,
        "times_ms": taken,
    }


def networks(arguments: Namespace, given: dict[str, Any]) -> Any:
    """Label, activation, form and configuration of each network; forms that an activation lacks are left out."""
    from comparison.arms import activation_overrides, label_of
    from configs.schema import load
    from models import resolve_activations
    from models.activations import has_fused_form

    forms = list(dict.fromkeys(arguments.norm_act or [None]))
    seen = set()
    for text in arguments.acts:
        own = activation_overrides(text, given)
        for form in forms:
            config = load(arguments.cfg, {**given, **own, **({"model.norm_act": form} if form else {})})
            fused = any(has_fused_form(asked) for asked in resolve_activations(config.model).values())
            norm_act = config.model.norm_act if fused else "plain"
            act = label_of(config)
            if (act, norm_act) in seen:
                if len(forms) == 1:
                    raise ValueError(f"--acts: {act} stands twice")
                continue
            seen.add((act, norm_act))
            yield f"{act}, {norm_act}" if len(forms) > 1 else act, act, norm_act, config


def preload(config: Any, device: Any) -> tuple[list[Any], dict[str, int], list[str]]:
    """A few batches of the training data on the device, batches of an epoch by split, names of the classes."""
    from data import build_train_loader, load_dataset

    train = config.train
    splits = {
        split: load_dataset(config.data, split, strict=train.strict_data, verify=split == "train", progress=False)
        for split in ("train", "val")
    }
    loader = build_train_loader(
        splits["train"],
        batch=train.batch,
        seed=train.seed,
        augment=config.augment,
        mosaic_until=1,
        imgsz=train.imgsz,
        cache="off",
        workers=0,
        progress=False,
    )
    counts = {split: -(-len(each) // train.batch) for split, each in splits.items()}
    batches = []
    for batch in loader:
        batches.append(replace(batch, images=batch.images.to(device), targets=batch.targets.to(device)))
        if len(batches) == PRELOADED:
            break
    return batches, counts, list(splits["train"].classes)


class Stepper:
    """Trains one network by a step at a time, as train.py does."""

    def __init__(self, trainer: Any, implementation: str) -> None:
        self.trainer, self.implementation = trainer, implementation
        self.trainer.model.train()

    def __call__(self, batch: Any) -> None:
        self.trainer.one_step(batch, weight=1.0, update=True)


def stepper(config: Any, placement: Any, names: list[str]) -> Stepper:
    """The network of a configuration with its optimiser and moving average."""
    import torch

    from engine.clock import Clock
    from engine.ema import ModelEMA
    from engine.optim import build_optimizer
    from engine.trainer import Trainer
    from models import adapted, build_model, census

    train = config.train
    section, _ = adapted(config.model, classes=len(names), side=train.imgsz)
    model = build_model(section, names=names, seed=train.seed)
    model.to(placement.device, memory_format=placement.memory_format)  # type: ignore[call-overload]
    rows = census(model, device=placement.device, dtype=placement.amp_dtype)
    optimizer = build_optimizer(
        model, name=train.optimizer, lr=LEARNING_RATE, momentum=train.momentum, weight_decay=train.weight_decay
    )
    own = Trainer(
        model=model,
        optimizer=optimizer,
        ema=ModelEMA(model, span=100) if train.ema > 0 else None,
        scaler=torch.amp.GradScaler(placement.device.type, enabled=placement.needs_scaler),
        device_config=placement,
        learning_rate=lambda step: LEARNING_RATE,
        clock=Clock(placement.device),
        accumulate=1,
        clip=train.clip,
        imgsz=train.imgsz,
        multi_scale=0.0,
        seed=train.seed,
        loss_names=model.loss_names,
    )
    return Stepper(own, " and ".join(sorted({row.implementation for row in rows})))


def interleave(
    steps: Mapping[str, Callable[[Any], None]],
    batches: Sequence[Any],
    *,
    rounds: int,
    block: int,
    wait: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds a step, by network, one a round. Within a round all see the same batches; its order is rotated."""
    labels = list(steps)
    taken: dict[str, list[float]] = {label: [] for label in labels}
    for number in range(-WARM_ROUNDS, rounds):
        start = number % len(labels)
        for label in labels[start:] + labels[:start]:
            wait()
            began = clock()
            for index in range(block):
                steps[label](batches[(number * block + index) % len(batches)])
            wait()
            if number >= 0:
                taken[label].append(1e3 * (clock() - began) / block)
    return taken


def summary(taken: dict[str, list[float]], *, batch: int) -> list[dict[str, Any]]:
    """A row a network: median and least time, ratio to the first with its 95 % interval."""
    from comparison.statistics import compare_ratio

    labels = list(taken)
    values = {label: dict(enumerate(times)) for label, times in taken.items()}
    found = {}
    if len(labels) > 1:
        found = {each.name: each for each in compare_ratio(values, baseline=labels[0]).differences}
    rows = []
    for label, times in taken.items():
        median, own = statistics.median(times), found.get(label)
        low, high = (1.0, 1.0) if own is None or own.interval is None else own.interval
        rows.append(
            {
                "label": label,
                "median_ms": median,
                "least_ms": min(times),
                "ratio": 1.0 if own is None else own.estimate,
                "low": low,
                "high": high,
                "images_per_s": 1e3 * batch / median,
            }
        )
    return rows


def table(content: dict[str, Any]) -> str:
    """The rows in words."""
    width = max(len(row["label"]) for row in content["rows"])
    lines = [
        f"{content['device']}; batch {content['batch']} of {content['imgsz']} pixels; "
        f"{content['rounds']} rounds of {content['block']} steps",
        f"{'':<{width}}  step, ms: median  least  images/s  against {content['baseline']} [95 % simultaneous]",
    ]
    for row in content["rows"]:
        ends = "" if row is content["rows"][0] else f" [{row['low']:.3f}, {row['high']:.3f}]"
        lines.append(
            f"{row['label']:<{width}}  {row['median_ms']:16.1f}  {row['least_ms']:5.1f}  {row['images_per_s']:8.1f}  "
            f"{row['ratio']:.3f}{ends}"
        )
    return "\n".join(lines)


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write timing.json and timing.csv."""
    import csv
    import io

    from core.files import write_text

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILES[0], json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[row[name] for name in COLUMNS] for row in content["rows"]])
    write_text(folder / FILES[1], text.getvalue())


if __name__ == "__main__":
    run_script(main)
