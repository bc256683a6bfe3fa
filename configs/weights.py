"""What val.py and detect.py say where no weights are named, or where a flag of other programs has no meaning here."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RUNS = Path("runs/train")


def require_weights(parser: argparse.ArgumentParser, given: str | None) -> str:
    """Return the weights that were named, or end with one line that says how to get some and names the newest."""
    if given:
        return given
    newest = newest_weights()
    if newest is not None:
        parser.error(f"--weights is needed; the newest trained here are --weights {newest}")
    parser.error(
        "--weights is needed, and none are trained here yet: run python train.py --cfg yolo-mish.yaml first, "
        f"then give --weights {RUNS / 'exp' / 'weights' / 'best.pt'}"
    )


def newest_weights() -> Path | None:
    """The best.pt below runs/train that was written last, None where there is none."""
    found = sorted(RUNS.glob("*/weights/best.pt"), key=lambda path: (path.stat().st_mtime, str(path)))
    return found[-1] if found else None


def add_refusals(parser: argparse.ArgumentParser, instead: Mapping[str, str]) -> None:
    """Answer flags that have no meaning here with what to do instead, and exit code 2."""

    class Refuse(argparse.Action):
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            parser.error(f"{option_string}: has no meaning here; {instead[option_string or '']}")

    for name in instead:
        parser.add_argument(name, nargs="*", action=Refuse, help=argparse.SUPPRESS)
