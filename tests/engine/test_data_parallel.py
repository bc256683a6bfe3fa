"""Several processes train as one does: the same batches, losses and weights, whatever their number."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.distributed import share
from engine.data_parallel import combined_crc32
from tests.support.checkpoints import write_data
from tests.support.processes import output_of, run_together
from tests.support.scores_together import scores
from tests.support.steps_together import steps

TOLERANCE = 1e-5
SETTINGS = {
    "train.imgsz": 64,
    "train.epochs": 5,
    "train.batch": 6,
    "train.workers": 0,
    "train.amp": "off",
    "train.seed": 3,
    "train.optimizer": "sgd",
    "train.lr": 0.0002,  # at larger ones, rounding changes an assignment within 20 steps, and then everything
    "train.close_mosaic": 1,
    "train.multi_scale": 0.3,
    "train.device": "cpu",
    "augment.mixup": 0.5,
}
IMAGES = 19  # 20 steps; the last batch of an epoch has a single image, so that only rank 0 has any


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), train=IMAGES)


def together(python: str, count: int, folder: Path, data: Path, **more: object) -> dict[str, Any]:
    """What `count` processes record of the steps."""
    settings = SETTINGS | {"data": data} | {key.replace("__", "."): value for key, value in more.items()}
    out = folder / "steps.pt"
    words = [f"{key}={value}" for key, value in settings.items()]
    codes = run_together(count, python, "-m", "tests.support.steps_together", out, *words, folder=folder)
    assert codes == [0] * count, output_of(0, folder)
    result: dict[str, Any] = torch.load(out, weights_only=True)
    return result


def alone(data: Path, *, shards: int = 1, **more: object) -> dict[str, Any]:
    return steps(SETTINGS | {"data": str(data)} | {k.replace("__", "."): v for k, v in more.items()}, shards=shards)


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same batches exactly, and the same losses and weights to TOLERANCE."""
    assert found["steps"] == expected["steps"]
    assert found["checksums"] == expected["checksums"]
    assert torch.allclose(found["losses"], expected["losses"], rtol=TOLERANCE, atol=1e-7)
    for part in ("weights", "average"):
        for name, value in expected[part].items():
            difference = (found[part][name].double() - value.double()).abs().max()
            assert difference <= TOLERANCE, f"{part} {name}: {difference:.1e}"


@pytest.fixture(scope="module")
def whole(data: Path) -> dict[str, Any]:
    """Of a single process."""
    return alone(data)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("norm_act", ["fused", "plain"])
def test_processes_with_synchronised_norms_train_as_one(
    count: int, norm_act: str, whole: dict[str, Any], data: Path, warm_python: str, tmp_path: Path
) -> None:
    found = together(warm_python, count, tmp_path, data, model__sync_bn="on", model__norm_act=norm_act)
    assert found["steps"] == 20
    assert_equal(found, whole)


@pytest.mark.slow
def test_norms_of_each_process_have_the_statistics_of_its_share(data: Path, warm_python: str, tmp_path: Path) -> None:
    found = together(warm_python, 2, tmp_path, data, model__sync_bn="off")
    assert_equal(found, alone(data, shards=2))


@pytest.mark.slow
def test_gradients_accumulate_over_batches(data: Path, warm_python: str, tmp_path: Path) -> None:
    more = {"train__nominal_batch": 12, "train__epochs": 3}
    found = together(warm_python, 2, tmp_path, data, model__sync_bn="on", **more)
    assert found["steps"] == 6
    assert_equal(found, alone(data, **more))


@pytest.mark.slow
def test_darknet_trains_as_one(data: Path, warm_python: str, tmp_path: Path) -> None:
    cfg = tmp_path / "small.cfg"
    cfg.write_text(CFG, encoding="utf-8")
    more = {"model__kind": "darknet", "model__cfg": str(cfg), "train__epochs": 2}
    found = together(warm_python, 3, tmp_path, data, model__sync_bn="on", **more)
    assert_equal(found, alone(data, **more))


CONVOLUTION = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride=2\npad=1\nactivation=mish\n"
CFG = "".join(
    [
        "[net]\nwidth=64\nheight=64\nchannels=3\n",
        *map(CONVOLUTION.format, (8, 16, 16, 16, 16)),
        "[convolutional]\nfilters=33\nsize=1\nstride=1\npad=1\nactivation=linear\n",
        "[yolo]\nmask=0,1,2\nanchors=8,8, 16,16, 32,32\nclasses=6\nnum=3\nignore_thresh=.7\niou_loss=ciou\n",
    ]
)


@pytest.mark.parametrize(("count", "world"), [(6, 2), (7, 3), (1, 3), (2, 3), (16, 1), (5, 5)])
def test_shares_are_contiguous_and_as_equal_as_can_be(count: int, world: int) -> None:
    shares = [share(count, rank, world) for rank in range(world)]
    assert [place for each in shares for place in each] == list(range(count))
    sizes = [len(each) for each in shares]
    assert max(sizes) - min(sizes) <= 1 and sizes[0] == max(sizes)


@pytest.mark.parametrize("length", [0, 1, 4, 1000])
def test_checksums_are_combined(length: int) -> None:
    first, second = np.random.default_rng(length).bytes(77), np.random.default_rng(1).bytes(length)
    expected = zlib.crc32(first + second)
    assert combined_crc32(zlib.crc32(first), zlib.crc32(second), length) == expected


@pytest.fixture(scope="module")
def detected(place: Path) -> Path:
    """The data of `place` whose objects are what its untrained detector finds, a few pixels off."""
    found = scores(place / "best.pt", place / "shapes.yaml")
    assert found is not None
    random, path = np.random.default_rng(0), place / "shapes" / "annotations" / "val.json"
    content = json.loads(path.read_text())
    rows = found["predictions"].numpy()[::9]
    corners = (rows[:, 1:5] + random.uniform(0, 3, (len(rows), 4))).tolist()
    content["annotations"] = [
        {
            "id": k,
            "image_id": int(row[0]),
            "category_id": int(row[6]),
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for k, (row, box) in enumerate(zip(rows, corners, strict=True), 1)
    ]
    path.with_name("detected.json").write_text(json.dumps(content))
    yaml = (place / "shapes.yaml").read_text().replace("val.json", "detected.json")
    (place / "detected.yaml").write_text(yaml)
    return place / "detected.yaml"


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4])
def test_an_evaluation_in_shares_is_that_of_one_process(
    count: int, detected: Path, place: Path, warm_python: str, tmp_path: Path
) -> None:
    """6 images in 3 batches: for 2 processes a share differs, and one of 4 has none."""
    words = (place / "best.pt", detected)
    expected = scores(*words)
    assert expected is not None and expected["numbers"]["mAP50-95"] > 0.02
    out = tmp_path / "scores.pt"
    codes = run_together(count, warm_python, "-m", "tests.support.scores_together", out, *words, folder=tmp_path)
    assert codes == [0] * count, output_of(0, tmp_path)
    found = torch.load(out, weights_only=True)
    assert torch.equal(found.pop("predictions"), expected.pop("predictions"))
    assert found == expected
