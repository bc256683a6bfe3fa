"""Published weights give the same detections, name no path of their machine, and are checked when they are read."""

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.schema import load
from engine.checkpoint import initial_weights, load_checkpoint
from engine.published import MODEL, SUMS, locate
from models import build_model, census
from tests.support.checkpoints import class_names
from tests.support.server import Server, serving
from weights import publish
from yolo import YOLO

LICENCES = ("--license", "apache-2.0", "--data-license", "drawn")
IMAGE = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)


@pytest.fixture(scope="module")
def published(place: Path) -> Path:
    """A folder of published weights; `place` has their checkpoint."""
    assert publish.main([str(place / "best.pt"), "--to", str(place / "net"), *LICENCES]) == 0
    return place / "net"


def boxes(weights: object) -> torch.Tensor:
    result = YOLO(str(weights), device="cpu").predict(IMAGE, conf=0.01)[0]
    assert len(result.boxes) > 3
    return torch.cat([torch.as_tensor(result.boxes).flatten(), torch.as_tensor(result.scores)])


def test_published_weights_detect_the_same(published: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = boxes(place / "best.pt")
    assert torch.equal(boxes(published), expected) and torch.equal(boxes(published / MODEL), expected)
    monkeypatch.chdir(place)
    Path("weights").mkdir()
    shutil.copytree(published, "weights/other")
    assert locate("other") == Path("weights/other", MODEL)
    config = load("yolo-mish.yaml", {"weights": "other"})
    model = build_model(config.model, names=class_names(place / "shapes"), seed=9)
    note, *_ = initial_weights(model, config, census(model))
    assert note.endswith("loaded from weights/other/model.safetensors, 0 not in it")


def test_no_path_of_the_machine_is_in_them(published: Path, place: Path) -> None:
    assert str(place).encode() in (place / "best.pt").read_bytes()
    for file in published.iterdir():
        assert str(place).encode() not in file.read_bytes()
    config = load_checkpoint(published / MODEL)["config"]
    assert config["data"]["root"] == "shapes" and config["data"]["val"]["images"] == "shapes/images/val"


def test_half_the_size(published: Path, place: Path) -> None:
    half = place / "half"
    assert publish.main([str(place / "best.pt"), "--to", str(half), "--fp16", *LICENCES]) == 0
    assert (half / MODEL).stat().st_size < 0.55 * (published / MODEL).stat().st_size
    content, whole = load_checkpoint(half / MODEL)["model"], load_checkpoint(published / MODEL)["model"]
    for name, value in content.items():
        assert value.dtype == whole[name].dtype
        torch.testing.assert_close(value, whole[name].half().to(value.dtype) if value.is_floating_point() else value)


def test_the_card_names_what_a_user_must_know(published: Path) -> None:
    card = (published / "README.md").read_text(encoding="utf-8")
    sha256 = hashlib.sha256((published / MODEL).read_bytes()).hexdigest()
    assert card.startswith("---\nlicense: apache-2.0\n") and sha256 in card and "drawn" in card
    assert re.search(r"^\| head \| P3 \| \w+ \| \d+ \|$", card, re.M) and "circle" in card


def test_a_changed_file_is_refused(published: Path, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    shutil.copytree(published, folder)
    content = bytearray((folder / MODEL).read_bytes())
    content[-1] ^= 1
    (folder / MODEL).write_bytes(content)
    with pytest.raises(ValueError, match=r"its SHA-256 is \w{64}, and SHA256SUMS says"):
        YOLO(str(folder))
    (folder / SUMS).unlink()
    with pytest.raises(ValueError, match="no SHA256SUMS"):
        YOLO(str(folder))
    for damaged in (bytes(content[:1000]), b"", b"not a safetensors file at all"):
        (folder / MODEL).write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged, or not a checkpoint of this project"):
            YOLO(str(folder / MODEL))


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="not a checkpoint of this project"):
        YOLO(str(tmp_path / "x.safetensors"))


@pytest.fixture
def server(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as server:
        server.content = (published / MODEL).read_bytes()
        yield server


def test_an_address_needs_a_hash_and_is_downloaded_once(server: Server, published: Path) -> None:
    address = f"http://127.0.0.1:{server.server_port}/{MODEL}"
    with pytest.raises(ValueError, match="ends in #sha256="):
        YOLO(address)
    with pytest.raises(ValueError, match="another SHA-256"):
        YOLO(f"{address}#sha256={'0' * 64}")
    sha256 = hashlib.sha256(server.content).hexdigest()
    asked = len(server.asked)
    assert torch.equal(boxes(f"{address}#sha256={sha256}"), boxes(published))
    boxes(f"{address}#sha256={sha256}")
    assert len(server.asked) == asked + 1


def test_publishing_twice_or_something_else(published: Path, place: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="choose another --to"):
        publish.main([str(place / "best.pt"), "--to", str(published), *LICENCES])
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        publish.main([str(place / "missing.pt"), "--to", str(tmp_path / "x"), *LICENCES])
    assert not (tmp_path / "x").exists()
