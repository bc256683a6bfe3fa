"""The census against the operators that really run, forward and backward, for every activation of the table."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from models import build_model, census, format_census, verify_census
from models.activations import TABLE, make_activation
from models.blocks import ConvNormAct
from ops.mish import dispatch
from tests.models.model_configs import model_config, section

# What one site of each activation runs: all its operators in the forward pass, and those of the backward pass that
# only it can have caused. Written from the formulas, and complete: anything more or less in the network is an error.
OPERATORS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "relu": ({"relu": 1}, {"threshold_backward": 1}),
    "leaky_relu": ({"leaky_relu": 1}, {"leaky_relu_backward": 1}),
    "prelu": ({"_prelu_kernel": 1}, {"_prelu_kernel_backward": 1}),
    "rrelu": ({"rrelu_with_noise": 1}, {"rrelu_with_noise_backward": 1}),
    "elu": ({"elu": 1}, {"elu_backward": 1}),
    "celu": ({"celu": 1}, {"elu_backward": 1}),
    "selu": ({"elu": 1}, {"elu_backward": 1}),
    "gelu": ({"gelu": 1}, {"gelu_backward": 1}),
    "softplus": ({"softplus": 1}, {"softplus_backward": 1}),
    "tanh": ({"tanh": 1}, {"tanh_backward": 1}),
    "sigmoid": ({"sigmoid": 1}, {"sigmoid_backward": 1}),
    "swish": ({"mul": 2, "sigmoid": 1}, {"sigmoid_backward": 1}),
    "e_swish": ({"silu": 1, "mul": 1}, {"silu_backward": 1}),
    "silu": ({"silu": 1}, {"silu_backward": 1}),
    "elish": ({"clamp": 1, "expm1": 1, "ge": 1, "where": 1, "sigmoid": 1, "mul": 1}, {"sigmoid_backward": 1}),
    "srelu": ({"sub": 2, "mul": 2, "add": 2, "ge": 1, "le": 1, "where": 2}, {"where": 4}),
    "isru": ({"mul": 3, "add": 1, "rsqrt": 1}, {"pow": 1}),
    "hardswish": ({"hardswish": 1}, {"hardswish_backward": 1}),
    "hard_mish": ({"mul": 2, "add": 1, "clamp": 1}, {"where": 1}),
    "mish": ({"mish": 1}, {"mish_backward": 1}),
    "mish_torch": ({"mish": 1}, {"mish_backward": 1}),
    "mish_eager": ({"softplus": 1, "tanh": 1, "mul": 1}, {"softplus_backward": 1, "tanh_backward": 1}),
    "identity": ({}, {}),
}  # fmt: skip


class Count(TorchDispatchMode):
    """Counts the operators that reach the kernels, without the views and detachments autograd adds."""

    def __init__(self):
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen[function.name().split("::")[1].split(".")[0]] += 1
        return function(*args, **(kwargs or {}))


IGNORED = ("detach", "alias", "view", "expand", "scalar_tensor", "zeros_like", "empty_like", "_to_copy")


def executed(model: nn.Module) -> tuple[Counter[str], Counter[str]]:
    """Operators of one training step's forward and backward pass."""
    images = torch.rand(2, 3, 32, 32)
    with Count() as forward:
        total = sum(each.sum() for each in model.train()(images))
    with Count() as backward:
        total.backward()
    return tuple(Counter({k: n for k, n in each.seen.items() if k not in IGNORED}) for each in (forward, backward))


@pytest.fixture(scope="module")
def skeleton() -> tuple[Counter[str], Counter[str]]:
    """What the network runs without any activation."""
    return executed(build_model(model_config("identity"), num_classes=2, seed=0))


def expected(model: nn.Module) -> tuple[Counter[str], Counter[str]]:
    """What the sites of the census should run."""
    forward, backward = Counter(), Counter()
    for row in census(model):
        for counter, operators in zip((forward, backward), OPERATORS[row.activation], strict=True):
            for name, count in operators.items():
                counter[name] += row.sites * count
    return forward, backward


def prove(model: nn.Module, skeleton: tuple[Counter[str], Counter[str]]) -> None:
    """Fail unless the network runs its skeleton and the operators of its census, and nothing else."""
    forward, backward = executed(model)
    expected_forward, expected_backward = expected(model)
    assert forward - skeleton[0] == expected_forward and not skeleton[0] - forward
    telling = {name for _, operators in OPERATORS.values() for name in operators} - set(skeleton[1]) - {"where", "pow"}
    telling |= set(expected_backward)
    extra = backward - skeleton[1]
    assert {name: extra[name] for name in telling if extra[name]} == expected_backward


@pytest.mark.parametrize("name", TABLE)
def test_the_operators_executed_are_those_of_the_census(name, skeleton):
    prove(build_model(model_config(name), num_classes=2, seed=0), skeleton)


@pytest.mark.parametrize("name", ["mish", "relu", "silu", "leaky_relu", "gelu"])
def test_fused_sites_run_one_operator_for_two_and_the_census_says_which(name):
    model = build_model(model_config(name, norm_act="fused"), num_classes=2, seed=0)
    rows = census(model)
    if name != "gelu" and dispatch("cpu", torch.float32).implementation.startswith("torch"):
        pytest.skip(dispatch("cpu", torch.float32).reason)
    assert all(("ops.norm_act" in row.implementation) == (name != "gelu") for row in rows)
    forward, backward = executed(model)
    sites = sum(row.sites for row in rows)
    once = {"norm_statistics", "norm_act_forward"}, {"norm_act_reduce", "norm_act_backward"}
    for counter, own, other, names in zip((forward, backward), OPERATORS[name], ("batch_norm",) * 2, once, strict=True):
        plain = {key: count for key, count in counter.items() if key in own or other in key}
        assert [counter[key] for key in names] == [0 if name == "gelu" else sites] * 2
        assert not plain or name == "gelu"


def test_every_activation_of_the_table_has_its_operators_written_down():
    assert set(OPERATORS) == set(TABLE)


def test_parts_and_stages_are_proven_too(skeleton):
    config = model_config(
        "relu", backbone=section("mish", P3="gelu"), head=section(None, P5={"name": "elu", "alpha": 0.5})
    )
    model = build_model(config, num_classes=2, seed=0)
    prove(model, skeleton)
    found = {(row.part, row.stage): (row.activation, row.parameters) for row in census(model)}
    assert found["backbone", "P3"] == ("gelu", {"approximate": "none"})
    assert found["head", "P5"] == ("elu", {"alpha": 0.5})
    assert {found["backbone", stage][0] for stage in ("P1", "P2", "P4", "P5")} == {"mish"}
    assert {found["neck", stage][0] for stage in ("T4", "N3", "N4", "N5")} | {found["head", "P3"][0]} == {"relu"}


class HardCoded(nn.Module):
    """A block that an author forgot to make switchable."""

    def __init__(self, inner: nn.Module, *, module: bool):
        super().__init__()
        self.inner = inner
        self.relu = nn.ReLU() if module else None

    def forward(self, x):
        return self.relu(self.inner(x)) if self.relu is not None else F.relu(self.inner(x))


@pytest.mark.parametrize("module", [True, False], ids=["nn.ReLU", "F.relu"])
def test_a_hard_coded_relu_fails_the_proof(module, skeleton):
    model = build_model(model_config("mish"), num_classes=2, seed=0)
    prove(model, skeleton)
    model.neck.N3.mix = HardCoded(model.neck.N3.mix, module=module)
    with pytest.raises(AssertionError):
        prove(model, skeleton)
    if module:
        with pytest.raises(ValueError, match=r"neck\.N3\.mix\.relu.*ReLU"):
            verify_census(model)


def test_a_site_left_unswitched_or_shared_is_named():
    for act in (nn.ReLU(), make_activation({"name": "leaky_relu", "negative_slope": 0.3})):
        model = build_model(model_config("leaky_relu"), num_classes=2, seed=0)
        model.backbone.P2[0].act = act
        with pytest.raises(ValueError, match=r"backbone\.P2\.0\.act"):
            verify_census(model)
    model = build_model(model_config("silu"), num_classes=2, seed=0)
    model.head.P3.box[0].act = model.head.P3.box[1].act
    with pytest.raises(ValueError, match=r"head\.P3\.box"):
        verify_census(model)
    model = build_model(model_config("silu"), num_classes=2, seed=0)
    model.neck.T4 = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match=r"neck\.T4"):
        verify_census(model)


def test_each_site_has_its_own_instance_and_all_are_counted():
    model = build_model(model_config("mish"), num_classes=2, seed=0)
    sites = [each.act for each in model.modules() if isinstance(each, ConvNormAct)]
    assert len({id(each) for each in sites}) == len(sites) == sum(row.sites for row in census(model))
    verify_census(model.fused())
    assert census(model.fused()) == census(model)


def test_the_table_to_print_names_parts_activations_and_implementations():
    config = model_config({"name": "leaky_relu", "negative_slope": 0.1}, backbone=section("mish"))
    lines = format_census(census(build_model(config, num_classes=2, seed=0))).splitlines()
    assert len(lines) == 4
    assert "P1 P2 P3 P4 P5" in lines[1] and "mish" in lines[1]
    assert dispatch("cpu", torch.float32).implementation in lines[1]
    assert "neck" in lines[2] and "negative_slope=0.1" in lines[2]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"neck": section(None, N6="relu")}, ["neck", "N6", "N3", "T4"]),
        ({"head": section("mihs")}, ["model.head.act", "mihs", "'mish'"]),
        (
            {"backbone": section(None, P4={"name": "elu", "alfa": 1.0})},
            ["model.backbone.stages.P4.act", "alfa", "alpha"],
        ),
        ({"act": "mich"}, ["model.act", "mich"]),
        ({"size": "xl"}, ["model.size", "xl"]),
        ({"norm_act": "fast"}, ["model.norm_act", "fast"]),
        ({"reg_max": 1}, ["reg_max", "1"]),
    ],
)
def test_what_the_config_addressed_in_vain_is_an_error(changes, words):
    with pytest.raises(ValueError) as refusal:
        build_model(model_config(**changes), num_classes=2)
    assert all(word in str(refusal.value) for word in words)
