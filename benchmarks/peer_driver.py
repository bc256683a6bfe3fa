"""Trains and validates an Ultralytics model; run by ``benchmarks.peer`` with the interpreter that the user names.

Takes one argument, a JSON object, and imports nothing of this project: it runs in a separate environment.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(options: dict[str, Any]) -> None:
    """Train, validate best.pt and last.pt with saved predictions, and write times.json into the output folder."""
    import ultralytics
    from ultralytics.utils import torch_utils

    out = Path(options["out"])
    if options["threads"]:
        torch_utils.NUM_THREADS = options["threads"]  # applied when the trainer selects the CPU
    common = {"data": options["data"], "imgsz": options["imgsz"], "batch": options["batch"], "project": str(out)}
    common |= {"device": options["device"], "workers": options["workers"], "plots": False, "verbose": False}
    start = time.monotonic()
    ultralytics.YOLO(options["model"]).train(
        **common,
        name="train",
        exist_ok=True,
        epochs=options["epochs"],
        seed=options["seed"],
        nbs=options["nbs"],
        amp=options["amp"],
        pretrained=False,
    )
    times = {"train_s": time.monotonic() - start}
    for kind in ("best", "last"):
        start = time.monotonic()
        weights = out / "train" / "weights" / f"{kind}.pt"
        ultralytics.YOLO(str(weights)).val(**common, name=f"val-{kind}", exist_ok=True, save_json=True)
        times[f"val_{kind}_s"] = time.monotonic() - start
    (out / "times.json").write_text(json.dumps(times), encoding="utf-8")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
