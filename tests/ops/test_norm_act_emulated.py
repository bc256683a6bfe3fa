"""The fused CUDA kernels emulated on the CPU, against the formulas in fp64, and rejection of wrong kernels."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from ops import backend, first_use, launch, norm_act
from ops.groups import Group
from ops.mish import Mish, reference
from tests.ops.test_mish import derivative

pytestmark = pytest.mark.slow

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 6e-3, torch.float16: 8e-4}  # relative to an array's largest value
SHAPES = (  # the channels and places that a strip and a piece do and do not divide, one split and many
    *((1, 1, 1, 5), (8, 3, 7, 7), (2, 16, 20, 20), (5, 80, 1, 1), (3, 300, 1, 1), (2, 80, 20, 20), (2, 300, 7, 7)),
    *((1, 16, 20, 20), (3, 1, 70, 80), (8, 1, 20, 20), (33, 16, 4, 4), (2, 67, 5, 5), (3, 136, 4, 4)),
)
EPS, SLOPE, GUARD = 1e-3, 0.1, 77.0
ACTIVATIONS = {  # function and derivative, in the order of ops/norm_act.py
    "mish": (reference, derivative),
    "relu": (lambda z: z.clamp(min=0), lambda z: (z > 0).double()),
    "silu": (lambda z: z / (1 + (-z).exp()), lambda z: (1 + (1 + z) * (-z).exp()) / (1 + (-z).exp()) ** 2),
    "leaky_relu": (lambda z: torch.where(z > 0, z, SLOPE * z), lambda z: torch.where(z > 0, 1.0, SLOPE)),
}


class Memory:
    """Tensors between guard values, which `check` verifies."""

    def __init__(self, *, shift: int = 0):
        self.shift, self.buffers = shift, []

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32, *, last: bool = False) -> Tensor:
        """An unset tensor, `shift` elements off 16 bytes; `last`: in channels_last."""
        count, begin = math.prod(shape), 64 + self.shift
        buffer = torch.full((count + 128,), GUARD, dtype=dtype)
        begin += -(buffer.data_ptr() // dtype.itemsize) % (16 // dtype.itemsize)
        self.buffers.append((buffer, begin, begin + count))
        inner = buffer[begin : begin + count]
        if not last:
            return inner.view(shape)
        batch, channels, height, width = shape
        return inner.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def of(self, values: Tensor) -> Tensor:
        """A copy of values (B, C, H, W)."""
        last = not values.is_contiguous()
        return self.tensor(tuple(values.shape), values.dtype, last=last).copy_(values)

    def check(self) -> None:
        """Fail where something outside of the tensors was written."""
        for buffer, begin, end in self.buffers:
            assert (buffer[:begin] == GUARD).all() and (buffer[end:] == GUARD).all()


def images(shape: tuple[int, ...], dtype: torch.dtype, *, last: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(math.prod(shape))
    layout = torch.channels_last if last else torch.contiguous_format
    x, dy = (torch.randn(shape, generator=generator) for _ in range(2))
    return tuple(each.to(dtype).to(memory_format=layout) for each in (3 + 2 * x, dy))


def call(kernels: backend.CudaKernels, name: str, x: Tensor, last: bool, *arguments) -> None:
    batch, channels, height, width = x.shape
    inner = height * width
    sizes = (batch * inner, channels, 1) if last or inner == 1 else (batch, channels, inner)
    kernels.call(name, backend.TYPES[x.dtype], *sizes, x, *arguments)


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert not found.isnan().any()
    assert (found.double() - expected).abs().max() <= tolerance * expected.abs().max() + 1e-30


def each(array: Tensor) -> Tensor:
    """One value per channel, for (B, C, H, W) in fp64."""
    return array.double()[:, None, None]


@pytest.mark.parametrize("shift", [0, 1], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_the_kernels_against_the_formulas(emulated, dtype, last, shift):
    for shape in SHAPES if shift == 0 else (*SHAPES[1:6], *SHAPES[-2:]):
        memory, tolerance, channels = Memory(shift=shift), TOLERANCES[dtype], shape[1]
        x, dy = (memory.of(each) for each in images(shape, dtype, last=last))
        mean, variance, running_mean, running_var, by_weight, by_bias = (memory.tensor((channels,)) for _ in range(6))
        running_mean.copy_(torch.linspace(1, 2, channels)), running_var.copy_(torch.linspace(1, 2, channels))
        old = running_mean.double(), running_var.double()
        count = x.numel() // channels
        call(emulated, "norm_statistics", x, last, mean, variance, running_mean, running_var, 0.25)
        true_mean, true_variance = x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), unbiased=False)
        close(mean, true_mean, 1e-6), close(variance, true_variance, 1e-5)
        close(running_mean, 0.75 * old[0] + 0.25 * true_mean, 1e-6)
        close(running_var, 0.75 * old[1] + 0.25 * true_variance * count / (count - 1), 1e-5)
        weight, bias = torch.linspace(0.5, 1.5, channels), torch.linspace(-1, 1, channels)
        inverse = 1 / (variance.double() + EPS).sqrt()
        d, scale = x.double() - each(mean), each(weight) * each(inverse)
        z = d * scale + each(bias)
        for act, (function, slope) in enumerate(ACTIVATIONS.values()):
            pair = (mean, variance, weight, bias, EPS, act, SLOPE)
            y, g = (memory.of(torch.full_like(x, GUARD)) for _ in range(2))
            call(emulated, "norm_act_forward", x, last, *pair, y)
            close(y, function(z), tolerance)
            call(emulated, "norm_act_reduce", x, last, dy, *pair, g, by_weight, by_bias)
            true_g = dy.double() * slope(z)
            true_bias, true_weight = true_g.sum((0, 2, 3)), (true_g * d).sum((0, 2, 3)) * inverse
            close(g, true_g, tolerance)
            assert ((by_bias - true_bias).abs() <= 3e-6 * true_g.abs().sum((0, 2, 3))).all()
            assert ((by_weight - true_weight).abs() <= 3e-6 * (true_g * d).abs().sum((0, 2, 3)) * inverse).all()
            by_inputs = (x, last, mean, variance, weight, by_weight, by_bias, EPS)
            fixed = memory.of(g)
            call(emulated, "norm_act_backward", *by_inputs, 0, fixed)
            close(fixed, scale * true_g, 2 * tolerance)
            call(emulated, "norm_act_backward", *by_inputs, count, g)
            close(
                g, scale * (true_g - each(true_bias) / count - d * each(true_weight * inverse) / count), 2 * tolerance
            )
        memory.check()
    ways = {name.rpartition("_")[2] for name in emulated.launched} - {"end"}
    vectors = ({"across"} if last else {"across", "along"}) if shift == 0 else set()
    assert ways == {"scalar"} | vectors


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "contiguous"])
def test_optional_arguments(emulated, last):
    x, dy = images((3, 16, 4, 5), torch.float32, last=last)
    mean, variance, by_weight, by_bias = (torch.empty(16) for _ in range(4))
    call(emulated, "norm_statistics", x, last, mean, variance, None, None, 0.0)
    close(mean, x.double().mean((0, 2, 3)), 1e-6)
    z = (x.double() - each(mean)) / (each(variance) + EPS).sqrt()
    for act, (function, slope) in enumerate(ACTIVATIONS.values()):
        pair, y, g = (mean, variance, None, None, EPS, act, SLOPE), torch.empty_like(x), torch.empty_like(x)
        call(emulated, "norm_act_forward", x, last, *pair, y)
        close(y, function(z), 1e-5)
        call(emulated, "norm_act_reduce", x, last, dy, *pair, g, by_weight, by_bias)
        close(by_weight, (dy.double() * slope(z) * z).sum((0, 2, 3)), 1e-5)
        call(emulated, "norm_act_backward", x, last, mean, variance, None, by_weight, by_bias, EPS, 0, g)
        close(g, dy.double() * slope(z) / (each(variance) + EPS).sqrt(), 1e-5)


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "contiguous"])
def test_values_far_from_zero_keep_their_variance(emulated, last):
    x = images((4, 8, 16, 16), torch.float32, last=last)[0] * 0.01 + 100
    mean, variance = torch.empty(8), torch.empty(8)
    call(emulated, "norm_statistics", x, last, mean, variance, None, None, 0.0)
    close(mean, x.double().mean((0, 2, 3)), 1e-6)
    close(variance, x.double().var((0, 2, 3), unbiased=False), 1e-4)


@pytest.mark.parametrize("last", [True, False], ids=["channels_last", "contiguous"])
def test_results_do_not_depend_on_the_order_of_threads_and_blocks(emulated, last):
    for shape, dtype in itertools.product(((5, 24, 14, 14), (2, 7, 50, 30), (2, 300, 7, 7)), TOLERANCES):
        x, dy = images(shape, dtype, last=last)
        weight, results = torch.linspace(0.5, 1.5, shape[1]), []
        for backwards in (0, 1):
            emulated.driver.turn_round(backwards)
            arrays = [torch.empty(shape[1]) for _ in range(4)]
            mean, variance, by_weight, by_bias = arrays
            y, g = torch.empty_like(x), torch.empty_like(x)
            call(emulated, "norm_statistics", x, last, mean, variance, None, None, 0.0)
            pair = (mean, variance, weight, weight, EPS, 0, SLOPE)
            call(emulated, "norm_act_forward", x, last, *pair, y)
            call(emulated, "norm_act_reduce", x, last, dy, *pair, g, by_weight, by_bias)
            count = x.numel() // shape[1]
            call(emulated, "norm_act_backward", x, last, mean, variance, weight, by_weight, by_bias, EPS, count, g)
            results.append((*arrays, y, g))
        emulated.driver.turn_round(0)
        assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_launches_use_the_stream_and_report_errors(emulated):
    x, before = torch.ones(1, 1, 2, 2), emulated.driver.launched_in(9)
    call(emulated, "norm_statistics", x, False, torch.empty(1), torch.empty(1), None, None, 0.0)
    assert emulated.driver.launched_in(9) == before + 2
    with pytest.raises(backend.Unavailable, match="cuModuleGetFunction failed: named symbol not found"):
        emulated._function(next(iter(emulated._modules.values())), "no_such_kernel")
    empty = emulated._launcher.prepare([(bytes(192), [(emulated.functions["norm_statistics_end"], 0, 1)])], 0)
    code = emulated._launcher.launch_all(empty.head + bytes(8))
    with pytest.raises(backend.Unavailable, match="cuLaunchKernelEx failed: refused"):
        emulated._check("cuLaunchKernelEx", code)


def test_without_a_compiler_python_makes_the_same_launches(emulated, emulator, monkeypatch):
    monkeypatch.setattr(launch, "_compiled", lambda: None)
    plain = type(emulated)(emulator)
    x, y, by = (torch.randn(3, 20, 5, 4) for _ in range(3))
    results = []
    for kernels in (emulated, plain):
        mean, variance, out = torch.empty(20), torch.empty(20), torch.empty(2, *x.shape)
        before = kernels.driver.launched_in(9)
        kernels.map(0, x, x, out[0])
        kernels.map(1, y, by, out[1])
        call(kernels, "norm_statistics", x, False, mean, variance, None, None, 0.0)
        results.append((out, mean, variance, kernels.driver.launched_in(9) - before))
    assert results[0][3] == results[1][3] == 4
    assert all(torch.equal(one, other) for one, other in zip(results[0][:3], results[1][:3], strict=True))


# ---------------------------------------------------------------------------------------------- tried before it is used


DIFFERENCE = first_use.difference


@pytest.fixture
def untried(emulated, monkeypatch) -> backend.CudaKernels:
    """The emulated kernels as on a GPU in a new process."""
    monkeypatch.setattr(first_use, "difference", DIFFERENCE)
    return emulated


def test_correct_kernels_are_used(untried, capsys):
    norm, x = nn.BatchNorm2d(8), torch.randn(2, 8, 4, 4, requires_grad=True)
    y = norm_act.norm_act(x, norm, Mish())
    assert y.grad_fn.name() == "_NormActBackward" and first_use.wrong == {}
    assert untried.launched == set(Group("float32", "along", 0).kernels)  # all that can be needed were tried, no others
    assert norm_act.fusion(norm, Mish(), "cpu", torch.float32).implementation.startswith("ops.norm_act, CUDA kernel")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "argument", "said"),
    [
        ("norm_statistics", -2, "running variance"),  # not written
        ("norm_act_forward", -1, "output"),
        ("norm_act_reduce", -1, "gradient of x"),
        ("norm_act_backward", -1, "gradient of x"),
    ],
)
def test_a_wrong_kernel_is_rejected(untried, monkeypatch, capsys, name, argument, said):
    whole = untried.call

    def broken(called: str, *arguments) -> None:
        arguments = list(arguments)
        whole(called, *arguments)
        if called == name:
            arguments[argument].view(-1)[-1:] += 0.5

    monkeypatch.setattr(untried, "call", broken)
    norm, x = nn.BatchNorm2d(8), torch.randn(2, 8, 4, 4, requires_grad=True)
    norm_act.prepare("cpu", dtype=torch.float32, memory_format=torch.contiguous_format, activations=[nn.ReLU])
    found = capsys.readouterr().err
    assert found.count("\n") == 1 and said in found and "please report" in found and "unfused" in found
    y = norm_act.norm_act(x, norm, nn.ReLU())
    assert type(y.grad_fn).__name__ == "ReluBackward0" and norm_act.fusion(norm, nn.ReLU(), "cpu", x.dtype) is None
    assert capsys.readouterr().err == ""  # reported once


def test_a_kernel_that_cannot_be_launched_is_rejected(untried, monkeypatch, capsys):
    def failing(*arguments) -> None:
        raise backend.Unavailable("cuLaunchKernelEx failed: out of resources")

    monkeypatch.setattr(untried, "call", failing)
    norm_act.prepare("cpu", dtype=torch.float32, memory_format=torch.contiguous_format, activations=[nn.ReLU])
    assert "out of resources" in capsys.readouterr().err
    assert norm_act.fusion(nn.BatchNorm2d(2), Mish(), "cpu", torch.float32) is None
