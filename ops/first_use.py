"""The comparison of the fused CUDA kernels with PyTorch's operators before their first use in a process."""

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import torch
from torch import Tensor, nn

from ops.build import Unavailable, say
from ops.cuda import CudaKernels, refuse_in_capture
from ops.groups import Group
from ops.norm_act_operators import BACKWARD, FORWARD, REDUCE, STATISTICS

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}  # relative to an array's largest value
RESULTS = ("output", "gradient of x", "gradient of weight", "gradient of bias", "running mean", "running variance")
# By access variant: one block or few, and several strips of channels and splits of their values. Those of the first two
# consist of whole 16-byte pieces, in both layouts.
VECTOR, SINGLE = ((2, 24, 4, 6), (3, 136, 16, 16)), ((3, 5, 3, 3), (3, 135, 15, 17))
SHAPES = {"along": VECTOR, "across": VECTOR, "scalar": SINGLE}
LAYOUTS = {
    "along": (torch.contiguous_format,),
    "across": (torch.channels_last,),
    "scalar": (torch.contiguous_format, torch.channels_last),
}
FACTOR, EPS, SLOPE = 0.1, 1e-3, 0.1

_PLAIN = {0: nn.functional.mish, 1: nn.functional.relu, 2: nn.functional.silu}


def activation(z: Tensor, act: int, slope: float) -> Tensor:
    """The activation by PyTorch's operator."""
    return nn.functional.leaky_relu(z, slope) if act == 3 else _PLAIN[act](z)


_tried: set[tuple[torch.device, Group]] = set()
wrong: dict[torch.device, str] = {}  # GPU -> how one of its kernels differs from PyTorch


def check(kernels: CudaKernels, device: torch.device, group: Group) -> None:
    """Load a group of fused kernels and compare it with PyTorch, once; a difference is reported and kept in `wrong`.

    RuntimeError, with nothing kept, while a CUDA graph is captured or if an earlier kernel has failed.
    """
    if (device, group) in _tried or device in wrong:
        return
    refuse_in_capture(f"the fused batch norm of {device}", f'ops.norm_act.prepare("{device}")')
    try:
        kernels.load(group)
        found = difference(device, group)
    except Unavailable as error:
        found = str(error)
    if found:
        wrong[device] = found
        effect = f"batch norm and activation run unfused on {device}, slower"
        say(f"{effect}: {found}; please report this line; model.norm_act=plain skips the check")
    _tried.add((device, group))


def difference(device: torch.device, group: Group) -> str:
    """How a group of fused kernels differs from PyTorch in fp64 on the CPU, in words; empty if it does not.

    It runs in another thread, because dispatch modes, autocast, saved-tensor hooks (as in torch.utils.checkpoint),
    transforms and the grad mode are thread-local: those of the caller must neither see nor change the comparison.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_difference, device, group).result()


def _difference(device: torch.device, group: Group) -> str:
    dtype, act = getattr(torch, group.type), group.act
    for shape, layout in product(SHAPES[group.variant], LAYOUTS[group.variant]):
        numbers = torch.arange(2.0 * math.prod(shape), device="cpu").mul(1.7).sin().reshape(2, *shape)
        x, dy = (values.to(dtype).to(memory_format=layout) for values in numbers)
        expected = _by_pytorch(x.double(), dy.double(), act)
        computed = _by_the_kernels(x.to(device), dy.to(device), act)
        for name, value, reference in zip(RESULTS, computed, expected, strict=True):
            error = ((value.cpu().double() - reference).abs().max() / reference.abs().max()).item()
            if not error <= TOLERANCES[dtype]:  # also true for NaN
                case = f"activation {act}, {dtype}, {shape}, {layout}"
                return f"{name} differs from PyTorch's by {error:.2g} of its largest value ({case})"
    return ""


def _parameters(x: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Weight, bias, running mean and variance."""
    weight, bias = (torch.linspace(low, low + 1, x.shape[1], dtype=dtype, device=x.device) for low in (0.5, -0.5))
    return [weight, bias, torch.zeros_like(weight), torch.ones_like(weight)]


def _by_pytorch(x: Tensor, dy: Tensor, act: int) -> tuple[Tensor, ...]:
    """The RESULTS of one forward and backward pass by PyTorch's operators."""
    weight, bias, mean, variance = _parameters(x, x.dtype)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    y = activation(nn.functional.batch_norm(x, mean, variance, weight, bias, True, FACTOR, EPS), act, SLOPE)
    return (y.detach(), *torch.autograd.grad(y, leaves, dy), mean, variance)


def _by_the_kernels(x: Tensor, dy: Tensor, act: int) -> tuple[Tensor, ...]:
    """The same by the operators, without autograd: its thread for this GPU may be the one that waits for this check."""
    weight, bias, *running = _parameters(x, torch.float32)
    mean, variance = STATISTICS(x, *running, FACTOR)
    parameters = (mean, variance, weight, bias, EPS, act, SLOPE)
    y = FORWARD(x, *parameters)
    g, by_weight, by_bias = REDUCE(dy, x, *parameters)
    BACKWARD(g, x, mean, variance, weight, by_weight, by_bias, EPS, x.numel() // x.shape[1])
    return (y, g, by_weight, by_bias, *running)
