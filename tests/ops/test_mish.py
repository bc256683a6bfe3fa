"""Mish against its definition in float64: every 16-bit value, a sweep of fp32, all kinds of tensors."""

import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from ops import backend, build
from ops.mish import Mish, dispatch, formula, mish, prepare, reference
from tests.support.processes import ROOT

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def choosing(monkeypatch):
    """Allow changes of the environment: forget earlier choices and restore them afterwards."""
    monkeypatch.setattr(backend, "_chosen", {})
    return monkeypatch


def derivative(x: Tensor) -> Tensor:
    """Mish' in float64, from tanh and the logistic function."""
    x = x.double()
    t = torch.tanh(torch.logaddexp(x, torch.zeros_like(x)))
    return t + x * torch.sigmoid(x) * (1 - t * t)


def second_derivative(x: Tensor) -> Tensor:
    """Mish'' in float64: the derivative of `derivative`, taken by autograd."""
    x = x.double().clone().requires_grad_()
    return torch.autograd.grad(derivative(x).sum(), x)[0]


def first(x: Tensor) -> Tensor:
    """The operator's derivative."""
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(mish(x), x, torch.ones_like(x))[0]


def ulps(found: Tensor, expected: Tensor) -> Tensor:
    """The error of `found` against the float64 `expected`, in units of the last place of its type."""
    info = torch.finfo(found.dtype)
    exponent = torch.floor(torch.log2(expected.abs().clamp_min(info.tiny)))
    return (found.double() - expected).abs() / (torch.exp2(exponent) * info.eps)


def every_value(dtype: torch.dtype) -> Tensor:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    x = bits.view(dtype)
    return x[x.isfinite()]


def sweep() -> Tensor:
    """fp32: every exponent with 500 mantissas and both signs, and a dense sweep of the range where Mish is curved."""
    exponents, mantissas = torch.arange(1, 255), torch.linspace(0, 2**23 - 1, 500).long()
    bits = (exponents[:, None] << 23) + mantissas
    x = bits.flatten().int().view(torch.float32)
    return torch.cat([x, -x, torch.linspace(-89, 25, 400_001)])


def points(dtype: torch.dtype) -> Tensor:
    return torch.cat([torch.linspace(-30, 30, 2001), torch.tensor([-1e4, -100.0, -88.0, 0.0, 20.0, 20.5, 1e4])]).to(
        dtype
    )


# ----------------------------------------------------------------------------------------------------------- its values


@pytest.mark.parametrize("function", [mish, formula], ids=["eager", "formula"])
@pytest.mark.parametrize("dtype, tolerance", list(zip(TYPES, (1e-14, 1e-6, 1e-3, 8e-3), strict=True)), ids=str)
def test_value(function, dtype, tolerance):
    x = points(dtype)
    y = function(x)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), reference(x), rtol=tolerance, atol=tolerance * 1e-1)


@pytest.mark.parametrize("function", [mish, formula], ids=["eager", "formula"])
def test_derivative(function):
    x = points(torch.float64)
    x = x[(x.abs() < 80)].requires_grad_()
    (found,) = torch.autograd.grad(function(x).sum(), x)
    torch.testing.assert_close(found, derivative(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_16_bit_value_is_rounded_once(dtype, instructions):
    x = every_value(dtype)
    for found, expected in ((mish(x), reference(x)), (first(x), derivative(x))):
        inside = x.double() > -87.3
        finite = expected.abs() <= torch.finfo(dtype).max
        assert ulps(found, expected)[inside & finite].max() <= 0.52
        assert (found != expected.to(dtype))[inside].sum() <= 4  # all others are correctly rounded
        assert (found.double() - expected)[~inside].abs().max() <= 1.2e-36 if (~inside).any() else True


def test_fp32_over_all_exponents(instructions):
    x = sweep()
    y, expected = mish(x), reference(x)
    inside = x > -87.3
    assert ulps(y, expected)[inside].max() <= 5
    assert (y.double() - expected)[~inside].abs().max() <= 1.2e-36
    assert (first(x).double() - derivative(x)).abs().max() <= 4e-7


def test_second_derivative_in_all_types(instructions):
    for dtype, tolerance in zip(TYPES, (1e-13, 1e-6, 1e-3, 8e-3), strict=True):
        x = torch.linspace(-30, 30, 4001).to(dtype).requires_grad_()
        (once,) = torch.autograd.grad(mish(x), x, torch.ones_like(x), create_graph=True)
        (found,) = torch.autograd.grad(once, x, torch.ones_like(x))
        torch.testing.assert_close(found.double(), second_derivative(x.detach()), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_special_values(dtype, instructions):
    x = torch.tensor([-math.inf, math.inf, -0.0, 0.0, math.nan], dtype=dtype)
    y, slope = mish(x), first(x)
    assert y[:4].tolist() == [0, math.inf, 0, 0] and y[4].isnan() and slope[4].isnan()
    assert torch.signbit(y[:4]).tolist() == [True, False, True, False]
    torch.testing.assert_close(slope[:4], torch.tensor([0, 1, 0.6, 0.6], dtype=dtype))
    smallest = torch.finfo(dtype).smallest_normal
    tiny = torch.tensor([smallest / 2, smallest / 4, -smallest / 2], dtype=dtype)
    torch.testing.assert_close(mish(tiny), tiny * 0.6, rtol=1e-2, atol=0)


def test_the_formula_is_finite_and_propagates_nan():
    x = torch.tensor([-torch.inf, -200.0, 88.0, 1e30, torch.inf, torch.nan])
    y = formula(x)
    assert y[0].abs() < 1e-30 and y[4] == torch.inf and y[5].isnan() and y[:4].isfinite().all()
    x = torch.linspace(-300, 300, 1001, requires_grad=True)
    assert torch.autograd.grad(formula(x).sum(), x)[0].isfinite().all()


# ---------------------------------------------------------------------------------------------------- layouts and types


def layouts(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Tensors of all memory layouts."""
    base = torch.linspace(-5, 5, 2 * 3 * 8 * 8).to(dtype).reshape(2, 3, 8, 8)
    return {
        "contiguous": base,
        "channels_last": base.to(memory_format=torch.channels_last),
        "permuted": base.permute(3, 0, 2, 1),
        "strided": base[:, :, ::2, 1::3],
        "expanded": base[:1].expand(4, 3, 8, 8),
        "unaligned": base.flatten()[1:],
        "empty": base[:0],
        "scalar": base[0, 0, 0, 0],
        "flipped": base.transpose(0, 1).flip(2),
    }


@pytest.mark.parametrize("name", layouts())
def test_layouts_match_pytorchs_operator(name):
    x = layouts()[name]
    y = mish(x)
    assert y.shape == x.shape and y.stride() == F.mish(x).stride()
    torch.testing.assert_close(y.double(), reference(x), rtol=1e-6, atol=1e-7)
    leaf = x.detach().requires_grad_()
    grad = torch.linspace(0, 1, x.numel()).reshape(x.shape)
    (found,) = torch.autograd.grad(mish(leaf), leaf, grad)
    torch.testing.assert_close(found.double(), grad.double() * derivative(x), rtol=1e-5, atol=1e-6)
    (found,) = torch.autograd.grad(mish(leaf).sum(), leaf)
    torch.testing.assert_close(found.double(), derivative(x), rtol=1e-5, atol=1e-6)


def test_results_do_not_depend_on_threads(kernels):
    x = torch.linspace(-9, 9, 300_001)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = mish(x), first(x)
        torch.set_num_threads(3)
        assert torch.equal(mish(x), alone[0]) and torch.equal(first(x), alone[1])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_keeps_the_type(dtype):
    x = torch.randn(8, dtype=dtype)
    with torch.autocast("cpu", dtype=dtype):
        assert mish(x).dtype == dtype


def test_unsupported_tensors_get_pytorchs_operator():
    assert mish(torch.empty(3, device="meta")).device.type == "meta"
    with pytest.raises(RuntimeError):
        mish(torch.tensor([1, 2]))
    for refused in (lambda: mish(torch.ones(2), inplace=True), lambda: Mish(inplace=True)):
        with pytest.raises(ValueError, match="in-place"):
            refused()


def test_only_the_input_is_saved():
    kept = []
    x = torch.randn(5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each.data_ptr()) or each, lambda each: each):
        mish(x)
    assert set(kept) == {x.data_ptr()}


# ---------------------------------------------------------------------------------------- autograd, transforms, tracing


def test_gradients_by_finite_differences():
    x = torch.linspace(-6, 6, 25, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mish, (x,), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(mish, (x,))


def test_a_third_derivative_is_refused_with_a_workaround(kernels):
    x = torch.tensor(0.5, requires_grad=True)
    y = mish(x)
    for _ in range(2):
        (y,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="YOLO_MISH=torch"):
        torch.autograd.grad(y, x)


def test_transforms_agree_with_pytorchs_operator():
    x, v = torch.linspace(-3, 3, 12).reshape(3, 4), torch.linspace(1, 2, 12).reshape(3, 4)
    func = torch.func
    for transformed in (
        lambda f: func.vmap(f)(x),
        lambda f: func.vmap(f, in_dims=1, out_dims=1)(x),
        lambda f: func.vmap(func.grad(lambda each: f(each).sum()))(x),
        lambda f: func.jvp(f, (x,), (v,))[1],
        lambda f: func.vjp(f, x)[1](v)[0],
        lambda f: func.hessian(lambda each: f(each).sum())(x[0]),
        lambda f: func.jacrev(func.jacfwd(f))(x[0]),
        lambda f: func.vmap(lambda each, w: func.jvp(f, (each,), (w,))[1], in_dims=(0, None))(x, v[0]),
    ):
        torch.testing.assert_close(transformed(mish), transformed(F.mish), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_opcheck_over_types(dtype, kernels):
    for x in (torch.linspace(-3, 3, 8).to(dtype), layouts(dtype)["permuted"]):
        torch.library.opcheck(torch.ops.yolo.mish.default, (x.clone().requires_grad_(),))
        torch.library.opcheck(torch.ops.yolo.mish_backward.default, (x.clone().requires_grad_(), x, 1))


@pytest.mark.parametrize("name", layouts())
def test_opcheck_over_layouts(name, kernels):
    x = layouts()[name].detach().requires_grad_()
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.yolo.mish.default, (x,), test_utils=tests)
    torch.library.opcheck(torch.ops.yolo.mish_backward.default, (torch.ones_like(x), x, 1), test_utils=tests)


def test_compiled_code_is_the_formula_in_one_graph():
    graphs = []

    def keep(graph, example):
        graphs.append(graph)
        return graph

    x = torch.randn(64, requires_grad=True)
    y = torch.compile(lambda each: mish(each) * 2, fullgraph=True, backend=keep)(x)
    torch.testing.assert_close(y, 2 * F.mish(x), rtol=1e-5, atol=1e-6)
    names = [str(node.target) for graph in graphs for node in graph.graph.nodes]
    assert any("exp" in name for name in names) and not any("mish" in name for name in names)


def test_export_traces_the_formula_and_eager_does_not():
    program = torch.export.export(Mish(), (torch.randn(3, 4),))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert any("exp" in name for name in names) and not any("mish" in name for name in names)
    x = torch.randn(3, 4)
    torch.testing.assert_close(program.module()(x), mish(x))


@pytest.mark.slow
def test_onnx_export_uses_the_mish_operator(tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    x, path = torch.linspace(-9, 9, 40).reshape(4, 10), tmp_path / "mish.onnx"
    program = torch.onnx.export(Mish().eval(), (x,), dynamo=True, opset_version=18, verbose=False)
    program.save(path)
    assert [node.op_type for node in program.model.graph] == ["Mish"]
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), mish(x), rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------------------------- what runs, and why


def test_dispatch_predicts_the_implementation():
    compiled = dispatch("cpu", torch.float32, compiled=True)
    eager = dispatch("cpu", torch.float32)
    assert compiled.implementation != eager.implementation and compiled.reason and eager.reason
    assert prepare("cpu").implementation == eager.implementation
    assert dispatch("cpu", torch.float32) == prepare("cpu")
    assert dispatch("meta", torch.float32).implementation == "torch.nn.functional.mish"
    assert dispatch("cpu", torch.float8_e5m2).implementation == "torch.nn.functional.mish"


def test_calls_that_are_like_the_last_one_are_told_from_others(kernels):
    """`mish` remembers the last call of each shape: another type, layout, mode or transform must not take its way."""
    shape = (2, 8, 3, 3)
    base = torch.randn(shape)
    for _ in range(2):  # the second time, each follows the last of the others
        for x in (base, base.double(), base.bfloat16(), base.to(memory_format=torch.channels_last), base[:, :, :, :1]):
            x = x.expand(shape)
            torch.testing.assert_close(mish(x), F.mish(x))
            assert mish(x).dtype == x.dtype and mish(x).stride() == F.mish(x).stride()
        leaf = base.clone().requires_grad_()
        assert mish(leaf).requires_grad and mish(leaf.detach()).grad_fn is None
        with torch.no_grad():
            assert not mish(leaf).requires_grad
        with torch.inference_mode():
            assert mish(base).is_inference()
        mish(base)
        torch.testing.assert_close(torch.vmap(mish)(base), F.mish(base))
        tangent = torch.func.jvp(mish, (base,), (torch.ones_like(base),))[1]
        with forward_ad.dual_level():
            dual = mish(forward_ad.make_dual(base, torch.ones_like(base)))
            torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, tangent)
        assert "yolo.mish" in make_fx(lambda x: mish(x))(base).code
        with torch.profiler.profile() as profile:
            mish(base)
        assert "yolo::mish" in {event.key for event in profile.key_averages()}
        negative = torch._neg_view(base)
        torch.testing.assert_close(mish(negative), F.mish(-base))


@pytest.mark.parametrize("asked", ["torch", "eager"])
def test_an_implementation_can_be_forced(asked, choosing):
    choosing.setenv("YOLO_MISH", asked)
    x = points(torch.float32).requires_grad_()
    y = mish(x)
    torch.testing.assert_close(y.double(), reference(x.detach()), rtol=1e-5, atol=1e-6)
    assert y.grad_fn.name() == {"torch": "MishBackward0", "eager": "MulBackward0"}[asked]
    assert asked in dispatch("cpu", torch.float32).reason


@pytest.mark.parametrize("asked", ["cpu", "cuda"])
def test_networks_are_measured_on_meta_whatever_is_forced(asked, choosing):
    choosing.setenv("YOLO_MISH", asked)
    assert mish(torch.ones(2, 3, device="meta")).shape == (2, 3)


@pytest.mark.parametrize("device", ["cuda", "cuda:77"])
def test_a_gpu_that_is_not_there_is_one_line(device, choosing):
    choosing.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=rf"^{device}(:0)?: PyTorch .* sees 0 CUDA GPUs$"):
        prepare(device)
    assert "sees no GPU" in dispatch(device, torch.float32).reason


@pytest.mark.parametrize("x", [[1.0, 2.0], None, 1.0], ids=str)
def test_what_is_no_tensor_is_pytorchs_error(x):
    with pytest.raises(TypeError, match="must be Tensor"):
        mish(x)


@pytest.mark.parametrize("asked", ["cuda", "nvrtc", "mihs"])
def test_an_unavailable_forced_implementation_is_an_error(asked, choosing):
    choosing.setenv("YOLO_MISH", asked)
    with pytest.raises(ValueError, match=asked):
        mish(torch.ones(3))


def test_without_a_compiler_pytorchs_operator_runs_with_one_notice(choosing, tmp_path, capsys):
    choosing.setattr(build, "version_of", lambda program: None)
    choosing.setenv("YOLO_MISH_CACHE", str(tmp_path))
    assert dispatch("cpu", torch.float32).implementation == "torch.nn.functional.mish"
    x = torch.randn(4, requires_grad=True)
    assert mish(x).grad_fn.name() == "MishBackward0" and mish(x).grad_fn.name() == "MishBackward0"
    said = capsys.readouterr().err
    assert said.count("torch.nn.functional.mish") == 1 and "compiler" in said
    choosing.setattr(backend, "_chosen", {})
    choosing.setenv("YOLO_MISH", "cpu")
    with pytest.raises(ValueError, match="compiler"):
        mish(x)


def test_every_16_bit_nan_is_preserved(kernels):
    for dtype in (torch.float16, torch.bfloat16):
        x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        x = x[x.isnan()]
        assert mish(x).isnan().all() and first(x).isnan().all()
        assert torch.ops.yolo.mish_backward(x, torch.ones_like(x), 1).isnan().all()


@pytest.mark.parametrize("grad", [torch.ones(2, 4), torch.ones(4, 4).bfloat16()], ids=["shape", "type"])
def test_the_operator_refuses_a_gradient_unlike_its_input(kernels, grad):
    with pytest.raises(RuntimeError, match="grad like x"):
        torch.ops.yolo.mish_backward(grad, torch.ones(4, 4), 1)
    with pytest.raises(RuntimeError, match="order 0, 1 or 2"):
        torch.ops.yolo.mish_backward(torch.ones(4, 4), torch.ones(4, 4), 3)


@pytest.mark.parametrize("places", [("meta", "cpu"), ("cpu", "meta")])
def test_the_operator_refuses_tensors_on_meta_beside_others(kernels, places):
    grad, x = (torch.ones(4, device=place) for place in places)
    with pytest.raises(RuntimeError, match="all tensors on one device, not on cpu and meta"):
        torch.ops.yolo.mish_backward(grad, x, 1)
    assert torch.ops.yolo.mish_backward(x.to("meta"), x.to("meta"), 1).is_meta


def test_values_behind_a_negative_bit():
    x = torch.linspace(-3, 3, 9)
    negated = torch.complex(torch.zeros_like(x), x).conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(mish(negated), F.mish(-x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["of a sum", "other layout", "converted when saved"])
def test_gradients_in_any_layout(kind):
    """Expanded from one value, as that of a sum; in another layout; of an x that hooks have changed."""
    values = torch.linspace(-6, 6, 2 * 8 * 3 * 5).view(2, 8, 3, 5)
    x = values.to(memory_format=torch.channels_last).requires_grad_()
    grad = torch.ones(()).expand(x.shape) if kind == "of a sum" else torch.linspace(0.5, 1, x.numel()).view(x.shape)
    if kind == "converted when saved":
        with torch.autograd.graph.saved_tensors_hooks(lambda each: each.bfloat16(), lambda each: each.float()):
            y = mish(x)
    else:
        y = mish(x)
    y.backward(grad)
    seen = values.bfloat16().float() if kind == "converted when saved" else values
    torch.testing.assert_close(x.grad.double(), derivative(seen) * grad.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kept", ["negated", "zero"])
def test_a_saved_tensor_whose_memory_holds_something_else(kept):
    """Negated values behind a negative bit, and zeros without memory."""
    x = torch.linspace(-3, 3, 24).view(4, 6).requires_grad_()
    unpack = (lambda each: each._neg_view()) if kept == "negated" else lambda each: torch._efficientzerotensor(4, 6)
    with torch.autograd.graph.saved_tensors_hooks(lambda each: -each.detach(), unpack):
        y = mish(x)
    y.backward(torch.ones_like(x))
    seen = x.detach() if kept == "negated" else torch.zeros(4, 6)
    torch.testing.assert_close(x.grad.double(), derivative(seen), rtol=1e-5, atol=1e-6)


def test_other_layouts_of_memory_are_pytorchs_affair():
    x = torch.randn(4, 4)
    torch.testing.assert_close(torch.func.functionalize(mish)(x), F.mish(x))
    for other in (x.to_sparse(), x.to_sparse_csr(), x.to_mkldnn()):
        outcomes = []
        for function in (mish, F.mish):
            try:
                outcomes.append(function(other).to_dense().tolist())
            except (RuntimeError, NotImplementedError) as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_values_are_kept_after_a_first_use_that_flushed_them(instructions, tmp_path, dtype):
    """The mode of the first use must not stay in the tables."""
    code = (
        "import torch; from ops.mish import mish; torch.set_num_threads(1); x = torch.tensor([0.0])"
        f"; t = (torch.tensor([3, 9], dtype=torch.int16)).view({dtype}); torch.set_flush_denormal(True); mish(t)"
        "; torch.set_flush_denormal(False); print((mish(t) != 0).all().item(), (mish(-t) != 0).all().item())"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": {"baseline": "default"}.get(instructions, instructions.lower())}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.stdout == "True True\n", done.stderr


def test_a_saved_tensor_of_another_type_is_read_as_such():
    """bf16 has half the bytes: read as fp32, memory after its end would be read."""
    x = torch.linspace(-3, 3, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda each: each.bfloat16(), lambda each: each):
        y = mish(x)
    with pytest.raises(RuntimeError, match="grad like x"):
        y.backward(torch.ones_like(x))
