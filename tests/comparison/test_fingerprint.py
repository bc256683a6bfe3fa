"""Runs that differ in more than activation and seed are found out, and those that differ in these alone are not."""

import json
from pathlib import Path

import pytest

from comparison.fingerprint import checked, differences, fingerprint, pairing
from comparison.runs import Run

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


def test_activation_seed_folder_and_the_number_of_the_gpu_are_no_difference() -> None:
    runs = [
        run_of(),
        mish("mish-s1", config__run={"project": "elsewhere"}, machine__environment={"OMP_NUM_THREADS": "1"}),
        run_of("relu-s1", config__train__save_minutes=1.0, code__commit="c1", code__dirty=True),
        run_of(
            "relu-s2", config__model__backbone={"act": {"name": "silu"}, "stages": {"P4": {"act": {"name": "elu"}}}}
        ),
    ]
    assert differences(runs) == {}
    assert checked(runs) == (runs, [])


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
        ({"census": [{"activation": "relu", "implementation": "torch.nn.functional.relu"}]}, "fused"),
    ],
)
def test_what_differs_is_refused_by_name_or_kept_apart(changes: dict, key: str) -> None:
    runs = [run_of(), mish(), run_of("relu-s1", **changes)]
    with pytest.raises(ValueError, match=f"{key}: .*--allow {key}") as error:
        checked(runs)
    assert "relu-s1" in str(error.value) and "\n" not in str(error.value)
    apart, remarks = checked(runs, allow=[key, "implementation"])
    assert len({run.act for run in apart}) == 3 and apart[2].act.startswith("relu [") and apart[2].seed == 1
    assert key in remarks[0]


def test_another_implementation_of_the_same_activation_is_a_difference() -> None:
    other = [{"activation": "mish", "implementation": "ops.norm_act, traceable formula"}]
    with pytest.raises(ValueError, match=r"implementation\.mish"):
        checked([run_of(), mish(), mish("mish-s1", census=other)])


def test_an_unfused_activation_beside_a_fused_one_names_the_way_out() -> None:
    gelu = run_of("gelu-s0", census=[{"activation": "gelu", "implementation": "torch.nn.functional.gelu"}])
    with pytest.raises(ValueError, match=r"fused: everywhere \(relu-s0\), nowhere \(gelu-s0\).*model.norm_act=plain"):
        checked([run_of(), gelu])


def test_a_wider_key_allows_the_narrower_and_the_plan_frees_epochs() -> None:
    longer = mish(config__train__epochs=12, config__train__lr=0.01)
    assert checked([run_of(), longer], allow=["config.train"])[1]
    with pytest.raises(ValueError, match="config.train.lr"):
        checked([run_of(), longer], free=["config.train.epochs"])
    assert checked([run_of(), mish(config__train__epochs=12)], free=["config.train.epochs"])[1] == []


def test_a_run_that_left_nothing_differs_in_nothing() -> None:
    failed = Run(folder=Path("mish-s1"), act="mish", seed=1, status="failed", record={}, rows=())
    assert checked([run_of(), mish(), failed]) == ([run_of(), mish(), failed], [])
    assert fingerprint(failed) == {}


# -------------------------------------------------------------------------------------------------------------- pairing


def rows(*sums: int | None) -> tuple:
    return tuple({"epoch": float(epoch), "batches_crc32": value} for epoch, value in enumerate(sums, 1))


def test_equal_starts_and_batches_leave_nothing_to_say() -> None:
    runs = [run_of(rows=rows(7, 8)), mish(rows=rows(7, 8)), run_of("relu-s1", initial_weights="w1", rows=rows(5, 6))]
    assert pairing(runs) == []


def test_what_is_not_equal_is_named() -> None:
    runs = [run_of(rows=rows(7, 8, 9)), mish(rows=rows(7, 1, 2), initial_weights="other")]
    starts, batches = pairing(runs)
    assert "seed 0" in starts and "weights" in starts and "relu-s0, mish-s0" in starts
    assert "seed 0" in batches and "epoch 2" in batches


def test_another_length_has_other_batches_by_intent() -> None:
    assert pairing([run_of(rows=rows(7, 8)), mish(rows=rows(7, 1), config__train__epochs=5)]) == []


def test_what_older_runs_do_not_record_is_said() -> None:
    old = run_of("relu-s1", rows=({"epoch": 1.0},), initial_weights=None)
    assert pairing([run_of(rows=rows(7)), old]) == ["start or batches are not recorded, so not checked, in relu-s1"]
