"""Runs may differ in activation and seed, and in nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from comparison.fingerprint import check_comparable, check_redrawn, deviations, pairing, run_settings, unpaired
from comparison.runs import ACTIVATION_KEYS, Run, read_runs
from tests.comparison.made_runs import edit_record, plan_of, report_of, write_run

RECORD = {
    "config": {
        "model": {"act": {"name": "relu"}, "backbone": {"act": None, "stages": {}}, "norm_act": "fused", "size": "n"},
        "train": {"seed": 0, "epochs": 9, "lr": 0.002, "save_minutes": 10.0},
        "run": {"project": "runs/compare/exp", "name": "relu-s0"},
    },
    "code": {"commit": "c0", "dirty": False, "source_sha256": "aa"},
    "data": {"train": "dd", "val": "ee"},
    "device": "CPU, 2 threads; fp32",
    "machine": {
        "cpu": "a processor",
        "threads": 2,
        "gpus": [{"name": "H100"}],
        "packages": {"torch": "2.15"},
        "environment": {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"},
    },
    "operator": {"implementation": "none", "reason": "no site uses it"},
    "census": [{"part": "neck", "stage": "T4", "activation": "relu", "implementation": "ops.norm_act, CPU kernel"}],
    "initial_weights": "w0",
}


def run_of(name: str = "relu-s0", *, rows: tuple = (), **changes) -> Run:
    """A run whose record differs in the given keys, written as config__train__lr."""
    record = json.loads(json.dumps(RECORD))
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = record
        for key in parents:
            node = node[key]
        node[last] = value
    act, _, seed = name.partition("-s")
    record["config"]["train"]["seed"] = int(seed)
    return Run(folder=Path(name), act=act, seed=int(seed), status="finished", record=record, rows=rows)


def mish(name: str = "mish-s0", **changes) -> Run:
    census = [{"activation": "mish", "implementation": "ops.norm_act, CPU kernel"}]
    own = {"config__model__act": {"name": "mish"}, "operator__implementation": "ops.mish, CPU kernel", "census": census}
    return run_of(name, **{**own, **changes})


def test_activation_seed_folder_and_gpu_number_may_differ() -> None:
    runs = [
        run_of(),
        mish("mish-s1", config__run={"project": "elsewhere"}, machine__environment={"OMP_NUM_THREADS": "1"}),
        run_of("relu-s1", config__train__save_minutes=1.0, code__commit="c1", code__dirty=True),
        run_of(
            "relu-s2", config__model__backbone={"act": {"name": "silu"}, "stages": {"P4": {"act": {"name": "elu"}}}}
        ),
    ]
    assert deviations(runs) == {}
    assert check_comparable(runs) == (runs, [])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"config__train__lr": 0.01}, "config.train.lr"),
        ({"config__model__norm_act": "plain"}, "config.model.norm_act"),
        ({"config__model__size": "s"}, "config.model.size"),
        ({"code__source_sha256": "bb"}, "code"),
        ({"data__val": "ff"}, "data.val"),
        ({"device": "CPU, 2 threads; bf16"}, "device"),
        ({"machine__threads": 4}, "machine.threads"),
        ({"machine__gpus": [{"name": "A100"}]}, "machine.gpu"),
        ({"machine__packages": {"torch": "2.14"}}, "machine.packages.torch"),
        ({"machine__environment": {"OMP_NUM_THREADS": "2"}}, "machine.environment.OMP_NUM_THREADS"),
        ({"batches_per_epoch": 12}, "batches_per_epoch"),
        ({"skipped": {"val: image damaged": 40}}, "skipped.val: image damaged"),
        ({"census": [{"activation": "relu", "implementation": "torch.nn.functional.relu"}]}, "fused"),
    ],
)
def test_differing_settings_are_rejected_or_stratified(changes: dict, key: str) -> None:
    runs = [run_of(), mish(), run_of("relu-s1", **changes)]
    with pytest.raises(ValueError, match=f"{key}: .*--allow {key}") as error:
        check_comparable(runs)
    assert "relu-s1" in str(error.value) and "\n" not in str(error.value)
    apart, remarks = check_comparable(runs, allow=[key, "implementation"])
    assert len({run.act for run in apart}) == 3 and apart[2].act.startswith("relu [") and apart[2].seed == 1
    assert key in remarks[0]


@pytest.mark.parametrize("other", [2, 4])
def test_runs_of_another_number_of_processes_are_refused(other: int) -> None:
    def run_in(world: int, name: str) -> Run:
        machines = [{"ranks": [0], "cpu": "EPYC"}]
        return run_of(name, processes={"world_size": world, "backend": "nccl", "sync_bn": False, "machines": machines})

    with pytest.raises(ValueError, match=r"processes\.world_size: 3 .*, " + str(other)):
        check_comparable([run_in(3, "relu-s0"), run_in(other, "relu-s1")])
    with pytest.raises(ValueError, match=r"processes\.world_size"):
        check_comparable([run_of(), run_in(other, "relu-s1")])
    assert check_comparable([run_in(2, "relu-s0"), run_in(2, "relu-s1")])[1] == []


def test_implementations_of_an_activation_must_agree() -> None:
    other = [{"activation": "mish", "implementation": "ops.norm_act, traceable formula"}]
    with pytest.raises(ValueError, match=r"implementation\.mish"):
        check_comparable([run_of(), mish(), mish("mish-s1", census=other)])


@pytest.mark.parametrize(
    ("key", "value", "follows"),
    [
        ("compile", True, {"device": "CPU, 2 threads; fp32; torch.compile", "operator__implementation": "formula"}),
        ("graphs", "on", {"device": "CUDA:0; fp32; CUDA graph"}),
        ("grad_checkpointing", True, {"device": "CPU, 2 threads; fp32; checkpointing"}),
        ("threads", 1, {"device": "CPU, 1 threads; fp32", "machine__threads": 1}),
    ],
)
def test_what_follows_from_an_arms_key_may_differ(key: str, value: object, follows: dict) -> None:
    varies = (*ACTIVATION_KEYS, f"train.{key}")
    one, other = mish("one-s0"), mish("other-s0", **{f"config__train__{key}": value}, **follows)
    runs = [replace(run, varies=varies) for run in (one, other)]
    assert check_comparable(runs) == (runs, [])
    with pytest.raises(ValueError, match="device"):
        check_comparable([replace(run, varies=(*ACTIVATION_KEYS, "train.lr")) for run in runs])


def test_mixing_fused_and_unfused_activations_suggests_plain() -> None:
    gelu = run_of("gelu-s0", census=[{"activation": "gelu", "implementation": "torch.nn.functional.gelu"}])
    with pytest.raises(ValueError, match=r"fused: everywhere \(relu-s0\), nowhere \(gelu-s0\).*model.norm_act=plain"):
        check_comparable([run_of(), gelu])


def test_a_section_allows_its_keys_and_the_plan_frees_epochs() -> None:
    longer = mish(config__train__epochs=12, config__train__lr=0.01)
    assert check_comparable([run_of(), longer], allow=["config.train"])[1]
    with pytest.raises(ValueError, match="config.train.lr"):
        check_comparable([run_of(), longer], free=["config.train.epochs"])
    assert check_comparable([run_of(), mish(config__train__epochs=12)], free=["config.train.epochs"])[1] == []


def test_runs_without_a_record_are_ignored() -> None:
    failed = Run(folder=Path("mish-s1"), act="mish", seed=1, status="failed", record={}, rows=())
    assert check_comparable([run_of(), mish(), failed]) == ([run_of(), mish(), failed], [])
    assert run_settings(failed) == {}


# -------------------------------------------------------------------------------------------------------------- pairing


def rows(*sums: int | None) -> tuple:
    return tuple({"epoch": float(epoch), "batches_crc32": value} for epoch, value in enumerate(sums, 1))


def test_equal_starts_and_batches() -> None:
    runs = [run_of(rows=rows(7, 8)), mish(rows=rows(7, 8)), run_of("relu-s1", initial_weights="w1", rows=rows(5, 6))]
    assert pairing(runs) == []


def test_different_starts_and_batches_are_named() -> None:
    runs = [run_of(rows=rows(7, 8, 9)), mish(rows=rows(7, 1, 2), initial_weights="other")]
    starts, batches = pairing(runs)
    assert "seed 0" in starts and "weights" in starts and "relu-s0, mish-s0" in starts
    assert "seed 0" in batches and "epoch 2" in batches


def test_schedules_of_different_length_have_different_batches() -> None:
    assert pairing([run_of(rows=rows(7, 8)), mish(rows=rows(7, 1), config__train__epochs=5)]) == []


@pytest.mark.parametrize("setting", [{"config__train__rect": True}, {"config__train__class_balance": 0.5}])
def test_settings_that_arrange_the_images_give_other_batches(setting: dict) -> None:
    runs = [run_of(rows=rows(7, 8), **dict.fromkeys(setting, 0)), run_of("rect-s0", rows=rows(1, 2), **setting)]
    assert pairing(runs) == []
    assert unpaired(runs) == {"batches": (next(iter(setting)).removeprefix("config__").replace("__", "."),)}


def test_missing_records_are_named() -> None:
    old = run_of("relu-s1", rows=({"epoch": 1.0},), initial_weights=None)
    (remark,) = pairing([run_of(rows=rows(7)), old])
    assert "not recorded" in remark and "relu-s1" in remark


def redrawn_runs(folder: Path, hashes: dict[tuple[str, int], str]) -> list[Run]:
    for (act, seed), value in hashes.items():
        place = folder / f"{act}-s{seed}"
        write_run(place, act=act, seed=seed, last=0.5 + seed / 100)

        def change(record: dict, value: str = value, seed: int = seed) -> None:
            record["data"] = {"train": value, "val": value}
            record["config"]["data"]["root"] = f"datasets/shapes-seed{seed}"

        edit_record(place, change)
    return read_runs([folder])


def test_redrawn_data_are_equal_within_a_seed_and_differ_between_seeds(tmp_path: Path) -> None:
    right = {("relu", 0): "a", ("mish", 0): "a", ("relu", 1): "b", ("mish", 1): "b"}
    check_redrawn(redrawn_runs(tmp_path / "right", right))
    with pytest.raises(ValueError, match="seed 1: the data differ between mish-s1, relu-s1"):
        check_redrawn(redrawn_runs(tmp_path / "mixed", {**right, ("relu", 1): "c"}))
    with pytest.raises(ValueError, match="s0, .*s1 have the same data"):
        check_redrawn(redrawn_runs(tmp_path / "same", dict.fromkeys(right, "a")))


def test_a_plan_with_redrawn_data_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.figures.draw", lambda *_: {})
    redrawn_runs(tmp_path, {(act, seed): str(seed) for act in ("relu", "mish") for seed in range(3)})
    data = {"root": "/d/shapes", "embedded": {"seed": 0}}
    plan = plan_of(("relu", "mish"), range(3), redrawn=data)
    _, content = report_of(tmp_path, plan)
    assert content["exploratory"] == [] and content["verdicts"]["mish"]["kind"] != "exploratory"
    with pytest.raises(ValueError, match="data"):
        report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
