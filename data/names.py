"""Class names of weights that hold none: a file with a name a line, as Darknet's coco.names, or COCO's own."""

import os
from collections.abc import Sequence
from pathlib import Path

MOST_BYTES = 1 << 20

# The 80 classes of COCO 2014 to 2017 in the order of their ids, which is that of every detector trained on them.
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


def read_names(path: str | os.PathLike) -> list[str]:
    """The names in a file, a line each, empty lines at its end left out; FileNotFoundError or ValueError."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"names: {path}: no such file; expected a class name a line")
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"names: {path}: {file.stat().st_size} bytes, expected at most {MOST_BYTES}")
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").rstrip().split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"names: {path}: not UTF-8 text: {error}") from error
    if not all(name and name.isprintable() for name in names):
        raise ValueError(f"names: {path}: an empty line or one with control characters; expected a class name a line")
    return names


def find_names(count: int, given: str | os.PathLike | None, *, beside: Sequence[Path]) -> tuple[list[str], str]:
    """`count` class names and where they are from: the file that is given, one beside others, COCO's, or numbers.

    A file beside others is their only *.names of so many lines. ValueError where a given one has another number.
    """
    if given is not None:
        names = read_names(given)
        if len(names) != count:
            raise ValueError(f"names: {given}: {len(names)} names; expected {count}, as the network has classes")
        return names, os.fspath(given)
    for folder in dict.fromkeys(path.parent for path in beside):
        fitting = {}
        for path in sorted(folder.glob("*.names")):
            try:
                fitting[path] = read_names(path)
            except ValueError:
                continue
        fitting = {path: names for path, names in fitting.items() if len(names) == count}
        if len(fitting) == 1:
            path, names = fitting.popitem()
            return names, str(path)
    if count == len(COCO):
        return list(COCO), "COCO's, as there are 80"
    return [str(number) for number in range(count)], "numbers, as no *.names is beside the weights"
