"""Class names for weights without names: a file with one name per line, as Darknet's coco.names, or COCO's names."""

import os
from collections.abc import Sequence
from pathlib import Path

from core.text import is_printable
from core.text_files import read_text_file
from data.limits import MAX_NAMES_BYTES

# The 80 classes of COCO 2014 to 2017 in the order of their ids, as in every detector trained on them.
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
    """The names in a file, one per line, trailing empty lines ignored; FileNotFoundError or ValueError."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"names: {path}: no such file; expected one class name per line")
    try:
        text = read_text_file(file, limit=MAX_NAMES_BYTES, what="class names")
    except ValueError as error:
        raise ValueError(f"names: {error}") from error
    names = [line.strip() for line in text.rstrip().split("\n")]
    if not all(name and is_printable(name) for name in names):
        raise ValueError(f"names: {path}: empty line or control characters; expected one class name per line")
    return names


def find_names(count: int, given: str | os.PathLike | None, *, beside: Sequence[Path]) -> tuple[list[str], str]:
    """`count` class names and their origin: the given file, one in the folders of `beside`, COCO's names, or numbers.

    A file in those folders is used if it is the only *.names with `count` lines. ValueError if a given file has another
    number of names.
    """
    if given is not None:
        names = read_names(given)
        if len(names) != count:
            raise ValueError(f"names: {given}: {len(names)} names; expected {count}, as the network has classes")
        return names, os.fspath(given)
    for folder in dict.fromkeys(path.parent for path in beside):
        candidates = {}
        for path in sorted(folder.glob("*.names")):
            try:
                candidates[path] = read_names(path)
            except ValueError:
                continue
        candidates = {path: names for path, names in candidates.items() if len(names) == count}
        if len(candidates) == 1:
            path, names = candidates.popitem()
            return names, str(path)
    if count == len(COCO):
        return list(COCO), "COCO's 80 class names"
    return [str(number) for number in range(count)], "numbers, as there is no *.names file next to the weights"
