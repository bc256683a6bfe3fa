"""Data sets in folders as tools export them: COCO, YOLO, Pascal VOC and CVAT, in the form of a data YAML.

Only names of files, and the first bytes of XML files, decide. A split of `format: yolo`, `voc` or `cvat` is converted
when it is read (data/conversion.py).
"""

import re
from collections.abc import Iterable
from pathlib import Path

from configs.yolo_yaml import SPLIT_WORDS, SPLITS, Splits, Tree, absolute_path, yolo_split

DATA_YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "coco.yaml")  # looked for in a folder, in this order
CLASS_FILES = ("classes.txt", "obj.names", "labels/classes.txt", "labels.txt")
OTHER_COCO = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_", "results")
ACCEPTED = (
    "a data YAML, or a folder with one, with images/ and labels/, with COCO annotations, or with XML files of Pascal "
    "VOC or CVAT"
)


def yaml_in(folder: Path) -> Path | None:
    """The data YAML of a folder: one of the usual names, or the only YAML file."""
    files = [path for path in _files(folder, ".yaml", ".yml") if not path.name.startswith(".")]
    usual = [folder / name for name in DATA_YAMLS if (folder / name) in files]
    if usual:
        return usual[0]
    return files[0] if len(files) == 1 else None


def from_folder(folder: Path) -> Tree:
    """The data set in a folder without a data YAML; ValueError if there is none, or more than one."""
    folder = absolute_path(folder)
    found = {
        kind: splits
        for kind, find in (("COCO", _coco), ("YOLO", _yolo), ("Pascal VOC", _voc), ("CVAT", _cvat))
        if (splits := find(folder))
    }
    if len(found) > 1:
        raise ValueError(
            f"{folder}: has annotations of {' and '.join(found)}, expected one kind; name the files in a data YAML"
        )
    if not found:
        names = sorted(path.name for path in folder.iterdir())
        shown = f"{', '.join(names[:6])}{', ...' if len(names) > 6 else ''}" if names else "nothing"
        raise ValueError(f"{folder}: no data set with images and annotations, found {shown}; expected {ACCEPTED}")
    return {"root": str(folder), **next(iter(found.values()))}


def from_file(file: Path) -> Tree | None:
    """The data set of one annotation file of CVAT (XML) or COCO (JSON), without a validation split; None for others."""
    kind = {".json": "coco", ".xml": "cvat"}.get(file.suffix.lower())
    if kind is None or (kind == "cvat" and _root_tag(file) != "annotations"):
        return None
    file = absolute_path(file)
    return {"root": str(file.parent), "train": _split(_image_folder(file.parent, file), file, kind)}


def _split(images: Path, annotations: Path, kind: str) -> Tree:
    return {"images": str(images), "annotations": str(annotations), "format": kind}


def _files(folder: Path, *suffixes: str) -> list[Path]:
    """Files of a folder with these suffixes in any case, sorted; none if it is not a folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())


def _split_of(name: str) -> str | None:
    """The split that a file or folder name contains: instances_train2017, Validation, my-test."""
    words = [SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_WORDS]
    return words[0] if len(set(words)) == 1 else None


def _by_split(paths: Iterable[Path], *, name_of_folder: bool = False) -> dict[str, Path]:
    """Paths by the split in their names; a single path without one is the training split."""
    paths = list(paths)
    found: dict[str, Path] = {}
    for path in paths:
        split = _split_of(path.parent.name if name_of_folder else path.stem)
        if split is None and len(paths) == 1:
            split = "train"
        if split is None:
            continue
        if split in found:
            raise ValueError(f"{found[split]} and {path} are both of {split}, expected one; name it in a data YAML")
        found[split] = path
    return found


def _split_folders(folder: Path) -> list[Path]:
    """Subfolders named for a split."""
    return sorted(path for path in folder.iterdir() if path.name.lower() in SPLIT_WORDS and path.is_dir())


def _image_folder(folder: Path, annotations: Path) -> Path:
    """The folder of images of an annotation file, by the usual names."""
    stem = re.sub(r"^(instances|annotations|labels)_", "", annotations.stem)
    split = _split_of(stem) or ""
    names = [stem, split, "valid" if split == "val" else split]
    candidates = [folder / "images" / name for name in names if name] + [folder / name for name in names if name]
    candidates += [annotations.parent / "data", annotations.parent / "images", folder / "images", folder / "data"]
    return next((path for path in candidates if path.is_dir()), folder)


def _splits_of(folder: Path, per_split: list[Path], together: list[Path], kind: str) -> Splits:
    """The splits of annotation files: those in the folders of the splits, else those that are in one place."""
    if per_split:
        found = _by_split(per_split, name_of_folder=True)
        return {split: _split(_beside(path), path, kind) for split, path in found.items()}
    return {split: _split(_image_folder(folder, path), path, kind) for split, path in _by_split(together).items()}


def _coco(folder: Path) -> Splits:
    """COCO: a JSON file in each split's folder, in annotations/, or in the folder itself."""
    per_split = [json for place in _split_folders(folder) for json in _coco_files(place)]
    return _splits_of(folder, per_split, _coco_files(folder / "annotations") or _coco_files(folder), "coco")


def _coco_files(folder: Path) -> list[Path]:
    files = [
        path for path in _files(folder, ".json") if not path.name.startswith(OTHER_COCO) and path.name != "notes.json"
    ]
    named = [path for path in files if path.name.startswith("instances_") or path.name == "_annotations.coco.json"]
    return named or files


def _beside(annotations: Path) -> Path:
    """The images of an annotation file in the folder of its split."""
    folder = annotations.parent
    return next((folder / name for name in ("images", "data") if (folder / name).is_dir()), folder)


def _yolo(folder: Path) -> Splits:
    """YOLO: images/ and labels/ with or without folders of splits, Darknet's lists of images, labels beside images."""
    places: dict[str, tuple[Path, Path]] = {}  # images and labels
    for word, split in SPLIT_WORDS.items():
        for images, labels in (
            (folder / "images" / word, folder / "labels"),
            (folder / word / "images", folder / word / "labels"),
        ):
            if images.is_dir() and labels.is_dir():
                places.setdefault(split, (images, labels))
    if not places and (folder / "images").is_dir() and (folder / "labels").is_dir():
        places = {"train": (folder / "images", folder / "labels")}
    classes = next((folder / name for name in CLASS_FILES if (folder / name).is_file()), None)
    names = classes or next(iter(_files(folder, ".data")), None)
    if not places and names is not None:
        lists = {split: folder / f"{split}.txt" for split in SPLITS}
        places = {split: (path, names) for split, path in lists.items() if path.is_file()}
    if not places:
        beside = [place for place in _split_folders(folder) if _has_labels_beside(place)]
        places = {SPLIT_WORDS[place.name.lower()]: (place, place) for place in beside}
        if not beside and _has_labels_beside(folder):
            places = {"train": (folder, folder)}
        inside = [place / name for place, _ in places.values() for name in ("classes.txt", "_darknet.labels")]
        classes = classes or next((path for path in inside if path.is_file()), None)
    return {
        split: yolo_split([images], classes or labels, folder) for split, (images, labels) in sorted(places.items())
    }


def _has_labels_beside(folder: Path) -> bool:
    """Whether a text file has the name of another file, but for the suffix."""
    stems = {path.stem for path in folder.iterdir() if path.suffix.lower() not in (".txt", ".xml", ".json", "")}
    return any(path.stem in stems for path in _files(folder, ".txt"))


def _voc(folder: Path) -> Splits:
    """Pascal VOC: Annotations/, JPEGImages/ and ImageSets/Main/, or XML files beside the images of each split."""
    years = (
        sorted((folder / "VOCdevkit").glob("VOC*")) if (folder / "VOCdevkit").is_dir() else sorted(folder.glob("VOC2*"))
    )
    if len(years) == 1:
        folder = years[0]
    annotations = next(
        (folder / n for n in ("Annotations", "annotations") if _root_of_first(folder / n) == "annotation"), None
    )
    if annotations is not None:
        images = next((folder / n for n in ("JPEGImages", "images") if (folder / n).is_dir()), folder)
        whole = _split(images, annotations, "voc")
        main = folder / "ImageSets" / "Main"
        lists = {split: main / f"{split}.txt" for split in SPLITS}
        if not lists["train"].is_file():
            lists["train"] = main / "trainval.txt"
        listed = {split: {**whole, "parts": [str(path)]} for split, path in lists.items() if path.is_file()}
        return listed or {"train": whole}
    beside = [place for place in _split_folders(folder) if _root_of_first(place) == "annotation"]
    if not beside and _root_of_first(folder) == "annotation":
        return {"train": _split(folder, folder, "voc")}
    return {SPLIT_WORDS[place.name.lower()]: _split(place, place, "voc") for place in beside}


def _cvat(folder: Path) -> Splits:
    """CVAT for images: annotations.xml, or an XML file for each split."""
    per_split = [path for place in _split_folders(folder) for path in _cvat_files(place)]
    return _splits_of(folder, per_split, _cvat_files(folder), "cvat")


def _cvat_files(folder: Path) -> list[Path]:
    return [path for path in _files(folder, ".xml") if _root_tag(path) == "annotations"]


def _root_of_first(folder: Path) -> str | None:
    """The root element of the first XML file of a folder."""
    return next((_root_tag(path) for path in _files(folder, ".xml")), None)


def _root_tag(file: Path) -> str | None:
    """The name of the root element of an XML file."""
    with open(file, "rb") as stream:
        head = stream.read(4096).replace(b"\0", b"").decode("latin-1")
    found = re.search(r"<([A-Za-z_][\w.-]*)", re.sub(r"<\?.*?\?>|<!--.*?-->", "", head, flags=re.DOTALL))
    return found[1] if found else None
