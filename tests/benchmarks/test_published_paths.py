"""Published records: no absolute path, the same report, and nothing that was wrong before is right after."""

import functools
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import publish
from benchmarks.published_paths import replace_paths, without_paths
from comparison.deployment import DEPLOYED, read_deployed
from comparison.journal import Irregular, irregular, note, read_journal, timings
from comparison.plan import PLAN, make_plan, read_plan
from comparison.report import report
from comparison.runs import SCORES, read_run
from comparison.scores import scores_seal
from core.seal import seal_of
from tests.comparison.made_runs import declare, edit_record, write_comparison

DOCS = Path(__file__).parents[2] / "docs" / "results"
# Another expression than that of the code: folders of a machine by name, in JSON, CSV, Markdown or SVG.
OF_A_MACHINE = re.compile(
    r"(?<![\w.])/(?:tmp|data|work|home|root|Users|mnt|media|opt|srv|var|usr|private|Volumes|scratch|workspace|content"
    r"|proc)(?![\w.])|(?<!\w)[A-Za-z]:\\|(?<!\w)[A-Za-z]:/[^/]|\\\\\\\\\w"
)
HOME, WINDOWS = "/home/a_user/work", "C:\\Users\\a user"


def texts(folder: Path) -> dict[str, str]:
    """The text of all files but pictures."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"]
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in files}


def test_no_published_file_names_a_folder_of_a_machine() -> None:
    # A report that `compare.py --report` makes of them belongs to the machine that made it, and is not kept in git.
    published = {name: text for name, text in texts(DOCS).items() if Path(name).stem != "report"}
    assert len(published) > 300
    assert {name: found[0] for name, text in published.items() if (found := OF_A_MACHINE.search(text))} == {}


@pytest.mark.parametrize(
    "path",
    [
        "/scratch/a/b.json",
        "/media/set",
        "/home/me",
        "/Users/x",
        "/workspace",
        "C:\\\\Users\\\\me",
        "D:/sets",
        '"/mnt/a b"',
    ],
)
def test_the_check_of_published_files_finds(path: str) -> None:
    assert OF_A_MACHINE.search(f'{{"root": "{path}"}}')
    assert OF_A_MACHINE.search(f"error in {path}, line 3")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data/set", "datasets/set"),
        ("/data/set/images/train", "datasets/set/images/train"),
        ("/data/set/x/runs/mish-s0", "runs/mish-s0"),
        ("/data/set.yaml", "set.yaml"),
        ("data=/data/set.yaml, train.lr=0.1", "data=set.yaml, train.lr=0.1"),
        ("/data/settings/x", "x"),
        ("/elsewhere/data/set/x", "x"),
        (f"{HOME}/compare.py --output /data/set --arm a b=1", "compare.py --output datasets/set --arm a b=1"),
        ('File "/usr/lib/python3.11/json.py", line 3', 'File "json.py", line 3'),
        ("LD_LIBRARY_PATH=/usr/lib:/opt/cuda/lib64", "LD_LIBRARY_PATH=lib:lib64"),
        (f"{WINDOWS}\\set\\images", "datasets/windows\\images"),
        ("D:\\weights\\last.pt", "last.pt"),
        ("D:/weights/last.pt", "last.pt"),
        ("\\\\server\\share\\last.pt", "last.pt"),
        ("/", "/"),
    ],
)
def test_paths_are_replaced(text: str, expected: str) -> None:
    known = {"/data/set": "datasets/set", "/data/set/x/runs": "runs", f"{WINDOWS}\\set": "datasets/windows"}
    assert without_paths({"a": [text, 1, None]}, known) == {"a": [expected, 1, None]}


@pytest.mark.parametrize(
    "text",
    [
        "datasets/shapes/images/val", "../data/set", "~/data/set", "metrics/mAP50-95", "images/s", "+/-0.5", "1 / 2",
        "https://host/page", "<b>bold</b>", "a\\b", "2026-11-30T15:32:19+00:00", "fp32/bf16: no", "$HOME/set",
    ],
)  # fmt: skip
def test_other_texts_stay(text: str) -> None:
    assert without_paths(text, {"/data/set": "datasets/set"}) == text


# ------------------------------------------------------------------------------------------------------- a comparison


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journaled comparison with scores, a timing and a file after export, whose records name folders of a machine."""
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    folder = tmp_path / "made"
    write_comparison(folder, gains={"relu": 0.0, "mish": 3.0}, seeds=range(3))
    acts = ("relu", "mish")
    plan = make_plan(
        acts=acts, baseline="relu", seeds=(0, 1, 2), cfg="yolo.yaml", arms={act: {} for act in acts},
        epochs=dict.fromkeys(acts, 8), overrides={"data": "/data/set.yaml"}, split="test", journaled=True,
        notes=(f"weights from {HOME}/weights/last.pt",),
    )  # fmt: skip
    plan.write(folder)
    for run in plan.runs:
        edit_record(folder / run.name, functools.partial(add_paths, folder=folder))
    declare(folder, plan)
    for run in plan.runs:
        write_beside(folder / run.name)
        note(folder, run.name, "started")
        note(folder, run.name, "finished")
    timing: dict[str, Any] = {"rows": [], "command": f"{HOME}/step_timing.py --output {folder}"}
    (folder / "timing.json").write_text(json.dumps({**timing, "seal": seal_of(timing, b"")}))
    note(folder, "timing.json", "timed")
    report([folder], folder)
    return folder


def add_paths(record: dict[str, Any], *, folder: Path) -> None:
    data = {"root": "/data/set", "val": {"images": "/data/set/images", "annotations": f"{HOME}/val.json"}}
    record["config"] |= {"data": data, "weights": None, "run": {"project": str(folder)}}
    record["differs"] = {"run.project": str(folder), "data.root": "/data/set"}


def write_beside(run: Path) -> None:
    """Scores, and a file after export that failed."""
    metrics = {"metrics/mAP50-95": read_run(run).last("metrics/mAP50-95")}
    for name, content in (
        (SCORES, {"split": "test", "metrics": metrics, "data_sha256": "cc" * 32, "note": "a note"}),
        (DEPLOYED, {"split": "test", "files": {"onnx fp32": {"error": f"no such file: {HOME}/x.onnx"}}}),
    ):
        content |= {"seal": scores_seal(read_run(run), content)}
        (run / name).write_text(json.dumps(content, indent=1) + "\n")


def doubted(folder: Path) -> Irregular:
    """What the journal says against the runs of a comparison."""
    plan = read_plan(folder)
    assert plan is not None
    return irregular(folder, {each.name: read_run(folder / each.name) for each in plan.runs}, complete=True)


@pytest.mark.slow
def test_a_published_comparison_names_no_folder(made: Path, tmp_path: Path) -> None:
    assert json.loads((made / "report.json").read_text())["exploratory"] == []
    before, target = texts(made), tmp_path / "published"
    assert publish.publish(made, target) == 6
    assert texts(made) == before
    after = texts(target)
    named = [name for name in after if "/home" in after[name] or "/data" in after[name] or str(tmp_path) in after[name]]
    assert named == []
    record = json.loads(after["mish-s1/run.json"])
    assert record["config"]["data"] == {
        "root": "datasets/set",
        "val": {"images": "datasets/set/images", "annotations": "val.json"},
    }
    assert record["config"]["run"]["project"] == record["differs"]["run.project"] == "published"
    assert json.loads(after["timing.json"])["command"] == "step_timing.py --output published"
    assert json.loads(after[PLAN])["overrides"] == {"data": "set.yaml"}
    assert [after[f"mish-s{seed}/results.csv"] for seed in range(3)] == [
        before[f"mish-s{seed}/results.csv"] for seed in range(3)
    ]
    originals = json.loads(after[publish.ORIGINALS])["sha256"]
    kept = {name: before["report.json" if name == "published.json" else name] for name in originals}
    assert originals == {name: hashlib.sha256(text.encode()).hexdigest() for name, text in kept.items()}
    assert {name for name in after if name in before and after[name] != before[name]} == set(originals) - {
        "published.json"
    }


@pytest.mark.slow
def test_seals_journal_and_plan_hold_after_publishing(made: Path, tmp_path: Path) -> None:
    target = tmp_path / "published"
    publish.publish(made, target)
    plan, run = read_plan(target), read_run(target / "relu-s0")
    assert plan is not None and run.record["config"]["run"]["plan"] == plan.reference != reference(made)
    assert read_journal(target).chained and doubted(target) == doubted(made)
    assert timings(target / "timing.json") == (1, True)
    assert read_deployed(run)["files"] == {"onnx fp32": {"error": "no such file: x.onnx"}}
    report([target], target)
    found, old = (json.loads((folder / "report.json").read_text()) for folder in (target, made))
    assert found["exploratory"] == [] and found["metrics"] == old["metrics"] and found["verdicts"] == old["verdicts"]


def reference(folder: Path) -> str:
    plan = read_plan(folder)
    assert plan is not None
    return plan.reference


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run.json", "results.csv", SCORES, DEPLOYED])
def test_an_edited_published_run_is_refused(name: str, made: Path, tmp_path: Path) -> None:
    target = tmp_path / "published"
    publish.publish(made, target)
    file = target / "mish-s0" / name
    text = file.read_text()
    edited = text.replace("no such file", "none") if name == DEPLOYED else text.replace("0.6", "0.7")
    assert edited != text
    file.write_text(edited)
    with pytest.raises(ValueError, match="mish-s0"):
        report([target], target)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "old"), [("run.json", "a reason"), (SCORES, "a note"), (DEPLOYED, "no such file")])
def test_what_was_edited_before_stays_edited(name: str, old: str, made: Path) -> None:
    file = made / "mish-s0" / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, "another"))
    replace_paths(made)
    with pytest.raises(ValueError, match="mish-s0.* seal"):
        report([made], made)


@pytest.mark.slow
def test_a_replaced_run_and_a_cut_journal_are_found_as_before(made: Path) -> None:
    edit_record(made / "mish-s0", lambda record: record.update(images=1))  # sealed again, but not as noted
    journal = made / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"damaged\n", *lines[3:]]))
    found = doubted(made)
    replace_paths(made)
    assert doubted(made) == found
    assert found.other == ("mish-s0",) and found.edited


@pytest.mark.slow
def test_publishing_again_changes_nothing(made: Path, tmp_path: Path) -> None:
    publish.publish(made, tmp_path / "published")
    copy = shutil.copytree(tmp_path / "published", tmp_path / "again")
    assert replace_paths(copy) == {}
