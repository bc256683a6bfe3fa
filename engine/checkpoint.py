"""Checkpoints: plain tensors and values, loaded with ``weights_only=True`` and written atomically.

Two kinds: ``training`` holds everything a run needs to resume bit for bit, ``weights`` what inference needs. Both hold
``format``, ``kind``, ``config``, ``names``, ``census`` and ``model``. Weights can also be a safetensors file
(engine/published.py).
"""

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, cast

import torch
from pydantic import ValidationError

from configs.schema import Config, load
from core.files import replacing
from core.limits import MAX_CLASSES
from core.types import DetectorModel, StateDict
from data.names import find_names
from engine.archive import read_archive
from engine.published import locate, read_model
from models import CensusRow, Darknet, Detector, build_model, census, plan_darknet
from models.darknet.weights import check_weights, read_weights, start_from_weights

FORMAT = 1
MAX_CHECKPOINT_BYTES = 16 << 30
WEIGHTS_FIELDS: dict[str, type] = {"config": dict, "names": list, "census": list, "model": dict}
# Fields and types of each kind of checkpoint; `ema` may also be None.
FIELDS: dict[str, dict[str, type]] = {
    "weights": WEIGHTS_FIELDS,
    "training": WEIGHTS_FIELDS
    | dict.fromkeys(("ema", "optimizer", "scaler", "state", "clock", "rng", "data_sha256"), dict),
}
STATE_FIELDS = ("epoch", "batch", "step", "best", "best_epoch", "rows", "loss_sums", "batches_crc32")
CENSUS_KEYS = ("part", "stage", "activation", "parameters", "sites")  # those that do not depend on the machine
# Raised by torch.load, its unpickler and its archive reader for damaged files.
DAMAGE = (
    *(pickle.UnpicklingError, struct.error, zipfile.BadZipFile, RuntimeError, ValueError, TypeError, AttributeError),
    *(LookupError, ArithmeticError, AssertionError, EOFError, MemoryError, OSError),
)


def save_checkpoint(path: Path, content: StateDict) -> None:
    """Write ``content`` to ``path`` atomically.

    Raises OSError, naming the file, if it cannot be written; the old file is then unchanged.
    """
    with replacing(path) as file:
        target = _ErrorKeepingFile(file)
        try:
            torch.save({"format": FORMAT, **content}, cast(IO[bytes], target))
        except (OSError, RuntimeError) as error:  # PyTorch's writer hides the system's error
            if target.error is None:
                raise
            raise target.error from error


class _ErrorKeepingFile:
    """A file that keeps the first OSError of a write."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write bytes."""
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()


def load_checkpoint(path: str | Path, *, kind: str | None = None) -> StateDict:
    """Read a checkpoint onto the CPU; nothing but tensors and plain values is unpickled.

    Raises FileNotFoundError if it is missing, ValueError if it is truncated, foreign, of another format or, with
    ``kind``, of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such checkpoint; nothing is downloaded, expected a file such as runs/train/exp/weights/best.pt"
        )
    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_CHECKPOINT_BYTES}")
    try:
        content = read_model(path) if path.suffix == ".safetensors" else _read_zip(path)
    except DAMAGE as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: damaged, or not a checkpoint of this project: {reason}") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int) or content["format"] != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of this project (no format {FORMAT} in it)")
    fields = FIELDS.get(str(content.get("kind")), FIELDS["weights"])
    missing = [key for key in ("kind", *fields) if key not in content]
    if missing:
        raise ValueError(f"{path}: the checkpoint lacks {', '.join(missing)}")
    _require_types(path, content)
    if content["kind"] == "training" and set(content["state"]) != set(STATE_FIELDS):
        raise ValueError(f"{path}: the checkpoint's state is incomplete, expected {', '.join(STATE_FIELDS)}")
    if kind is not None and content["kind"] != kind:
        raise ValueError(f"{path}: holds {content['kind']}, expected {kind}; to resume a run use its last.pt")
    return content


def _read_zip(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"truncated, or of another kind ({path.stat().st_size} bytes)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about damaged tensors
        return read_archive(path)


def _require_types(path: Path, content: StateDict) -> None:
    """Raise ValueError if a field has another type than expected."""
    for key, kind in {"kind": str, **FIELDS["training"]}.items():
        absent = key not in content or (key == "ema" and content[key] is None)
        if not absent and not isinstance(content[key], kind):
            raise ValueError(f"{path}: the checkpoint's {key} is a {type(content[key]).__name__}")
    rows = content["census"]
    if not all(isinstance(row, dict) and {"part", "stage", "activation"} <= set(row) for row in rows):
        raise ValueError(f"{path}: the checkpoint's census holds no rows with part, stage and activation")
    ema = content.get("ema")
    for key, weights in (("model", content["model"]), ("ema", ema.get("model") if ema else {})):
        if not isinstance(weights, dict) or not all(isinstance(each, torch.Tensor) for each in weights.values()):
            raise ValueError(f"{path}: the checkpoint's {key} holds no tensors by name")


def inference_weights(content: StateDict) -> dict[str, torch.Tensor]:
    """Return the weights for inference: the EMA if the checkpoint has one, else the model's."""
    weights: dict[str, torch.Tensor] = content["ema"]["model"] if content.get("ema") else content["model"]
    return weights


def load_matching(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    """Load the weights that fit by name and shape; return the names loaded and those of the model not loaded."""
    state = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in state and state[name].shape == value.shape}
    model.load_state_dict({**state, **fitting})
    return sorted(fitting), sorted(set(state) - set(fitting))


def initial_weights(model: DetectorModel, config: Config, census: Sequence[CensusRow]) -> list[str]:
    """Load the weights that the config names into ``model``; return notes on what was loaded.

    A checkpoint for any network, or a Darknet .weights for a Darknet network.
    """
    path = str(locate(str(config.weights)))
    suffix = Path(path).suffix
    if suffix not in (".pt", ".safetensors") and isinstance(model, Darknet) and config.model.kind == "darknet":
        return start_from_weights(model, path, census, text=config.model.text or "")
    if suffix == ".weights":
        raise ValueError(f"{path}: Darknet weights; expected the --cfg X.cfg of their network, or a .pt checkpoint")
    content = load_checkpoint(path)
    loaded, missing = load_matching(model, inference_weights(content))
    if not loaded:
        raise ValueError(f"{path}: none of its weights fit this network")
    notes = [f"weights: {len(loaded)} tensors loaded from {path}, {len(missing)} not in it"]
    if missing:
        notes.append(f"  left as initialized: {', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}")
    trained = {(row["part"], row["stage"]): row["activation"] for row in content["census"]}
    other = [
        f"{row.part}.{row.stage} {trained[row.part, row.stage]} -> {row.activation}"
        for row in census
        if trained.get((row.part, row.stage), row.activation) != row.activation
    ]
    if other:
        notes.append(f"  WARNING: trained with other activations: {', '.join(other)}")
    return notes


def checkpoint_bytes(config: Config) -> tuple[int, int, int]:
    """About how many bytes all checkpoints of a run take, the largest one, last.pt, and the weights alone."""
    with torch.device("meta"):
        state = build_model(config.model, seed=0).state_dict()
    weights, train = sum(value.nbytes for value in state.values()), config.train
    last = weights * (1 + (train.ema > 0) + (2 if train.optimizer == "adamw" else 1))
    kept = (train.epochs or 0) // train.save_period if train.save_period else 0
    return weights + last * (1 + kept), last, weights


def build_from_checkpoint(path: Path) -> tuple[Detector | Darknet, Config, list[CensusRow]]:
    """The network of a checkpoint with its inference weights, its config and its census.

    Raises ValueError if config, class names, activations and weights do not fit together.
    """
    content = load_checkpoint(path)
    config, names = _config(path, content["config"]), _names(path, content["names"])
    weights = inference_weights(content)
    with torch.device("meta"):  # allocates nothing: a config must not take more memory than the weights in the file
        _require_fitting(build_model(config.model, names=names, seed=0), weights, path)
    model: Detector | Darknet = build_model(config.model, names=names, seed=0)
    rows = census(model)
    _require_activations(path, rows, content["census"])
    model.load_state_dict(weights)
    return model, config, rows


def build_from_darknet(
    weights: Path, cfg: Path, *, names: str | os.PathLike | None = None
) -> tuple[Darknet, Config, list[CensusRow], str]:
    """The network of Darknet's files with its weights, its config, its census, and where its class names come from.

    ``names``: a file with the class names, by default `data.names.find_names`'s choice. Raises FileNotFoundError or
    ValueError for a missing file, and for files that do not belong together or do not make a detector.
    """
    if cfg.suffix != ".cfg":
        raise ValueError(f"cfg: {cfg}; a Darknet .cfg is expected, with the .weights that belong to it")
    config = load(cfg)
    plan = plan_darknet(config.darknet)
    if not plan.heads:
        raise ValueError(f"{cfg}: a classifier, without a [yolo] layer; expected a detector's .cfg")
    file = check_weights(weights, plan)  # before allocating the network of a wrong cfg
    if not file.is_whole(plan):
        raise ValueError(
            f"{weights}: ends early, after {file.layers} of {len(plan.layers)} layers of {cfg}: a backbone to "
            f"start a training from; {plan.values - file.values} values are missing to detect with"
        )
    found, source = find_names(plan.classes, names, beside=(weights, cfg))
    model = build_model(config.darknet, names=found, seed=0)
    rows = census(model)
    read_weights(file, model)
    return model, config, rows, source


def build_described(
    path: Path, *, config: object, names: object, rows: Sequence[Mapping[str, object]]
) -> tuple[Detector | Darknet, Config, list[CensusRow]]:
    """The network that an exported file describes, on the meta device: without weights; its config and its census.

    Raises ValueError if config, class names and activations do not fit together.
    """
    checked, known = _config(path, config), _names(path, names)
    with torch.device("meta"):
        model: Detector | Darknet = build_model(checked.model, names=known, seed=0)
    built = census(model, device=torch.device("cpu"))
    _require_activations(path, built, rows)
    return model.eval(), checked, built


def _config(path: Path, tree: object) -> Config:
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "config"
        raise ValueError(f"{path}: the checkpoint's config does not fit this version: {key}: {first['msg']}") from error


def _names(path: Path, names: object) -> list[str]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: the checkpoint's class names are not a list of names")
    if len(names) > MAX_CLASSES:
        raise ValueError(f"{path}: the checkpoint has {len(names)} classes, expected at most {MAX_CLASSES}")
    return names


def _require_activations(path: Path, built: Sequence[CensusRow], trained: Sequence[Mapping[str, object]]) -> None:
    """Raise ValueError if the weights were trained with other activations than the checkpoint's config builds."""
    here = [tuple(asdict(row)[key] for key in CENSUS_KEYS) for row in built]
    there = [tuple(row.get(key) for key in CENSUS_KEYS) for row in trained]
    different = [row for row in there if row not in here] or [row for row in here if row not in there]
    if different:
        part, stage, name = different[0][:3]
        raise ValueError(
            f"{path}: the weights were trained with other activations than the config in the checkpoint "
            f"builds: {len(different)} stages differ, such as {part}.{stage}: {name}"
        )


def _require_fitting(model: torch.nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise ValueError naming the first weight that is missing, extra, or of another shape or type."""
    state = model.state_dict()
    for name in [*state, *weights]:
        expected, actual = state.get(name), weights.get(name)
        if expected is None or actual is None or expected.shape != actual.shape or expected.dtype != actual.dtype:
            found = "missing" if actual is None else _form(actual)
            wanted = "no such weight" if expected is None else _form(expected)
            raise ValueError(
                f"{path}: the weights do not fit the checkpoint's own config: {name} is {found}, expected {wanted}"
            )


def _form(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def rng_state() -> StateDict:
    """Return the states of PyTorch's random generators, the only ones that carry over from step to step."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": list(cuda)}


def set_rng_state(state: StateDict) -> None:
    """Restore the states of ``rng_state``."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
