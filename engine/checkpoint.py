"""Checkpoints: plain tensors and plain values, loaded with ``weights_only=True``, written aside and renamed.

Two kinds: ``training`` holds all that a run needs to go on bit for bit, ``weights`` what inference needs.
Both hold ``format``, ``kind``, ``config``, ``names``, ``census`` and ``model``.
"""

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from core.files import replacing
from engine.archive import read_archive

FORMAT = 1
MAX_CHECKPOINT_BYTES = 16 << 30
WEIGHTS_FIELDS: dict[str, type] = {"config": dict, "names": list, "census": list, "model": dict}
RUN_FIELDS: dict[str, type] = dict.fromkeys(
    ("ema", "optimizer", "scaler", "state", "clock", "rng", "data_sha256"), dict
)
# Of each kind of checkpoint the fields and their types; `ema` may also be None.
FIELDS: dict[str, dict[str, type]] = {
    "weights": WEIGHTS_FIELDS,
    "training": WEIGHTS_FIELDS | dict.fromkeys(RUN_FIELDS, dict),
}
STATE_FIELDS = ("epoch", "batch", "step", "best", "best_epoch", "rows", "loss_sums", "batches_crc32")
# What torch.load, its unpickler and its reader of archives raise for damaged files.
DAMAGE = (
    *(pickle.UnpicklingError, struct.error, zipfile.BadZipFile, RuntimeError, ValueError, TypeError, AttributeError),
    *(LookupError, ArithmeticError, AssertionError, EOFError, MemoryError, OSError),
)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` so that at any moment there is either the old file or the whole new one.

    Raises OSError, which names the file, where it cannot be written; the old file is then as it was.
    """
    with replacing(path) as file:
        target = _Watched(file)
        try:
            torch.save({"format": FORMAT, **content}, target)  # type: ignore[arg-type]
        except (OSError, RuntimeError) as error:  # PyTorch's writer hides what the system said
            cause = target.error or error
            if not isinstance(cause, OSError):
                raise
            raise OSError(
                cause.errno, f"{path} cannot be written: {cause.strerror}; the file before it is whole"
            ) from error


class _Watched:
    """A file that keeps the first error of the system."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes."""
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()


def load_checkpoint(path: str | Path, *, kind: str | None = None) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing is ever unpickled but tensors and plain values.

    Raises FileNotFoundError where there is none, ValueError where it is truncated, foreign, of another format or, with
    ``kind``, of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, a checkpoint has at most {MAX_CHECKPOINT_BYTES}")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError(f"truncated, or of another kind ({path.stat().st_size} bytes)")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's own, about what a damaged file makes of its tensors
            content = read_archive(path)
    except DAMAGE as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: not a checkpoint of this project, or a damaged one: {reason}") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int) or content["format"] != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of this project (no format {FORMAT} in it)")
    fields = FIELDS.get(str(content.get("kind")), FIELDS["weights"])
    missing = [key for key in ("kind", *fields) if key not in content]
    if missing:
        raise ValueError(f"{path}: the checkpoint lacks {', '.join(missing)}")
    _require_types(path, content)
    if content["kind"] == "training" and set(content["state"]) != set(STATE_FIELDS):
        raise ValueError(f"{path}: the checkpoint's state is not complete, expected {', '.join(STATE_FIELDS)}")
    if kind is not None and content["kind"] != kind:
        raise ValueError(f"{path}: holds {content['kind']}, expected {kind}; last.pt of a run holds all to go on with")
    return content


def _require_types(path: Path, content: dict[str, Any]) -> None:
    """ValueError where a field is not of its type, so that whoever reads it need not ask."""
    for key, kind in {"kind": str, **FIELDS["training"]}.items():
        absent = key not in content or (key == "ema" and content[key] is None)
        if not absent and not isinstance(content[key], kind):
            raise ValueError(f"{path}: the checkpoint's {key} is a {type(content[key]).__name__}")
    rows = content["census"]
    if not all(isinstance(row, dict) and {"part", "stage", "activation"} <= set(row) for row in rows):
        raise ValueError(f"{path}: the checkpoint's census holds no rows with part, stage and activation")
    average = content.get("ema")
    for key, weights in (("model", content["model"]), ("ema", average.get("model") if average else {})):
        if not isinstance(weights, dict) or not all(isinstance(each, torch.Tensor) for each in weights.values()):
            raise ValueError(f"{path}: the checkpoint's {key} holds no tensors by name")


def inference_weights(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights to detect with: the moving average where there is one, else the model's own."""
    average = content.get("ema")
    return average["model"] if average else content["model"]


def load_matching(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> tuple[list[str], list[str]]:
    """Load into ``model`` what fits by name and shape; return the names loaded and those of the model left over."""
    own = model.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict({**own, **fitting})
    return sorted(fitting), sorted(set(own) - set(fitting))


def rng_state() -> dict[str, Any]:
    """Return the states of PyTorch's random generators, the only ones whose history a run depends on."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": list(cuda)}


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back the states of ``rng_state``."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
