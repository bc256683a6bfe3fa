"""The page of all studies: one table, corrected verdicts, a section each; refused if a study is missing."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import studies.__main__ as command
from studies.page import write_page
from studies.study import NAMES, load_study
from studies.tables import table
from studies.verdicts import Finding, corrected, finding, judge
from tests.support.scripts import run

JUDGED = {"depth": judge([3.0, 3.5, 2.5, 3.2, 2.8], margin=1.0), "width": judge([2.0, 4.0, 0.5, 3.0], margin=1.0)}


def made(name: str) -> list[Finding]:
    """A finding that decides, and a descriptive one with a table."""
    words = {"published": "a | b", "judged": JUDGED.get(name)}
    numbers = table("Numbers", ("layers", "a | b"), [["15", "0.5"]])
    return [
        finding(claim=f"Claim of {name}", found=f"Found {name}. More.", part="half", **words),  # type: ignore[arg-type]
        finding(claim=f"More of {name}", found="Else.", tables=numbers, primary=False, **words),  # type: ignore[arg-type]
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in NAMES:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        content = {"machine": "a CPU, PyTorch 2, 2026-01-02", "findings": [asdict(each) for each in made(name)]}
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
    final = corrected([each for name in NAMES for each in made(name)])
    assert [each.judged is None for each in final[1::2]] == [True] * len(NAMES)  # descriptive
    for row, name, each in zip(rows, NAMES, final[::2], strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == f"[{name}](#{name})" and cells[1] == load_study(name).CLAIM and cells[2] == "a / b"
        assert cells[3:] == [f"half: {each.brief}", f"half: **{each.verdict}**"]
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section.count("\n### ") == 2 and "| layers | a / b |\n| ------ | ----- |\n| 15     | 0.5   |" in section
        assert (page.parent / f"paper/{name}.png").read_bytes() == b"png"
        assert (page.parent / f"paper/{name}.csv").read_text() == "seed\n0\n"
    depth, width = (final[2 * NAMES.index(name)] for name in ("depth", "width"))
    assert depth.judged and width.judged and width.judged.p == JUDGED["width"].p
    assert depth.judged.p == pytest.approx(2 * JUDGED["depth"].p)  # the smaller of two
    assert f"(p = {depth.judged.p:.2g} after Holm's correction)" in text
    assert width.verdict == "inconclusive" and f"About {width.judged.seeds_needed} seeds would decide it" in text


def test_a_missing_study_is_named(project: Path, tmp_path: Path) -> None:
    (project / "noise" / "findings.json").unlink()
    with pytest.raises(
        ValueError, match=r"noise.findings\.json: missing; run .*-m studies noise --project .*runs first"
    ):
        write_page(project, tmp_path / "paper.md")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"machine": "a", "findings": []}', '{"machine": "a", "findings": [1]}',
     '{"machine": "a", "findings": [{"claim": "b"}]}'],
)  # fmt: skip
def test_a_damaged_study_is_named(project: Path, tmp_path: Path, content: str) -> None:
    (project / "noise" / "findings.json").write_text(content)
    with pytest.raises(ValueError, match=r"noise.findings\.json: not the findings of a study; .*-m studies noise"):
        write_page(project, tmp_path / "paper.md")
    assert not (tmp_path / "paper.md").exists()


def test_all_of_the_page_is_checked_before_a_study_is_run(project: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "folder").mkdir()
    assert run(command.main, "studies", "curves", "--page", tmp_path / "folder", "--project", project) == 2
    assert "a folder" in capsys.readouterr().err and not (project / "curves/cells").exists()
    (project / "noise" / "findings.json").unlink()
    assert run(command.main, "studies", "curves", "--page", tmp_path / "new" / "paper.md", "--project", project) == 2
    assert "noise" in capsys.readouterr().err and not (project / "curves/cells").exists()
    assert not (tmp_path / "new").exists()


def test_quick_studies_have_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.main, "studies", "curves", "--quick", "--page", tmp_path / "paper.md") == 2
    assert "--page with --quick" in capsys.readouterr().err and not (tmp_path / "paper.md").exists()
