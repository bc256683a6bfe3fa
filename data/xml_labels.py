"""Pascal VOC's and CVAT's XML files as COCO content, read by hotcoco."""

from __future__ import annotations

import contextlib
import math
import os
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import hotcoco

from core.progress import progress_bar
from core.text_files import decode_text, read_limited, read_text_file
from data.converted import MANY_IMAGES, Converted, Record, Section, Sections
from data.file_names import FileFinder
from data.image_files import IMAGE_SUFFIXES
from data.issues import Issue
from data.limits import MAX_LABEL_BYTES, MAX_LIST_BYTES, MAX_XML_BYTES

DECLARED = re.compile(rb"""<\?xml[^>]*encoding=["']([\w.-]+)["']""")
# hotcoco reads neither entities nor CDATA: special characters pass through it as characters of private use.
HIDDEN = str.maketrans('&<>"', "\ue000\ue001\ue002\ue003")
SHOWN = str.maketrans("\ue000\ue001\ue002\ue003", '&<>"')


def read_xml(path: Path, limit: int) -> ElementTree.Element:
    """The root of an XML file in the encoding that it declares. ValueError for what is not XML, or not complete."""
    data = read_limited(path, limit=limit, what="XML")
    declared = DECLARED.match(data)
    encoding = declared[1].decode() if declared else "utf-8"
    try:
        text = data.decode(encoding) if encoding.lower() not in ("utf-8", "utf8") else decode_text(data, name=str(path))
    except (LookupError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not text in {encoding}, the encoding that it declares: {error}") from error
    text = re.sub(r"^\s*<\?xml.*?\?>", "", text, count=1, flags=re.DOTALL)
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path}: not XML: {error}") from error


def _write_plain(root: ElementTree.Element, path: Path) -> None:
    """Write XML without comments, CDATA and entities, which hotcoco does not read."""
    for element in root.iter():
        element.text, element.tail = (element.text or "").translate(HIDDEN), None
        for name, value in element.attrib.items():
            element.set(name, value.translate(HIDDEN))
    path.write_text(ElementTree.tostring(root, encoding="unicode"), encoding="utf-8")


def convert_voc(sections: Sections, *, progress: bool = True) -> tuple[dict[str, Converted], list[str]]:
    """Splits of Pascal VOC as COCO content, and the class names: those of labels.txt, else in alphabetical order.

    Objects marked as difficult become crowds, which are neither trained on nor counted. ValueError if no XML file of a
    split can be used.
    """
    found = {split: _voc_split(section, f"converting {split}", show=progress) for split, section in sections.items()}
    listed = [voc_names(Path(section.annotations)) for section in sections.values()]
    text = next((read_text_file(file, limit=MAX_LIST_BYTES) for file in listed if file.is_file()), "")
    order = [line.strip() for line in text.split("\n") if line.strip()]
    return _numbered(found, [*order, *sorted(set(_all_names(found)) - set(order))])


def _voc_split(section: Section, title: str, *, show: bool) -> tuple[Converted, list[str]]:
    folder, result = Path(section.annotations), Converted(Path(section.images))
    names: list[str] = []
    finder = FileFinder(result.folder)
    files = voc_files(folder, section.parts)
    for file in progress_bar(files, title, show=show and len(files) >= MANY_IMAGES):
        if not file.is_file():
            result.lose_image(Issue(file.name, "missing", "no such file, though a list names it", str(file)))
            continue
        try:
            content, faults = _read_one(file)
        except (ValueError, OSError) as error:
            result.lose_image(Issue(file.name, "bad-record", _without_place(error), str(file)))
            continue
        names += _add(result, content)
        result.lose_annotations(*(Issue(file.name, "bad-record", fault, str(file)) for fault in faults))
        result.images[-1]["file_name"] = _image_name(finder, result.images[-1]["file_name"], file, folder)
    if not result.images:
        first = f"; the first: {result.issues[0]}" if result.issues else ""
        raise ValueError(f"{folder}: no XML file of Pascal VOC that can be used{first}")
    return result, names


def voc_names(folder: Path) -> Path:
    """The file that may list the class names in order, one per line, beside the folder of XML files."""
    return folder.parent / "labels.txt"


def voc_files(folder: Path, parts: list[str]) -> list[Path]:
    """The XML files of a folder, or those of the names in list files, one per line."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected XML files of Pascal VOC")
    if not parts:
        return sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".xml" and path.is_file())
    lines = [line.split() for part in parts for line in read_text_file(part, limit=MAX_LIST_BYTES).split("\n")]
    return [
        folder / f"{Path(words[0]).stem if words[0].endswith('.xml') else words[0]}.xml" for words in lines if words
    ]


def _read_one(file: Path) -> tuple[Record, list[str]]:
    """The content of one XML file, and the faults of single objects. ValueError if nothing in it can be used."""
    root = read_xml(file, MAX_LABEL_BYTES)
    try:
        return _read_voc(root), []
    except ValueError:  # hotcoco refuses the whole file, and for one file the whole folder
        objects, faults = root.findall("object"), []
        for each in objects:
            root.remove(each)
        for each in objects:
            root.append(each)
            try:
                _read_voc(root)
            except ValueError as error:
                root.remove(each)
                faults.append(_without_place(error))
        if len(faults) == len(objects):
            raise
        return _read_voc(root), faults


def _read_voc(root: ElementTree.Element) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        _write_plain(root, Path(folder, "one.xml"))
        content: Record = hotcoco.COCO.from_voc(folder).dataset
    return content


def _without_place(error: Exception) -> str:
    """The message of hotcoco without the name of the temporary file."""
    return re.sub(r"^.*?one\.xml: (near byte \d+: )?", "", str(error))


def _image_name(finder: FileFinder, name: str, file: Path, folder: Path) -> str:
    """The image of the same name as an XML file, as MMDetection and torchvision read it; else the one that it names."""
    stem = file.relative_to(folder).with_suffix("").as_posix()
    suffix = Path(name).suffix
    same = [stem + each for each in sorted(IMAGE_SUFFIXES)]
    there = [each for each in (stem + suffix, *same) if finder.exists(each)]
    if there and (there[0] == stem + suffix or len(there) == 1):
        return there[0]
    if finder.find(name).path is not None:
        return name
    found = [each.path for each in map(finder.find, same) if each.path is not None]
    return found[0] if len(set(found)) == 1 else name


# --------------------------------------------------------------------------------------------------------------- CVAT


def convert_cvat(sections: Sections, *, progress: bool = True) -> tuple[dict[str, Converted], list[str]]:
    """Splits of CVAT for images 1.1 as COCO content, and the class names in the order of the first file.

    Masks and ellipses become boxes, and rotated boxes polygons; other shapes become one issue. ValueError for a file
    that hotcoco cannot read.
    """
    found = {split: _cvat_split(section) for split, section in sections.items()}
    return _numbered(found, _all_names(found))


def _cvat_split(section: Section) -> tuple[Converted, list[str]]:
    file, result = Path(section.annotations), Converted(Path(section.images))
    root = read_xml(file, MAX_XML_BYTES)
    _simplify_shapes(root)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        copy = Path(folder, "one.xml")
        _write_plain(root, copy)
        try:
            content: Record = hotcoco.COCO.from_cvat(os.fspath(copy)).dataset
        except (ValueError, OSError) as error:
            raise ValueError(f"{file}: {_without_place(error)}; expected CVAT for images 1.1") from error
    for each in said:
        what = re.sub(r"^.*?one\.xml ", "", str(each.message))
        result.issues.append(Issue(file.name, "bad-record", what, str(file)))
        result.lost_annotations += sum(map(int, re.findall(r"[0-9]+", what)))
    if not content["images"]:
        raise ValueError(f"{file}: lists no images, expected CVAT for images 1.1")
    return result, _add(result, content)


def _simplify_shapes(root: ElementTree.Element) -> None:
    """Replace shapes that hotcoco does not read, or not as they are, and remove the labels of whole images."""
    for image in root.iterfind("image"):
        for shape in list(image):
            if shape.tag == "tag":
                image.remove(shape)
            with contextlib.suppress(KeyError, ValueError):  # from missing or other values, which hotcoco reports
                if shape.tag == "mask":
                    left, top, width, height = _numbers(shape, "left", "top", "width", "height")
                    _make_box(shape, left, top, left + width, top + height)
                elif shape.tag == "ellipse":
                    x, y, rx, ry = _numbers(shape, "cx", "cy", "rx", "ry")
                    turn = math.radians(float(shape.get("rotation", 0)))
                    across = math.hypot(rx * math.cos(turn), ry * math.sin(turn))
                    down = math.hypot(rx * math.sin(turn), ry * math.cos(turn))
                    _make_box(shape, x - across, y - down, x + across, y + down)
                elif shape.tag == "box" and float(shape.get("rotation", 0)):
                    _turn_box(shape, math.radians(float(shape.get("rotation", 0))))


def _numbers(shape: ElementTree.Element, *names: str) -> list[float]:
    return [float(shape.attrib[name]) for name in names]


def _make_box(shape: ElementTree.Element, left: float, top: float, right: float, bottom: float) -> None:
    shape.tag = "box"
    for name, value in zip(("xtl", "ytl", "xbr", "ybr"), (left, top, right, bottom), strict=True):
        shape.set(name, f"{value:.3f}")


def _turn_box(shape: ElementTree.Element, turn: float) -> None:
    """Make a box that is turned about its centre, clockwise, the polygon of its corners."""
    left, top, right, bottom = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
    x, y, across, down = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
    cos, sin = math.cos(turn), math.sin(turn)
    corners = [(-across, -down), (across, -down), (across, down), (-across, down)]
    points = [(x + dx * cos - dy * sin, y + dx * sin + dy * cos) for dx, dy in corners]
    shape.tag = "polygon"
    shape.set("points", ";".join(f"{px:.3f},{py:.3f}" for px, py in points))


# ------------------------------------------------------------------------------------------------------------ together


def _add(result: Converted, content: Record) -> list[str]:
    """Add images and annotations with new ids, and names as category ids for now; return all category names."""
    names = {category["id"]: str(category["name"]).translate(SHOWN) for category in content["categories"]}
    ids = {}
    for image in content["images"]:
        ids[image["id"]] = len(result.images) + 1
        size = {key: image[key] for key in ("width", "height") if image.get(key)}
        result.images.append({"id": ids[image["id"]], "file_name": image["file_name"].translate(SHOWN), **size})
    for annotation in content["annotations"]:
        kept = {key: value for key, value in annotation.items() if key in ("bbox", "area", "iscrowd", "segmentation")}
        number, name = len(result.annotations) + 1, names[annotation["category_id"]]
        result.annotations.append({"id": number, "image_id": ids[annotation["image_id"]], "category_id": name, **kept})
    return list(names.values())


def _all_names(found: Mapping[str, tuple[Converted, list[str]]]) -> list[str]:
    """The category names of all splits, each once."""
    return list(dict.fromkeys(name for _, names in found.values() for name in names))


def _numbered(
    found: Mapping[str, tuple[Converted, list[str]]], names: list[str]
) -> tuple[dict[str, Converted], list[str]]:
    """The splits with the names of categories replaced by their positions, and the names."""
    label_of = {name: label for label, name in enumerate(names)}
    for split, _ in found.values():
        for annotation in split.annotations:
            annotation["category_id"] = label_of[annotation["category_id"]]
    return {name: split for name, (split, _) in found.items()}, names
