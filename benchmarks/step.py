"""Time and memory of a training step: ``python -m benchmarks.step --acts mish relu silu leaky_relu``.

Forward, loss, backward, gradient clipping and optimiser, on random images with random boxes, in interleaved rounds in
one process. ``--peer yolov8n.yaml`` adds an Ultralytics network if that package is installed, in the same formats (on a
CPU, its own trainer knows fp32 alone). Memory is the peak of the process minus its size after building the model, in a
separate process for each activation. ``--operators`` adds the time of PyTorch's operators in the default format.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from configs.cli import run_script
from configs.schema import load
from core.allocator import MODERATE, keep_freed_memory
from core.device import place
from core.types import Targets
from engine.forward import training_forward
from engine.machine import PeakMemory
from engine.optim import build_optimizer
from models import build_model

CLASSES, BOXES = 80, 8
LAYOUTS = {"fp32": ("off", "off"), "fp32 channels_last": ("off", "on"), "default": ("auto", "auto")}


def our_step(
    act: str,
    arguments: argparse.Namespace,
    *,
    amp: str,
    channels_last: str,
    norm_act: str = "fused",
    compiled: bool = False,
    graphed: bool = False,
    optimizer_name: str = "adamw",
) -> Callable[[Tensor, Targets], None]:
    """A function that runs one training step of our network on images (B, 3, H, W) uint8.

    `compiled`: forward and backward by torch.compile. `graphed`: by CUDA graphs. Both are those of train.py, for the
    batch size and image size of the arguments. Loss, gradient clipping and optimiser are eager in all cases.
    """
    placement = place(arguments.device, amp=amp, channels_last=channels_last)
    overrides = [f"model.act={act}", f"model.norm_act={norm_act}", f"model.size={arguments.size}"]
    config = load("yolo.yaml", overrides)
    model = build_model(config.model, num_classes=CLASSES, seed=0)
    placement.move(model.train())
    shape = (arguments.batch, 3, arguments.imgsz, arguments.imgsz)
    graphs = "on" if graphed else "off"
    forward, _ = training_forward(model, placement, shape=shape, compiled=compiled, graphs=graphs)
    optimizer = make_optimizer(model, optimizer_name, placement.amp_dtype)
    scaler = torch.amp.GradScaler(placement.device.type, enabled=placement.needs_scaler)

    def step(images: Tensor, targets: Targets) -> None:
        images = images.to(placement.device).to(torch.float32, memory_format=placement.memory_format).div_(255)
        with placement.autocast():
            outputs = forward(images)
        loss, _ = model.loss(outputs, targets.to(placement.device))
        finish(model, optimizer, scaler, loss)

    return step


def peer_step(
    name: str, arguments: argparse.Namespace, *, amp: str, channels_last: str
) -> Callable[[Tensor, Targets], None]:
    """The same for an Ultralytics network, with AdamW, which its trainer chooses for short runs."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    placement = place(arguments.device, amp=amp, channels_last=channels_last)
    model = DetectionModel(name, nc=CLASSES, verbose=False).train()
    placement.move(model)
    model.args = get_cfg()
    optimizer = make_optimizer(model, "adamw", placement.amp_dtype)
    scaler = torch.amp.GradScaler(placement.device.type, enabled=placement.needs_scaler)

    def step(images: Tensor, targets: Targets) -> None:
        images = images.to(placement.device).to(torch.float32, memory_format=placement.memory_format).div_(255)
        side = torch.tensor([images.shape[3], images.shape[2]] * 2, device=images.device)
        boxes = targets.boxes.to(images.device)
        middles = torch.cat(((boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]), -1) / side
        batch = {
            "img": images,
            "bboxes": middles.flatten(0, 1),
            "cls": targets.labels.to(images.device).flatten().unsqueeze(-1).float(),
            "batch_idx": torch.arange(len(images), device=images.device).repeat_interleave(BOXES).float(),
        }
        with placement.autocast():
            outputs = model(images)
        loss, _ = model.loss(batch, outputs)
        finish(model, optimizer, scaler, loss.sum())

    return step


def make_optimizer(model: nn.Module, name: str, amp_dtype: torch.dtype | None) -> torch.optim.Optimizer:
    """An optimizer that hardly moves the weights, so that every round times the same network."""
    return build_optimizer(model, name=name, lr=1e-5, momentum=0.9, weight_decay=0.0005, amp_dtype=amp_dtype)


def finish(model: nn.Module, optimizer: Any, scaler: Any, loss: Tensor) -> None:
    """Backward pass, gradient clipping, optimiser step."""
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)


def random_batch(arguments: argparse.Namespace) -> tuple[Tensor, Targets]:
    """Images (B, 3, H, W) uint8 with eight boxes each."""
    generator = torch.Generator().manual_seed(0)
    side, batch = arguments.imgsz, arguments.batch
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)
    corners = torch.rand(batch, BOXES, 2, generator=generator) * side * 0.7
    sizes = torch.rand(batch, BOXES, 2, generator=generator) * side * 0.25 + 8
    labels = torch.randint(0, CLASSES, (batch, BOXES), generator=generator)
    mask = torch.ones(batch, BOXES, dtype=torch.bool)
    return images, Targets(torch.cat([corners, corners + sizes], -1), labels, mask)


def peak_memory(act: str, layout: str, arguments: argparse.Namespace) -> float:
    """Peak memory of five steps in MiB, minus the size of the process after building the model."""
    amp, channels_last = LAYOUTS[layout]
    step = our_step(act, arguments, amp=amp, channels_last=channels_last, optimizer_name=arguments.optimizer)
    batch = random_batch(arguments)
    memory = PeakMemory(torch.device(arguments.device))
    for _ in range(5):
        step(*batch)
    return memory.mib()


def memory_in_fresh_process(act: str, layout: str, arguments: argparse.Namespace) -> float:
    """``peak_memory`` measured in a new process."""
    own = {
        key: value for key, value in vars(arguments).items() if key in ("size", "imgsz", "batch", "device", "optimizer")
    }
    code = (
        "import argparse, json, sys; from benchmarks import step; "
        "a = json.loads(sys.argv[1]); print(step.peak_memory(a['act'], a['layout'], argparse.Namespace(**a['own'])))"
    )
    words = [sys.executable, "-c", code, json.dumps({"act": act, "layout": layout, "own": own})]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


class OperatorTimes(TorchDispatchMode):
    """The seconds that each operator takes while this is on, on a CPU, where an operator has ended when it returns.

    The profiler of PyTorch also counts the system's clearing of the memory that it needs itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self.seconds[func.overloadpacket.__name__] += time.perf_counter() - start
        return result


def operator_table(steps: dict[str, Callable[[], None]], rounds: int) -> str:
    """Milliseconds of a step by operator, the median of ``rounds`` interleaved rounds, of those with 1 % of a step."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            with OperatorTimes() as times:
                step()
            whole = time.perf_counter() - start
            rest = whole - sum(times.seconds.values())
            taken[name].append({**times.seconds, "Python and autograd": rest, "all": whole})
    medians = {
        name: {key: 1e3 * statistics.median(each.get(key, 0.0) for each in rows) for key in set().union(*rows)}
        for name, rows in taken.items()
    }
    shown = {key for each in medians.values() for key, value in each.items() if value >= 0.01 * each["all"]}
    order = sorted(shown, key=lambda key: -max(each.get(key, 0.0) for each in medians.values()))
    rows = [f"| operator, ms | {' | '.join(steps)} |", "|---" * (len(steps) + 1) + "|"]
    rows += [
        f"| {key} | " + " | ".join(f"{each.get(key, 0.0):.1f}" for each in medians.values()) + " |" for key in order
    ]
    return "\n".join(rows)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acts", nargs="+", default=["mish", "relu", "silu", "leaky_relu"], help="activations")
    parser.add_argument("--peer", help="an Ultralytics network to add, for example yolov8n.yaml")
    parser.add_argument("--size", default="n", help="model size")
    parser.add_argument("--imgsz", type=int, default=320, help="image size in pixels")
    parser.add_argument("--batch", type=int, default=8, help="batch size")
    parser.add_argument("--optimizer", choices=("muon", "adamw", "sgd"), default="muon", help="of our networks")
    parser.add_argument("--rounds", type=int, default=12, help="rounds; the first two are warm-up")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="device")
    parser.add_argument("--operators", action="store_true", help="also the time by operator, on a CPU")
    arguments = parser.parse_args()
    if arguments.operators and arguments.device != "cpu":
        parser.error("--operators measures on a CPU; --device is " + arguments.device)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory(MODERATE)
    steps = {
        (act, layout): our_step(
            act, arguments, amp=amp, channels_last=channels_last, optimizer_name=arguments.optimizer
        )
        for act in arguments.acts
        for layout, (amp, channels_last) in LAYOUTS.items()
    }
    if arguments.peer:
        for layout, (amp, channels_last) in LAYOUTS.items():
            steps[arguments.peer, layout] = peer_step(arguments.peer, arguments, amp=amp, channels_last=channels_last)
    images, targets = random_batch(arguments)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for _ in range(arguments.rounds):
        for key, step in steps.items():
            start = time.perf_counter()
            step(images, targets)
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            seconds[key].append(time.perf_counter() - start)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.device}, batch {arguments.batch}")
    print("| network | layout | step, ms (median, minimum) | images/s | memory, MiB |\n|---|---|---|---|---|")
    for (name, layout), taken in seconds.items():
        median, minimum = statistics.median(taken[2:]), min(taken[2:])
        ours = name in arguments.acts
        memory = f"{memory_in_fresh_process(name, layout, arguments):.0f}" if ours else ""
        speed = arguments.batch / median
        print(f"| {name} | {layout} | {1e3 * median:.0f}, {1e3 * minimum:.0f} | {speed:.1f} | {memory} |", flush=True)
    if arguments.operators:
        chosen = {name: step for (name, layout), step in steps.items() if layout == "default"}
        default: dict[str, Callable[[], None]] = {
            name: functools.partial(step, images, targets) for name, step in chosen.items()
        }
        print("\n" + operator_table(default, arguments.rounds))
    return 0


if __name__ == "__main__":
    run_script(main)
