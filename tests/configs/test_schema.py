"""The configuration: what is read, what wins, what is refused and with which key in the message."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from configs.loading import CONFIGS, flatten
from configs.schema import USUAL_LR, Config, load


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_every_shipped_config_loads_and_survives_a_round_trip(file: Path, tmp_path: Path) -> None:
    config = load(file)
    (tmp_path / "config.yaml").write_text(config.as_yaml())
    assert load(tmp_path / "config.yaml") == config


def test_the_base_config_states_every_value_once() -> None:
    stated = flatten(yaml.safe_load((CONFIGS / "yolo.yaml").read_text()))
    fields = flatten(load("yolo.yaml").model_dump(mode="json"))
    missing = [key for key in fields if not key.startswith("data.") and key not in stated]
    assert missing == []


def test_gains_of_loss_terms_are_completed_and_checked(tmp_path: Path) -> None:
    assert load("yolo.yaml", ["model.loss.box=5"]).model.loss == {"box": 5.0, "cls": 0.5, "dfl": 1.5}
    (tmp_path / "alone.yaml").write_text("data: shapes.yaml\nmodel: {loss: {cls: 1.0}}\n")
    assert load(tmp_path / "alone.yaml").model.loss == {"box": 7.5, "cls": 1.0, "dfl": 1.5}
    with pytest.raises(ValueError, match=r"model\.loss.*'bix'.*'box'"):
        load("yolo.yaml", ["model.loss.bix=1"])
    for value in ("-1", "many"):
        with pytest.raises(ValueError, match=r"model\.loss\.box"):
            load("yolo.yaml", [f"model.loss.box={value}"])


def test_defaults_of_the_schema_are_the_values_of_the_base_config() -> None:
    config = load("yolo.yaml")
    bare = Config(data=config.data)
    for section in ("model", "augment", "run"):
        assert getattr(config, section) == getattr(bare, section)
    assert config.val == bare.val.model_copy(update={"iou": 0.7})  # resolved, as values of `train` are


def test_a_bare_name_is_found_with_and_without_suffix() -> None:
    assert load("yolo-mish") == load("yolo-mish.yaml")
    assert load("yolo-mish").model.act == {"name": "mish"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yolo-mish", {"model.act": {"name": "mish"}}),
        ("yolo-relu", {"model.act": {"name": "relu"}}),
        ("yolo-leaky", {"model.act": {"name": "leaky_relu", "negative_slope": 0.1}}),
        ("yolo-silu", {}),
        ("yolo-swish", {"model.act": {"name": "swish", "beta": 1.0, "learnable": True}}),
        (
            "yolov4-split",
            {"model.act": {"name": "leaky_relu", "negative_slope": 0.1}, "model.backbone.act": {"name": "mish"}},
        ),
    ],
)
def test_configs_differ_from_the_base_in_their_activations_only(name: str, expected: dict) -> None:
    assert load(name).difference() == expected


def test_overrides_are_typed_and_frozen() -> None:
    assert load("yolo.yaml", ["train.lr=1e-3", "train.weight_decay=5E-4"]).train.lr == 0.001
    config = load("yolo.yaml", ["train.lr=0.5", "model.neck.stages.N4.act={name: swish, beta: 2.0}"])
    assert config.train.lr == 0.5
    assert config.model.neck.stages["N4"].act == {"name": "swish", "beta": 2.0}
    with pytest.raises(ValidationError):
        config.train.lr = 1.0  # type: ignore[misc]


def test_an_activation_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("base: yolo-leaky.yaml\nmodel: {act: {name: swish, learnable: true}}\n")
    assert load(tmp_path / "c.yaml").model.act == {"name": "swish", "learnable": True}


REFUSED = [
    ("model.bakbone.act=mish", ["model.bakbone", "model.backbone"]),
    ("model.neck.nme=fpn", ["model.neck.nme", "model.neck.name"]),
    ("model.neck.stages.N4=[relu]", ["model.neck.stages.N4"]),
    ("model.backbone.stages.P4.akt=relu", ["model.backbone.stages.P4.akt", "P4.act"]),
    ("train.epochs=many", ["train.epochs", "many"]),
    ("train.epochs=0", ["train.epochs", "0"]),
    ("train.imgsz=100", ["train.imgsz", "32"]),
    ("train.lr=fast", ["train.lr", "fast"]),
    ("train.lrr=1", ["train.lrr", "train.lr"]),
    ("train.close_mosaic=2.5", ["train.close_mosaic", "2.5"]),
    ("train.optimizer=adam", ["train.optimizer", "adamw"]),
    ("model.size=huge", ["model.size", "huge"]),
    ("model.kind=darknett", ["model.kind", "darknett"]),
    ("foo=1", ["foo"]),
    ("train=3", ["train"]),
    ("model.act=[mish]", ["model.act"]),
    ("train.lr", ["train.lr"]),
]


@pytest.mark.parametrize(("override", "words"), REFUSED, ids=[override for override, _ in REFUSED])
def test_a_wrong_key_or_value_is_named(override: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        load("yolo-mish.yaml", [override])
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_the_place_of_a_wrong_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: yolo.yaml\ntrain: {epoch: 3}\n")
    with pytest.raises(ValueError, match=r"train\.epoch \(mine\.yaml\).*train\.epochs"):
        load(tmp_path / "mine.yaml")


def test_a_general_activation_hidden_by_a_narrower_one_of_the_file_is_refused() -> None:
    with pytest.raises(ValueError) as error:
        load("yolov4-split.yaml", ["model.act=relu"])
    assert "model.act" in str(error.value) and "model.backbone.act" in str(error.value)
    config = load("yolov4-split.yaml", ["model.act=relu", "model.backbone.act=null"])
    assert config.model.backbone.act is None


def test_a_file_of_the_same_name_in_the_working_folder_is_not_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yolo.yaml").write_text("train: gone\nnames: [a]\n")  # a data YAML of another program
    assert load("yolo-mish.yaml").difference() == {"model.act": {"name": "mish"}}


def test_what_would_not_be_read_as_written_is_refused(tmp_path: Path) -> None:
    cases = {
        "train: {epochs: 1, epochs: 2}": "duplicate key 'epochs'",
        "run: {name: {3: x}}": "the key 3",
        "run: {name: 2001-01-01}": "timestamp",
        'run: {name: "a\\0b"}': "zero byte",
        'run: {name: "\\ud800"}': "surrogate",
        "train: {epochs: !!int x}": "invalid value",
        "augment: {extra: [{name: RandomFog, p: .nan}]}": "finite",
        "augment: {extra: " + "[" * 40 + "]" * 40 + "}": "deeper",
    }
    for text, words in cases.items():
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ValueError, match=words):
            load(tmp_path / "c.yaml")


def test_files_that_are_not_configs_are_refused(tmp_path: Path) -> None:
    cases = {
        "list.yaml": "- 1\n- 2\n",
        "broken.yaml": "model: {act: mish\n",
        "bomb.yaml": "a: &a [1]\nmodel: *a\n",
        "loop.yaml": "base: loop.yaml\n",
        "large.yaml": "#" * (1 << 20) + "\n\n",
    }
    for name, text in cases.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=name):
            load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no-such"):
        load("no-such.yaml")
    with pytest.raises(FileNotFoundError, match="no-such-data"):
        load("yolo.yaml", ["data=no-such-data.yaml"])


def test_the_usual_learning_rate_is_that_of_the_optimizer_and_stated_in_the_base_config() -> None:
    comment = next(line for line in (CONFIGS / "yolo.yaml").read_text().splitlines() if line.startswith("  lr: null"))
    for optimizer, rate in USUAL_LR.items():
        assert load("yolo.yaml", {"train.optimizer": optimizer}).train.lr == rate
        assert f"{rate} for {optimizer}" in comment
        assert load("yolo.yaml", {"train.optimizer": optimizer, "train.lr": 0.5}).train.lr == 0.5


def test_open_values_take_the_embedded_sets_schedule_or_the_usual_one(tmp_path: Path) -> None:
    embedded = load("yolo.yaml")
    assert embedded.data.embedded is not None
    assert embedded.train.epochs == embedded.data.embedded.epochs
    assert embedded.train.imgsz == embedded.data.embedded.side
    (tmp_path / "mine.yaml").write_text(
        "train: {images: i, annotations: a.json}\nval: {images: i, annotations: a.json}\n"
    )
    own = load("yolo.yaml", {"data": str(tmp_path / "mine.yaml")})
    assert (own.train.epochs, own.train.imgsz) == (100, 640)
    assert own.data.train.images == str(tmp_path / "i")
