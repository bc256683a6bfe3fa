"""The page of all studies: one table, corrected verdicts, a section each; refused if a study is missing."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import studies.__main__ as command
from studies.page import write_page
from studies.study import NAMES
from studies.verdicts import Finding, corrected, finding, judge
from tests.support.scripts import run

JUDGED = {"depth": judge([3.0, 3.5, 2.5, 3.2, 2.8], margin=1.0), "width": judge([2.0, 4.0, 0.5, 3.0], margin=1.0)}


def made(name: str) -> Finding:
    return finding(claim=f"Claim of {name}.", published="a | b", found=f"Found {name}. More.", judged=JUDGED.get(name))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in NAMES:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        content = {"machine": "a CPU, PyTorch 2, 2026-01-02", "findings": [asdict(made(name))]}
        (folder / "findings.json").write_text(json.dumps(content))
        (folder / "cells.csv").write_text("seed\n0\n")
        (folder / f"{name}.png").write_bytes(b"png")
    return tmp_path / "runs"


def test_the_page_has_a_row_and_a_section_for_each_claim(project: Path, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "paper.md"
    assert run(command.main, "studies", "--page", page, "--project", project) == 0
    text = page.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == len(NAMES) and all(row.count("|") == 6 for row in rows)
    for row, name, each in zip(rows, NAMES, corrected([made(name) for name in NAMES]), strict=True):
        assert row.startswith(f"| [{name}](#{name}) | Claim of {name}. | a / b | ") and f"**{each.verdict}**" in row
        assert f"## {name}\n" in text and (page.parent / f"paper/{name}.png").read_bytes() == b"png"
        assert (page.parent / f"paper/{name}.csv").read_text() == "seed\n0\n"
    depth, width = corrected([made("depth"), made("width")])
    assert depth.judged and width.judged and width.judged.p > JUDGED["width"].p / 2
    assert f"supported (p = {depth.judged.p:.2g} after Holm's correction)" in text
    assert "inconclusive (p = " in text and "seeds would decide it" in text


def test_a_missing_study_is_named(project: Path, tmp_path: Path) -> None:
    (project / "noise" / "findings.json").unlink()
    with pytest.raises(ValueError, match=r"noise.findings\.json: missing; run .*-m studies noise first"):
        write_page(project, tmp_path / "paper.md")


def test_quick_studies_have_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.main, "studies", "curves", "--quick", "--page", tmp_path / "paper.md") == 2
    assert "--page with --quick" in capsys.readouterr().err and not (tmp_path / "paper.md").exists()
