"""The settings of a run that must not differ between the runs of a comparison: all but the activation and the seed.

``check_comparable`` rejects runs that differ, naming the keys, or stratifies them; ``pairing`` checks that the runs of
a seed started from the same weights and were trained on the same batches.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from comparison.runs import PARTS, Run
from configs.loading import flatten

Setting = str | int | float | bool
VARIED = ("model.act", *(f"model.{part}.act" for part in PARTS), *(f"model.{part}.stages" for part in PARTS))
# Config keys without an effect on what is trained or measured.
IGNORED = ("train.seed", "train.save_minutes", "train.save_period", "run")
MACHINE = ("cpu", "cpu_instructions", "cores_usable", "cpu_quota", "threads", "driver", "cuda", "cudnn", "python")
GPU_CHOICE = "CUDA_VISIBLE_DEVICES"  # which of several equal GPUs was used does not matter
FUSED = "ops.norm_act"  # prefix of the census implementation of an activation fused with batch norm
EPOCHS = "config.train.epochs"
DATA = ("config.data", "data", "val.images", "skipped")  # differ between seeds if the data are drawn anew
SHOWN_VALUES = 3  # of a key, and runs of a value, in a message
SHOWN_KEYS = 8


def run_settings(run: Run) -> dict[str, Setting]:
    """The settings as flat keys; keys missing from the record are left out.

    A setting that changed when the run was resumed has both values, as in "2, then 1".
    """
    record = run.record
    operator, config = _section(record, "operator"), flatten(record.get("config", {}))
    settings = {f"config.{key}": value for key, value in config.items() if not _within(key, (*VARIED, *IGNORED))}
    settings |= {f"data.{split}": value for split, value in _section(record, "data").items()}
    settings |= {f"skipped.{issue}": number for issue, number in _section(record, "skipped").items()}
    settings["batches_per_epoch"] = record.get("batches_per_epoch")
    settings["val.images"] = _in_turn([row["val_crc32"] for row in run.rows if row.get("val_crc32") is not None])
    starts = [_start_settings(start) for start in record.get("starts") or [record]]
    for key in dict.fromkeys(key for start in starts for key in start):
        settings[key] = _in_turn([start.get(key) for start in starts])
    if operator.get("implementation") != "none":  # "none": no activation layer uses our kernels
        settings["operator"] = operator.get("implementation")
    return {key: value for key, value in (settings | _implementations(run)).items() if value is not None}


def _start_settings(start: Mapping[str, Any]) -> dict[str, Setting]:
    """The code, device and machine of one start of a run."""
    machine = _section(start, "machine")
    settings = {"code": _section(start, "code").get("source_sha256"), "device": start.get("device")}
    settings |= {f"machine.{key}": machine.get(key) for key in MACHINE}
    settings |= {f"machine.packages.{name}": version for name, version in _section(machine, "packages").items()}
    environment = _section(machine, "environment")
    settings |= {f"machine.environment.{name}": text for name, text in environment.items() if name != GPU_CHOICE}
    settings["machine.gpu"] = ", ".join(sorted({str(gpu.get("name")) for gpu in machine.get("gpus") or []})) or None
    return {key: value for key, value in settings.items() if value is not None}


def _in_turn(values: Sequence[Setting | None]) -> Setting | None:
    """The single value, or the values in the order in which they occurred."""
    changes = [value for number, value in enumerate(values) if number == 0 or value != values[number - 1]]
    if len(changes) <= 1:
        return changes[0] if changes else None
    return ", then ".join("not set" if value is None else f"{value}" for value in changes)


def _implementations(run: Run) -> dict[str, Setting]:
    """From the census: whether activations were fused with batch norm, and the implementation of each activation."""
    rows = [row for row in run.record.get("census") or [] if isinstance(row, Mapping)]
    if not rows:
        return {}
    by_activation: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_activation[str(row.get("activation"))].add(str(row.get("implementation")))
    fused = {str(row.get("implementation")).startswith(FUSED) for row in rows}
    where = "in some layers" if len(fused) > 1 else "everywhere" if True in fused else "nowhere"
    names = {f"implementation.{name}": " and ".join(sorted(each)) for name, each in by_activation.items()}
    return {"fused": where, **names}


def _section(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _within(key: str, prefixes: Iterable[str]) -> bool:
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def deviations(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
    """The keys in which runs differ: key -> value as text -> the runs with this value.

    A missing key counts as a distinct value, except for implementations, which only runs with that activation have.
    Runs without a record (failed before they began) are ignored.
    """
    settings = [(run, run_settings(run)) for run in runs if run.record]
    differing = {}
    for key in dict.fromkeys(key for _, each in settings for key in each):
        values: dict[str, list[Run]] = defaultdict(list)
        for run, each in settings:
            if key in each or not _within(key, ("operator", "implementation")):
                values[str(each.get(key, "not recorded"))].append(run)
        if len(values) > 1:
            differing[key] = dict(values)
    return differing


def check_comparable(
    runs: Sequence[Run], *, allow: Sequence[str] = (), free: Sequence[str] = ()
) -> tuple[list[Run], list[str]]:
    """The runs and remarks. ValueError if they differ in keys other than those of `allow` and `free`.

    Runs that differ in a key of `allow` (or below it: config.train covers config.train.lr) are stratified: the setting
    is added to their label, so that they are never averaged. Keys of `free` may differ according to the plan.
    """
    differing = {key: values for key, values in deviations(runs).items() if not _within(key, free)}
    rejected = {key: values for key, values in differing.items() if not _within(key, allow)}
    if rejected:
        hint = "--set model.norm_act=plain makes all of them comparable; " if "fused" in rejected else ""
        raise ValueError(
            f"runs that differ in more than activation and seed cannot be compared: {_describe(rejected)}; "
            f"{hint}--allow {' '.join(rejected)} stratifies them"
        )
    if not differing:
        return list(runs), []
    stratified = []
    for run in runs:
        settings = [
            f"{key.removeprefix('config.')}={_brief(text)}"
            for key, values in differing.items()
            for text, holders in values.items()
            if any(holder is run for holder in holders)
        ]
        stratified.append(replace(run, act=f"{run.act} [{', '.join(settings)}]") if settings else run)
    return stratified, [f"stratified because of --allow: {_describe(differing)}"]


def check_redrawn(runs: Sequence[Run]) -> None:
    """Check data that are drawn anew for each seed: equal for the runs of a seed, different between seeds.

    ValueError naming the runs otherwise.
    """
    seeds_of: dict[tuple[str, ...], dict[int, str]] = defaultdict(dict)
    data_of: dict[int, dict[tuple[str, ...], str]] = defaultdict(dict)
    for run in runs:
        if run.record:
            hashes = tuple(f"{split} {value}" for split, value in sorted(_section(run.record, "data").items()))
            seed = run.record["config"]["train"]["seed"]
            seeds_of[hashes][seed] = run.folder.name
            data_of[seed][hashes] = run.folder.name
    for seed, found in data_of.items():
        if len(found) > 1:
            raise ValueError(f"seed {seed}: the data differ between {', '.join(found.values())}; expected the same")
    for names in seeds_of.values():
        if len(names) > 1:
            raise ValueError(
                f"{', '.join(names.values())} have the same data; expected data drawn anew for each seed "
                "(--redraw-data)"
            )


def _describe(differing: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    parts = []
    for key, values in list(differing.items())[:SHOWN_KEYS]:
        shown = [f"{_brief(text)} ({_names([r.folder.name for r in runs])})" for text, runs in values.items()]
        more = ", ..." if len(values) > SHOWN_VALUES else ""
        parts.append(f"{key}: {', '.join(shown[:SHOWN_VALUES])}{more}")
    return "; ".join(parts) + (f"; and {len(differing) - SHOWN_KEYS} more" if len(differing) > SHOWN_KEYS else "")


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_VALUES} more" if len(names) > SHOWN_VALUES else ""
    return ", ".join(names[:SHOWN_VALUES]) + more


def _brief(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:12]}...{text[-24:]}" if " " in text else f"{text[:12]}..."


# -------------------------------------------------------------------------------------------------------------- pairing


def pairing(runs: Sequence[Run]) -> list[str]:
    """Deviations from equal starting weights and equal batches within a seed, and runs that did not record them.

    Such runs remain comparable, but pairing by seed removes less variance.
    """
    groups: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        if run.record:
            groups[run.record["config"]["train"]["seed"]].append(run)
    remarks, unknown = [], []
    for seed, group in sorted(groups.items()):
        starts = {run.folder.name: run.record.get("initial_weights") for run in group}
        unknown += [name for name, value in starts.items() if value is None]
        if len({value for value in starts.values() if value is not None}) > 1:
            remarks.append(f"seed {seed}: the initial convolution weights differ between {', '.join(starts)}")
        remarks += _differing_batches(seed, group)
        unknown += [run.folder.name for run in group if run.rows and not _checksums(run)]
    if unknown:
        names = _names(list(dict.fromkeys(unknown)))
        remarks.append(f"initial weights or batches were not recorded and therefore not checked in {names}")
    return remarks


def _differing_batches(seed: int, group: Sequence[Run]) -> Iterator[str]:
    """The first epoch whose batches differ between the runs of a seed with the same number of epochs.

    A schedule of another length turns mosaic off at another epoch, so its batches differ by design.
    """
    by_length: dict[object, list[Run]] = defaultdict(list)
    for run in group:
        by_length[run.record["config"]["train"].get("epochs")].append(run)
    for same_length in by_length.values():
        checksums = {run.folder.name: _checksums(run) for run in same_length}
        for epoch in sorted({epoch for each in checksums.values() for epoch in each}):
            values = {name: each[epoch] for name, each in checksums.items() if epoch in each}
            if len(set(values.values())) > 1:
                yield f"seed {seed}: the batches of epoch {epoch:g} differ between {', '.join(values)}"
                break


def _checksums(run: Run) -> dict[float, float]:
    return {
        row["epoch"]: value
        for row in run.rows
        if row["epoch"] is not None and (value := row.get("batches_crc32")) is not None
    }
