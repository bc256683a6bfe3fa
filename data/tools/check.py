"""Check a data set before training: damaged files and records, suspicious boxes, duplicates.

    python -m data.check my.yaml
    python -m data.check shapes --out reports/shapes

Reads every split of a data YAML as train.py does, decoding every image, and writes, to runs/check/exp* or to --out:
data_problems.json, the list of skipped images and annotations that training also writes; report.html with counts,
pictures of suspicious boxes, histograms and duplicate images; findings.json, the same for programs. The data is not
modified. Of data sets with 1,000 images or more, train.py looks at the structure of the images alone, which takes
seconds; once they were decoded here, it skips what this program found.

Exit code 0 if training is possible, perhaps with skipped items; 1 with --strict if anything is skipped, which
train.py --strict-data would refuse; 2 if training is impossible, with one line on stderr.
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
from core.files import increment_path, write_text
from core.text import printable
from data import load_dataset
from data.annotations import Annotations
from data.image import read_image
from data.issues import ISSUES_FILE, KINDS, count_issues, list_issues, summary, write_issues
from data.plausibility import mostly_skipped, nothing_to_train_on
from data.tools import charts, duplicates, suspicious
from data.tools.duplicates import Group, Overlap, find_duplicates, overlaps
from data.tools.html_report import Section, Tile, box_tile, image_tile, save_sheet, write_page
from data.tools.splits import read_splits
from data.tools.suspicious import Suspicion, find_suspicious

MAX_TILES = 20  # pictures of one kind
MAX_GROUPS = 10  # groups of duplicates in one picture
MAX_ROWS = 200  # of a collapsed table; the JSON files contain all


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = Parser(
        prog="python -m data.check", description="Check a data set: damaged files, suspicious boxes, duplicates."
    )
    parser.add_argument("data", metavar="DATA", help="data YAML: a path or a name in configs/data/; or a folder")
    parser.add_argument("--out", default="runs/check/exp", help="report folder; a number is added if it exists")
    parser.add_argument("--strict", action="store_true", help="exit with code 1 if anything is skipped")
    options = parser.parse_args(argv)
    config, names = read_splits(options.data)
    splits = {name: load_dataset(config, name, allow_skipped=True, decode=True) for name in names}
    out = Path(os.path.normpath(options.out))
    folder = increment_path(out.parent, out.name)
    check = Check(splits, title=str(options.data))
    check.write(folder)
    print("\n".join([*check.lines(), f"report: {folder / 'report.html'}"]), flush=True)
    if check.refusals:
        raise ValueError(check.refusals[0])
    return 1 if options.strict and check.issues else 0


class Check:
    """All findings in the splits of a data set."""

    def __init__(self, splits: Mapping[str, Annotations], *, title: str = "data", progress: bool = True) -> None:
        """`splits`: loaded and verified, not strictly; the first one is the training split."""
        self.splits, self.title = splits, title
        self.issues = list_issues({split: data.issues for split, data in splits.items()})
        self.suspicions: dict[str, list[Suspicion]] = {
            name: find_suspicious(data, title=f"boxes of {name}", progress=progress) for name, data in splits.items()
        }
        self.groups: list[Group] = find_duplicates(splits, progress=progress)
        self.overlaps: list[Overlap] = overlaps(self.groups, {name: len(data) for name, data in splits.items()})
        self.refusals: list[str] = []  # reasons why training would stop
        train = next(iter(splits.values()))
        nothing = nothing_to_train_on(train)
        self.refusals += [nothing] if nothing else []
        for data in splits.values():
            skipped = mostly_skipped(data)
            self.refusals += [skipped] if skipped and not (nothing and data is train) else []
            try:
                data.relabelled(train.classes, train.category_ids)
            except ValueError as error:
                self.refusals.append(str(error))

    # ------------------------------------------------------------------------------------------------------ as text

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        width = max(len(name) for name in self.splits)
        lines = [
            f"{name:<{width}}  {len(data):,} images, {int((~data.crowd).sum()):,} boxes, {len(data.classes)} classes; "
            f"{summary(data.issues)}"
            for name, data in self.splits.items()
        ]
        lines += [f"REFUSED  {text}" for text in self.refusals]
        lines += [f"LEAKAGE  {text}" for text in self.leakage()]
        lines += [f"note: {text}" for text in self.notices()]
        lines.append(f"suspicious boxes: {_counts_text(self._suspicious_counts()) or 'none'}")
        lines.append(f"duplicate images: {_counts_text(self._duplicate_counts()) or 'none'}")
        lines += [f"classes: {text}" for text in self.class_notes()]
        return [printable(line) for line in lines]

    def notices(self) -> list[str]:
        """What train.py also says about the splits: shares that were skipped, unless refused, and notes on values."""
        splits = self.splits.values()
        shares = [data.skipped for data in splits if data.skipped and not mostly_skipped(data)]
        told = [*shares, *(text for data in splits for text in data.notices)]
        return list(dict.fromkeys(told))

    def leakage(self) -> list[str]:
        """One sentence for each pair of splits that share images."""
        sentences = []
        for pair in self.overlaps:
            parts = []
            if pair.exact:
                parts.append(f"{pair.exact:,} of the {pair.images:,} images of {pair.other} are also in {pair.one}")
            if pair.near:
                more = "more " if pair.exact else f"of the {pair.images:,} images of {pair.other} "
                parts.append(f"{pair.near:,} {more}are near duplicates of images of {pair.one}")
            if parts:
                sentences.append(f"{', '.join(parts)}: {pair.other} does not measure generalisation to new images")
        return sentences

    def class_notes(self) -> list[str]:
        """Classes without objects in the first split, and those of them that occur in other splits."""
        splits = self._same_classes()
        train, *others = splits
        names = splits[train].classes
        untrained = splits[train].class_counts() == 0
        notes = [f"no object in {train} of {_some(names, untrained)}"] if untrained.any() else []
        for name in others:
            unseen = untrained & (splits[name].class_counts() > 0)
            if unseen.any():
                notes.append(f"{name} has classes without objects in {train}: {_some(names, unseen)}")
        return notes

    def _suspicious_counts(self) -> Counter[str]:
        return Counter(item.kind for found in self.suspicions.values() for item in found)

    def _duplicate_counts(self) -> Counter[str]:
        """Number of groups by kind and splits."""
        return Counter(f"{group.kind} in {' and '.join(group.splits)}" for group in self.groups)

    # ------------------------------------------------------------------------------------------------------ as files

    def write(self, folder: Path) -> None:
        """Write data_problems.json (if anything was skipped), findings.json, the pictures and report.html."""
        write_issues(folder, self.issues)
        write_text(folder / "findings.json", json.dumps(self.findings(), indent=1) + "\n")
        counts = {name: data.class_counts() for name, data in self._same_classes().items()}
        if counts:
            charts.plot_classes(folder / "classes.png", counts, next(iter(self.splits.values())).classes)
        charts.plot_box_sizes(folder / "box_sizes.png", {n: _box_sides(data) for n, data in self.splits.items()})
        charts.plot_image_sizes(folder / "image_sizes.png", {n: data.sizes for n, data in self.splits.items()})
        sections = [*self._leaks(), self._counts(), self._skipped(), self._boxes(folder), self._duplicates(folder)]
        histograms = {"classes.png": "objects by class", "box_sizes.png": "sizes of boxes"}
        histograms["image_sizes.png"] = "sizes of images"
        pictures = [(folder / name, caption) for name, caption in histograms.items() if (folder / name).is_file()]
        sections.append(Section("Classes and sizes", self.class_notes(), pictures=pictures))
        write_page(folder / "report.html", f"Data check: {self.title}", sections)

    def findings(self) -> dict[str, object]:
        """All findings as plain values."""
        return {
            "splits": {
                name: {
                    "images": len(data),
                    "boxes": int((~data.crowd).sum()),
                    "crowds": int(data.crowd.sum()),
                    "images_without_boxes": _empty_images(data),
                    "classes": dict(zip(data.classes, data.class_counts().tolist(), strict=True)),
                    "skipped": dict(Counter(issue.kind for issue in data.issues)),
                }
                for name, data in self.splits.items()
            },
            "refusals": self.refusals,
            "notes": self.notices(),
            "overlaps": [asdict(pair) for pair in self.overlaps],
            "suspicious": [
                {"split": name, **item.as_dict(self.splits[name])}
                for name, suspicions in self.suspicions.items()
                for item in suspicions
            ],
            "duplicates": [group.as_dict() for group in self.groups],
            "rules": {"suspicious": suspicious.KINDS, "duplicates": duplicates.KINDS},
        }

    def _same_classes(self) -> dict[str, Annotations]:
        """The splits relabelled with the classes of the first; splits with other classes are omitted."""
        first = next(iter(self.splits.values()))
        relabelled = {}
        for name, data in self.splits.items():
            if all(pair in _categories(first) for pair in _categories(data)):
                relabelled[name] = data.relabelled(first.classes, first.category_ids)
        return relabelled

    def _counts(self) -> Section:
        rows: list[list[object]] = [["split", "images", "without boxes", "boxes", "crowds", "classes", "skipped"]]
        for name, data in self.splits.items():
            boxes, crowds = int((~data.crowd).sum()), int(data.crowd.sum())
            skipped = len(data.issues)
            rows.append([name, len(data), _empty_images(data), boxes, crowds, len(data.classes), skipped])
        sources = [["split", "annotations", "images"]]
        sources += [[name, data.source, data.image_folder] for name, data in self.splits.items()]
        return Section("Usable data", self.notices(), tables=[rows, sources])

    def _leaks(self) -> list[Section]:
        sections = [Section("Training would stop", self.refusals, loud=True)] if self.refusals else []
        return sections + ([Section("Leakage between splits", self.leakage(), loud=True)] if self.leakage() else [])

    def _skipped(self) -> Section:
        if not self.issues:
            return Section("Skipped: nothing", ["Every listed image decodes completely and every record can be used."])
        counts = count_issues(self.issues)
        kinds = sorted({kind for split in counts.values() for kind in split})
        table: list[list[object]] = [["kind", *self.splits, "meaning"]]
        table += [[k, *(counts.get(s, {}).get(k, 0) for s in self.splits), KINDS[k]] for k in kinds]
        details = []
        for kind in kinds:
            issues = [issue for issue in self.issues if issue["kind"] == kind]
            rows = [["split", "file", "what", "where"]]
            rows += [[issue[key] for key in rows[0]] for issue in issues[:MAX_ROWS]]
            details.append((f"{kind}: {_first(len(rows) - 1, len(issues))}", rows))
        text = f"Listed in {ISSUES_FILE}. train.py skips these; with --strict-data it stops instead."
        return Section(f"Skipped: {len(self.issues):,}", [text], [table], details=details)

    def _boxes(self, folder: Path) -> Section:
        counts = {name: Counter(item.kind for item in found) for name, found in self.suspicions.items()}
        kinds = [kind for kind in suspicious.KINDS if any(count[kind] for count in counts.values())]
        if not kinds:
            return Section("Suspicious boxes: none", details=[("rules", [["kind", "rule"], *suspicious.KINDS.items()])])
        table: list[list[object]] = [["kind", *counts, "rule"]]
        table += [[kind, *(count[kind] for count in counts.values()), suspicious.KINDS[kind]] for kind in kinds]
        pictures = []
        for kind in kinds:
            every = [(n, item) for n, found in self.suspicions.items() for item in found if item.kind == kind]
            every.sort(key=lambda pair: -pair[1].degree)
            path = folder / f"suspicious_{kind.replace('-', '_')}.jpg"
            tiles = [self._box_tile(name, item) for name, item in every[:MAX_TILES]]
            save_sheet(path, [tiles])
            pictures.append((path, f"{kind}: {_first(len(tiles), len(every))}, {suspicious.KINDS[kind]}"))
        texts = [
            "These boxes are valid and used in training; check whether they are intended. All are in findings.json."
        ]
        total = sum(count.total() for count in counts.values())
        return Section(f"Suspicious boxes: {total:,}", texts, [table], pictures)

    def _box_tile(self, split: str, suspicion: Suspicion) -> Tile:
        data = self.splits[split]
        rows = list(suspicion.rows)
        boxes = data.boxes[rows].copy()
        boxes[:, 2:] += boxes[:, :2]
        names = " / ".join(dict.fromkeys(data.classes[label] for label in data.labels[rows]))
        picture = box_tile(read_image(data.path(suspicion.image)), boxes)
        return Tile(picture, split, data.file_names[suspicion.image], f"{names}, {suspicion.what}")

    def _duplicates(self, folder: Path) -> Section:
        if not self.groups:
            rules = [["kind", "rule"], *duplicates.KINDS.items()]
            return Section("Duplicate images: none", details=[("rules", rules)])
        table: list[list[object]] = [["kind", "groups", "images", "in several splits", "meaning"]]
        pictures, details = [], []
        for kind, rule in duplicates.KINDS.items():
            found = [group for group in self.groups if group.kind == kind]
            if not found:
                continue
            found.sort(key=lambda group: -len(group.splits))
            across = sum(len(group.splits) > 1 for group in found)
            table.append([kind, len(found), sum(len(group.members) for group in found), across, rule])
            path = folder / f"duplicates_{kind.replace('-', '_')}.jpg"
            save_sheet(path, [self._group_tiles(group) for group in found[:MAX_GROUPS]])
            pictures.append((path, f"{kind}: {_first(min(len(found), MAX_GROUPS), len(found))}, one group per row"))
            rows: list[list[object]] = [["group", "split", "file"]]
            rows += [[number, m.split, m.file] for number, group in enumerate(found, 1) for m in group.members]
            details.append((f"{kind}: {_first(min(len(rows) - 1, MAX_ROWS), len(rows) - 1)}", rows[: MAX_ROWS + 1]))
        return Section(f"Groups of duplicate images: {len(self.groups):,}", [], [table], pictures, details)

    def _group_tiles(self, group: Group) -> list[Tile]:
        tiles = []
        for member in group.members[:5]:
            data = self.splits[member.split]
            objects = len(data.rows(member.index))
            picture = image_tile(read_image(data.path(member.index)))
            tiles.append(Tile(picture, member.split, member.file, f"{objects} {'box' if objects == 1 else 'boxes'}"))
        return tiles


def _box_sides(data: Annotations) -> np.ndarray:
    """Square roots of the areas of a split's boxes, clipped to their images."""
    limits = data.sizes[data.image_of].astype(np.float64)
    sides = np.clip(data.boxes[:, :2] + data.boxes[:, 2:], 0, limits) - np.clip(data.boxes[:, :2], 0, limits)
    return np.sqrt(sides.prod(axis=1))[~data.crowd]


def _empty_images(data: Annotations) -> int:
    return int((np.bincount(data.image_of[~data.crowd], minlength=len(data)) == 0).sum())


def _categories(data: Annotations) -> list[tuple[int, str]]:
    return list(zip(data.category_ids, data.classes, strict=True))


def _some(names: Sequence[str], chosen: np.ndarray) -> str:
    listed = [names[k][:40] for k in np.flatnonzero(chosen).tolist()]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _first(part: int, whole: int) -> str:
    return f"all {whole:,}" if part == whole else f"the first {part:,} of {whole:,}"


if __name__ == "__main__":
    run_script(main)
