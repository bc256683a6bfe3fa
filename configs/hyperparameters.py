"""Hyperparameter files, with this project's keys or those of YOLOv5 and Ultralytics.

Some keys have the name of another quantity: the gains of YOLOv5 belong to its anchor-based loss (box: 0.05 would make
ours 150 times weaker), its learning rate to SGD.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from configs.loading import Tree, read_yaml

# Keys of a YOLOv5 or Ultralytics hyperparameter file and the equivalent keys of our configuration.
HYPERPARAMETERS = {
    "lr0": "train.lr",
    "lrf": "train.lr_final",
    "momentum": "train.momentum",
    "weight_decay": "train.weight_decay",
    "warmup_epochs": "train.warmup",
    "box": "model.loss.box",
    "cls": "model.loss.cls",
    "dfl": "model.loss.dfl",
    "hsv_h": "augment.hsv_h",
    "hsv_s": "augment.hsv_s",
    "hsv_v": "augment.hsv_v",
    "degrees": "augment.degrees",
    "translate": "augment.translate",
    "scale": "augment.scale",
    "shear": "augment.shear",
    "perspective": "augment.perspective",
    "flipud": "augment.flip_ud",
    "fliplr": "augment.flip_lr",
    "mosaic": "augment.mosaic",
    "mixup": "augment.mixup",
    "copy_paste": "augment.copy_paste",
    "close_mosaic": "train.close_mosaic",
}
# Keys without an equivalent; ignored with a note.
IGNORED_HYPERPARAMETERS = {
    *("warmup_momentum", "warmup_bias_lr", "anchors", "paste_in", "loss_ota"),
    *("copy_paste_mode", "label_smoothing", "pose", "kobj", "bgr", "auto_augment", "erasing", "cutmix"),
}
YOLOV5_LOSS = {"obj", "obj_pw", "cls_pw", "iou_t", "anchor_t", "fl_gamma", "giou"}  # keys of no other loss
WHOLE_RUN = {"task", "mode"}  # in Ultralytics' default.yaml and a run's args.yaml, among all settings of a run
GAINS = {"box", "cls"}
SGD = {"lr0", "momentum", "weight_decay"}


def read_hyperparameters(path: str, optimizer: str | None = None) -> Tree:
    """Read a hyperparameter file; return overrides by config key. Says on stderr what is not taken, and why.

    ``optimizer``: that of the command line, if it names one.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"--hyp {path}: no such file")
    tree = read_yaml(file)
    left_out = not_taken(tree, optimizer)
    without = {key for keys in left_out.values() for key in keys}
    taken = {key: value for key, value in tree.items() if key not in without}
    _require_known(path, taken)
    if left_out:
        reasons = "; ".join(f"{', '.join(keys)} ({reason})" for reason, keys in left_out.items())
        print(f"--hyp {path}: not taken: {reasons}", file=sys.stderr)
    return {HYPERPARAMETERS.get(key, key): whole_epochs(key, value) for key, value in taken.items()}


def not_taken(tree: Mapping[str, object], optimizer: str | None) -> dict[str, list[str]]:
    """The keys of a file that are left out, by the reason."""
    ignored = IGNORED_HYPERPARAMETERS | YOLOV5_LOSS
    reasons = {"no counterpart here": ignored}
    of_yolov5, of_whole_run = not YOLOV5_LOSS.isdisjoint(tree), tree.keys() >= WHOLE_RUN
    if of_yolov5 and "dfl" not in tree:
        reasons["gains of YOLOv5's loss, which is another; set model.loss.box and .cls to change ours"] = GAINS
    of_sgd = of_yolov5 or (of_whole_run and str(tree.get("optimizer")).lower() == "sgd")
    if of_whole_run and tree.get("optimizer") == "auto":
        reasons["not used with optimizer auto"] = {"lr0", "momentum"}
    elif of_sgd and str(tree.get("train.optimizer", optimizer)).lower() != "sgd":
        reasons["for SGD; taken with --optimizer sgd"] = SGD
    if of_whole_run:
        reasons["no hyperparameters; give the flags of train.py"] = tree.keys() - HYPERPARAMETERS.keys() - ignored
    found = {reason: [key for key in tree if key in keys] for reason, keys in reasons.items()}
    return {reason: keys for reason, keys in found.items() if keys}


def _require_known(path: str, keys: Iterable[str]) -> None:
    """Raise ValueError for keys that are neither hyperparameters nor, by their first part, of our configuration."""
    from configs.schema import Config  # imports pydantic, which --help does not need

    known = HYPERPARAMETERS.keys() | Config.model_fields.keys()
    unknown = [key for key in keys if str(key).partition(".")[0] not in known]
    if unknown:
        names = ", ".join(str(key)[:40] for key in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
        raise ValueError(
            f"--hyp {path}: unknown keys {names}; expected those of YOLOv5 or Ultralytics, as in lr0, or of "
            "configs/yolo.yaml, as in train.lr"
        )


def whole_epochs(key: str, value: object) -> object:
    """Epochs of warm-up as a whole number, at least one unless they are zero; below 1 is a fraction of the run here."""
    if key != "warmup_epochs" or isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**9:
        return value
    return max(1.0, float(round(value)))
