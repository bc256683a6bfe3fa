"""What the study of the run time measures: one function, kernel or training step against another, in one process.

All times are of one thread, in interleaved rounds (`ops.timing`, `comparison.step_timing`), with the load of other
processes during them.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from scipy import stats
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from comparison import step_timing
from configs.cli import overrides
from core.allocator import keep_freed_memory
from core.device import place
from engine.contention import OtherProcesses
from ops import bench, timing
from ops.build import Unavailable
from ops.mish import prepare
from studies import branches
from studies.rows import Row

CPU = torch.device("cpu")
EMBEDDED = Path(__file__).parents[1] / "configs/data/shapes.yaml"
LEAKY = 0.1  # the slope of Darknet's leaky ReLU
BASE = "relu, fused"
ELEMENTS = 1 << 16  # of a kernel's input: with its output 512 KiB
REPEATS = 10  # of a kernel in a round

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **bench.FUNCTIONS,
    "leaky ReLU": partial(F.leaky_relu, negative_slope=LEAKY),
}
COMPILED = {f"{name}, compiled": FUNCTIONS[name] for name in ("ReLU", "SiLU", "F.mish", "ops.mish")}
ARMS = {  # networks of the step by name: model.act and model.norm_act, or train.compile for a plain one
    BASE: ("relu", "fused"),
    "relu, plain": ("relu", "plain"),
    "leaky_relu, fused": (f"{{name: leaky_relu, negative_slope: {LEAKY}}}", "fused"),
    "leaky_relu, plain": (f"{{name: leaky_relu, negative_slope: {LEAKY}}}", "plain"),
    "silu, fused": ("silu", "fused"),
    "silu, plain": ("silu", "plain"),
    "mish, fused": ("mish", "fused"),
    "mish, plain": ("mish", "plain"),
    "mish_torch, plain": ("mish_torch", "plain"),
    "mish_eager, plain": ("mish_eager", "plain"),
    "identity, plain": ("identity", "plain"),
    **{f"{act}, compiled": (act, "compiled") for act in ("relu", "silu", "mish", "mish_torch", "mish_eager")},
}


def compared(times: Sequence[float], others: Sequence[float], load: float | None) -> Row:
    """Ratio of times (ms) by round: median with its 95 % interval by order statistics, and all logarithms."""
    ratios = np.asarray(times) / np.asarray(others)
    interval = stats.quantile_test(ratios, q=1, p=0.5).confidence_interval()
    return {
        "ms": float(np.median(times)),
        "base_ms": float(np.median(others)),
        "ratio": timing.ratio(times, others),
        "low": float(np.nan_to_num(interval.low, nan=ratios.min())),
        "high": float(np.nan_to_num(interval.high, nan=ratios.max())),
        "other_cores": load,
        "log_ratios": " ".join(f"{value:.5f}" for value in np.log(ratios)),
    }


def operator(name: str, *, elements: int, way: str, rounds: int) -> Row:
    """A function of an fp32 tensor against ReLU, forward or backward (``way``)."""
    keep_freed_memory()
    prepare(CPU)
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(elements, generator=generator) for _ in range(2))
    function = FUNCTIONS.get(name) or _compiled(COMPILED[name])
    try:
        function(x.clone().requires_grad_()).backward(g)  # compiles both ways
    except TorchDynamoException as error:  # there is no C++ compiler, for example
        return {"note": f"torch.compile does not work here: {type(error).__name__}"}
    cases = {
        key: bench.forward_case(each, [x]) if way == "forward" else bench.backward_case(each, [x], [g])
        for key, each in (("base", F.relu), ("function", function))
    }
    others = OtherProcesses()
    times = timing.measure(cases, rounds, CPU)
    return compared(times["function"], times["base"], others.cores())


def _compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    torch._dynamo.config.recompile_limit = 100
    torch._functorch.config.donated_buffer = False  # the backward pass is timed again and again
    return cast(Callable[[Tensor], Tensor], torch.compile(function, fullgraph=True, dynamic=False))


def branch(name: str, form: str, *, signs: str, vectorised: bool, rounds: int) -> Row:
    """A branching form of a function against its branch-free form."""
    try:
        kernels = branches.kernels(vectorised)
    except Unavailable as error:
        return {"note": f"not measured: {error}"}
    x = branches.inputs(name, signs, ELEMENTS, seed=0)
    y = torch.empty_like(x)
    cases: dict[str, timing.Case] = {
        key: lambda _, kernel=kernels[name, key]: partial(kernel, x, y, REPEATS)  # type: ignore[misc]
        for key in ("free", form)
    }
    others = OtherProcesses()
    times = timing.measure(cases, rounds, CPU)
    row = compared(times[form], times["free"], others.cores())
    return {**row, "ns": 1e6 * float(np.median(times[form])) / ELEMENTS / REPEATS}


def step(arm: str, *, rounds: int, batch: int, side: int) -> Row:
    """A detector's training step against that of the same network with ReLU, batch norm and ReLU fused."""
    torch.compiler.reset()  # after some networks compiled, the next of the same code would run eagerly
    with tempfile.TemporaryDirectory() as folder:
        options = _options((BASE, arm), folder, batch=batch, side=side)
        content, rows = step_timing.measure(step_timing.parse([*options, "--rounds", str(rounds)]))
    times = content["times_ms"]
    row = compared(times[arm], times[BASE], content["other_cores"])
    return {**row, "implementation": rows[1].implementation, "device": content["device"]}


def memory(arm: str, *, batch: int, side: int) -> Row:
    """MiB that the forward pass of a training step keeps for the backward pass, without parameters."""
    torch.compiler.reset()
    with tempfile.TemporaryDirectory() as folder:
        arguments = step_timing.parse(_options((arm,), folder, batch=batch, side=side))
        (network,) = step_timing.build_networks(arguments, overrides(arguments))
        train = network.config.train
        device = place(train.device, amp=train.amp, channels_last=train.channels_last)
        batches, _, names = step_timing.preload(network.config, device.device)
        run, _ = step_timing.build_step(network.config, device, names)
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            if not isinstance(tensor, torch.nn.Parameter):
                storage = tensor.untyped_storage()
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run(batches[0])
    return {"kept_mib": sum(kept.values()) / 2**20}


def _options(arms: Sequence[str], folder: str, *, batch: int, side: int) -> list[str]:
    """The command line of `step_timing` for arms, on a few images of the embedded data drawn into a folder."""
    data = yaml.safe_load(EMBEDDED.read_text(encoding="utf-8"))
    data["root"] = str(Path(folder) / "shapes")
    data["embedded"] |= {"train": step_timing.PRELOADED_BATCHES * batch, "val": 1, "test": 1, "side": side}
    path = Path(folder) / "data.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    words = ["--imgsz", str(side), "--batch", str(batch), "--device", "cpu", "--cfg", "yolo.yaml", "--data", str(path)]
    words += ["--optimizer", "adamw"]  # not the default of train.py, which changes
    for arm in arms:
        act, form = ARMS[arm]
        words += ["--arm", arm, f"model.act={act}"]
        words += ["model.norm_act=plain", "train.compile=true"] if form == "compiled" else [f"model.norm_act={form}"]
    return words
