"""The page of all studies, docs/results/paper.md: findings, with Holm's correction over all of them, and raw cells."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.commands import command
from core.files import write_text
from studies.study import NAMES, load_study
from studies.tables import Table
from studies.verdicts import Finding, Judged, corrected

FOLDER = "paper"  # beside the page: the plan, pictures and cells
HEAD = """\
# The Mish paper's claims, tried again

The claims of Misra, arXiv 1908.08681, each with what was published and what was found here. Margins, numbers of seeds
and the figures that decide were written down before the runs ([paper/plan.md](paper/plan.md), which also names what was
added or changed later). A verdict is *supported*, *contradicted* or *inconclusive*; p-values are two-sided and
corrected by Holm's method over the figures that decide. What a section adds to them is descriptive, and said to be.
Intervals are 95 % intervals, differences are positive as claimed, and "counts" names the margin. Where a figure that
decides is inconclusive, the number of seeds is given that would decide it: with so many, a t test finds the difference
below the margin (or, if it is larger than the margin, above 0) with a probability of 80 %, provided that mean and
standard deviation are as found.
This page is written by `python -m studies all --page docs/results/paper.md`; the raw cells are in [paper/](paper/).

Networks on MNIST train on 3,500 images, where the paper had 60,000, and in fewer steps. Activations are compared with
one another, not with the published figures; each section on MNIST says what that changes.
"""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A study as its folder has it."""

    name: str
    machine: str  # with PyTorch's version and the date
    findings: list[Finding]


def write_page(project: Path, page: Path) -> None:
    """Write the page from the folders of all studies in ``project``; copy their pictures and cells beside it.

    ValueError if a study has no findings yet.
    """
    sections = [read_section(project / name, name) for name in NAMES]
    final = iter(corrected([each for section in sections for each in section.findings]))
    verdicts = {section.name: [next(final) for _ in section.findings] for section in sections}
    claims = Table(
        title="",
        head=("study", "claim", "published", "found", "verdict"),
        rows=tuple(_row(name, findings) for name, findings in verdicts.items()),
    )
    folder = page.parent / FOLDER
    require_writable(page)
    for name in NAMES:
        shutil.copyfile(project / name / "cells.csv", folder / f"{name}.csv")
        shutil.copyfile(project / name / f"{name}.png", folder / f"{name}.png")
    texts = [_section(section, verdicts[section.name]) for section in sections]
    write_text(page, "\n".join([HEAD, *claims.lines(), "", *texts]))


def require_writable(page: Path) -> None:
    """Make the folders of the page; an error if that is not possible, or the page itself is a folder."""
    (page.parent / FOLDER).mkdir(parents=True, exist_ok=True)
    if page.is_dir():
        raise ValueError(f"{page}: a folder, expected the name of a file")


def read_section(folder: Path, name: str) -> Section:
    """The findings of a study in its folder; ValueError if there are none, or the file has something else."""
    file = folder / "findings.json"
    again = command("studies", name, "--project", folder.parent)
    if not file.is_file():
        raise ValueError(f"{file}: missing; run {again} first")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        findings = [_finding(each) for each in content["findings"]]
        if not findings:
            raise ValueError("no findings")
        corrected(findings)  # fails if a number is none
        return Section(name=name, machine=str(content["machine"]), findings=findings)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not the findings of a study; {again} writes them again") from error


def _finding(content: dict[str, Any]) -> Finding:
    judged = content.pop("judged")
    if judged is not None:
        judged = Judged(**{**judged, "interval": tuple(judged["interval"])})
    tables = tuple(
        Table(title=each["title"], head=tuple(each["head"]), rows=tuple(map(tuple, each["rows"])))
        for each in content.pop("tables")
    )
    return Finding(**content, judged=judged, tables=tables)


def _row(name: str, findings: list[Finding]) -> tuple[str, ...]:
    """The claim of a study with the findings that decide it."""
    shown = [each for each in findings if each.part]
    published = dict.fromkeys(each.published for each in shown)  # each once
    return (
        f"[{name}](#{name})",
        load_study(name).CLAIM,
        "<br>".join(published),
        "<br>".join(f"{each.part}: {each.brief}" for each in shown),
        "<br>".join(f"{each.part}: **{each.verdict}**" for each in shown),
    )


def _section(section: Section, findings: list[Finding]) -> str:
    name = section.name
    lines = [
        f"## {name}",
        "",
        f"{load_study(name).TITLE} `python -m studies {name}`; {section.machine}; all cells: "
        f"[{name}.csv]({FOLDER}/{name}.csv).",
        "",
        f"![{name}]({FOLDER}/{name}.png)",
    ]
    for each in findings:
        lines += ["", f"### {each.claim}", "", f"{_verdict(each)} Published: {each.published}.", "", each.found]
        for table in each.tables:
            lines += ["", f"{table.title}:", "", *table.lines()]
    return "\n".join(lines) + "\n"


def _verdict(finding: Finding) -> str:
    judged = finding.judged
    head = f"**{finding.verdict[0].upper()}{finding.verdict[1:]}**: {finding.brief}"
    if judged is None:
        return f"{head} ({finding.note})."
    text = f"{head} (p = {judged.p:.2g} after Holm's correction)."
    if finding.verdict == "inconclusive":
        needed = "More than 1,000" if judged.seeds_needed > 1000 else f"About {judged.seeds_needed}"
        text += f" {needed} seeds would decide it."
    return text
