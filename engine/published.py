"""Weights to pass on: a folder with model.safetensors, its SHA-256 and a model card, or an address with a hash.

A safetensors file holds tensors and text, so that reading one from elsewhere runs no code. Its metadata are those of a
checkpoint (engine/checkpoint.py), without the paths of the machine that trained it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from core.commands import ROOT
from core.files import file_sha256, user_cache_folder, write_text
from core.text import one_line
from core.types import StateDict

MODEL, SUMS = "model.safetensors", "SHA256SUMS"
FIELDS = ("format", "kind", "config", "names", "census", "stats")  # of a checkpoint, as JSON in the metadata
ADDRESS = re.compile(r"https?://")
HASH = re.compile(r"#sha256=([0-9a-fA-F]{64})$")


def write_model(folder: Path, content: StateDict, *, half: bool) -> str:
    """Write a checkpoint's inference weights, in fp16 if `half`, and their SHA-256, which is returned."""
    weights = {
        name: value.to(torch.float16 if half and value.is_floating_point() else value.dtype).contiguous()
        for name, value in content["model"].items()
    }
    content = {**content, "config": without_paths(content["config"])}
    metadata = {key: json.dumps(content[key]) for key in FIELDS if key in content}
    save_file(weights, folder / MODEL, metadata=metadata)
    sha256 = file_sha256(folder / MODEL)
    write_text(folder / SUMS, f"{sha256}  {MODEL}\n")
    return sha256


def read_model(path: Path) -> StateDict:
    """The content of a safetensors file as that of a checkpoint, in fp32. ValueError if it is damaged or foreign."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        content = {key: json.loads(text) for key, text in metadata.items() if key in FIELDS}
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(one_line(error)) from error
    model = {name: each.float() if each.is_floating_point() else each for name, each in weights.items()}
    return {**content, "model": model}


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config without the folders of its machine: of the data, only the name of their root."""
    model, data, run = dict(config["model"]), dict(config["data"]), dict(config["run"])
    root = str(data.get("root") or "")
    name = PureWindowsPath(root).name  # of paths of any system
    for split, section in data.items():
        if isinstance(section, Mapping):
            data[split] = {key: _inside(value, root, name) for key, value in section.items()}
    data["root"] = name
    run |= {"project": "runs/train", "name": PureWindowsPath(str(run.get("name"))).name, "plan": None}
    if model.get("cfg"):  # of a Darknet network, whose text is in the config too
        model["cfg"] = PureWindowsPath(model["cfg"]).name
    weights = PureWindowsPath(config["weights"]).name if config.get("weights") else None
    return {**config, "model": model, "data": data, "run": run, "weights": weights}


def _inside(value: object, root: str, name: str) -> object:
    """A path in the folder `root` as one in `name`; other paths by their last part."""
    if isinstance(value, list):
        return [_inside(each, root, name) for each in value]
    if not isinstance(value, str) or not re.search(r"[\\/]", value):
        return value
    inside = value.removeprefix(root).lstrip("\\/") if root and value.startswith(root) else PureWindowsPath(value).name
    return f"{name}/{inside}"


def locate(weights: str) -> Path:
    """The file that a name of weights means: a file, a published folder, one of weights/, or an address with a hash.

    A published file is checked against the SHA-256 beside it, one from an address against that in the address
    (`...#sha256=HEX`); it is downloaded once. ValueError if a hash differs or is missing.
    """
    if ADDRESS.match(weights):
        return _download(weights)
    for folder in (Path(weights), Path("weights", weights), ROOT / "weights" / weights):
        if (folder / MODEL).is_file():
            _check(folder)
            return folder / MODEL
    return Path(weights)


def _check(folder: Path) -> None:
    sums = folder / SUMS
    if not sums.is_file():
        raise ValueError(f"{folder}: no {SUMS} beside {MODEL}; name the file itself to use it unchecked")
    expected = sums.read_text(encoding="utf-8").split()[:1]
    found = file_sha256(folder / MODEL)
    if expected != [found]:
        raise ValueError(f"{folder / MODEL}: its SHA-256 is {found}, and {SUMS} says {''.join(expected) or 'nothing'}")


def _download(address: str) -> Path:
    expected = HASH.search(address)
    if expected is None:
        raise ValueError(
            f"{address}: expected an address that ends in #sha256= and the 64 digits of the file's SHA-256"
        )
    sha256 = expected[1].lower()
    path = user_cache_folder() / "weights" / f"{sha256}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(HASH.sub("", address), str(path), hash_prefix=sha256)
        except RuntimeError as error:
            raise ValueError(f"{address}: the file has another SHA-256") from error
        except URLError as error:
            raise ConnectionError(f"{address}: cannot be downloaded: {one_line(error.reason)}") from error
    return path
