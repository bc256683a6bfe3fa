"""Activations on the command line, and their labels."""

import pytest

from comparison.arms import activation_overrides, label_of, parse_seeds
from comparison.runs import activation_label, run_name, slug
from configs.schema import load

PARTS_FREE = {"model.backbone.act": None, "model.neck.act": None, "model.head.act": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mish", {"model.act": "mish", **PARTS_FREE}),
        ("{name: swish, learnable: true}", {"model.act": {"name": "swish", "learnable": True}, **PARTS_FREE}),
        ("swish(beta=2, learnable=true)", {"model.act": {"name": "swish", "beta": 2, "learnable": True}, **PARTS_FREE}),
        ("backbone=mish,neck=leaky_relu", {"model.backbone.act": "mish", "model.neck.act": "leaky_relu"}),
        (
            "backbone={name: elu, alpha: 0.5},neck.T4=swish(beta=1.0, learnable=true)",
            {
                "model.backbone.act": {"name": "elu", "alpha": 0.5},
                "model.neck.stages.T4.act": {"name": "swish", "beta": 1.0, "learnable": True},
            },
        ),
    ],
)
def test_overrides_of_an_activation(text: str, expected: dict) -> None:
    assert activation_overrides(text, {}) == expected


def test_a_part_set_for_all_runs_stays() -> None:
    given = {"model.head.act": "silu"}
    own = activation_overrides("mish", given)
    assert "model.head.act" not in own
    assert label_of(load("yolo.yaml", {**given, **own})) == "backbone=mish,neck=mish,head=silu"


@pytest.mark.parametrize(
    "text", ["mish", "swish(beta=1.0, learnable=true)", "backbone=mish,neck=relu,head=elu(alpha=0.5),neck.T4=mish"]
)
def test_labels_can_be_parsed_again(text: str) -> None:
    config = load("yolo.yaml", activation_overrides(text, {}))
    assert label_of(config) == text
    assert label_of(load("yolo.yaml", activation_overrides(label_of(config), {}))) == text


def test_equal_activations_have_equal_labels() -> None:
    written = {"act": {"name": "relu"}, "backbone": {"act": {"name": "mish"}}, "neck": {"act": {"name": "mish"}}}
    assert activation_label({**written, "head": {"act": {"name": "mish"}}}) == "mish"
    assert activation_label(written) == "backbone=mish,neck=mish,head=relu"
    darknet = {"kind": "darknet", "cfg": "cfg/yolov4-tiny.cfg", "act": None, "head": {"act": None}}
    assert activation_label(darknet) == "yolov4-tiny.cfg" and activation_label({**darknet, "act": "relu"}) == "relu"
    assert (
        activation_label({"act": {"name": "swish", "learnable": True, "beta": 1}}) == "swish(beta=1.0, learnable=true)"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing"),
        ("bakbone=mish,neck=relu", "bakbone.*backbone, neck, head"),
        ("backbone=mish,backbone=relu", "duplicate"),
        ("backbone=mish,relu", "relu.*not a part"),
        ("{name: ", "not YAML"),
        ("3", "not an activation"),
        ("[mish]", "not an activation"),
    ],
)
def test_invalid_activations(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        activation_overrides(text, {})


def test_folder_names_have_no_brackets_and_are_distinct() -> None:
    assert run_name("mish", 3) == "mish-s3"
    labels = [
        "swish(beta=1.0, learnable=true)",
        "swish(beta=-1.0, learnable=true)",
        "swish(beta=1.0)",
        "x" * 300,
        "x" * 301,
    ]
    slugs = [slug(label) for label in labels]
    assert len(set(slugs)) == len(slugs) and slugs[0] == "swish_beta=1.0_learnable=true"
    assert all(len(each) < 120 and not set(each) & set("() /,;'\"$") for each in slugs)


@pytest.mark.parametrize(("text", "seeds"), [("3", (0, 1, 2)), ("0,1,5", (0, 1, 5)), ("7,", (7,)), ("1", (0,))])
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text", ["three", "0", "-1", "1,1", "1,x", "", ",", "1.5", "99999999999", "٣", "1,99999999999999999999"]
)
def test_invalid_seeds(text: str) -> None:
    with pytest.raises(ValueError, match="--seeds"):
        parse_seeds(text)
