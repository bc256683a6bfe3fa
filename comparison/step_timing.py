"""Time of a training step by activation: ``python -m comparison.step_timing --acts relu mish``.

All networks are timed in one process on preloaded batches, in rounds of short blocks of steps. Each round times every
network once on the same batches, in a random order (seeded), so that drift of the machine and what the previous network
leaves behind affect all of them. Times taken beside other processes are excluded, as in training. Ratios are those of
geometric means over the rounds, with simultaneous intervals (``comparison.statistics``). With
``--norm-act fused plain``, each activation is timed in both forms, if it has both. The steps are those of training
(forward, loss, backward, clipping, optimiser, EMA) with a small learning rate.
"""

from __future__ import annotations

import csv
import io
import json
import random
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from configs.cli import Parser, add_config_flags, overrides, run_script

if TYPE_CHECKING:
    import torch

    from configs.schema import Config
    from core.device import DeviceConfig
    from core.types import Batch

TIMING_JSON, TIMING_CSV = "timing.json", "timing.csv"
WARMUP_ROUNDS = 2
PRELOADED_BATCHES = 4
LEARNING_RATE = 1e-5
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network to be timed."""

    label: str
    act: str
    norm_act: str  # fused or plain
    config: Config


@dataclass(frozen=True, kw_only=True)
class Row:
    """The times of one network; a row of timing.csv."""

    label: str
    act: str = ""
    norm_act: str = ""
    implementation: str = ""
    median_ms: float
    least_ms: float
    ratio: float  # to the first network, with its simultaneous 95 % interval
    low: float
    high: float
    images_per_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print the table; with --output, write timing.json and timing.csv."""
    arguments = parse(argv)
    content, rows = measure(arguments)
    print(table(content, rows), flush=True)
    if arguments.output is not None:
        write(Path(arguments.output), content, rows)
    return 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m comparison.step_timing", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--acts", nargs="+", default=[], metavar="ACT", help="activations; the first is the baseline")
    add("--arm", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"), help="an arm and its settings")
    add("--norm-act", nargs="+", choices=("fused", "plain"), help="forms to time; default: that of the config")
    add("--rounds", type=int, default=30, help=f"number of rounds, after {WARMUP_ROUNDS} for warm-up")
    add("--block", type=int, default=2, help="steps of each network per round")
    add("--output", metavar="FOLDER", help="write timing.json and timing.csv into FOLDER")
    add_config_flags(parser)
    arguments = parser.parse_args(argv)
    if not arguments.acts and not arguments.arm:
        parser.error("expected --acts or --arm")
    for name, least in (("rounds", 2), ("block", 1)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name}: found {getattr(arguments, name)}, expected {least} or more")
    arguments.cfg = arguments.cfg or "yolo-mish.yaml"
    return arguments


def measure(arguments: Namespace) -> tuple[dict[str, Any], list[Row]]:
    """Time all networks; returns the content of timing.json and its rows."""
    import torch

    from comparison.checks import contention
    from core.allocator import keep_freed_memory
    from core.device import place, set_deterministic, synchronize, use_threads
    from engine.contention import OtherProcesses
    from engine.machine import fingerprint, machine
    from ops.norm_act import prepare

    networks = list(build_networks(arguments, overrides(arguments)))
    config = networks[0].config
    train = config.train
    use_threads(train.threads)
    device = place(train.device.partition(",")[0], amp=train.amp, channels_last=train.channels_last)
    set_deterministic(train.deterministic)
    prepare(device.device, dtype=device.amp_dtype or torch.float32, memory_format=device.memory_format)
    keep_freed_memory()  # as train.py does
    batches, counts, names = preload(config, device.device)
    torch.manual_seed(train.seed)
    built = {network.label: build_step(network.config, device, names) for network in networks}
    others, loads, marks = OtherProcesses(), [], [time.perf_counter()]

    def end_of_round() -> None:
        loads.append(others.cores())
        marks.append(time.perf_counter())

    times = interleave(
        {label: step for label, (step, _) in built.items()},
        batches,
        rounds=arguments.rounds,
        block=arguments.block,
        seed=train.seed,
        wait=lambda: synchronize(device.device),
        end_of_round=end_of_round,
    )
    seconds = [later - sooner for sooner, later in pairwise(marks)]
    load = contention(loads[WARMUP_ROUNDS:], seconds[WARMUP_ROUNDS:])
    rows = [
        replace(row, act=network.act, norm_act=network.norm_act, implementation=built[row.label][1])
        for row, network in zip(summary(times, batch=train.batch), networks, strict=True)
    ]
    content = {
        "format": 1,
        "command": " ".join(sys.argv),
        "code": fingerprint(),
        "machine": machine(),
        "device": device.describe(),
        "cfg": arguments.cfg,
        "imgsz": train.imgsz,
        "batch": train.batch,
        "batches_per_epoch": counts,
        "rounds": arguments.rounds,
        "block": arguments.block,
        "other_cores": None if load is None else load[0],
        "baseline": rows[0].label,
        "rows": [asdict(row) for row in rows],
        "times_ms": times,
    }
    return content, rows


def build_networks(arguments: Namespace, given: dict[str, Any]) -> Iterator[Network]:
    """The networks to time; forms that an activation does not have are left out."""
    from comparison.arms import named_arms, parse_arms
    from configs.schema import load
    from models import resolve_activations
    from models.activations import has_fused_form

    forms = list(dict.fromkeys(arguments.norm_act or [None]))
    seen = set()
    for arm in (
        *parse_arms(arguments.acts, given, cfg=arguments.cfg),
        *named_arms(arguments.arm, given, cfg=arguments.cfg),
    ):
        for form in forms:
            config = load(arguments.cfg, {**given, **arm.overrides, **({"model.norm_act": form} if form else {})})
            fused = any(has_fused_form(spec) for spec in resolve_activations(config.model).values())
            norm_act = config.model.norm_act if fused else "plain"
            act = arm.name
            if (act, norm_act) in seen:
                if len(forms) == 1:
                    raise ValueError(f"--acts: duplicate {act}")
                continue
            seen.add((act, norm_act))
            label = f"{act}, {norm_act}" if len(forms) > 1 else act
            yield Network(label=label, act=act, norm_act=norm_act, config=config)


def preload(config: Config, device: torch.device) -> tuple[list[Batch], dict[str, int], list[str]]:
    """A few batches of the training data on the device, the batches per epoch by split, and the class names."""
    from data import build_train_loader
    from engine.setup import load_splits

    train = config.train
    assert train.imgsz is not None  # a loaded configuration has one
    splits = load_splits(config, verify=("train",), progress=False)
    loader = build_train_loader(
        splits["train"],
        batch=train.batch,
        seed=train.seed,
        augment=config.augment,
        mosaic_until=1,
        imgsz=train.imgsz,
        rect=train.rect,
        cache="off",
        workers=0,
        progress=False,
    )
    counts = {split: -(-len(each) // train.batch) for split, each in splits.items()}
    batches = [
        replace(batch, images=batch.images.to(device), targets=batch.targets.to(device))
        for batch in islice(loader, PRELOADED_BATCHES)
    ]
    return batches, counts, list(splits["train"].classes)


def build_step(config: Config, device: DeviceConfig, names: list[str]) -> tuple[Callable[[Batch], object], str]:
    """A function that trains the network of a configuration by one step, and the implementation of its activations."""
    import torch

    from engine.clock import Clock
    from engine.ema import ModelEMA
    from engine.forward import training_forward
    from engine.optim import build_optimizer
    from engine.trainer import Trainer
    from models import adapted, build_model, census

    train = config.train
    assert train.imgsz is not None  # a loaded configuration has one
    section, _ = adapted(config.model, classes=len(names), side=train.imgsz)
    model = build_model(section, names=names, seed=train.seed)
    device.move(model)
    rows = census(model, device=device.device, dtype=device.amp_dtype, compiled=train.compile)
    optimizer = build_optimizer(
        model,
        name=train.optimizer,
        lr=LEARNING_RATE,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        amp_dtype=device.amp_dtype,
    )
    shape = (train.batch, 3, train.imgsz, train.imgsz)
    forward, how = training_forward(
        model,
        device,
        shape=shape,
        compiled=train.compile,
        graphs="off" if train.rect else train.graphs,  # as in training
        checkpointing=train.grad_checkpointing,
    )
    trainer = Trainer(
        model=model,
        forward=forward,
        forward_name=how,
        optimizer=optimizer,
        ema=ModelEMA(model, span=100) if train.ema > 0 else None,
        scaler=torch.amp.GradScaler(device.device.type, enabled=device.needs_scaler),
        device_config=device,
        learning_rate=lambda step: LEARNING_RATE,
        clock=Clock(device.device),
        accumulate=1,
        clip=train.clip,
        imgsz=train.imgsz,
        multi_scale=0.0,
        seed=train.seed,
        loss_names=model.loss_names,
    )
    trainer.model.train()
    implementation = " and ".join(sorted({row.implementation for row in rows}))
    return lambda batch: trainer.one_step(batch, weight=1.0, update=True), implementation


def interleave(
    steps: Mapping[str, Callable[[T], object]],
    batches: Sequence[T],
    *,
    rounds: int,
    block: int,
    seed: int = 0,
    wait: Callable[[], None] = lambda: None,
    end_of_round: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds per step by network, one value per round. The order of the networks is drawn anew each round."""
    labels, draw = list(steps), random.Random(seed)
    times: dict[str, list[float]] = {label: [] for label in labels}
    for number in range(-WARMUP_ROUNDS, rounds):
        for label in draw.sample(labels, len(labels)):
            wait()
            start = clock()
            for index in range(block):
                steps[label](batches[(number * block + index) % len(batches)])
            wait()
            if number >= 0:
                times[label].append(1e3 * (clock() - start) / block)
        end_of_round()
    return times


def summary(times: Mapping[str, Sequence[float]], *, batch: int) -> list[Row]:
    """One row per network: median and least time, ratio to the first network with its 95 % interval."""
    from comparison.statistics import compare_ratio

    labels = list(times)
    by_round = {label: dict(enumerate(values)) for label, values in times.items()}
    ratios = compare_ratio(by_round, baseline=labels[0]).differences if len(labels) > 1 else {}
    rows = []
    for label, values in times.items():
        median, ratio = statistics.median(values), ratios.get(label)
        low, high = (1.0, 1.0) if ratio is None or ratio.interval is None else ratio.interval
        rows.append(
            Row(
                label=label,
                median_ms=median,
                least_ms=min(values),
                ratio=1.0 if ratio is None else ratio.estimate,
                low=low,
                high=high,
                images_per_s=1e3 * batch / median,
            )
        )
    return rows


def table(content: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The rows as text."""
    from comparison.wording.captions import timing_load

    width = max(len(row.label) for row in rows)
    lines = [
        f"{content['device']}; batch {content['batch']}, {content['imgsz']} pixels; "
        f"{content['rounds']} rounds of {content['block']} steps. {timing_load(content['other_cores'])}",
        f"{'':<{width}}  step, ms: median  least  images/s  relative to {rows[0].label} [simultaneous 95 % CI]",
    ]
    for row in rows:
        interval = "" if row is rows[0] else f" [{row.low:.3f}, {row.high:.3f}]"
        lines.append(
            f"{row.label:<{width}}  {row.median_ms:16.1f}  {row.least_ms:5.1f}  {row.images_per_s:8.1f}  "
            f"{row.ratio:.3f}{interval}"
        )
    return "\n".join(lines)


def write(folder: Path, content: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write timing.json and timing.csv."""
    from core.files import write_text
    from core.seal import SEAL, seal_of

    content = {**content, SEAL: seal_of(content, b"")}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TIMING_JSON, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    write_text(folder / TIMING_CSV, text.getvalue())


if __name__ == "__main__":
    run_script(main)
