"""What is wrong with a data set, said before a training: damaged files and records, suspicious boxes, duplicates.

    python -m data.check my.yaml
    python -m data.check shapes --out reports/shapes

Reads every split of a data YAML as train.py does and writes, to runs/check/exp* or to --out: data_problems.json, the
same list of what is skipped that a training writes; report.html with counts, pictures of suspicious boxes, histograms
and duplicate images; findings.json, the same for programs. Nothing of the data is changed.

Exit code 0 where the data can be trained with, problems skipped; 1 with --strict where anything is skipped, as
train.py --strict-data would refuse it; 2 where the data cannot be trained with at all, with one line on stderr.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from configs.cli import Parser, run_script
from configs.loading import CONFIGS
from configs.schema import load
from core.files import increment_path, write_text
from core.text import printable
from data import issues as ledger
from data import load_dataset
from data.annotations import Annotations
from data.image import read_image
from data.tools import duplicates, suspicious
from data.tools import html_report as data_report
from data.tools.duplicates import Group, Overlap, find_duplicates, overlaps
from data.tools.html_report import Section, Tile
from data.tools.suspicious import Suspicion, find_suspicious
from engine.data_issues import FILE, count_issues, list_issues, write_issues

SPLITS = ("train", "val", "test")
MOST_TILES = 20  # pictures of one kind
MOST_GROUPS = 10  # of duplicates in one picture
MOST_ROWS = 200  # of a folded table; the JSON files hold all


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = Parser(prog="python -m data.check", description="Look for what is wrong with a data set.")
    parser.add_argument("data", metavar="DATA", help="data YAML, by path or by its name in configs/data/")
    parser.add_argument("--out", default="runs/check/exp", help="report folder; a number is added where it is taken")
    parser.add_argument("--strict", action="store_true", help="exit code 1 where anything is skipped")
    options = parser.parse_args(argv)
    config = load(CONFIGS / "yolo.yaml", {"data": options.data}).data
    splits = {name: load_dataset(config, name) for name in SPLITS if getattr(config, name) is not None}
    out = Path(os.path.normpath(options.out))
    folder = increment_path(out.parent, out.name)
    check = Check(splits, title=str(options.data))
    check.write(folder)
    print("\n".join([*check.lines(), f"report: {folder / 'report.html'}"]), flush=True)
    if check.refusals:
        raise ValueError(check.refusals[0])
    return 1 if options.strict and check.problems else 0


class Check:
    """All that is found in the splits of a data set."""

    def __init__(self, splits: Mapping[str, Annotations], *, title: str = "data", progress: bool = True) -> None:
        """`splits`: loaded and verified, leniently; the first is the one that is trained on."""
        self.splits, self.title = splits, title
        self.problems = list_issues({name: data.ledger for name, data in splits.items()})
        self.suspicions: dict[str, list[Suspicion]] = {
            name: find_suspicious(data, title=f"boxes of {name}", progress=progress) for name, data in splits.items()
        }
        self.groups: list[Group] = find_duplicates(splits, progress=progress)
        self.overlaps: list[Overlap] = overlaps(self.groups, {name: len(data) for name, data in splits.items()})
        self.refusals: list[str] = []  # why a training would stop with all that
        train = next(iter(splits.values()))
        for data in splits.values():
            try:
                data.relabelled(train.classes, train.category_ids)
            except ValueError as error:
                self.refusals.append(str(error))

    # ------------------------------------------------------------------------------------------------------ in words

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        width = max(len(name) for name in self.splits)
        lines = [
            f"{name:<{width}}  {len(data):,} images, {int((~data.crowd).sum()):,} boxes, {len(data.classes)} classes; "
            f"{ledger.summary(data.ledger)}"
            for name, data in self.splits.items()
        ]
        lines += [f"REFUSED  {text}" for text in self.refusals]
        lines += [f"LEAKAGE  {text}" for text in self.leakage()]
        lines.append(f"suspicious boxes: {_listed(self._suspicious_counts()) or 'none'}")
        lines.append(f"duplicate images: {_listed(self._duplicate_counts()) or 'none'}")
        lines += [f"classes: {text}" for text in self.class_notes()]
        return [printable(line) for line in lines]

    def leakage(self) -> list[str]:
        """One sentence for each pair of splits that shares images."""
        found = []
        for each in self.overlaps:
            parts = []
            if each.exact:
                parts.append(f"{each.exact:,} of the {each.images:,} images of {each.other} are also in {each.one}")
            if each.near:
                more = "more " if each.exact else f"of the {each.images:,} images of {each.other} "
                parts.append(f"{each.near:,} {more}are nearly the same as images of {each.one}")
            if parts:
                found.append(f"{', '.join(parts)}: {each.other} does not measure what was learned for new images")
        return found

    def class_notes(self) -> list[str]:
        """Classes without objects in the first split, and those of them that another split asks for."""
        splits = self._same_classes()
        train, *others = splits
        names = splits[train].classes
        untrained = splits[train].class_counts() == 0
        notes = [f"no object in {train} of {_some(names, untrained)}"] if untrained.any() else []
        for name in others:
            asked = untrained & (splits[name].class_counts() > 0)
            if asked.any():
                notes.append(f"{name} asks for what {train} does not show: {_some(names, asked)}")
        return notes

    def _suspicious_counts(self) -> Counter[str]:
        return Counter(each.kind for found in self.suspicions.values() for each in found)

    def _duplicate_counts(self) -> Counter[str]:
        """Groups by kind and by the splits they touch."""
        return Counter(f"{group.kind} in {' and '.join(group.splits)}" for group in self.groups)

    # ------------------------------------------------------------------------------------------------------ in files

    def write(self, folder: Path) -> None:
        """Write data_problems.json (where there are any), findings.json, the pictures and report.html."""
        write_issues(folder, self.problems)
        write_text(folder / "findings.json", json.dumps(self.findings(), indent=1) + "\n")
        counts = {name: data.class_counts() for name, data in self._same_classes().items()}
        if counts:
            data_report.plot_classes(folder / "classes.png", counts, next(iter(self.splits.values())).classes)
        data_report.plot_box_sizes(folder / "box_sizes.png", {n: _box_sides(data) for n, data in self.splits.items()})
        data_report.plot_image_sizes(folder / "image_sizes.png", {n: data.sizes for n, data in self.splits.items()})
        sections = [*self._leaks(), self._counts(), self._skipped(), self._boxes(folder), self._duplicates(folder)]
        histograms = {"classes.png": "objects by class", "box_sizes.png": "sizes of boxes"}
        histograms["image_sizes.png"] = "sizes of images"
        pictures = [(folder / name, caption) for name, caption in histograms.items() if (folder / name).is_file()]
        sections.append(Section("Classes and sizes", self.class_notes(), pictures=pictures))
        data_report.write_page(folder / "report.html", f"Data check: {self.title}", sections)

    def findings(self) -> dict[str, object]:
        """What was found, as plain values."""
        return {
            "splits": {
                name: {
                    "images": len(data),
                    "boxes": int((~data.crowd).sum()),
                    "crowds": int(data.crowd.sum()),
                    "images_without_boxes": _empty_images(data),
                    "classes": dict(zip(data.classes, data.class_counts().tolist(), strict=True)),
                    "skipped": dict(Counter(problem.kind for problem in data.ledger)),
                }
                for name, data in self.splits.items()
            },
            "refusals": self.refusals,
            "overlaps": [asdict(each) for each in self.overlaps],
            "suspicious": [
                {"split": name, **each.as_dict(self.splits[name])} for name, f in self.suspicions.items() for each in f
            ],
            "duplicates": [group.as_dict() for group in self.groups],
            "rules": {"suspicious": suspicious.KINDS, "duplicates": duplicates.KINDS},
        }

    def _same_classes(self) -> dict[str, Annotations]:
        """The splits with the classes of the first; without those that have classes of their own."""
        first = next(iter(self.splits.values()))
        found = {}
        for name, data in self.splits.items():
            if all(pair in _categories(first) for pair in _categories(data)):
                found[name] = data.relabelled(first.classes, first.category_ids)
        return found

    def _counts(self) -> Section:
        rows: list[list[object]] = [["split", "images", "without boxes", "boxes", "crowds", "classes", "skipped"]]
        for name, data in self.splits.items():
            boxes, crowds = int((~data.crowd).sum()), int(data.crowd.sum())
            skipped = len(data.ledger)
            rows.append([name, len(data), _empty_images(data), boxes, crowds, len(data.classes), skipped])
        places = [["split", "annotations", "images"]]
        places += [[name, data.json_path, data.image_folder] for name, data in self.splits.items()]
        return Section("What is used", tables=[rows, places])

    def _leaks(self) -> list[Section]:
        found = [Section("A training would stop", self.refusals, loud=True)] if self.refusals else []
        return found + ([Section("Leakage between splits", self.leakage(), loud=True)] if self.leakage() else [])

    def _skipped(self) -> Section:
        if not self.problems:
            return Section("Skipped: nothing", ["Every listed image decodes to its end, every record can be used."])
        counts = count_issues(self.problems)
        kinds = sorted({kind for split in counts.values() for kind in split})
        table: list[list[object]] = [["kind", *self.splits, "what it is"]]
        table += [[k, *(counts.get(s, {}).get(k, 0) for s in self.splits), ledger.KINDS[k]] for k in kinds]
        details = []
        for kind in kinds:
            found = [each for each in self.problems if each["kind"] == kind]
            rows = [["split", "file", "what", "where"]]
            rows += [[each[key] for key in rows[0]] for each in found[:MOST_ROWS]]
            details.append((f"{kind}: {_first(len(rows) - 1, len(found))}", rows))
        text = f"Listed in {FILE}. train.py skips these; --strict-data stops instead."
        return Section(f"Skipped: {len(self.problems):,}", [text], [table], details=details)

    def _boxes(self, folder: Path) -> Section:
        counts = {name: Counter(each.kind for each in found) for name, found in self.suspicions.items()}
        kinds = [kind for kind in suspicious.KINDS if any(count[kind] for count in counts.values())]
        if not kinds:
            return Section("Suspicious boxes: none", details=[("rules", [["kind", "rule"], *suspicious.KINDS.items()])])
        table: list[list[object]] = [["kind", *counts, "rule"]]
        table += [[kind, *(count[kind] for count in counts.values()), suspicious.KINDS[kind]] for kind in kinds]
        pictures = []
        for kind in kinds:
            every = [(n, each) for n, found in self.suspicions.items() for each in found if each.kind == kind]
            every.sort(key=lambda pair: -pair[1].degree)
            path = folder / f"suspicious_{kind.replace('-', '_')}.jpg"
            tiles = [self._box_tile(name, each) for name, each in every[:MOST_TILES]]
            data_report.save_sheet(path, [tiles])
            pictures.append((path, f"{kind}: {_first(len(tiles), len(every))}, {suspicious.KINDS[kind]}"))
        texts = ["They are valid and trained as they are; look whether they are meant. All are in findings.json."]
        return Section(f"Suspicious boxes: {sum(map(sum, _values(counts))):,}", texts, [table], pictures)

    def _box_tile(self, split: str, suspicion: Suspicion) -> Tile:
        data = self.splits[split]
        rows = list(suspicion.rows)
        boxes = data.boxes[rows].copy()
        boxes[:, 2:] += boxes[:, :2]
        names = " / ".join(dict.fromkeys(data.classes[label] for label in data.labels[rows]))
        picture = data_report.box_tile(read_image(data.path(suspicion.image)), boxes)
        return Tile(picture, split, data.file_names[suspicion.image], f"{names}, {suspicion.what}")

    def _duplicates(self, folder: Path) -> Section:
        if not self.groups:
            rules = [["kind", "rule"], *duplicates.KINDS.items()]
            return Section("Duplicate images: none", details=[("rules", rules)])
        table: list[list[object]] = [["kind", "groups", "images", "in several splits", "what it is"]]
        pictures, details = [], []
        for kind, rule in duplicates.KINDS.items():
            found = [group for group in self.groups if group.kind == kind]
            if not found:
                continue
            found.sort(key=lambda group: -len(group.splits))
            across = sum(len(group.splits) > 1 for group in found)
            table.append([kind, len(found), sum(len(group.members) for group in found), across, rule])
            path = folder / f"duplicates_{kind.replace('-', '_')}.jpg"
            data_report.save_sheet(path, [self._group_tiles(group) for group in found[:MOST_GROUPS]])
            pictures.append((path, f"{kind}: {_first(min(len(found), MOST_GROUPS), len(found))}, a group a row"))
            rows: list[list[object]] = [["group", "split", "file"]]
            rows += [[number, m.split, m.file] for number, group in enumerate(found, 1) for m in group.members]
            details.append((f"{kind}: {_first(min(len(rows) - 1, MOST_ROWS), len(rows) - 1)}", rows[: MOST_ROWS + 1]))
        return Section(f"Groups of duplicate images: {len(self.groups):,}", [], [table], pictures, details)

    def _group_tiles(self, group: Group) -> list[Tile]:
        tiles = []
        for member in group.members[:5]:
            data = self.splits[member.split]
            objects = len(data.rows(member.index))
            picture = data_report.image_tile(read_image(data.path(member.index)))
            tiles.append(Tile(picture, member.split, member.file, f"{objects} {'box' if objects == 1 else 'boxes'}"))
        return tiles


def _box_sides(data: Annotations) -> np.ndarray:
    """Square roots of the areas of a split's boxes, clipped to their images."""
    image = np.repeat(np.arange(len(data)), np.diff(data.starts))
    limits = data.sizes[image].astype(np.float64)
    sides = np.clip(data.boxes[:, :2] + data.boxes[:, 2:], 0, limits) - np.clip(data.boxes[:, :2], 0, limits)
    return np.sqrt(sides.prod(axis=1))[~data.crowd]


def _empty_images(data: Annotations) -> int:
    image = np.repeat(np.arange(len(data)), np.diff(data.starts))
    return int((np.bincount(image[~data.crowd], minlength=len(data)) == 0).sum())


def _categories(data: Annotations) -> list[tuple[int, str]]:
    return list(zip(data.category_ids, data.classes, strict=True))


def _some(names: Sequence[str], chosen: np.ndarray) -> str:
    found = [names[k][:40] for k in np.flatnonzero(chosen).tolist()]
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")


def _values(counts: Mapping[str, Counter[str]]) -> list[list[int]]:
    return [list(count.values()) for count in counts.values()]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _first(part: int, whole: int) -> str:
    return f"all {whole:,}" if part == whole else f"the first {part:,} of {whole:,}"


if __name__ == "__main__":
    run_script(main)
