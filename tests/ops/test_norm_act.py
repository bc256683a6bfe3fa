"""Fused norm and activation against the two modules: outputs, gradients, buffers, and cases that are not fused."""

import contextlib
import copy
import math

import pytest
import torch
from torch import Tensor, nn

from ops import norm_act
from ops.mish import Mish

ACTIVATIONS = {
    "mish": Mish, "relu": nn.ReLU, "silu": nn.SiLU, "leaky_relu": lambda: nn.LeakyReLU(0.1)
}  # fmt: skip


OPTIONS = ({"momentum": None}, {"momentum": 0.3, "eps": 0.1}, {"affine": False}, {"track_running_stats": False})

pytestmark = pytest.mark.usefixtures("kernels")


def norm_of(channels: int, **options) -> nn.BatchNorm2d:
    """A norm with values other than the initial ones."""
    norm = nn.BatchNorm2d(channels, **options)
    values = torch.linspace(0.5, 1.5, channels)
    for tensor, value in (
        (norm.weight, values),
        (norm.bias, values - 1),
        (norm.running_mean, values),
        (norm.running_var, values),
    ):
        if tensor is not None:
            tensor.data.copy_(value)
    return norm


def images(*shape: int, channels_last: bool = False, dtype: torch.dtype = torch.float32) -> Tensor:
    x = 3 + 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(shape[1]))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return x.to(dtype).to(memory_format=layout)


def run(function, x: Tensor, norm: nn.Module, act: nn.Module) -> dict[str, Tensor]:
    """Output, gradients and buffers of one pass."""
    x = x.detach().clone().requires_grad_()
    y = function(x, norm, act)
    y.backward(torch.linspace(-1, 2, y.numel(), device=y.device).reshape(y.shape).to(y.dtype))
    result = {"y": y.detach(), "x": x.grad}
    result |= {f"grad of {name}": each.grad for name, each in norm.named_parameters()}
    return result | dict(norm.named_buffers())


def plain(x: Tensor, norm: nn.Module, act: nn.Module) -> Tensor:
    return act(norm(x))


def fused(x: Tensor, norm: nn.Module, act: nn.Module) -> Tensor:
    y = norm_act.norm_act(x, norm, act)
    assert y.grad_fn.name() == "_NormActBackward"
    return y


def compare(x: Tensor, norm: nn.Module, act: nn.Module, *, tolerance: float = 2e-5) -> None:
    """Fused norm and activation in x's type against the modules in fp64 (fp32 for 16 bits)."""
    found = run(fused, x, copy.deepcopy(norm), copy.deepcopy(act))
    expected = run(plain, x.double(), copy.deepcopy(norm).double(), copy.deepcopy(act))
    assert found.keys() == expected.keys() and found["y"].dtype == found["x"].dtype == x.dtype
    assert found["y"].stride() == found["x"].stride() == x.stride()
    for name, value in found.items():
        scale = expected[name].abs().max().item() + 1e-12
        torch.testing.assert_close(
            value.double() / scale, expected[name].double() / scale, rtol=0, atol=tolerance, msg=name
        )


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_results_match_the_modules(name, channels_last, training):
    for shape in ((2, 5, 7, 9), (3, 16, 20, 20), (4, 24, 1, 1), (1, 1, 70, 80), (2, 1100, 3, 3)):
        norm = norm_of(shape[1]).train(training)
        compare(images(*shape, channels_last=channels_last), norm, ACTIVATIONS[name]())


SHAPES = ((3, 16, 20, 20), (2, 5, 7, 9), (2, 80, 5, 5), (2, 300, 7, 3), (3, 1, 5, 11), (3, 1100, 3, 3))


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bf16_results_match_the_modules(name, channels_last, training, instructions):
    for shape in SHAPES:
        x = images(*shape, channels_last=channels_last, dtype=torch.bfloat16)
        compare(x, norm_of(shape[1]).train(training), ACTIVATIONS[name](), tolerance=1.6e-2)  # two roundings


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bf16_is_rounded_once(name, channels_last, instructions):
    """Every element of the output and of the activation's gradient, and nothing outside them."""
    for shape in SHAPES:
        act, channels = ACTIVATIONS[name](), shape[1]
        x = 3 * images(*shape, channels_last=channels_last, dtype=torch.bfloat16) - 9
        dy = images(*shape[::-1], dtype=torch.bfloat16).reshape(shape).clone(memory_format=torch.preserve_format)
        pair = (torch.linspace(-1, 1, channels), torch.linspace(0.5, 2, channels), None, None, 1e-3)
        pair = (*pair, norm_act.ACTIVATIONS[type(act)], getattr(act, "negative_slope", 0.0))
        mean, variance = (each.double().view(1, -1, 1, 1) for each in pair[:2])
        z = ((x.double() - mean) / (variance + 1e-3).sqrt()).requires_grad_()
        y = act(z)
        (g,) = torch.autograd.grad(y, z, dy.double())
        found = (torch.ops.yolo.norm_act_forward(x, *pair), torch.ops.yolo.norm_act_reduce(dy, x, *pair)[0])
        by_reciprocal = 2e-4 * dy.double().abs()  # derivatives near 0 have as many digits as the others, not more
        for value, expected, beside in zip(found, (y.detach(), g), (2e-6, by_reciprocal), strict=True):
            ulp = torch.exp2(torch.floor(torch.log2(expected.abs().clamp_min(1e-30)))) * 2**-7
            assert ((value.double() - expected).abs() <= 0.53 * ulp + beside).all()


def test_bf16_special_values(instructions):
    """In eval mode, where infinities do not reach the statistics."""
    x = torch.tensor([-math.inf, -1e30, -200.0, -0.0, 200.0, 1e30, math.inf, math.nan]).bfloat16().view(1, 1, 2, 4)
    norm = nn.BatchNorm2d(1, eps=0).eval()
    for name, slope in (("mish", 0.0), ("relu", 0.0), ("leaky_relu", 0.1)):
        y = fused(x.clone().requires_grad_(), norm, ACTIVATIONS[name]()).detach().flatten()
        expected = nn.functional.leaky_relu(x.flatten().double(), slope) if slope else x.flatten().clamp_min(0)
        assert y[7].isnan()
        torch.testing.assert_close(y[:7], expected[:7].bfloat16(), rtol=4e-3, atol=1e-30)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_of_the_norm(options):
    for training in (True, False):
        norm = norm_of(6, **options).train(training)
        compare(images(3, 6, 5, 4), norm, Mish())
    norm = norm_of(6, **options)
    twin = copy.deepcopy(norm)
    for seed in range(3):  # the buffers after several steps
        x = (images(3, 6, 5, 4) + seed).requires_grad_()
        fused(x, norm, Mish()), plain(x, twin, Mish())
    for found, expected in zip(norm.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(found, expected)


def test_values_far_from_zero_keep_their_variance():
    check_far_from_zero("cpu")


def check_far_from_zero(device: torch.device | str) -> None:
    for channels_last in (True, False):
        x = images(4, 8, 16, 16, channels_last=channels_last).to(device) * 0.01 + 100
        mean, variance = torch.ops.yolo.norm_statistics(x, None, None, 0.0)
        torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)
        torch.testing.assert_close(variance.double(), x.double().var((0, 2, 3), unbiased=False), rtol=1e-4, atol=0)


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous"])
def test_a_nan_appears_in_the_statistics_of_its_channel(channels_last):
    x = images(4, 8, 16, 16, channels_last=channels_last)
    x[2, 5, 3, 1] = math.nan
    for found in torch.ops.yolo.norm_statistics(x, None, None, 0.0):
        assert found.isnan().nonzero().tolist() == [[5]]


@pytest.mark.parametrize("dtype", norm_act.FUSED_TYPES["cpu"], ids=str)
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous"])
def test_results_do_not_depend_on_threads(channels_last, dtype):
    x = images(8, 16, 64, 64, channels_last=channels_last, dtype=dtype)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(run(fused, x, norm_of(16), Mish()))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("dtype", norm_act.FUSED_TYPES["cpu"], ids=str)
def test_sums_of_few_channels_do_not_depend_on_threads(dtype):
    """Parts of a channel that end within the planes of a thread."""
    x, threads = images(7, 3, 130, 131, dtype=dtype), torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(torch.ops.yolo.norm_statistics(x, None, None, 0.0))
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(results[0][0].double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def test_other_layouts_are_accepted():
    x = images(2, 6, 8, 10)[:, :, ::2, 1:]
    found, expected = (run(each, x, norm_of(6), Mish()) for each in (fused, plain))
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5, msg=name)


def test_frozen_parts_and_second_derivatives():
    check_derivatives("cpu")


def check_derivatives(device: torch.device | str) -> None:
    """Of x alone beside a frozen norm, and second ones of all."""
    x, norm, results = images(2, 4, 3, 3).to(device), norm_of(4).to(device), []
    leaf = x.clone().requires_grad_()
    frozen = copy.deepcopy(norm).requires_grad_(False)
    (found,) = torch.autograd.grad(fused(leaf, frozen, Mish()).sum(), leaf)
    (expected,) = torch.autograd.grad(plain(leaf, copy.deepcopy(norm), Mish()).sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for function in (fused, plain):
        for training in (True, False):
            own, leaf = copy.deepcopy(norm).train(training), x.clone().requires_grad_()
            inputs = (leaf, *own.parameters())
            once = torch.autograd.grad(function(leaf, own, Mish()).square().sum(), inputs, create_graph=True)
            results.append(torch.autograd.grad(sum(each.square().sum() for each in once), inputs))
    for found, expected in zip(results[0] + results[1], results[2] + results[3], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_one_large_tensor_is_saved():
    sizes = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda each: sizes.append(each.numel()) or each, lambda each: each)
    with hooks:
        norm_act.norm_act(images(2, 4, 8, 8).requires_grad_(), norm_of(4), Mish())
    assert sum(sizes) == 2 * 4 * 8 * 8 + 4 * 4 and max(sizes) == 2 * 4 * 8 * 8


def test_saved_bytes_equal_those_with_inplace_relu():
    def kept(function) -> int:
        """Bytes of the different pieces of memory that two convolutions and what is between them keep."""
        sizes = {}
        pack = lambda each: sizes.update({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()}) or each  # noqa: E731
        first, second = nn.Conv2d(3, 16, 3, bias=False), nn.Conv2d(16, 8, 3, bias=False)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda each: each):
            second(function(first(torch.randn(2, 3, 40, 40))))
        return sum(sizes.values())

    norm = norm_of(16)
    in_place = kept(lambda x: nn.functional.relu_(norm(x)))
    ours = kept(lambda x: norm_act.norm_act(x, norm, Mish()))
    assert abs(ours - in_place) <= 8 * 4 * 16  # some vectors of one value a channel
    assert kept(lambda x: nn.functional.mish(norm(x))) > ours + 4 * 2 * 16 * 38 * 38 - 512


def test_unsupported_cases_run_unfused():
    x, norm = images(2, 4, 5, 5).requires_grad_(), norm_of(4)

    def ran(x: Tensor, norm: nn.Module, act: nn.Module) -> str:
        return type(norm_act.norm_act(x, norm, act).grad_fn).__name__

    assert ran(x, norm, Mish()) == "_NormActBackward"
    assert ran(x, norm, nn.GELU()) == "GeluBackward0"
    assert ran(x, nn.GroupNorm(2, 4), nn.ReLU()) == "ReluBackward0"
    assert ran(x.double(), norm_of(4).double(), nn.ReLU()) == "ReluBackward0"
    seen = []
    norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    assert ran(x, norm, nn.ReLU()) == "ReluBackward0" and seen
    with pytest.raises(ValueError, match="more than 1 value"):
        norm_act.norm_act(images(1, 4, 1, 1), norm_of(4), Mish())
    y = torch.func.vmap(lambda each: norm_act.norm_act(each[None], norm_of(4).eval(), Mish())[0])(x.detach())
    torch.testing.assert_close(y, plain(x, norm_of(4).eval(), Mish()).detach())


def test_fusion_predicts_what_is_fused():
    assert norm_act.fusion(norm_of(2), Mish(), "cpu", torch.float32).implementation.startswith("ops.norm_act")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        found = norm_act.fusion(norm_of(2), nn.SiLU(), "cuda", dtype)
        assert found.implementation == "ops.norm_act, CUDA kernel"
    for norm, act, device, dtype in (
        (nn.GroupNorm(1, 2), Mish(), "cpu", torch.float32),
        (norm_of(2), nn.GELU(), "cpu", torch.float32),
        (norm_of(2), Mish(), "meta", torch.float32),
        (norm_of(2), Mish(), "cuda", torch.float64),
        (norm_of(2).double(), Mish(), "cuda", torch.float32),
        (norm_of(2), Mish(), "cpu", torch.float16),
    ):
        assert norm_act.fusion(norm, act, device, dtype) is None


@pytest.mark.slow
def test_opcheck():
    x, ops = images(2, 4, 5, 5), torch.ops.yolo
    mean, variance, weight, bias = torch.zeros(4), torch.ones(4), torch.full((4,), 2.0), torch.ones(4)
    for each in (x, x.to(memory_format=torch.channels_last), x.bfloat16()):
        norm = (mean, variance, weight, bias, 1e-5)
        torch.library.opcheck(ops.norm_statistics.default, (each, mean.clone(), variance.clone(), 0.1))
        torch.library.opcheck(ops.norm_act_forward.default, (each, *norm, 0, 0.0))
        torch.library.opcheck(ops.norm_act_reduce.default, (each, each, *norm, 0, 0.0))
        torch.library.opcheck(
            ops.norm_act_backward.default, (each.clone(), each, mean, variance, None, mean, mean, 1e-5, 50)
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": torch.ones(3)}, "mean contiguous and on cpu, with 4 values"),
        ({"weight": torch.ones(4).double()}, "weight .* in torch.float32"),
        ({"bias": torch.ones(8)[::2]}, "bias contiguous"),
        ({"x": torch.ones(4, 5, 5)}, r"x \(B, C, H, W\)"),
        ({"x": torch.ones(2, 4, 5, 5).double()}, r"x \(B, C, H, W\) in torch.float32"),
        ({"grad": torch.ones(1, 4, 5, 5)}, "a gradient like x"),
        ({"grad": torch.ones(2, 4, 5, 5).bfloat16()}, "a gradient like x"),
        ({"act": 4}, "an activation from 0 to 3"),
        ({"mean": torch.ones(4, device="meta")}, "all tensors on one device, not on cpu and meta"),
        ({"x": torch.ones(2, 4, 5, 5, device="meta")}, "all tensors on one device, not on cpu and meta"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_operators_refuse_what_does_not_fit(change, said):
    one, x = torch.ones(4), torch.ones(2, 4, 5, 5)
    given = {"grad": x, "x": x, "mean": one, "variance": one, "weight": one, "bias": one, "eps": 1e-3, "act": 0}
    given |= {"slope": 0.0} | change
    with pytest.raises(RuntimeError, match=said) as raised:
        torch.ops.yolo.norm_act_reduce(**given)
    assert "\n" not in str(raised.value)
    with pytest.raises(RuntimeError, match="memory layout"):
        g = x.clone(memory_format=torch.channels_last)
        torch.ops.yolo.norm_act_backward(g, x, one, one, None, one, one, 1e-3, 50)
    with pytest.raises(RuntimeError, match="a count of values, not -3"):
        torch.ops.yolo.norm_act_backward(x.clone(), x, one, one, None, one, one, 1e-3, -3)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_parameters_on_meta_are_pytorchs_error(training):
    """get_device() is -1 on meta as on the CPU, and such arrays have no address."""
    norm = nn.BatchNorm2d(4, device="meta").train(training)
    with pytest.raises(RuntimeError, match="meta"):
        norm_act.norm_act(images(2, 4, 5, 5), norm, Mish())


@pytest.mark.parametrize("replaced", ["norm", "act"])
def test_a_forward_that_was_replaced_on_an_instance_runs(replaced):
    norm, act, x = norm_of(4), Mish(), images(2, 4, 5, 5)
    module = {"norm": norm, "act": act}[replaced]
    module.forward = torch.zeros_like
    torch.testing.assert_close(norm_act.norm_act(x, norm, act), act(norm(x)))


def test_a_later_training_call_does_not_change_the_gradient_of_an_evaluation():
    x, norm = images(2, 4, 5, 5), norm_of(4).eval()
    leaf = x.clone().requires_grad_()
    y = fused(leaf, norm, Mish())
    twin = copy.deepcopy(norm)
    norm_act.norm_act(x, norm.train(), Mish())
    (found,) = torch.autograd.grad(y.sum(), leaf)
    (expected,) = torch.autograd.grad(plain(leaf, twin, Mish()).sum(), leaf)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last", "contiguous"])
@pytest.mark.parametrize("kind", ["of a sum", "other layout"])
def test_gradients_in_any_layout_need_no_operator(kind, channels_last, monkeypatch):
    """That of a sum is one value, expanded: the most common one in timings and in losses of means."""
    monkeypatch.setattr(norm_act, "_gradients_by_operators", lambda *_, **__: pytest.fail("not direct"))
    x = images(2, 8, 4, 4, channels_last=channels_last)
    grad = torch.ones(()).expand(x.shape) if kind == "of a sum" else images(2, 8, 4, 4, channels_last=not channels_last)
    results = []
    for function in (plain, fused):
        leaf, norm = x.detach().clone().requires_grad_(), norm_of(8)
        function(leaf, norm, Mish()).backward(grad)
        results.append((leaf.grad, norm.weight.grad, norm.bias.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_saved_tensors_in_another_layout_give_the_same_gradients():
    x = images(2, 4, 6, 5, channels_last=True)
    results = []
    for restore in (lambda each: each, lambda each: each.contiguous()):
        with torch.autograd.graph.saved_tensors_hooks(lambda each: each, restore):
            results.append(run(fused, x, norm_of(4), Mish()))
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kept", ["bfloat16", "negated", "negated arrays"])
def test_saved_arrays_that_hooks_have_changed_are_read_as_what_they_are(kept):
    """Saved bf16 stays what it is, and fp32 statistics become bf16, of half the bytes; or all hold negated values."""
    pack, unpack = {
        "bfloat16": (lambda each: each.bfloat16(), lambda each: each),
        "negated": (lambda each: -each.detach(), lambda each: each._neg_view()),
        "negated arrays": (
            lambda each: each if each.dim() == 4 else -each.detach(),
            lambda each: each if each.dim() == 4 else each._neg_view(),
        ),
    }[kept]
    x, results = images(2, 8, 6, 6).bfloat16(), []
    for hooks in (contextlib.nullcontext(), torch.autograd.graph.saved_tensors_hooks(pack, unpack)):
        leaf, norm = x.clone().requires_grad_(), norm_of(8)
        with hooks:
            y = norm_act.norm_act(leaf, norm, Mish())
        y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape).bfloat16())
        results.append((leaf.grad.float(), norm.weight.grad, norm.bias.grad))
    for expected, found in zip(*results, strict=True):
        assert (found - expected).norm() <= 0.02 * expected.norm()


def test_a_profiler_sees_the_operators():
    with torch.profiler.profile() as profile:
        fused(images(2, 4, 5, 5).requires_grad_(), norm_of(4), Mish()).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert {"yolo::norm_statistics", "yolo::norm_act_forward", "yolo::norm_act_reduce"} <= names


def test_values_behind_a_negative_bit():
    """The imaginary part of a conjugate, whose memory holds the negated values."""
    real = images(2, 4, 5, 5)
    x = torch.complex(torch.zeros_like(real), real).conj().imag
    assert x.is_neg()
    with torch.no_grad():
        found = norm_act.norm_act(x, norm_of(4).eval(), Mish())
    torch.testing.assert_close(found, plain(-real, norm_of(4).eval(), Mish()).detach(), rtol=1e-4, atol=1e-5)
