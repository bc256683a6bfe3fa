"""What a checkpoint's file may hold: nothing that takes more memory than the file has, nothing but plain values."""

import io
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.archive import read_archive


def rewritten(content: Any, path: Path, edit) -> Path:
    """A file of torch.save whose pickle was edited, with right checksums."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(path, "w") as copy:
        for entry in archive.infolist():
            data = archive.read(entry)
            copy.writestr(entry.filename, edit(data) if entry.filename.endswith("data.pkl") else data)
    return path


def test_plain_values_and_tensors_come_back(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    content = OrderedDict(
        a=shared, b=shared[2:4], c=[1, 2.5, None, True, "x"], d=(1, {"e": torch.tensor(3)}), f={0: -1}
    )
    torch.save(content, tmp_path / "a.pt")
    found = read_archive(tmp_path / "a.pt")
    assert type(found) is dict and list(found) == list(content)
    assert torch.equal(found["a"], shared) and torch.equal(found["b"], shared[2:4])
    assert found["c"] == content["c"] and found["d"][1]["e"].item() == 3 and found["f"] == {0: -1}


def test_tensors_own_their_memory(tmp_path: Path) -> None:
    """What was read does not change, and does not crash, when the file does."""
    torch.save({"a": torch.arange(10_000.0)}, tmp_path / "a.pt")
    found = read_archive(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"")
    assert float(found["a"].sum()) == 9999 * 5000


def test_a_storage_that_claims_more_than_its_record_is_refused(tmp_path: Path) -> None:
    """torch.load would hand out a tensor over memory that is not its own."""
    wide = struct.pack("<i", 1_000_000)

    def edit(data: bytes) -> bytes:
        assert data.count(b"M9\x05") == 2  # 1337 as the size of the storage and of the tensor
        return data.replace(b"M9\x05", b"J" + wide)

    path = rewritten({"a": torch.zeros(1337)}, tmp_path / "a.pt", edit)
    with pytest.raises((ValueError, RuntimeError)):
        read_archive(path)


def test_a_call_that_would_take_memory_is_refused(tmp_path: Path) -> None:
    """torch.load with weights_only=True calls bytearray with whatever number stands in the file."""
    call = b"\x80\x02cbuiltins\nbytearray\nJ" + struct.pack("<i", 2**31 - 1) + b"\x85R."
    path = rewritten({}, tmp_path / "a.pt", lambda _: call)
    with pytest.raises(ValueError, match="builtins.bytearray"):
        read_archive(path)


def test_a_list_in_a_list_in_a_list_is_no_bomb(tmp_path: Path) -> None:
    bomb: list = []
    for _ in range(30):
        bomb = [bomb, bomb]
    torch.save({"a": bomb}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="more values than its size allows"):
        read_archive(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1).expand(10**12),
        torch.empty(10**12, device="meta"),
        torch.eye(3).to_sparse(),
        torch.float32,
        {1, 2},
        {(1, 2): 3},
        b"bytes",
    ],
    ids=["expanded", "meta", "sparse", "dtype", "set", "tuple as key", "bytes"],
)
def test_what_no_checkpoint_holds_is_refused(value: Any, tmp_path: Path) -> None:
    torch.save({"a": value}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds"):
        read_archive(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "name", ["archive/data/999x", "../up", "other/data.pkl", "archive/constants.pkl", "archive/x.py"]
)
def test_a_record_that_torch_does_not_write_is_refused(name: str, tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(ValueError, match="holds"):
        read_archive(tmp_path / "a.pt")
