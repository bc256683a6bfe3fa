"""Which device a name stands for."""

import pytest
import torch

from core.device import pick_device


def test_mps_is_taken_where_torch_has_it_and_never_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="has no Metal device on this machine"):
        pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps")[0] == torch.device("mps") and pick_device("auto")[0].type != "mps"
