"""The page of all studies, docs/results/paper.md: findings, with Holm's correction over all of them, and raw cells."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.commands import command
from core.files import write_text
from studies.study import NAMES, load_study
from studies.verdicts import Finding, Judged, corrected

FOLDER = "paper"  # beside the page: the plan, pictures and cells
HEAD = """\
# The Mish paper's claims, tried again

The claims of Misra, arXiv 1908.08681, each with what was published and what was found here. What decides a claim, the
margins and the numbers of seeds were written down before the runs ([paper/plan.md](paper/plan.md)). A verdict is
*supported*, *contradicted* or *inconclusive*; p-values are corrected by Holm's method over the primary figures of all
claims, and rows whose section names no p-value are descriptive. Intervals are 95 % intervals; differences are as
claimed, and what counts is the margin. This page is written by `python -m studies all --page docs/results/paper.md`;
the raw cells are in [paper/](paper/).

The studies of MNIST train on 3,500 images, where the paper had 60,000, in fewer steps: activations are compared with
one another, not with the published figures, and over-fitting, which depends most on the number of images, is not
settled here.
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
    rows = ["| study | claim | published | found | verdict |", "|---|---|---|---|---|"]
    rows += [_row(name, each) for name, findings in verdicts.items() for each in findings]
    folder = page.parent / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        shutil.copyfile(project / name / "cells.csv", folder / f"{name}.csv")
        shutil.copyfile(project / name / f"{name}.png", folder / f"{name}.png")
    texts = [_section(section, verdicts[section.name]) for section in sections]
    write_text(page, "\n".join([HEAD, *rows, "", *texts]))


def read_section(folder: Path, name: str) -> Section:
    """The findings of a study in its folder."""
    file = folder / "findings.json"
    if not file.is_file():
        raise ValueError(f"{file}: missing; run {command('studies', name)} first")
    content = json.loads(file.read_text(encoding="utf-8"))
    findings = [_finding(each) for each in content["findings"]]
    return Section(name=name, machine=content["machine"], findings=findings)


def _finding(content: dict[str, Any]) -> Finding:
    judged = content.pop("judged")
    if judged is not None:
        judged = Judged(**{**judged, "interval": tuple(judged["interval"])})
    return Finding(**content, judged=judged)


def _row(name: str, finding: Finding) -> str:
    cells = (f"[{name}](#{name})", finding.claim, finding.published, finding.brief, f"**{finding.verdict}**")
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _section(section: Section, findings: list[Finding]) -> str:
    study = load_study(section.name)
    lines = [
        f"## {section.name}",
        "",
        f"{study.TITLE[0].upper()}{study.TITLE[1:]} `python -m studies {section.name}`; {section.machine}; all cells: "
        f"[{section.name}.csv]({FOLDER}/{section.name}.csv).",
        "",
        f"![{section.name}]({FOLDER}/{section.name}.png)",
    ]
    for each in findings:
        lines += ["", f"**{each.claim}** Published: {each.published}.", "", each.found, "", _verdict(each)]
    return "\n".join(lines) + "\n"


def _verdict(finding: Finding) -> str:
    judged = finding.judged
    if judged is None:
        return f"Verdict: {finding.verdict}."
    text = f"Verdict: {finding.verdict} (p = {judged.p:.2g} after Holm's correction)."
    if finding.verdict == "inconclusive":
        needed = "more than 1,000" if judged.seeds_needed is None else f"about {judged.seeds_needed}"
        text += f" {needed[0].upper()}{needed[1:]} seeds would decide it."
    return text
