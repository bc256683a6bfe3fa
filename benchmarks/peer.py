"""Train Ultralytics YOLO on a data set of ours and score it by the same rules, for comparison.

    python -m benchmarks.peer --python ~/peer/bin/python --data bccd.yaml --model yolov8n --imgsz 320 --epochs 20

Ultralytics is no dependency of this project. It runs as a separate program, in an environment that you create
(``uv venv ~/peer && uv pip install --python ~/peer/bin/python ultralytics``) and name with ``--python``. The data are
converted to its label format; damaged images are left out, as in our own training. Gradients are accumulated to the
batch size unless ``--nbs`` is given, so that both trainers update after the same number of images. The detections of
its own validation are scored by pycocotools against the COCO annotations.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from configs.cli import Parser, run_script

DRIVER = Path(__file__).with_name("peer_driver.py")
SPLITS = ("train", "val")
METRICS = ("mAP50-95", "mAP50", "mAP75", "AP_small", "AP_medium", "AP_large")  # the first of COCO's twelve


def main(argv: list[str] | None = None) -> int:
    """Convert, train, score; print a table and write result.json."""
    options = parse(argv)
    version = check_interpreter(options.python)
    out = Path(options.out).absolute()
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"--out {options.out}: the folder is not empty; expected a new or an empty one")
    data, truth = convert(options.data, out / "data", copy=options.copy)
    train(options, data=data, out=out)
    times = json.loads((out / "times.json").read_text(encoding="utf-8"))
    scores = {kind: score(out / f"val-{kind}" / "predictions.json", truth) for kind in ("best", "last")}
    settings = {key: value for key, value in vars(options).items() if key not in ("python", "out", "copy")}
    result = {"ultralytics": version, "settings": settings, "seconds": times, "metrics": scores}
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"Ultralytics {version}, {options.model}, {options.epochs} epochs, training {times['train_s']:.0f} s")
    print("| weights | mAP50-95 | mAP50 |\n|---|---|---|")
    for kind, values in scores.items():
        print(f"| {kind} | {values['mAP50-95']:.3f} | {values['mAP50']:.3f} |")
    print(f"results in {options.out}")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m benchmarks.peer", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--python", required=True, metavar="PATH", help="Python interpreter of an environment with ultralytics")
    add("--data", required=True, metavar="YAML", help="data YAML of this project")
    add("--model", default="yolov8n", help="Ultralytics model to train from scratch")
    add("--epochs", type=int, default=20, help="training epochs")
    add("--imgsz", type=int, default=320, help="image size in pixels")
    add("--batch", type=int, default=16, help="batch size")
    add("--nbs", type=int, help="nominal batch size to which gradients are accumulated; the batch size by default")
    add("--seed", type=int, default=0, help="random seed")
    add("--threads", type=int, default=2, help="CPU threads; 0 leaves the choice to Ultralytics")
    add("--workers", type=int, default=2, help="data loader workers")
    add("--device", default="cpu", help="device")
    add("--amp", action="store_true", help="mixed precision")
    add("--copy", action="store_true", help="copy the images instead of linking to them")
    add("--out", default="runs/peer", metavar="DIR", help="output folder, new or empty")
    options = parser.parse_args(argv)
    parser.require_positive(options, "epochs", "imgsz", "batch")
    options.nbs = options.nbs or options.batch
    options.model += "" if Path(options.model).suffix in (".yaml", ".pt") else ".yaml"
    return options


def check_interpreter(python: str) -> str:
    """The version of ultralytics that an interpreter imports; ValueError if there is none."""
    code = "import ultralytics; print(ultralytics.__version__)"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    except OSError as error:
        raise ValueError(
            f"--python {python}: cannot be run ({error.strerror}); expected a Python interpreter"
        ) from None
    if done.returncode or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ValueError(f"--python {python}: ultralytics cannot be imported there ({last}); install it with pip")
    return done.stdout.split()[-1]


def convert(data: str, folder: Path, *, copy: bool) -> tuple[Path, dict[str, Any]]:
    """Write images and YOLO labels of a data YAML's splits.

    Returns Ultralytics' data YAML and, for scoring, the validation annotations' path, image ids and category ids.
    """
    from configs.schema import load
    from data import load_dataset

    section = load("yolo.yaml", {"data": data}).data
    splits = {split: load_dataset(section, split) for split in SPLITS}
    for split, annotations in splits.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index, path in enumerate(annotations.paths):
            # Images are numbered: Ultralytics' predictions name an image by a numeric stem.
            target = images / f"{index:06d}{Path(path).suffix.lower()}"
            if copy:
                shutil.copy(path, target)
            else:
                target.symlink_to(Path(path).absolute())
            boxes, classes, *_ = annotations.training_boxes(index)
            width, height = annotations.sizes[index].tolist()
            lines = [
                f"{label} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} "
                f"{(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"
                for (x1, y1, x2, y2), label in zip(boxes.tolist(), classes.tolist(), strict=True)
            ]
            (labels / f"{index:06d}.txt").write_text("".join(lines), encoding="utf-8")
    names = dict(enumerate(splits["train"].classes))
    text = f"path: {json.dumps(str(folder))}\ntrain: images/train\nval: images/val\nnames: {json.dumps(names)}\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    val = splits["val"]
    truth = {"path": str(val.source), "image_ids": val.image_ids, "category_ids": val.category_ids}
    return folder / "data.yaml", truth


def train(options: argparse.Namespace, *, data: Path, out: Path) -> None:
    """Run the driver in the other environment; ValueError if it fails."""
    keys = ("model", "epochs", "imgsz", "batch", "nbs", "seed", "threads", "workers", "device", "amp")
    given = {key: getattr(options, key) for key in keys} | {"data": str(data), "out": str(out)}
    environment = {**os.environ, "YOLO_OFFLINE": "1"}
    if options.threads:
        environment["OMP_NUM_THREADS"] = str(options.threads)
    command = [options.python, str(DRIVER), json.dumps(given)]
    with open(out / "log.txt", "w", encoding="utf-8") as log:
        done = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=out, check=False)
    if done.returncode:
        last = ((out / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"])[
            -1
        ]
        raise ValueError(
            f"training with Ultralytics failed with exit code {done.returncode} ({last}); see {out}/log.txt"
        )


def score(predictions: Path, truth: dict[str, Any]) -> dict[str, float]:
    """COCO's average precision metrics of Ultralytics' predictions, by pycocotools; without any it writes no file."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = [
        {
            "image_id": truth["image_ids"][int(record["image_id"])],
            "category_id": truth["category_ids"][int(record["category_id"]) - 1],  # it numbers classes from 1
            "bbox": record["bbox"],
            "score": record["score"],
        }
        for record in (json.loads(predictions.read_text(encoding="utf-8")) if predictions.is_file() else [])
    ]
    if not rows:
        return dict.fromkeys(METRICS, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(truth["path"])
        evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
        evaluation.params.imgIds = truth["image_ids"]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(METRICS, evaluation.stats, strict=False)}


if __name__ == "__main__":
    run_script(main)
