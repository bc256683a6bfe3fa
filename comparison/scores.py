"""The scores of a run on a split that no choice saw: scores.json in its folder, written once, after all training."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from comparison.evaluation import detection_files
from comparison.plan import Plan
from comparison.runs import SCORES, Run
from core.files import file_sha256, write_text
from core.seal import SEAL, seal_of

WEIGHTS = Path("weights", "last.pt")
WEIGHTS_SHA256 = "weights_sha256"  # in run.json, by the run at its end, and in scores.json
RECORD = "run.json"
Score = Callable[[Path, str], Mapping[str, float | None]]
"""Scores the weights in a file on a split: the metrics by column of results.csv, None if undefined.

It writes the detections and the objects of the split (`detection_files`) into the folder of the run.
"""


def score_all(
    plan: Plan,
    runs: Sequence[Run],
    score: Score,
    *,
    data_sha256: Callable[[Run, str], str],
    show: Callable[[str], None] = print,
) -> list[Run]:
    """The runs with their scores on the plan's split; those without scores.json are scored, each once.

    `data_sha256` identifies the annotations of a split. ValueError if the weights of a run are not those that were
    scored.
    """
    scored = []
    for run in runs:
        if run.status != "finished":
            scored.append(run)
            continue
        file, weights = run.folder / SCORES, run.folder / WEIGHTS
        digest = file_sha256(weights)
        content = run.scores
        if run.record.get(WEIGHTS_SHA256, digest) != digest:
            raise ValueError(f"{weights}: not the weights of the last epoch of its run ({RECORD} has another hash)")
        if not content:
            show(f"{run.folder.name}: scoring its last epoch on {plan.split}")
            content = {
                "split": plan.split,
                "epoch": run.rows[-1]["epoch"],
                WEIGHTS_SHA256: digest,
                "data_sha256": data_sha256(run, plan.split),
                "metrics": dict(score(weights, plan.split)),
            }
            files = [run.folder / name for name in detection_files(plan.split)]
            content |= {f"{each.stem}_sha256": file_sha256(each) for each in files if each.is_file()}
            if files[1].is_file():
                content["images"] = len(json.loads(files[1].read_text(encoding="utf-8"))["images"])
            content[SEAL] = scores_seal(run, content)
            write_text(file, json.dumps(content, indent=2) + "\n")
        if (content.get("split"), content.get(WEIGHTS_SHA256)) != (plan.split, digest):
            raise ValueError(f"{file}: written for other weights or another split than {weights} on {plan.split}")
        scored.append(run.with_scores(content))
    return scored


def scores_seal(run: Run, content: Mapping[str, object]) -> str:
    """The seal of scores: over them and the seal of their run."""
    return seal_of(content, str(run.record.get(SEAL)).encode())


def check_scored(plan: Plan, runs: Sequence[Run]) -> None:
    """ValueError if a finished run has no scores on the split that the plan names, or if they were changed.

    Likewise if its detections on the split were changed.
    """
    for run in runs:
        try:
            changed = bool(run.scores) and run.scores.get(SEAL) != scores_seal(run, run.scores)
        except ValueError:  # a number that is not finite, which no seal covers
            changed = True
        if changed:
            raise ValueError(f"{run.folder / SCORES}: changed after it was written (the seal does not match)")
        scored = run.scores.get(WEIGHTS_SHA256)
        if run.scores and run.record.get(WEIGHTS_SHA256, scored) != scored:
            raise ValueError(f"{run.folder / SCORES}: written for other weights than {RECORD} names")
        if run.status == "finished" and run.scores.get("split") != plan.split:
            raise ValueError(
                f"{run.folder}: not scored on {plan.split} yet; it is done after the last run: rerun the command of "
                "the comparison"
            )
        require_unchanged([run.folder / name for name in detection_files(plan.split)], run.scores, SCORES)


def require_unchanged(files: Sequence[Path], record: Mapping[str, object], where: str) -> None:
    """ValueError if a file that exists has not the hash that a record, named `where`, holds of it."""
    for file in files:
        recorded = record.get(f"{file.stem}_sha256")
        if recorded is not None and file.is_file() and file_sha256(file) != recorded:
            raise ValueError(f"{file}: changed after it was written ({where} has another hash)")
