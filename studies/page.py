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
added later). A verdict is *supported*, *contradicted* or *inconclusive*; p-values are two-sided and corrected by Holm's
method over the figures that decide. What a section adds to them is descriptive. Intervals are 95 % intervals,
differences are positive as claimed, and the difference that counts is the margin. The seeds that would decide an
inconclusive claim are those with which a t test tells the difference from the margin (or from 0, if it is larger than
the margin) with a probability of 80 %, if mean and standard deviation are as found. This page is written by
`python -m studies all --page docs/results/paper.md`; the raw cells are in [paper/](paper/).

Networks on MNIST train on 3,500 images, where the paper had 60,000, and in fewer steps. Activations are compared with
one another, not with the published figures. Each section says what that changes.
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
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        shutil.copyfile(project / name / "cells.csv", folder / f"{name}.csv")
        shutil.copyfile(project / name / f"{name}.png", folder / f"{name}.png")
    texts = [_section(section, verdicts[section.name]) for section in sections]
    write_text(page, "\n".join([HEAD, *claims.lines(), "", *texts]))


def read_section(folder: Path, name: str) -> Section:
    """The findings of a study in its folder; ValueError if there are none, or the file has something else."""
    file = folder / "findings.json"
    again = command("studies", name)
    if not file.is_file():
        raise ValueError(f"{file}: missing; run {again} first")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        findings = [_finding(each) for each in content["findings"]]
        return Section(name=name, machine=content["machine"], findings=findings)
    except (ValueError, KeyError, TypeError) as error:
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
    deciding = [each for each in findings if each.part]
    published = dict.fromkeys(each.published for each in deciding)  # each once
    return (
        f"[{name}](#{name})",
        load_study(name).CLAIM,
        "<br>".join(published),
        "<br>".join(f"{each.part}: {each.brief}" for each in deciding),
        "<br>".join(f"{each.part}: **{each.verdict}**" for each in deciding),
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
        return f"{head} ({'a calculation' if finding.part else 'descriptive'})."
    text = f"{head} (p = {judged.p:.2g} after Holm's correction)."
    if judged.seeds_needed is not None:
        needed = "More than 1,000" if judged.seeds_needed > 1000 else f"About {judged.seeds_needed}"
        text += f" {needed} seeds would decide it."
    return text
