"""The claims of the Mish paper (arXiv 1908.08681), each tried in a study: ``python -m studies`` lists them.

``python -m studies depth`` measures all cells of a study, prints what it found and writes cells.csv, findings.json and
a picture to runs/studies/depth; ``--quick`` measures a few small cells, to see that it works. Stopped with Ctrl-C, the
same command resumes. docs/results/paper/plan.md says what was fixed before the first run.
"""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from configs.cli import Parser, run_script
from core.files import write_text
from core.text import format_duration
from studies.study import NAMES, load_study, machines, measure_all, of_other_code
from studies.verdicts import Finding


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = Parser(prog="python -m studies", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"studies to run: {', '.join(NAMES)}, or all; none: list them")
    add("--quick", action="store_true", help="a few small cells, in seconds, which conclude nothing")
    add("--jobs", type=int, metavar="N", help="cells at a time, with a thread each; default: one per core")
    add("--project", default="runs/studies", metavar="DIR", help="folder of the results")
    add("--page", metavar="PAPER.MD", help="then write the page of all studies, with pictures and cells beside it")
    options = parser.parse_args(argv)
    if options.jobs is not None and options.jobs < 1:
        raise ValueError(f"--jobs {options.jobs}: expected 1 or more")
    for option in ("page", "project"):
        if getattr(options, option) == "":
            raise ValueError(f"--{option}: found nothing, expected a path")
    if options.page and options.quick:
        raise ValueError("--page with --quick: a quick study concludes nothing; leave out one of them")
    if not options.names and not options.page:
        print(listing())
        return 0
    from studies.digits import require_digits  # imports torch, which is slow
    from studies.page import read_section, require_writable, write_page

    named = tuple(dict.fromkeys(name for name in options.names if name != "all"))
    names = NAMES if "all" in options.names else named
    for name in named:
        load_study(name)
    folders = {name: Path(options.project) / (f"{name}-quick" if options.quick else name) for name in names}
    if any(load_study(name).EXTRA for name in names):  # all are possible before the first is run
        require_digits()
    if options.page:
        for name in NAMES:
            if name not in names:
                read_section(Path(options.project) / name, name)
        require_writable(Path(options.page))
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for name, folder in folders.items():
        print(run(name, folder, quick=options.quick, jobs=options.jobs), flush=True)
    if options.page:
        write_page(Path(options.project), Path(options.page))
        print(f"written: {options.page}")
    return 0


def listing() -> str:
    """The studies with what they ask and their time."""
    lines = []
    for name in NAMES:
        study = load_study(name)
        extra = f"; needs the extra {study.EXTRA}" if study.EXTRA else ""
        lines.append(f"{name:<10}  {study.TITLE} ({format_duration(60 * study.MINUTES)}{extra})")
    return "\n".join(lines)


def run(name: str, folder: Path, *, quick: bool, jobs: int | None) -> str:
    """Run a study; returns its findings as text."""
    from engine.pictures.figures import new_figure, write_figure

    study = load_study(name)
    rows = measure_all(name, folder, quick=quick, jobs=jobs)
    findings = study.conclude(rows)
    others = of_other_code(rows)
    earlier = f"; {others} of {len(rows)} cells measured by earlier code" if others else ""
    content = {"machine": f"{machines(folder)}{earlier}", "findings": [asdict(each) for each in findings]}
    write_text(folder / "findings.json", json.dumps(content, indent=2) + "\n")
    figure = new_figure(*study.PICTURE)
    study.draw(rows, figure)
    write_figure(figure, folder / f"{name}.png")
    return "\n".join([f"{name}: {folder}", "", *(_shown(each, quick=quick) for each in findings)])


def _shown(finding: Finding, *, quick: bool) -> str:
    verdict = "quick, no verdict" if quick else f"{finding.verdict}: {finding.brief}"
    p = "" if finding.judged is None else f" (p = {finding.judged.p:.2g} before Holm's correction)"
    texts = [finding.claim, f"published: {finding.published}", f"verdict: {verdict}{p}", finding.found]
    lines = [textwrap.fill(text, 110) for text in texts]
    for table in finding.tables:
        lines += ["", textwrap.fill(f"{table.title}:", 110), "\n".join(table.lines())]
    return textwrap.indent("\n".join([*lines, ""]), "  ")


if __name__ == "__main__":
    run_script(main)
