"""The settings of a run that must not differ between the runs of a comparison: all but the arm's keys and the seed.

The keys in which arms may differ are the activations, or those that the runs name (``Run.varies``).
``check_comparable`` rejects runs that differ in others, naming them, or stratifies them; ``pairing`` checks that the
runs of a seed started from the same weights and were trained on the same batches, as far as the arms leave these alike.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from comparison.runs import ACTIVATION_KEYS, Run
from configs.loading import flatten

Setting = str | int | float | bool
# Config keys without an effect on what is trained or measured.
IGNORED = ("train.seed", "train.save_minutes", "train.save_period", "train.allow_skipped", "run")
MACHINE = ("cpu", "cpu_instructions", "cores_usable", "cpu_quota", "threads", "driver", "cuda", "cudnn", "python")
GPU_CHOICE = "CUDA_VISIBLE_DEVICES"  # which of several equal GPUs was used does not matter
FUSED = "ops.norm_act"  # prefix of the census implementation of an activation fused with batch norm
EPOCHS = ("config.train.epochs", "config.train.last_epoch_batches")
# Settings that follow from a config key: they may differ where arms differ in it.
CONSEQUENCES = {
    "model.norm_act": ("fused", "implementation", "operator"),
    "model.kind": ("fused", "implementation", "operator", "val.images"),
    "model.cfg": ("config.model.text", "fused", "implementation", "operator", "val.images"),
    "train.amp": ("device", "fused", "implementation", "operator"),
    "train.channels_last": ("device", "implementation", "operator"),
    "train.compile": ("device", "fused", "implementation", "operator"),
    "train.graphs": ("device",),
    "train.grad_checkpointing": ("device",),
    "train.nominal_batch": ("device",),  # with accumulation, no CUDA graph
    "train.rect": ("device",),  # likewise none: batches differ in shape
    "train.threads": ("device", "machine.threads"),
    "data": ("data.train", "batches_per_epoch", "skipped"),  # never data.val: all are scored on the same images
    "train.batch": ("batches_per_epoch", "val.images"),
    "train.imgsz": ("val.images",),  # a checksum of the validation batches as the network sees them
    "val": ("val.images",),
}
# Config keys on which the starting weights and the batches of a seed depend.
NOT_IN_WEIGHTS = (*ACTIVATION_KEYS, "model.norm_act", "model.loss", "model.assign")
WEIGHT_KEYS = ("model", "weights", "data", "train.single_cls")
BATCH_KEYS = ("augment", "data", "model.kind", "model.cfg", "train.imgsz", "train.batch", "train.epochs",
              "train.close_mosaic", "train.rect", "train.class_balance", "train.single_cls",
              "train.strict_data", "train.holdout")  # fmt: skip
DATA = ("config.data", "data", "val.images", "skipped")  # differ between seeds if the data are drawn anew
SHOWN_VALUES = 3  # of a key, and runs of a value, in a message
SHOWN_KEYS = 8


def run_settings(run: Run) -> dict[str, Setting]:
    """The settings as flat keys; keys missing from the record are left out.

    A setting that changed when the run was resumed has both values, as in "2, then 1".
    """
    record = run.record
    operator, config = _section(record, "operator"), flatten(record.get("config", {}))
    settings: dict[str, Setting | None] = {
        f"config.{key}": value for key, value in config.items() if not _within(key, IGNORED)
    }
    settings |= {f"data.{split}": value for split, value in _section(record, "data").items()}
    settings |= {f"skipped.{issue}": number for issue, number in _section(record, "skipped").items()}
    settings["batches_per_epoch"] = record.get("batches_per_epoch")
    settings["val.images"] = _in_turn([row["val_crc32"] for row in run.rows if row.get("val_crc32") is not None])
    starts = [_start_settings(start) for start in record.get("starts") or [record]]
    for key in dict.fromkeys(key for start in starts for key in start):
        settings[key] = _in_turn([start.get(key) for start in starts])
    if operator.get("implementation") != "none":  # "none": no activation layer uses our kernels
        settings["operator"] = operator.get("implementation")
    settings |= _implementations(run)
    if run.scores:
        settings[f"data.{run.scores.get('split')}"] = run.scores.get("data_sha256")
    if run.varies != ACTIVATION_KEYS:
        settings["arms"] = f"differ in {', '.join(run.varies)}"
    return {key: value for key, value in settings.items() if value is not None and not _varied(key, run.varies)}


def _start_settings(start: Mapping[str, Any]) -> dict[str, Setting]:
    """The code, device and machine of one start of a run."""
    machine = _section(start, "machine")
    settings = {"code": _section(start, "code").get("source_sha256"), "device": start.get("device")}
    settings |= {f"machine.{key}": machine.get(key) for key in MACHINE}
    settings |= {f"machine.packages.{name}": version for name, version in _section(machine, "packages").items()}
    environment = _section(machine, "environment")
    settings |= {f"machine.environment.{name}": text for name, text in environment.items() if name != GPU_CHOICE}
    processes = _section(start, "processes")
    if processes:
        settings |= {f"processes.{key}": processes.get(key) for key in ("world_size", "backend", "sync_bn")}
        models = sorted({str(each.get("cpu")) for each in processes.get("machines") or []})
        settings["processes.cpus"] = ", ".join(models)
    settings["machine.gpu"] = ", ".join(sorted({str(gpu.get("name")) for gpu in machine.get("gpus") or []})) or None
    return {key: value for key, value in settings.items() if value is not None}


def _in_turn(values: Sequence[Setting | None]) -> Setting | None:
    """The single value, or the values in the order in which they occurred."""
    changes = [value for number, value in enumerate(values) if number == 0 or value != values[number - 1]]
    if len(changes) <= 1:
        return changes[0] if changes else None
    return ", then ".join("not set" if value is None else f"{value}" for value in changes)


def _varied(setting: str, varies: Sequence[str]) -> bool:
    """Whether a setting is, or follows from, a config key in which the arms differ."""
    follows = [each for key, listed in CONSEQUENCES.items() if _overlap(key, varies) for each in listed]
    return _within(setting, (*(f"config.{key}" for key in varies), *follows))


def _overlap(key: str, others: Iterable[str]) -> bool:
    """Whether a key is one of the others, or above or below it."""
    return any(_within(key, [other]) or _within(other, [key]) for other in others)


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
    The keys in which arms differ count as well if they differ between the runs of one arm. Runs without a record
    (failed before they began) are ignored.
    """
    differing = _differing(runs)
    arms: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.varies != ACTIVATION_KEYS:
            arms[run.act].append(replace(run, varies=()))
    for arm in arms.values():
        for key, values in _differing(arm).items():
            if key not in differing:
                differing[key] = values
    return differing


def _differing(runs: Sequence[Run]) -> dict[str, dict[str, list[Run]]]:
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
            f"runs that differ in more than {_compared(runs)} and seed cannot be compared: {_describe(rejected)}; "
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
            if any(holder.folder == run.folder for holder in holders)
        ]
        stratified.append(replace(run, act=f"{run.act} [{', '.join(settings)}]") if settings else run)
    return stratified, [f"stratified because of --allow: {_describe(differing)}"]


def _compared(runs: Sequence[Run]) -> str:
    return "activation" if all(run.varies == ACTIVATION_KEYS for run in runs) else "what their arms name"


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

    Only runs whose settings lead to equal ones are compared (``unpaired`` has the settings by which they are told
    apart). Deviating runs remain comparable, but pairing by seed removes less variance.
    """
    groups: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        if run.record:
            groups[run.record["config"]["train"]["seed"]].append(run)
    remarks, unknown = [], []
    for seed, group in sorted(groups.items()):
        for alike in _alike(group, WEIGHT_KEYS, but=NOT_IN_WEIGHTS):
            starts = {run.folder.name: run.record.get("initial_weights") for run in alike}
            unknown += [name for name, value in starts.items() if value is None]
            if len({value for value in starts.values() if value is not None}) > 1:
                remarks.append(f"seed {seed}: the initial convolution weights differ between {', '.join(starts)}")
        remarks += _differing_batches(seed, group)
        unknown += [run.folder.name for run in group if run.rows and not _checksums(run)]
    if unknown:
        names = _names(list(dict.fromkeys(unknown)))
        remarks.append(f"initial weights or batches were not recorded and therefore not checked in {names}")
    return remarks


def unpaired(runs: Sequence[Run]) -> dict[str, tuple[str, ...]]:
    """The settings in which runs differ and on which "weights" and "batches" depend, without those that are alike."""
    recorded = [run for run in runs if run.record]
    found = {}
    for what, keys, but in (("weights", WEIGHT_KEYS, NOT_IN_WEIGHTS), ("batches", BATCH_KEYS, ())):
        values = [_settings_of(run, keys, but) for run in recorded]
        names = dict.fromkeys(key for each in values for key in each)
        found[what] = tuple(key for key in names if len({str(each.get(key)) for each in values}) > 1)
    return {what: keys for what, keys in found.items() if keys}


def _alike(runs: Sequence[Run], keys: Sequence[str], *, but: Sequence[str] = ()) -> list[list[Run]]:
    """The runs in groups with the same values of these config keys."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[repr(sorted(_settings_of(run, keys, but).items()))].append(run)
    return list(groups.values())


def _settings_of(run: Run, keys: Sequence[str], but: Sequence[str]) -> dict[str, object]:
    config = flatten(run.record["config"])
    return {key: value for key, value in config.items() if _within(key, keys) and not _within(key, but)}


def _differing_batches(seed: int, group: Sequence[Run]) -> Iterator[str]:
    """The first epoch whose batches differ between the runs of a seed that should have the same.

    A schedule of another length turns mosaic off at another epoch, so its batches differ by design.
    """
    for alike in _alike(group, BATCH_KEYS):
        checksums = {run.folder.name: _checksums(run) for run in alike}
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
