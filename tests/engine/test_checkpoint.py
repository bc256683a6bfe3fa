"""Checkpoints: what goes in comes out, a broken write loses nothing, foreign files are never unpickled."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.checkpoint import (
    FIELDS,
    STATE_FIELDS,
    inference_weights,
    load_checkpoint,
    load_matching,
    rng_state,
    save_checkpoint,
    set_rng_state,
)


def content(**more: object) -> dict:
    base = {"kind": "training", "config": {"a": 1}, "names": ["x"], "census": [], "model": {"w": torch.arange(3.0)}}
    rest = {name: {} for name in FIELDS["training"]} | {"state": dict.fromkeys(STATE_FIELDS)}
    return {**rest, **base, "ema": {"model": {"w": torch.ones(3)}, "updates": 4}, **more}


def test_round_trip(tmp_path: Path) -> None:
    state = {**dict.fromkeys(STATE_FIELDS), "rows": [{"epoch": 1, "x": None}]}
    save_checkpoint(tmp_path / "last.pt", content(state=state))
    loaded = load_checkpoint(tmp_path / "last.pt", kind="training")
    assert torch.equal(loaded["model"]["w"], torch.arange(3.0)) and loaded["state"] == state
    assert torch.equal(inference_weights(loaded)["w"], torch.ones(3))
    assert torch.equal(inference_weights({**loaded, "ema": None})["w"], torch.arange(3.0))
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", content())
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError, RuntimeError)):
        save_checkpoint(tmp_path / "last.pt", content(model=lambda: None))
    assert (tmp_path / "last.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


class Harm:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "good.pt", content())
    whole = (tmp_path / "good.pt").read_bytes()
    (tmp_path / "short.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    torch.save({"model": {}}, tmp_path / "foreign.pt")
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "module.pt")
    torch.save({"format": 1, "harm": Harm(tmp_path / "harmed")}, tmp_path / "harm.pt")
    torch.save({"format": 1, "kind": "training"}, tmp_path / "bare.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
    for name in ("short", "empty", "text", "foreign", "module", "harm", "bare", "bomb"):
        with pytest.raises(ValueError, match=f"{name}.pt"):
            load_checkpoint(tmp_path / f"{name}.pt")
    assert not (tmp_path / "harmed").exists()
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="expected weights"):
        load_checkpoint(tmp_path / "good.pt", kind="weights")


def test_matching_weights_are_loaded_by_name_and_shape() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))
    weights = {"0.weight": torch.full((4, 3, 1, 1), 7.0), "0.bias": torch.zeros(9), "9.weight": torch.zeros(1)}
    loaded, missing = load_matching(model, weights)
    assert loaded == ["0.weight"] and missing == ["0.bias", "1.bias", "1.weight"]
    assert float(model[0].weight.detach().min()) == 7.0


def test_random_states_come_back() -> None:
    state = rng_state()
    first = torch.rand(4)
    set_rng_state(state)
    assert torch.equal(torch.rand(4), first)
