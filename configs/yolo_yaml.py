"""Data YAMLs of YOLOv5 and Ultralytics, and Darknet's .data, in the form of a data YAML of this project.

Paths are made absolute. The splits get `format: yolo`, which is converted when it is read (data/conversion.py).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from os.path import abspath, commonpath
from pathlib import Path
from typing import Any, TypeGuard

from core.files import expand_user, path_exists
from core.text import is_printable, say_once
from core.yaml_text import ABSENT

Tree = dict[str, Any]
Splits = dict[str, Tree]

REPOSITORY = Path(__file__).resolve().parents[1]
SPLITS = ("train", "val", "test")
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
FOREIGN_KEYS = {"nc", "names", "kpt_shape"}


def is_yolo(tree: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether the content of a data YAML follows YOLOv5 and Ultralytics: splits are paths, there may be names."""
    if not isinstance(tree, Mapping) or any(isinstance(tree.get(split), Mapping) for split in SPLITS):
        return False
    return bool(FOREIGN_KEYS & tree.keys()) or any(isinstance(tree.get(split), str | list) for split in SPLITS)


def from_yolo_yaml(tree: Mapping[str, Any], file: Path) -> Tree:
    """The data set of a YOLO data YAML (or of Darknet's .data) with text values.

    FileNotFoundError for a split that does not exist, ValueError for values of other types. A test split that does not
    exist is left out, which a line on stderr says.
    """
    given = tree.get("path") or tree.get("root") or ""
    roots = list(_roots(given, file))
    is_lost = given not in ABSENT and set(roots) <= {absolute_path(file.parent), Path.cwd()}
    lost = f"path {given} was not found, and " if is_lost and not path_exists(file.parent / given, folder=True) else ""
    names = _class_file(tree.get("names"), roots, file)
    splits: Splits = {}
    for key in ("train", "val", "valid", "validation", "test"):
        entries = _texts(tree.get(key), f"{file}: {key}")
        split = SPLIT_WORDS[key]
        if not entries or split in splits:
            continue
        try:
            parts = [_find_entry(entry, roots, f"{file}: {lost}{key}") for entry in entries]
        except FileNotFoundError as error:
            if split != "test":
                raise
            say_once(f"{error}; left out")
            continue
        splits[split] = yolo_split(parts, names, roots[0])
    if not splits:
        raise ValueError(f"{file}: lists no images, expected train, val or test")
    return {"root": str(roots[0]), **splits}


def yolo_split(parts: list[Path], names: Path, root: Path) -> Tree:
    """A split of images in folders and list files; file names are relative to the root if it contains them all."""
    inside = all(part.is_relative_to(root) for part in parts)
    base = root if inside else Path(commonpath([part if part.is_dir() else part.parent for part in parts]))
    listed = {} if parts == [base] else {"parts": list(map(str, parts))}
    return {"images": str(base), "annotations": str(names), "format": "yolo", **listed}


def _class_file(names: object, roots: Iterable[Path], file: Path) -> Path:
    """The file that lists the class names: the YAML itself, or the one that it names, as .data does."""
    if not isinstance(names, str) or names in ABSENT:
        return file
    places = [root / name for root in roots for name in (names, Path(names.replace("\\", "/")).name)]
    found = next((place for place in places if path_exists(place, folder=False)), None)
    if found is None:
        raise FileNotFoundError(f"{file}: names: {names} does not exist, expected class names or a file with them")
    return absolute_path(found)


def _texts(value: object, where: str) -> list[str]:
    """A text or a list of texts as a list; empty for an absent value."""
    if value in ABSENT:
        return []
    listed: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) and each.strip() and is_printable(each) for each in listed):
        raise ValueError(f"{where} contains values that are not text, expected image folders or list files")
    return listed


def _roots(given: object, file: Path) -> Iterator[Path]:
    """Existing folders to which the paths of a YAML may be relative, the most likely first; its own folder is one."""
    folder = file.parent
    if not isinstance(given, str) or not is_printable(given):
        raise ValueError(f"{file}: path is not text, expected the name of a folder")
    path = expand_user(given.replace("\\", "/") if "\\" in given and not path_exists(given, folder=True) else given)
    places = [folder / path, Path.cwd() / path]
    if not path.is_absolute():
        bases = (folder, Path.cwd(), REPOSITORY)
        places += [base / name / path for base in bases for name in ("datasets", "../datasets")]
    if path.name:  # many YAMLs still contain a path of the machine they were created on
        places += [folder / path.name, Path.cwd() / "datasets" / path.name]
    found = [absolute_path(place) for place in places if given not in ABSENT and path_exists(place, folder=True)]
    yield from dict.fromkeys([*found, absolute_path(folder), Path.cwd()])


def absolute_path(path: Path) -> Path:
    """Absolute without `..`, but with symbolic links: labels are looked for beside the links."""
    return Path(abspath(path))


def _find_entry(entry: str, roots: Iterable[Path], where: str) -> Path:
    """The folder or list file that a YAML names, as it stands or as other machines and exporters write it."""
    plain = entry if not re.search(r"\\|^[a-zA-Z]:", entry) else re.sub(r"^[a-zA-Z]:", "", entry).replace("\\", "/")
    parts = [part for part in plain.strip().split("/") if part not in ("", ".", "..")]
    spellings = [entry, plain, "/".join(parts)]  # one exporter writes ../train/images for train/images beside the YAML
    # The end of an absolute path; `images` alone would be the same for all splits.
    tails = ["/".join(parts[start:]) for start in range(1, len(parts) - 1)]
    if parts and SPLIT_WORDS.get(re.split(r"[^a-z]", parts[-1].lower())[0]):
        tails.append(parts[-1])
    for name in dict.fromkeys([*spellings, *tails]):
        for root in roots:
            path = root / expand_user(name) if name else root
            if path_exists(path, folder=True) or (path.suffix == ".txt" and path_exists(path, folder=False)):
                return absolute_path(path)
    first = next(iter(roots))
    raise FileNotFoundError(
        f"{where}: {entry} does not exist in {first}, expected a folder of images or a list file (.txt)"
    )


def darknet_data(text: str) -> Tree:
    """The keys of Darknet's .data file (`train = data/train.txt`), with those of a data YAML."""
    pairs = (line.split("#")[0].partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals and key.strip()}
