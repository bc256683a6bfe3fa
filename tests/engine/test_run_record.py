"""run.json: its content, and which values it can hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from engine import run_record as record


class Row(NamedTuple):
    part: str
    sites: int


@dataclass(frozen=True)
class Site:
    part: str
    where: Path


def test_run_json(tmp_path):
    path = tmp_path / "run.json"
    content = record.run_record(
        config={"model": {"act": {"name": "mish"}}},
        differs={"model.act": "mish"},
        data_hash={"train": "00"},
        census=[Row("backbone", 27), Site("neck", Path("x"))],
        operator={"implementation": "torch.nn.functional.mish", "reason": "PyTorch's own"},
        start=record.start_entry(device="CPU", epoch=1, batch=1),
        parameters=np.int64(3),
        weights=torch.tensor([1.0, float("inf")]),
    )
    record.write_run(path, content)
    record.update_run(path, results={"mAP50-95": float("nan")})
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read["census"] == [{"part": "backbone", "sites": 27}, {"part": "neck", "where": "x"}]
    assert read["parameters"] == 3 and read["weights"] == [1.0, None] and read["results"] == {"mAP50-95": None}
    assert len(read["code"]["source_sha256"]) == 64
    assert read["machine"]["threads"] == torch.get_num_threads() and read["machine"]["cpu"]
    assert read["machine"]["packages"]["torch"] and read["machine"]["ram_mib"] > 100
    with pytest.raises(TypeError, match="object"):
        record.write_run(path, {"strange": object()})
