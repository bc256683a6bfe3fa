"""Pascal VOC's and CVAT's XML files as COCO content, read by hotcoco."""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

import hotcoco

from core.progress import progress_bar
from core.text_files import decode_text, read_text_file
from data.converted import MANY_IMAGES, Converted, Record
from data.file_names import FileFinder
from data.image import IMAGE_SUFFIXES
from data.issues import Issue
from data.limits import MAX_LABEL_BYTES, MAX_LIST_BYTES, MAX_XML_BYTES

LABELS = "labels.txt"  # class names in order, beside the folder of XML files
DECLARED = re.compile(rb"""<\?xml[^>]*encoding=["']([\w.-]+)["']""")


def read_xml(path: Path, limit: int) -> str:
    """The text of an XML file in the encoding that it declares, without the declaration."""
    data = path.read_bytes()
    if len(data) > limit:
        raise ValueError(f"{path}: {len(data)} bytes, expected XML of at most {limit}")
    declared = DECLARED.match(data)
    encoding = declared[1].decode() if declared else "utf-8"
    try:
        text = data.decode(encoding) if encoding.lower() not in ("utf-8", "utf8") else decode_text(data, name=str(path))
    except (LookupError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not text in {encoding}, the encoding that it declares: {error}") from error
    text = re.sub(r"^\s*<\?xml.*?\?>", "", text, count=1, flags=re.DOTALL)
    try:
        expat.ParserCreate().Parse(text, True)  # hotcoco reads the beginning of a truncated file
    except expat.ExpatError as error:
        raise ValueError(f"{path}: not XML: {error}") from error
    return text


def convert_voc(sections: Mapping[str, Any], *, progress: bool = True) -> tuple[dict[str, Converted], list[str]]:
    """Splits of Pascal VOC as COCO content, and the class names: those of labels.txt, else in alphabetical order.

    Objects marked as difficult become crowds, which are neither trained on nor counted. ValueError if no XML file of a
    split can be used.
    """
    converted: dict[str, Converted] = {}
    named: dict[str, str] = {}
    for split, section in sections.items():
        folder = Path(section.annotations)
        result = converted[split] = Converted(Path(section.images))
        finder = FileFinder(result.folder)
        files = voc_files(folder, section.parts)
        for file in progress_bar(files, f"converting {split}", show=progress and len(files) >= MANY_IMAGES):
            if not file.is_file():
                result.issues.append(Issue(file.name, "missing", "no such file, though a list names it", str(file)))
                continue
            try:
                content = _read_one(file)
            except (ValueError, OSError) as error:
                result.issues.append(Issue(file.name, "bad-record", _without_place(error), str(file)))
                continue
            named |= {name: name for name in _add(result, content)}
            result.images[-1]["file_name"] = _image_name(finder, content["images"][0]["file_name"], file, folder)
        if not result.images:
            first = f"; the first: {result.issues[0]}" if result.issues else ""
            raise ValueError(f"{folder}: no XML file of Pascal VOC that can be used{first}")
    listed = [Path(section.annotations).parent / LABELS for section in sections.values()]
    order = next((read_text_file(file, limit=MAX_LIST_BYTES).split() for file in listed if file.is_file()), [])
    return converted, _numbered(converted, [*order, *sorted(set(named) - set(order))])


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


def _read_one(file: Path) -> Record:
    """The content of one XML file. ValueError for invalid ones, of which hotcoco would refuse the whole folder."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "one.xml").write_text(read_xml(file, MAX_LABEL_BYTES), encoding="utf-8")
        content: Record = hotcoco.COCO.from_voc(folder).dataset
    return content


def _without_place(error: Exception) -> str:
    """The message of hotcoco without the name of the temporary file."""
    return re.sub(r"^.*?one\.xml: ", "", str(error))


def _image_name(finder: FileFinder, name: str, file: Path, folder: Path) -> str:
    """The image of an XML file: the one that it names, else the one of the same name as the XML file itself."""
    if finder.find(name).path is not None:
        return name
    stem = file.relative_to(folder).with_suffix("").as_posix()
    same = [stem + suffix for suffix in sorted(IMAGE_SUFFIXES)]
    found = [each.path for each in map(finder.find, same) if each.path is not None]
    return found[0] if len(set(found)) == 1 else name


def convert_cvat(sections: Mapping[str, Any], *, progress: bool = True) -> tuple[dict[str, Converted], list[str]]:
    """Splits of CVAT for images 1.1 as COCO content, and the class names in the order of the first file.

    Shapes other than boxes and polygons become one issue. ValueError for a file that hotcoco cannot read.
    """
    converted: dict[str, Converted] = {}
    named: dict[str, str] = {}
    for split, section in sections.items():
        file = Path(section.annotations)
        result = converted[split] = Converted(Path(section.images))
        text = read_xml(file, MAX_XML_BYTES)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            copy = Path(folder, "one.xml")
            copy.write_text(text, encoding="utf-8")
            try:
                content: Record = hotcoco.COCO.from_cvat(os.fspath(copy)).dataset
            except (ValueError, OSError) as error:
                raise ValueError(f"{file}: {_without_place(error)}; expected CVAT for images 1.1") from error
        for each in said:
            what = re.sub(r"^.*?one\.xml ", "", str(each.message))
            result.issues.append(Issue(file.name, "bad-record", what, str(file)))
        if not content["images"]:
            raise ValueError(f"{file}: lists no images, expected CVAT for images 1.1")
        named |= {name: name for name in _add(result, content)}
    return converted, _numbered(converted, list(named))


def _add(result: Converted, content: Record) -> list[str]:
    """Add images and annotations with new ids, and names as category ids for now; return all category names."""
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    ids = {}
    for image in content["images"]:
        ids[image["id"]] = len(result.images) + 1
        size = {key: image[key] for key in ("width", "height") if image.get(key)}
        result.images.append({"id": ids[image["id"]], "file_name": image["file_name"], **size})
    for annotation in content["annotations"]:
        kept = {key: value for key, value in annotation.items() if key in ("bbox", "area", "iscrowd", "segmentation")}
        number, name = len(result.annotations) + 1, names[annotation["category_id"]]
        result.annotations.append({"id": number, "image_id": ids[annotation["image_id"]], "category_id": name, **kept})
    return list(names.values())


def _numbered(converted: Mapping[str, Converted], names: list[str]) -> list[str]:
    """Replace the names of categories by their positions; returns the names."""
    label_of = {name: label for label, name in enumerate(names)}
    for split in converted.values():
        for annotation in split.annotations:
            annotation["category_id"] = label_of[annotation["category_id"]]
    return names
