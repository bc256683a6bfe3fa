"""The census against the operators that are executed, forward and backward, for every activation of the table."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from models import build_model, census, format_census, verify_census
from models.activations import ACTIVATION_NAMES, make_activation, parse_activation
from models.blocks import ConvNormAct
from ops.mish import dispatch
from tests.models.model_configs import model_config, part
from tests.models.test_activations import ROWS

OPERATORS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    row.name: (row.forward, row.backward) for row in ROWS if row.forward is not None and row.backward is not None
}


class Count(TorchDispatchMode):
    """Counts the operators that reach the kernels."""

    def __init__(self):
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen[function.name().split("::")[1].split(".")[0]] += 1
        return function(*args, **(kwargs or {}))


IGNORED = ("detach", "alias", "view", "expand", "scalar_tensor", "zeros_like", "empty_like", "_to_copy")


def executed(model: nn.Module) -> tuple[Counter[str], Counter[str]]:
    """The operators of the forward and backward pass of a training step, without views and detachments."""
    images = torch.rand(2, 3, model.stride, model.stride)
    with Count() as forward:
        total = sum(each.sum() for each in model.train()(images))
    with Count() as backward:
        total.backward()
    return tuple(Counter({k: n for k, n in each.seen.items() if k not in IGNORED}) for each in (forward, backward))


@pytest.fixture(scope="module")
def skeleton() -> tuple[Counter[str], Counter[str]]:
    """The operators of the network without any activation."""
    return executed(build_model(model_config("identity"), num_classes=2, seed=0))


def expected(model: nn.Module) -> tuple[Counter[str], Counter[str]]:
    """The operators of the activation layers in the census."""
    forward, backward = Counter(), Counter()
    for row in census(model):
        assert row.activation in OPERATORS, f"no operators for {row.activation} in ROWS of test_activations.py"
        for counter, operators in zip((forward, backward), OPERATORS[row.activation], strict=True):
            for name, count in operators.items():
                counter[name] += row.sites * count
    return forward, backward


def check_operators(model: nn.Module, skeleton: tuple[Counter[str], Counter[str]]) -> None:
    """Fail unless the network executes the operators of its skeleton and of its census, and no others."""
    forward, backward = executed(model)
    expected_forward, expected_backward = expected(model)
    assert forward - skeleton[0] == expected_forward and not skeleton[0] - forward
    telling = {name for _, operators in OPERATORS.values() for name in operators} - set(skeleton[1]) - {"where", "pow"}
    telling |= set(expected_backward)
    extra = backward - skeleton[1]
    assert {name: extra[name] for name in telling if extra[name]} == expected_backward


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_executed_operators_are_those_of_the_census(name, skeleton):
    check_operators(build_model(model_config(name), num_classes=2, seed=0), skeleton)


@pytest.mark.parametrize("name", ["mish", "relu", "silu", "leaky_relu", "gelu"])
def test_fused_layers_execute_one_operator_and_are_named_in_the_census(name):
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


def test_operators_with_different_activations_by_part_and_stage(skeleton):
    config = model_config("relu", backbone=part("mish", P3="gelu"), head=part(None, P5={"name": "elu", "alpha": 0.5}))
    model = build_model(config, num_classes=2, seed=0)
    check_operators(model, skeleton)
    found = {(row.part, row.stage): (row.activation, row.parameters) for row in census(model)}
    assert found["backbone", "P3"] == ("gelu", {"approximate": "none"})
    assert found["head", "P5"] == ("elu", {"alpha": 0.5})
    assert {found["backbone", stage][0] for stage in ("P1", "P2", "P4", "P5")} == {"mish"}
    assert {found["neck", stage][0] for stage in ("T4", "N3", "N4", "N5")} | {found["head", "P3"][0]} == {"relu"}


class HardCoded(nn.Module):
    """A block with an activation that no configuration can switch."""

    def __init__(self, inner: nn.Module, *, module: bool):
        super().__init__()
        self.inner = inner
        self.relu = nn.ReLU() if module else None

    def forward(self, x):
        return self.relu(self.inner(x)) if self.relu is not None else F.relu(self.inner(x))


@pytest.mark.parametrize("module", [True, False], ids=["nn.ReLU", "F.relu"])
def test_a_hard_coded_relu_is_detected(module, skeleton):
    model = build_model(model_config("mish"), num_classes=2, seed=0)
    check_operators(model, skeleton)
    model.neck.N3.mix = HardCoded(model.neck.N3.mix, module=module)
    with pytest.raises(AssertionError):
        check_operators(model, skeleton)
    if module:
        with pytest.raises(ValueError, match=r"neck\.N3\.mix\.relu.*ReLU"):
            verify_census(model)


def test_a_wrong_or_shared_activation_is_reported_with_its_path():
    for act in (nn.ReLU(), make_activation(parse_activation({"name": "leaky_relu", "negative_slope": 0.3}))):
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


def test_each_layer_has_its_own_instance_and_is_counted():
    model = build_model(model_config("mish"), num_classes=2, seed=0)
    sites = [each.act for each in model.modules() if isinstance(each, ConvNormAct)]
    assert len({id(each) for each in sites}) == len(sites) == sum(row.sites for row in census(model))
    verify_census(model.fused())
    assert census(model.fused()) == census(model)


def test_the_printed_table():
    config = model_config({"name": "leaky_relu", "negative_slope": 0.1}, backbone=part("mish"))
    lines = format_census(census(build_model(config, num_classes=2, seed=0))).splitlines()
    assert len(lines) == 4
    assert "P1 P2 P3 P4 P5" in lines[1] and "mish" in lines[1]
    assert dispatch("cpu", torch.float32).implementation in lines[1]
    assert "neck" in lines[2] and "negative_slope=0.1" in lines[2]


@pytest.mark.slow
@pytest.mark.parametrize("levels", [[3, 4, 5], [2, 3, 4, 5]], ids=str)
@pytest.mark.parametrize("neck", ["fpn", "bifpn"])
def test_executed_operators_of_other_necks_and_levels(neck, levels):
    def build(act):
        return build_model(model_config(act, neck={"name": neck}, levels=levels), num_classes=2, seed=0)

    bare = executed(build("identity"))
    for act in ("relu", "mish", "silu", "leaky_relu"):
        check_operators(build(act), bare)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"neck": part(None, N6="relu")}, ["model.neck.stages.N6", "N3", "T4"]),
        ({"neck": part(None, name="fpn", T4="relu")}, ["model.neck.stages.T4", "did you mean 'N4'"]),
        ({"neck": part(name="bifpm")}, ["model.neck.name", "bifpm", "'bifpn'"]),
        ({"backbone": part(name="cps")}, ["model.backbone.name", "cps", "'csp'"]),
        ({"head": part(name="coupled")}, ["model.head.name", "coupled", "'decoupled'"]),
        ({"backbone": part(None, P6="relu")}, ["model.backbone.stages.P6", "P5"]),
        ({"levels": [2, 3, 4], "head": part(None, P5="relu")}, ["model.head.stages.P5", "[2, 3, 4]", "P4"]),
        ({"head": part("mihs")}, ["model.head.act", "mihs", "'mish'"]),
        ({"backbone": part(None, P4={"name": "elu", "alfa": 1.0})}, ["model.backbone.stages.P4.act", "alfa", "alpha"]),
        ({"act": "mich"}, ["model.act", "mich"]),
    ],
)
def test_what_does_not_exist_is_refused_with_its_key(changes, words):
    with pytest.raises(ValueError) as refusal:
        build_model(model_config(**changes), num_classes=2)
    assert all(word in str(refusal.value) for word in words) and "\n" not in str(refusal.value)
