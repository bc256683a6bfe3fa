"""Necks and levels: shapes, the fusion of the BiFPN, and detectors at other levels than P3 to P5."""

import pytest
import torch

from configs.schema import load
from core.options import NmsOptions
from core.types import Targets
from engine.optim import parameter_groups
from models import build_model, census, resolve_activations
from models.assign import assign
from models.decode import flatten_levels
from models.neck import FUSION_EPS, NECKS, BiFPN, WeightedFusion
from tests.models import oracle
from tests.models.model_configs import model_config, part
from tests.models.scenes import scene
from tests.models.test_blocks import settle

LEVELS = [[3, 4, 5], [2, 3, 4, 5], [3, 4, 5, 6], [2, 3, 4], [4, 5], [3, 4, 5, 6, 7]]


def build(neck: str = "pan", levels: list[int] | None = None, act: object = "mish", **changes: object):
    config = model_config(act, neck=part(name=neck), levels=levels or [3, 4, 5], **changes)
    return build_model(config, num_classes=3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("levels", LEVELS, ids=str)
@pytest.mark.parametrize("neck", NECKS)
def test_shapes_of_each_neck_at_each_choice_of_levels(neck, levels):
    model = build(neck, levels).eval()
    stride = 2 ** max(levels)
    assert model.stride == stride and model.strides == tuple(2**level for level in levels)
    with torch.no_grad():
        maps = model(torch.rand(1, 3, 2 * stride, stride))
        assert [tuple(x.shape) for x in maps] == [(1, 67, 2 * stride >> level, stride >> level) for level in levels]
        boxes, scores = model.decode(maps)
    assert boxes.shape[1] == scores.shape[1] == sum(x[0, 0].numel() for x in maps)
    features = model.neck(model.backbone(torch.rand(1, 3, stride, stride)))
    assert list(features) == levels and [x.shape[1] for x in features.values()] == list(model.neck.channels.values())


@pytest.mark.slow
@pytest.mark.parametrize("levels", LEVELS, ids=str)
@pytest.mark.parametrize("neck", NECKS)
def test_every_stage_is_in_the_census_and_can_be_switched(neck, levels):
    stages = NECKS[neck].stages(levels)
    rows = [row for row in census(build(neck, levels)) if row.part == "neck"]
    assert {row.stage for row in rows} == set(stages) and len(rows) == len(stages)
    config = model_config("mish", levels=levels, neck=part(None, name=neck, **{stages[0]: "relu"}))
    assert resolve_activations(config)[f"neck.{stages[0]}"].name == "relu"
    switched = {row.stage: row.activation for row in census(build_model(config, num_classes=3)) if row.part == "neck"}
    assert switched == {**dict.fromkeys(stages, "mish"), stages[0]: "relu"}


def test_the_stages_of_the_default_neck():
    assert NECKS["pan"].stages([3, 4, 5]) == ("T4", "N3", "N4", "N5")
    assert NECKS["pan"].stages([2, 3, 4, 5]) == ("T4", "T3", "N2", "N3", "N4", "N5")
    assert NECKS["pan"].stages([4, 5]) == ("N4", "N5")
    assert NECKS["fpn"].stages([3, 4, 5]) == ("N5", "N4", "N3")


def test_shared_stages_have_the_same_initial_weights_at_other_levels():
    default = {key: value for key, value in build().named_parameters() if key.startswith(("backbone.P", "neck.N5"))}
    for levels in ([2, 3, 4, 5], [4, 5]):
        other = dict(build("pan", levels).named_parameters())
        assert all(torch.equal(value, other[key]) for key, value in default.items())


def test_weighted_fusion_by_its_definition():
    fusion = WeightedFusion(3).double()
    fusion.weights.data = torch.tensor([0.5, -2.0, 1.25], dtype=torch.float64)
    features = [torch.randn(2, 3, 4, 5, dtype=torch.float64) for _ in range(3)]
    found = fusion(*features)
    weights = [max(weight, 0.0) for weight in fusion.weights.tolist()]
    for position in ((0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3)):
        values = [x[position].item() for x in features]
        expected = sum(w * x for w, x in zip(weights, values, strict=True)) / (sum(weights) + FUSION_EPS)
        assert found[position].item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(fusion, tuple(x[:1, :1].requires_grad_() for x in features))


def test_a_bifpn_layer_by_its_definition():
    neck = build("bifpn").neck
    assert isinstance(neck, BiFPN) and neck.layers == 1
    settle(neck)
    with torch.no_grad():
        for name, parameter in neck.named_parameters():
            if name.endswith("fuse.weights"):
                parameter.uniform_(0, 2)
    features = {level: torch.rand(1, channels, 2 ** (7 - level), 2 ** (7 - level)) for level, channels in
                zip((3, 4, 5), (64, 128, 256), strict=True)}  # fmt: skip

    def up(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    def down(x):
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1), value=-torch.inf)
        return padded.unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))

    def node(stage, *inputs):
        weights = stage.fuse.weights
        fused = sum(w * x for w, x in zip(weights, inputs, strict=True)) / (weights.sum() + FUSION_EPS)
        return stage.pointwise(stage.depthwise(fused))

    with torch.no_grad():
        p3, p4, p5 = (neck.get_submodule(f"N{level}.project")(features[level]) for level in (3, 4, 5))
        t4 = node(neck.T4[0], p4, up(p5))
        n3 = node(neck.N3.nodes[0], p3, up(t4))
        n4 = node(neck.N4.nodes[0], p4, t4, down(n3))
        n5 = node(neck.N5.nodes[0], p5, down(n4))
        found = neck(features)
    for level, expected in ((3, n3), (4, n4), (5, n5)):
        torch.testing.assert_close(found[level], expected, rtol=1e-5, atol=1e-5)


def test_an_fpn_by_its_definition():
    neck = settle(build("fpn").neck)
    features = {3: torch.rand(1, 64, 16, 16), 4: torch.rand(1, 128, 8, 8), 5: torch.rand(1, 256, 4, 4)}
    with torch.no_grad():
        m5 = neck.N5.lateral(features[5])
        m4 = neck.N4.lateral(features[4]) + m5.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        m3 = neck.N3.lateral(features[3]) + m4.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        found = neck(features)
        for level, merged, stage in ((3, m3, neck.N3), (4, m4, neck.N4), (5, m5, neck.N5)):
            torch.testing.assert_close(found[level], stage.smooth(merged))


def test_fusion_weights_get_no_weight_decay_and_are_trained():
    model = build("bifpn", [2, 3, 4, 5]).train()
    weights = {id(value) for key, value in model.named_parameters() if key.endswith("fuse.weights")}
    decayed, others = parameter_groups(model, weight_decay=0.1)
    assert len(weights) == 2 + 4 and decayed["weight_decay"] == 0.1 and others["weight_decay"] == 0
    assert weights <= {id(value) for value in others["params"]}
    assert not weights & {id(value) for value in decayed["params"]}
    targets = Targets(torch.tensor([[[4.0, 6, 30, 40]]]), torch.tensor([[0]]), torch.ones(1, 1, dtype=torch.bool))
    model.loss(model(torch.rand(1, 3, 64, 64)), targets)[0].backward()
    gradients = [value.grad for value in model.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in gradients)
    assert all(value.grad.abs().sum() > 0 for value in model.parameters() if id(value) in weights)


@pytest.mark.parametrize("neck", NECKS)
def test_weights_do_not_depend_on_the_activation(neck):
    one, other = (dict(build(neck, act=act).named_parameters()) for act in ("relu", "mish"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("neck", NECKS)
def test_the_folded_copy_computes_the_same(neck):
    model = settle(build(neck, [2, 3, 4]))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for plain, folded in zip(model(images), model.fused()(images), strict=True):
            torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_keeps_sixteen_bits(neck, dtype):
    model = build(neck).train()
    seen = []
    for stage in model.head.children():
        stage.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", dtype=dtype):
        model(torch.rand(2, 3, 64, 64))
    assert seen == [dtype] * 3


@pytest.mark.parametrize("levels", [[2, 3, 4, 5], [3, 4, 5, 6]], ids=str)
def test_decoding_and_assignment_at_other_levels(levels):
    strides = tuple(2**level for level in levels)
    maps, targets = scene([7, 2], side=128, strides=strides, seed=3)
    model = build("pan", levels)
    boxes, scores = model.decode(maps)
    shapes = [tuple(x.shape[2:]) for x in maps]
    cells = oracle.anchors(shapes, strides)
    flat = flatten_levels(maps).double()
    for image, count in enumerate((7, 2)):
        expected = [oracle.decode(row[:64], cell) for row, cell in zip(flat[image].tolist(), cells, strict=True)]
        torch.testing.assert_close(boxes[image].double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-3)
        wanted = oracle.assign(
            flat[image, :, 64:].sigmoid().tolist(), expected, targets.boxes[image, :count].double().tolist(),
            targets.labels[image, :count].tolist(), cells, topk=10, alpha=0.5, beta=6.0, smallest=min(strides),
        )  # fmt: skip
        one = Targets(*(x[image : image + 1] for x in (targets.boxes, targets.labels, targets.mask)))
        logits = flatten_levels(maps)[image : image + 1, :, 64:]
        found = assign(logits, boxes[image : image + 1], one, shapes=shapes, strides=strides)
        rows = {int(found.anchors[0, b, k]): b for b, k in found.positive[0].nonzero().tolist()}
        assert rows == {anchor: box for anchor, (box, _) in wanted.items()}
    total, _ = model.loss(maps, targets)
    assert total.isfinite() and len(model.nms(boxes, scores, NmsOptions(conf=0.5, iou=0.5, max_det=50))) == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.levels=[3, 5]", ["model.levels", "consecutive"]),
        ("model.levels=[5, 4, 3]", ["model.levels", "consecutive"]),
        ("model.levels=[4]", ["model.levels", "two or more"]),
        ("model.levels=[]", ["model.levels", "two or more"]),
        ("model.levels=[1, 2, 3]", ["model.levels", "2"]),
        ("model.levels=[6, 7, 8]", ["model.levels", "7"]),
        ("model.levels=3", ["model.levels", "list"]),
    ],
)
def test_unsupported_levels_are_refused(override, words):
    with pytest.raises(ValueError) as refusal:
        load("yolo.yaml", [override])
    assert all(word in str(refusal.value) for word in words) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("levels", "size"), [([3, 4, 5], 160), ([3, 4, 5, 6], 192), ([4, 5, 6, 7], 256), ([2, 3], 160)]
)
def test_image_sizes_are_multiples_of_the_largest_stride(levels, size):
    assert load("yolo.yaml", {"model.levels": levels}).train.imgsz == size
    if 2 ** max(levels) > 32:
        with pytest.raises(ValueError, match=rf"train.imgsz: found 160.*{2 ** max(levels)}.*{size}"):
            load("yolo.yaml", {"model.levels": levels, "train.imgsz": 160})


@pytest.mark.parametrize("name", ["yolo-p2", "yolo-bifpn"])
def test_shipped_configs_build(name):
    config = load(name)
    with torch.device("meta"):
        model = build_model(config.model)
    assert {row.activation for row in census(model)} == {"mish"}
    assert config.difference().keys() == {"model.act", "model.levels" if name == "yolo-p2" else "model.neck.name"}
