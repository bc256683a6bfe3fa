"""Darknet's cfg and weights: against numbers worked out by hand, plain loops, and an independent implementation."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from configs.schema import DarknetModel
from core.options import NmsOptions
from models import build_model, census, plan_darknet, resolve_activations
from models.darknet.cfg import parse, training_keys
from models.darknet.graph import plan_network
from models.darknet.layers import diou_nms
from models.darknet.network import Darknet
from models.darknet.weights import Header, check_weights, read_weights, write_weights
from tests.models.darknet import oracle as oracle
from tests.models.darknet.cfgs import CLASSIFIER, DETECTOR, values, weights
from tests.support.shared import shared

# Bytes of the whole .weights, from the README beside the shared cfgs.
SIZES = {
    "yolov4": 257717640,
    "yolov4-tiny": 24251276,
    "yolov4-csp": 211944840,
    "yolov4x-mish": 399388168,
    "yolov3-tiny": 35434956,
    "yolo-fastest/yolo-fastest-1.1": 1384268,
}
CFGS = (
    *("csdarknet53-omega", "yolov3", "yolov3-tiny", "yolov4", "yolov4-csp", "yolov4-csp-swish", "yolov4-csp-x-swish"),
    *("yolov4-custom", "yolov4-p5", "yolov4-tiny", "yolov4-tiny-3l", "yolov4-tiny-custom", "yolov4x-mish"),
    "yolo-fastest/yolo-fastest-1.1",
)


def section(text: str | None, **changes: object) -> DarknetModel:
    """A `model` section of kind darknet, with the loss weights of the cfg."""
    values = {"kind": "darknet", "cfg": "x.cfg", "text": text, "norm_act": "plain", "loss": {"box": 1.0}, **changes}
    return DarknetModel.model_validate(values)


def network(text: str, data: np.ndarray, folder: Path, **changes: object) -> Darknet:
    """A network in evaluation with these values of a .weights file."""
    path = folder / "x.weights"
    path.write_bytes(weights(data))
    model = build_model(section(text, **changes), seed=0)
    assert read_weights(check_weights(path, model.plan), model) == len(model.weighted())
    return model.eval()


def test_a_box_worked_out_by_hand(tmp_path: Path) -> None:
    """One pixel (1, 0.5, 0) goes through a norm and leaky ReLU, and a 1x1 convolution makes one box of it.

    Channel 0: 2 * 1 + 4 * 0.5 = 4, less mean 1 by sqrt(variance 9), times scale 6, plus bias -1: 5.
    Channel 1: -3 * 1 = -3, less mean 1, by sqrt(4), times scale 10, plus bias 0: -20, and leaky: -2.
    """
    text = (
        "[net]\nwidth=32\nheight=32\nchannels=3\n"
        "[convolutional]\nbatch_normalize=1\nfilters=2\nsize=1\nstride=32\nactivation=leaky\n"
        "[convolutional]\nfilters=7\nsize=1\nactivation=linear\n"
        "[yolo]\nmask=1\nanchors=1,1,10,20\nnum=2\nclasses=2\nscale_x_y=1.5\n"
    )
    first = [-1, 0, 6, 10, 1, 1, 9, 4, *(2, 4, 0), *(-3, 0, 0)]  # biases, scales, means, variances, weights
    rows = [(0, 0), (0, 1), (0, 0.5), (0.2, 0.5), (0, 0), (0.2, 0), (0, -1)]
    data = np.array([*first, *(0.5, 2, 1, 0, math.log(3), 0, -2), *(each for row in rows for each in row)])
    model = network(text, data, tmp_path)
    image = torch.zeros(1, 3, 32, 32)
    image[0, :2, 0, 0] = torch.tensor([1, 0.5])
    with torch.no_grad():
        outputs = model(image)
        boxes, scores = model.decode(outputs)
    # t: x 0.5, y 2 - 2, w 1 - 1, h 1 - 1; objectness ln 3, classes 1 and -2 + 2.
    expected = torch.tensor([0.5, 0, 0, 0, math.log(3), 1, 0])
    torch.testing.assert_close(outputs[0].flatten(), expected, rtol=0, atol=2e-6)
    x, y = ((1.5 / (1 + math.exp(-t)) - 0.25) * 32 for t in (0.5, 0))
    torch.testing.assert_close(boxes[0, 0], torch.tensor([x - 5, y - 10, x + 5, y + 10]), rtol=0, atol=1e-4)
    expected = torch.tensor([0.75 / (1 + math.exp(-1)), 0.75 * 0.5])
    torch.testing.assert_close(scores[0, 0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("text", [DETECTOR, CLASSIFIER])
def test_every_layer_against_plain_loops(text: str, tmp_path: Path) -> None:
    data = values(oracle.count(text))
    model = network(text, data, tmp_path)
    image = np.random.default_rng(1).random((3, 32, 32))
    expected = oracle.run(text, image, data.tolist())
    with torch.no_grad():
        outputs = model(torch.from_numpy(image[None]).float())
        folded = model.fused()(torch.from_numpy(image[None]).float())
    assert len(outputs) == len(expected) == (2 if text is DETECTOR else 1)
    for one, other, wanted in zip(outputs, folded, expected, strict=True):
        torch.testing.assert_close(one[0], torch.from_numpy(wanted).float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4)
    if text is CLASSIFIER:
        assert outputs[0].shape == (1, 5, 1, 1) and float(outputs[0].sum()) == pytest.approx(1)
        with pytest.raises(ValueError, match="x.cfg: a classifier"):
            model.decode(outputs)


def test_both_forms_of_boxes_against_plain_loops() -> None:
    model = build_model(section(DETECTOR), seed=0)
    generator = torch.Generator().manual_seed(2)
    raw = [torch.randn(2, 14, 4, 4, generator=generator), torch.rand(2, 7, 8, 8, generator=generator)]
    boxes, scores = model.decode(raw)
    options = [each for kind, each in oracle.sections(DETECTOR) if kind == "yolo"]
    for image in range(2):
        wanted = [
            pair
            for one, head in zip(options, raw, strict=True)
            for pair in oracle.boxes(one, head[image].numpy(), width=32, height=32)
        ]
        centres, sides = (boxes[image, :, :2] + boxes[image, :, 2:]) / 2, boxes[image, :, 2:] - boxes[image, :, :2]
        found = torch.cat((centres, sides), dim=1)
        torch.testing.assert_close(found, torch.tensor([box for box, _ in wanted]), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(scores[image], torch.tensor([each for _, each in wanted]), rtol=1e-4, atol=1e-5)


def test_suppression_by_diou_against_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(80, 2, generator=generator) * 40
    boxes = torch.cat([corners, corners + 10 + torch.rand(80, 2, generator=generator) * 30], dim=1)
    scores, labels = torch.rand(80, generator=generator), torch.arange(80) % 2

    def overlap(a: list[float], b: list[float]) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        inner = max(width, 0) * max(height, 0)
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner
        far = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
        near = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
        return inner / union - (near / far) ** 0.6

    kept: list[int] = []
    rows = boxes.tolist()
    for k in scores.argsort(descending=True).tolist():
        if all(labels[k] != labels[other] or overlap(rows[other], rows[k]) <= 0.3 for other in kept):
            kept.append(k)
    assert 5 < len(kept) < 70 and diou_nms(boxes, scores, labels, 0.3, beta=0.6).tolist() == kept
    assert len(diou_nms(boxes[:0], scores[:0], labels[:0], 0.3, beta=0.6)) == 0
    text = DETECTOR.replace("nms_kind=greedynms", "").replace("[yolo]", "[yolo]\nnms_kind=diounms")
    options = NmsOptions(conf=0.0, iou=0.3, max_det=80, multi_label=True)
    each = scores[:, None] * torch.nn.functional.one_hot(labels, 2)
    for cfg, wanted in ((text, len(kept)), (DETECTOR, len(batched_nms(boxes, scores, labels, 0.3)))):
        (found,) = build_model(section(cfg), seed=0).nms(boxes[None], each[None], options)
        assert len(found.boxes) == wanted
    assert len(batched_nms(boxes, scores, labels, 0.3)) < len(kept)


def test_an_image_is_stretched_or_boxed() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 100, 3), dtype=np.uint8)
    stretched, geometry = build_model(section(DETECTOR), seed=0).preprocess(image, 64, rect=True)
    assert stretched.shape == (64, 64, 3) and (geometry.scale_x, geometry.scale_y) == (0.64, 1.6)
    boxed, geometry = build_model(section(DETECTOR.replace("width=32", "letter_box=1\nwidth=32")), seed=0).preprocess(
        image, 64
    )
    # 64 wide, 64 * 40 / 100 = 25.6 high, rounded down; (64 - 25) / 2 = 19 rows of grey above.
    assert boxed.shape == (64, 64, 3) and (geometry.pad_x, geometry.pad_y) == (0, 19) and geometry.scale_y == 25 / 40
    assert (boxed[:19] == 128).all() and (boxed[44:] == 128).all() and not (boxed[19:44] == 128).all()
    outside = np.array([[-10, -10, 80, 80]], np.float32)
    assert geometry.to_image(outside).min() < 0 <= geometry.to_image(outside, clip=True).min()
    wide = DETECTOR.replace("width=32", "width=64")
    network = build_model(section(wide), seed=0)
    assert network.preprocess(image, (64, 32))[0].shape == (64, 32, 3)  # height, width
    shape = network.preprocess(image, 96)[0].shape
    assert shape == (48, 96, 3)


def test_every_file_is_written_as_it_was_read(tmp_path: Path) -> None:
    data = values(oracle.count(DETECTOR), seed=4)
    for start in (struct.pack("<iiiQ", 0, 2, 5, 2**40 + 7), struct.pack("<iiiI", 0, 1, 0, 99)):
        path, copy = tmp_path / "a.weights", tmp_path / "b.weights"
        path.write_bytes(start + data.tobytes())
        model = build_model(section(DETECTOR), seed=0)
        file = check_weights(path, model.plan)
        assert file.header.seen in (2**40 + 7, 99) and file.is_whole(model.plan)
        read_weights(file, model)
        write_weights(copy, model, header=file.header)
        assert copy.read_bytes() == path.read_bytes()


def test_a_file_that_ends_early_fills_the_first_layers(tmp_path: Path) -> None:
    plan = plan_network(DETECTOR, file="x.cfg")
    data = values(plan.values)
    held = sum(layer.values for layer in plan.layers[:6])
    (tmp_path / "x.conv.6").write_bytes(weights(data[:held]))
    model = build_model(section(DETECTOR), seed=0)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    file = check_weights(tmp_path / "x.conv.6", plan)
    assert file.layers == 6 and not file.is_whole(plan) and read_weights(file, model) == 3
    after = model.state_dict()
    changed = {name.split(".")[2] for name, each in after.items() if not torch.equal(each, before[name])}
    assert changed == {"0", "2", "5"}
    write_weights(tmp_path / "again", model, header=file.header, layers=6)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "x.conv.6").read_bytes()


def test_files_that_belong_to_another_cfg(tmp_path: Path) -> None:
    path = tmp_path / "x.weights"
    plan = plan_network(DETECTOR, file="x.cfg")
    data = values(plan.values)
    for content, words in {
        weights(data[:-3]): "3 are missing",
        weights(np.append(data, [1, 2])): "2 are surplus",
        weights(data)[:-1]: "3 more than a header",
        weights(data)[:10]: "10 bytes",
        b"PK\3\4" + weights(data)[4:]: "version",
        b"": "0 bytes",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"x.weights: .*{words}"):
            check_weights(path, plan)
    with pytest.raises(FileNotFoundError, match="no.weights"):
        check_weights(tmp_path / "no.weights", plan)
    model = build_model(section(DETECTOR), seed=0)
    for place, value, words in ((5, np.nan, "1 of the 8 biases of layer 0"), (25, -1, "1 of the 8 variances")):
        wrong = data.copy()
        wrong[place] = value
        path.write_bytes(weights(wrong))
        with pytest.raises(ValueError, match=words):
            read_weights(check_weights(path, plan), model)


def test_values_the_format_cannot_store_are_refused(tmp_path: Path) -> None:
    learned = build_model(section(DETECTOR, act="prelu"), seed=0)
    with pytest.raises(ValueError, match="act.weight"):
        write_weights(tmp_path / "x", learned, header=Header())
    with pytest.raises(ValueError, match="not folded"):
        write_weights(tmp_path / "x", build_model(section(DETECTOR), seed=0).fused(), header=Header())
    assert list(tmp_path.iterdir()) == []


# A piece of the cfg, what stands for it, the start of the line that is at fault, and words of the message.
FAULTS = [
    ("[dropout]", "[droput]", "[droput]", r"\[droput\], did you mean 'dropout'"),
    ("probability=.15", "probabilty=.15", "probabilty", "probabilty.*did you mean 'probability'"),
    ("probability=.15", "probability=1", "probability", "a number from 0 to below 1"),
    ("activation=mish", "activation=mesh", "activation=mesh", "did you mean 'mish'"),
    ("filters=12", "filters=1e1", "filters=1e1", "whole number from 1 to 65536"),
    ("filters=12", "filters=99999999999999999999", "filters=9", "whole number"),
    ("filters=12", "filters=13", "groups=2", "divisor of the 13 channels"),
    ("groups=8", "groups=3", "groups=3", "divisor of the 8 channels"),
    ("dilation=2\npad=1", "dilation=2\npad=0", "dilation=2", "expected a padding of 1 with it, found 0"),
    ("size=3\nstride=2\npad=1", "size=64\nstride=2\npad=0", "size=64", "empty"),
    ("from=-3", "from=-30", "from=-30", "layer 4 .*layer -26"),
    ("from=6", "from=0", "from=0", "expected the same"),
    ("from=6", "from=5", "from=5", "has 6 channels and layer 5 has 12"),
    ("layers=12", "layers=14", "layers=14", r"a \[yolo\]"),
    ("layers=12", "layers=", "layers=", "whole number"),
    ("layers=-1,4", "layers=-1,5", "layers=-1,5", "expected the same"),
    ("group_id=1", "group_id=2", "group_id=2", "expected 0 to 1"),
    ("classes=2\nnum=3", "classes=3\nnum=3", "classes=3", "14 channels; expected 16"),
    ("mask=1,2", "mask=1,3", "mask=1,3", "no anchor 3"),
    (
        "anchors=4,5, 8,9, 20,12",
        "anchors=4,5, 8,9",
        "anchors=4,5, 8,9",
        "4 numbers; expected width and height of num=3",
    ),
    ("nms_kind=greedynms", "nms_kind=cornersnms", "nms_kind=cornersnms", "expected one of"),
    ("new_coords=1", "new_coords=1\nbeta_nms=0.7", "beta_nms=0.7", "expected 0.6, as in the first"),
    ("activation=logistic", "activation=linear", "new_coords=1", "expected activation=logistic"),
    ("[upsample]\nstride=2", "[upsample]\nstride=16", "stride=16", "beyond the image"),
    ("channels=3", "channels=4", "channels=4", "from 3 to 3"),
    ("width=32", "width=32\nwidth=64", "width=64", "duplicate key width"),
    ("width=32", "", "[net]", "width is missing"),
    ("width=32", "width", "width", "expected"),
    ("size=1\nfilters=14", "size=3\nfilters=14", "[yolo]", "2 x 2 at stride 8 does not cover 32 x 32 pixels"),
    ("[net]", "[route]", "[route]", r"expected \[net\] as the first"),
    ("[dropout]", "[net]", "[net]", r"expected \[net\] as the first"),
    ("[dropout]", "[x\0]", "[x", "control characters"),
]


@pytest.mark.parametrize(("old", "new", "start", "words"), FAULTS)
def test_errors_name_the_line(old: str, new: str, start: str, words: str) -> None:
    assert old in DETECTOR
    text = DETECTOR.replace(old, new, 1)
    with pytest.raises(ValueError, match=words) as refusal:
        plan_network(text, file="x.cfg")
    assert str(refusal.value).startswith("x.cfg, line ")
    number = int(str(refusal.value).split()[2].strip(":,"))
    assert text.split("\n")[number - 1].startswith(start)


def test_a_network_too_large_is_refused_before_it_is_built() -> None:
    wide = "[net]\nwidth=32\nheight=32\nchannels=3\n" + "[convolutional]\nfilters=65536\nsize=9\npad=1\n" * 2
    with pytest.raises(ValueError, match="line 10: .*expected at most"):
        plan_network(wide, file="x.cfg")


def test_training_keys_are_listed_once() -> None:
    mapped, idle = training_keys(parse(DETECTOR, file="x.cfg"))
    assert mapped["net.momentum=0.949"].startswith("train.momentum") and mapped["net.mosaic=1"] == "augment.mosaic"
    assert idle == ["net.steps", "net.scales"] and mapped["yolo.iou_loss=ciou"].startswith("CIoU")
    assert not any("width" in key or "mask" in key for key in [*mapped, *idle])


def test_activations_are_switched_by_name_part_and_stage() -> None:
    own = resolve_activations(section(DETECTOR))
    assert [spec.name for spec in own.values()] == [
        *("mish", "leaky_relu", "silu", "relu", "leaky_relu", "identity", "sigmoid"),
    ]  # fmt: skip
    assert {spec.parameters.get("negative_slope") for spec in own.values()} == {0.1, None}
    everywhere = resolve_activations(section(DETECTOR, act="gelu"))
    assert [spec.name for spec in everywhere.values()] == ["gelu"] * 5 + ["identity", "sigmoid"]
    some = section(
        DETECTOR,
        act="elu",
        replace={"leaky": "tanh"},
        backbone={"stages": {"P1": {"act": "selu"}}},
    )
    assert [spec.name for spec in resolve_activations(some).values()] == [
        *("selu", "tanh", "elu", "elu", "tanh", "identity", "sigmoid"),
    ]  # fmt: skip
    for wrong in (
        {"replace": {"gelu": "relu"}},
        {"replace": {"linear": "relu"}},
        {"head": {"act": "relu"}},
        {"neck": {"stages": {"N9": {"act": "relu"}}}},
    ):
        with pytest.raises(ValueError, match="^model.*reaches no activation of x.cfg.*replace.mish"):
            resolve_activations(section(DETECTOR, **wrong))
    with pytest.raises(ValueError, match="model.act.*'mush'.*mish"):
        resolve_activations(section(DETECTOR, act="mush"))
    switched = build_model(section(DETECTOR, act="gelu"), seed=1)
    plain = build_model(section(DETECTOR), seed=1)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, switched.state_dict()[name]), name


def test_classes_are_as_many_as_names() -> None:
    assert build_model(section(DETECTOR)).num_classes == 2
    with pytest.raises(ValueError, match=r"x.cfg: has 2 classes \(classes= in lines 91, 118\).*3 names"):
        build_model(section(DETECTOR), names=["a", "b", "c"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CFGS)
def test_the_published_networks(name: str) -> None:
    """Values as counted from the text alone, sizes as published; built without memory, forward and backward."""
    path = shared(f"darknet/{name}.cfg")
    text = path.read_text()
    plan = plan_network(text, file=path.name)
    assert plan.values == oracle.count(text) and SIZES.get(name, 20 + 4 * plan.values) == 20 + 4 * plan.values
    with torch.device("meta"):
        model = build_model(section(text), seed=0)
        outputs = model(torch.empty(2, 3, 128, 128))
    sum(each.sum() for each in outputs).backward()
    parameters = dict(model.named_parameters())
    assert all(each.grad is not None for each in parameters.values())
    norms = sum(each.numel() for key, each in model.named_buffers() if key.endswith(("mean", "var")))
    assert sum(each.numel() for each in parameters.values()) + norms == plan.values
    if plan.heads:
        assert [tuple(each.shape) for each in outputs] == [
            (2, (plan.classes + 5) * len(head.anchors), 128 // head.stride, 128 // head.stride)
            for head in model.box_heads
        ]  # fmt: skip
    assert {layer.part for layer in plan.layers} == (
        {"backbone", "neck", "head"} if plan.heads else {"backbone", "head"}
    )


def test_the_census_of_yolov4() -> None:
    """72 Mish in the backbone, 35 leaky ReLU and 3 linear after it; counted in the text too."""
    text = shared("darknet/yolov4.cfg").read_text()
    with torch.device("meta"):
        rows = census(build_model(section(text), seed=0))
    sites = {(row.part, row.activation): 0 for row in rows}
    for row in rows:
        sites[row.part, row.activation] += row.sites
    assert sites == {
        ("backbone", "mish"): 72,
        ("neck", "leaky_relu"): 32,
        ("head", "leaky_relu"): 3,
        ("head", "identity"): 3,
    }
    named = [options["activation"] for kind, options in oracle.sections(text) if kind == "convolutional"]
    assert [named.count(each) for each in ("mish", "leaky", "linear")] == [72, 35, 3]
    with torch.device("meta"):
        switched = census(build_model(section(text, replace={"mish": "relu"}), seed=0))
    assert sum(row.sites for row in switched if row.activation == "relu") == 72
    assert not any(row.activation == "mish" for row in switched)


def test_trained_weights_give_the_stored_outputs() -> None:
    """Raw heads to 1e-4 and boxes of the OpenCV 4.10 reader, on real weights."""
    folder = shared("darknet")
    path = folder / "yolo-fastest/yolo-fastest-1.1.cfg"
    stored = np.load(folder / "ref/yolo-fastest-1.1_dog320.npz")
    model = build_model(section(path.read_text()), seed=0)
    read_weights(check_weights(path.with_suffix(".weights"), model.plan), model)
    with torch.no_grad():
        outputs = model.eval()(torch.from_numpy(stored["blob"]))
        boxes, scores = model.decode(outputs)
    rows = torch.from_numpy(np.concatenate([stored["yolo_yolo_121"], stored["yolo_yolo_130"]]))
    for raw, number in zip(outputs, (121, 130), strict=True):
        wanted = torch.from_numpy(stored[f"head_permute_{number}"]).permute(0, 3, 1, 2)
        torch.testing.assert_close(raw, wanted, rtol=0, atol=1e-4)
    found = torch.cat(((boxes[0, :, :2] + boxes[0, :, 2:]) / 2, boxes[0, :, 2:] - boxes[0, :, :2]), dim=1) / 320
    seen = rows[:, 4] > 0.001
    assert seen.sum() > 20
    torch.testing.assert_close(found[seen], rows[seen, :4], rtol=0, atol=1e-5)
    kept = rows[:, 5:] > 0
    torch.testing.assert_close(scores[0][kept], rows[:, 5:][kept], rtol=0, atol=1e-5)


def test_the_plan_reads_the_file_where_no_text_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "y.cfg"
    path.write_bytes(DETECTOR.replace("\n", "\r\n").encode() + b"# \xff\n")
    assert plan_darknet(section(None, cfg=str(path))).values == oracle.count(DETECTOR)
    with pytest.raises(FileNotFoundError, match="no.cfg"):
        plan_darknet(section(None, cfg=str(tmp_path / "no.cfg")))


def test_a_network_to_train_starts_with_rare_objects_and_keeps_probabilities_near_one() -> None:
    """Both kinds of heads say 0.01 where nothing is seen; under autocast a logistic head gives out float32."""
    model = build_model(section(DETECTOR), seed=0).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.zeros_(module.weight)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        logits, probabilities = model(torch.rand(1, 3, 32, 32))
    assert probabilities.dtype == torch.float32 and logits.dtype == torch.bfloat16
    found = torch.cat(
        (logits.float().sigmoid().unflatten(1, (2, 7)), probabilities.unflatten(1, (1, 7))[..., :4, :4]), 1
    )
    assert found[:, :, 4].flatten().tolist() == pytest.approx([0.01] * 48, rel=0.02)
    assert found[:, :, 5:].flatten().tolist() == pytest.approx([0.5] * 96)
