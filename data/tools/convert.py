"""Convert YOLO labels, Pascal VOC or CVAT XML to COCO JSON; images are left in place.

    python -m data.convert my-data/data.yaml
    python -m data.convert my-data --names cat,dog

train.py, val.py and the other programs read these data sets as they are; this is for those who want the files. The
source is what --data accepts: a data YAML, a folder as tools export it, or an XML file. Writes annotations/SPLIT.json
for each split and a data YAML for them; files that it did not write are not overwritten.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from configs.cli import Parser
from configs.errors import explain
from configs.loading import load_data, load_data_folder
from configs.schema import Split
from core.commands import command
from core.files import is_disk_full, path_exists, write_text
from core.text import one_line, printable
from data import SPLITS
from data.conversion import CONVERTERS, convert_splits
from data.issues import Issue, refuse, summary

WRITTEN = "written by data.convert"  # in all files that may be overwritten


def find_sections(source: str | Path) -> tuple[Path, dict[str, Split]]:
    """The root and the splits of a data set to convert; FileNotFoundError or ValueError names what is missing."""
    try:
        tree = load_data_folder(Path(source)) if path_exists(source, folder=True) else load_data(source)
    except FileNotFoundError as error:
        raise FileNotFoundError(str(error).removeprefix("data: ")) from error
    if not isinstance(tree.get("root"), str):
        raise ValueError(f"{source}: root is not text, expected the name of a folder")
    given = {split: tree[split] for split in SPLITS if isinstance(tree.get(split), Mapping)}
    try:
        sections = {split: Split.model_validate(section) for split, section in given.items()}
    except ValidationError as error:
        raise ValueError(f"{source}: {explain(error, Split, name='a split')}") from error
    formats = {section.format for section in sections.values()}
    if len(formats) != 1 or not formats <= set(CONVERTERS):
        raise ValueError(
            f"{source}: has annotations of format {', '.join(sorted(formats)) or 'none'}, which need no conversion; "
            f"expected {', '.join(CONVERTERS)}"
        )
    return Path(tree["root"]), sections


def convert(
    source: str | Path,
    out: str | Path | None = None,
    *,
    names: Sequence[str] | None = None,
    strict: bool = False,
    progress: bool = True,
) -> tuple[Path, list[Issue]]:
    """Write the COCO annotations of a data set to `out` (default: its root).

    Returns the path of the data YAML written next to them, and the issues. FileExistsError for a file of another origin
    in their place.
    """
    root, sections = find_sections(source)
    target = Path(out) if out is not None else root
    data_yaml = target / "coco.yaml"
    paths = {split: (target / "annotations" / f"{split}.json").absolute() for split in sections}
    for path in (data_yaml, *paths.values()):
        _require_own(path)
    converted = convert_splits(sections, names=names, progress=progress)
    issues = [issue for each in converted.values() for issue in each.issues]
    for note in (note for each in converted.values() for note in each.notes):
        print(printable(note), file=sys.stderr)
    if strict:
        refuse(issues)
    train = converted.get("train")
    if train is not None and train.issues and not train.annotations:
        raise ValueError(f"{source}: no annotation of train can be used; the first issue: {train.issues[0]}")
    entries: dict[str, Any] = {"root": str(root)}
    for split, each in converted.items():
        paths[split].parent.mkdir(parents=True, exist_ok=True)
        write_text(paths[split], json.dumps({"info": {"description": WRITTEN}, **each.content}))
        entries[split] = {"images": str(each.folder), "annotations": str(paths[split])}
    write_text(data_yaml, f"# {WRITTEN}\n{yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)}")
    return data_yaml, issues


def _require_own(path: Path) -> None:
    """FileExistsError for a file that was not written by `convert`."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        if WRITTEN.encode() not in file.read(200):
            raise FileExistsError(f"{path} exists and was not {WRITTEN}; choose another folder with --out")


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = Parser(
        prog="python -m data.convert", description="Convert YOLO labels, Pascal VOC or CVAT XML to COCO JSON."
    )
    parser.add_argument("source", help="data YAML, folder or XML file of a data set")
    parser.add_argument("--out", help="folder for annotations/ and coco.yaml (default: the root of the data set)")
    parser.add_argument("--names", help="class names, separated by commas, if YOLO labels have none")
    parser.add_argument("--strict", action="store_true", help="stop at the first issue instead of skipping it")
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.names.split(",")] if options.names else None
    try:
        data_yaml, issues = convert(options.source, options.out, names=names, strict=options.strict)
    except (ValueError, OSError) as error:
        print(f"data.convert: error: {one_line(error) or type(error).__name__}", file=sys.stderr)
        return 1 if is_disk_full(error) else 2
    for issue in issues[:20]:
        print(issue)
    held_out = () if "\nval:" in data_yaml.read_text(encoding="utf-8") else ("--set", "train.holdout=0.1")
    train = command("train.py", "--cfg", "yolo-mish.yaml", "--data", data_yaml, *held_out)
    print(f"{summary(issues)}; train with: {train}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
