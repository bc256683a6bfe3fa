"""Which device each of several processes has, and what they know without any others."""

import pytest
import torch

from core import distributed
from core.device import device_list, device_of_process


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("0,2", True, ["0", "2"]),
        ("cpu,cpu", False, ["cpu", "cpu"]),
        ("auto", True, ["cuda:0", "cuda:1"]),
        ("cuda", True, ["cuda:0", "cuda:1"]),
        ("auto", False, ["cpu", "cpu"]),
        ("cpu", True, ["cpu", "cpu"]),
    ],
)
def test_the_device_of_each_process(
    device: str, gpus: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    assert [device_of_process(device, number=number, processes=2) for number in range(2)] == expected


@pytest.mark.parametrize("device", ["0", "cuda:1", "0,1,2"])
def test_devices_that_do_not_suffice_are_refused(device: str) -> None:
    with pytest.raises(ValueError, match=f"device '{device}'"):
        device_of_process(device, number=0, processes=2)


@pytest.mark.parametrize("device", ["0,0", "0,cpu", "cuda,cuda", "0,"])
def test_lists_of_other_things_are_refused(device: str) -> None:
    with pytest.raises(ValueError, match="different GPU numbers"):
        device_list(device)


def test_a_process_alone_communicates_with_nobody() -> None:
    value = torch.ones(3)
    assert distributed.all_sum(value) is value
    assert distributed.exchange(1, 2) == [[1, 2]] and distributed.largest([3.0]) == [3.0]
    assert distributed.gather("x") == ["x"] and distributed.from_main(lambda: "y") == "y"
    assert distributed.is_main() and distributed.may_report() and distributed.remembered_folder() is None
    assert not distributed.lost(RuntimeError("Connection closed by peer"))
