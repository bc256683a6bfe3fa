"""Everything of a run that is not its activation or its seed, so that what is compared differs in nothing else.

``checked`` refuses runs that differ, naming what differs, or keeps them apart under labels of their own; ``pairing``
checks that the activations of a seed started from the same weights and saw the same batches.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from comparison.runs import PARTS, Run
from configs.loading import flatten

VARIED = ("model.act", *(f"model.{part}.act" for part in PARTS), *(f"model.{part}.stages" for part in PARTS))
# What may differ without a difference in what was trained or measured: the seed, folders, when a checkpoint is written.
IDLE = ("train.seed", "train.save_minutes", "train.save_period", "run")
MACHINE = ("cpu", "cpu_instructions", "cores_usable", "cpu_quota", "threads", "driver", "cuda", "cudnn", "python")
CHOICE_OF_GPU = "CUDA_VISIBLE_DEVICES"  # which of equal GPUs it was is no difference
FUSED = "ops.norm_act"  # how the census names an activation that runs as one with its batch norm
EPOCHS = "config.train.epochs"
SHOWN = 3  # values of a key, and runs of a value, that a message names


def fingerprint(run: Run) -> dict[str, Any]:
    """Flat keys and values; keys of a part that the record does not have are left out."""
    record = run.record
    config = flatten(record.get("config", {}))
    found = {f"config.{key}": value for key, value in config.items() if not _within(key, (*VARIED, *IDLE))}
    found |= {f"data.{split}": value for split, value in _mapping(record, "data").items()}
    found |= {"code": _mapping(record, "code").get("source_sha256"), "device": record.get("device")}
    machine = _mapping(record, "machine")
    found |= {f"machine.{key}": machine.get(key) for key in MACHINE}
    found |= {f"machine.packages.{name}": version for name, version in _mapping(machine, "packages").items()}
    environment = _mapping(machine, "environment")
    found |= {f"machine.environment.{name}": text for name, text in environment.items() if name != CHOICE_OF_GPU}
    found["machine.gpu"] = ", ".join(sorted({str(gpu.get("name")) for gpu in machine.get("gpus") or []})) or None
    implementation = _mapping(record, "operator").get("implementation")
    if implementation != "none":  # no site uses ours
        found["operator"] = implementation
    return {key: value for key, value in (found | _sites(run)).items() if value is not None}


def _sites(run: Run) -> dict[str, Any]:
    """How the activations were computed, of the census: fused with the batch norm or not, and by what, for each one."""
    rows = [row for row in run.record.get("census") or [] if isinstance(row, Mapping)]
    by: dict[str, set[str]] = defaultdict(set)
    fused = set()
    for row in rows:
        by[str(row.get("activation"))].add(str(row.get("implementation")))
        fused.add(str(row.get("implementation")).startswith(FUSED))
    if not rows:
        return {}
    share = {frozenset([True]): "everywhere", frozenset([False]): "nowhere"}.get(frozenset(fused), "at some sites")
    names = {f"implementation.{name}": " and ".join(sorted(each)) for name, each in by.items()}
    return {"fused": share, **names}


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _within(key: str, wider: Iterable[str]) -> bool:
    return any(key == each or key.startswith(each + ".") for each in wider)


def differences(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
    """The keys in which runs differ: key -> value as text -> the runs that have it.

    A key that some runs lack counts only among those that have it where it is how an activation is computed; else its
    absence is a value like others. Runs that left no record (failed before they began) say nothing.
    """
    marks = [(run, fingerprint(run)) for run in runs if run.record]
    found = {}
    for key in dict.fromkeys(key for _, mark in marks for key in mark):
        values: dict[str, list[Run]] = defaultdict(list)
        for run, mark in marks:
            if key in mark or not _within(key, ("operator", "implementation")):
                values[str(mark.get(key, "not recorded"))].append(run)
        if len(values) > 1:
            found[key] = dict(values)
    return found


def checked(runs: Sequence[Run], *, allow: Sequence[str] = (), free: Sequence[str] = ()) -> tuple[list[Run], list[str]]:
    """The runs, comparable, and remarks. ValueError with what differs where it is more than `allow` and `free`.

    Runs that differ in a key of `allow` (or below it, as config.train is above config.train.lr) are kept apart: what
    differs is put behind the activation, so that they are never averaged. `free` keys may differ by the plan.
    """
    found = {key: values for key, values in differences(runs).items() if not _within(key, free)}
    refused = {key: values for key, values in found.items() if not _within(key, allow)}
    if refused:
        raise ValueError(
            f"runs that differ in more than activation and seed cannot be compared: {_described(refused)}; "
            f"{_hint(refused)}--allow {' '.join(refused)} keeps such runs apart"
        )
    if not found:
        return list(runs), []
    label = {
        run.folder: ", ".join(f"{key.removeprefix('config.')}={_brief(text)}" for key, text in _texts(run, found))
        for run in runs
    }
    apart = [replace(run, act=f"{run.act} [{label[run.folder]}]" if label[run.folder] else run.act) for run in runs]
    return apart, [f"kept apart, as --allow says: {_described(found)}"]


def _texts(run: Run, found: Mapping[str, Mapping[str, Sequence[Run]]]) -> Iterator[tuple[str, str]]:
    for key, values in found.items():
        for text, holders in values.items():
            if any(each is run for each in holders):
                yield key, text


def _described(found: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    parts = []
    for key, values in list(found.items())[:8]:
        shown = [f"{_brief(text)} ({_names(runs)})" for text, runs in list(values.items())[:SHOWN]]
        parts.append(f"{key}: {', '.join(shown)}{', ...' if len(values) > SHOWN else ''}")
    return "; ".join(parts) + (f"; and {len(found) - 8} more" if len(found) > 8 else "")


def _names(runs: Sequence[Run]) -> str:
    names = [run.folder.name for run in runs[:SHOWN]]
    return ", ".join(names) + (f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else "")


def _brief(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:12]}...{text[-24:]}" if " " in text else f"{text[:12]}..."


def _hint(refused: Iterable[str]) -> str:
    fused = "fused" in refused
    return "with --set model.norm_act=plain all are computed alike; " if fused else ""


# -------------------------------------------------------------------------------------------------------------- pairing


def pairing(runs: Sequence[Run]) -> list[str]:
    """What is wrong, or unknown, about the same start and the same batches within a seed; [] where all is as it should.

    Without them the comparison stays valid, only the seeds' partners have less in common.
    """
    started = [run for run in runs if run.record]
    own = {run.folder: run.record["config"]["train"]["seed"] for run in started}
    groups = {seed: [run for run in started if own[run.folder] == seed] for seed in sorted(set(own.values()))}
    remarks, unknown = [], []
    for seed, group in groups.items():
        starts = {run.folder.name: run.record.get("initial_weights") for run in group}
        unknown += [name for name, value in starts.items() if value is None]
        if len({value for value in starts.values() if value is not None}) > 1:
            remarks.append(f"seed {seed}: the convolution weights at the start differ between {', '.join(starts)}")
        remarks += _batches(seed, group)
        unknown += [run.folder.name for run in group if run.rows and _checksums(run) == {}]
    if unknown:
        names = list(dict.fromkeys(unknown))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        remarks.append(f"start or batches are not recorded, so not checked, in {', '.join(names[:SHOWN])}{more}")
    return remarks


def _batches(seed: int, group: Sequence[Run]) -> Iterator[str]:
    """The first epoch in which the batches differ between the runs of a seed with as many epochs to go.

    A schedule of another length closes the mosaic at another epoch, so its batches are others by intent.
    """
    lengths = [run.record["config"]["train"].get("epochs") for run in group]
    for length in dict.fromkeys(lengths):
        alike = [run for run, own in zip(group, lengths, strict=True) if own == length]
        sums = {run.folder.name: _checksums(run) for run in alike}
        for epoch in sorted({epoch for each in sums.values() for epoch in each}):
            values = {name: each[epoch] for name, each in sums.items() if epoch in each}
            if len(set(values.values())) > 1:
                yield f"seed {seed}: the batches of epoch {epoch:g} differ between {', '.join(values)}"
                break


def _checksums(run: Run) -> dict[float, float]:
    return {
        row["epoch"]: value
        for row in run.rows
        if row["epoch"] is not None and (value := row.get("batches_crc32")) is not None
    }
