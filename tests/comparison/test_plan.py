"""The plan of a comparison: what it fixes, what may be added, how it is described."""

import json
from pathlib import Path

import pytest

from comparison.cli_spec import embedded_data
from comparison.plan import AA_SUFFIX, Plan, make_plan, read_plan
from comparison.runs import Run
from comparison.timing_probe import schedule_in_equal_time
from comparison.wording.plans import describe
from configs.loading import CONFIGS
from configs.schema import load
from data import load_dataset


def plan_of(*acts: str, seeds: tuple[int, ...] = (0, 1, 2), **fields) -> Plan:
    specs = {act: {"model.act": act.partition(AA_SUFFIX)[0]} for act in acts}
    given = {"acts": acts, "baseline": acts[0], "seeds": seeds, "cfg": "yolo.yaml", "arms": specs}
    return make_plan(**{**given, "epochs": dict.fromkeys(acts, 10), **fields})


def run_of(act: str, seed: int) -> Run:
    return Run(folder=Path(f"{act}-s{seed}"), act=act, seed=seed, status="finished", record={}, rows=())


def test_a_plan_is_read_back_unchanged(tmp_path: Path) -> None:
    plan = plan_of("relu", "mish", overrides={"train.batch": 4, "data": "a.yaml"}, step_ms={"relu": 3.0, "mish": 4.5})
    plan.write(tmp_path / "new")
    assert read_plan(tmp_path / "new") == plan and read_plan(tmp_path) is None


def test_the_detectable_difference_matches_the_protocol() -> None:
    """With three activations it is 3.57 sigma for three seeds, 2.27 for five; conservative errors add 12 and 9 %."""
    for seeds, sigmas in ((3, 3.57 * 1.12), (5, 2.27 * 1.09)):
        plan = plan_of("relu", "silu", "mish", seeds=tuple(range(seeds)))
        assert plan.detectable(0.01) == pytest.approx(0.01 * sigmas, rel=0.02)
    words = describe(plan_of("relu", "silu", "mish", seeds=(0, 1, 2, 3, 4), sigma_assumed=0.01))
    assert "2.5 mAP points" in words and "assumes" in words
    equivalence = describe(plan_of("relu", "silu", "mish", margin=0.015, sigma_assumed=0.01))
    assert "11 seeds" in equivalence  # at 1.5 sigma


def test_one_seed_has_no_detectable_difference() -> None:
    words = describe(plan_of("relu", "mish", seeds=(3,)))
    assert "no interval and no verdict" in words and "inf" not in words


def test_the_estimate_counts_steps_validation_and_start() -> None:
    plan = plan_of("relu", "mish", step_ms={"relu": 100.0, "mish": 200.0}, batches=(30, 6), start_s=5.0)
    by_hand = 5 + 10 * (30 + 2) * 0.1  # seconds: epochs, batches with those of validation as a third, a step
    assert plan.seconds(plan.runs[0]) == pytest.approx(by_hand)
    assert "6 runs, about 5 min" in describe(plan) or "6 runs, about 317 s" in describe(plan)
    assert "no probe" in describe(plan_of("relu", "mish"))


def test_batches_in_equal_time() -> None:
    """4000 batches of 80 ms are 320 s: 3200 of 100 ms, 3809.5 of 84 ms, 1.6 of 200 s."""
    epochs, last = schedule_in_equal_time(100, 40, {"relu": 80.0, "mish": 100.0, "silu": 84.0, "elish": 2e5})
    assert epochs == {"relu": 100, "mish": 80, "silu": 96, "elish": 1}
    assert last == {"silu": 3810 - 95 * 40, "elish": 2}
    plan = plan_of("relu", "mish", "silu", epochs={"relu": 100, "mish": 80, "silu": 96}, batches=(40, 4),
                   last_epoch_batches={"silu": 10}, budget="time")  # fmt: skip
    assert [plan.train_batches(act) for act in plan.acts] == [4000, 3200, 3810]
    overrides = {run.act: plan.overrides_of(run) for run in plan.runs}
    assert overrides["silu"]["train.last_epoch_batches"] == 10
    assert not any("last_epoch" in key for key in overrides["mish"])
    assert "95.2" in describe(plan)


def test_additions_come_last_and_are_exploratory() -> None:
    plan = plan_of("relu", "mish", seeds=(0, 1))
    more = plan.merged(plan_of("relu", "mish", "silu", seeds=(0, 1, 5)))
    assert (more.acts, more.seeds) == (("relu", "mish"), (0, 1)) and (more.added_acts, more.added_seeds) == (
        ("silu",),
        (5,),
    )
    names = [cell.name for cell in more.runs]
    assert names[:4] == ["relu-s0", "mish-s0", "mish-s1", "relu-s1"]
    assert sorted(names[4:]) == ["mish-s5", "relu-s5", "silu-s0", "silu-s1", "silu-s5"]
    assert "exploratory" in describe(more) and "exploratory" not in describe(plan)
    assert more.merged(plan_of("relu", "mish", "silu", seeds=(0, 1, 5))) == more
    assert more.merged(plan) == more  # the command without what was added


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"overrides": {"train.batch": 8}}, "overrides: .*8.* instead of"),
        ({"margin": 0.01}, "margin: 0.01 instead of 0.005"),
        ({"baseline": "mish"}, "baseline: .*mish.* instead of .*relu"),
        ({"seeds": (0, 1)}, "seed 2 left out"),
        ({"budget": "time"}, "budget"),
        ({"epochs": {"relu": 10, "mish": 9}}, "epochs of mish: 9 instead of 10"),
        ({"interim": (2, 3)}, "looks"),
    ],
)
def test_a_different_plan_is_rejected_naming_the_difference(other: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan_of("relu", "mish").merged(plan_of("relu", "mish", **other))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seeds": (1, 1)}, "duplicate 1"),
        ({"seeds": ()}, "at least one"),
        ({"baseline": "silu"}, "silu.*expected one of relu, mish"),
        ({"interim": (3, 2)}, "looks"),
        ({"interim": (2,)}, "looks.*all 3"),
        ({"margin": 0.0}, "margin"),
        ({"sigma_assumed": float("nan")}, "sigma"),
    ],
)
def test_invalid_plans(wrong: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        plan_of("relu", "mish", **wrong)
    assert "\n" not in str(error.value)


def test_damaged_plan_files_are_named(tmp_path: Path) -> None:
    plan_of("relu", "mish").write(tmp_path)
    file = tmp_path / "plan.json"
    whole = file.read_text()
    for text in (whole[:40], "[1]", json.dumps({**json.loads(whole), "acts": 3})):
        file.write_text(text)
        with pytest.raises(ValueError, match="plan.json"):
            read_plan(tmp_path)


def test_a_control_uses_fresh_seeds() -> None:
    plan = plan_of("mish", "mish" + AA_SUFFIX, seeds=(0, 1, 2), aa=True)
    assert [cell.name for cell in plan.runs] == ["mish-s0", "mish-s3", "mish-s4", "mish-s1", "mish-s2", "mish-s5"]
    compared = plan.as_compared([run_of("mish", seed) for seed in (5, 0, 3, 1, 4, 2)])
    assert [(run.act, run.seed, run.folder.name) for run in compared] == [
        *(("mish", seed, f"mish-s{seed}") for seed in (0, 1, 2)),
        *(("mish" + AA_SUFFIX, seed, f"mish-s{seed + 3}") for seed in (0, 1, 2)),
    ]


def test_redrawn_data_are_other_data_for_each_seed(tmp_path: Path) -> None:
    """Drawn by train.py from the overrides of the plan: same for all activations of a seed, never the set itself."""
    data = tmp_path / "data.yaml"
    text = (CONFIGS / "data/shapes.yaml").read_text().replace("../../datasets", str(tmp_path))
    for given, small in (("train: 600", "train: 2"), ("val: 150", "val: 2"), ("test: 100", "test: 1"), ("160", "64")):
        text = text.replace(given, small, 1)
    data.write_text(text)
    config = load("yolo.yaml", {"data": str(data)})
    plan = plan_of("relu", "mish", seeds=(0, 4), overrides={"data": str(data)}, redrawn=embedded_data(config))
    hashes = {}
    for run in plan.runs:
        settings = [f"{key}={json.dumps(value)}" for key, value in plan.overrides_of(run).items()]
        made = load("yolo.yaml", settings)
        assert made.data.root == f"{config.data.root}-seed{run.seed}" and made.data.val.images.startswith(
            made.data.root
        )
        hashes[run] = load_dataset(made.data, "val", progress=False).sha256
    assert len(hashes) == 4 and len(set(hashes.values())) == 2
    assert all(len({hashes[run] for run in group}) == 1 for group in plan.seed_groups)
    assert load_dataset(config.data, "val", progress=False).sha256 not in hashes.values()


def test_only_the_embedded_set_can_be_drawn_anew(tmp_path: Path) -> None:
    data = tmp_path / "own.yaml"
    data.write_text("root: .\ntrain: {images: a, annotations: a.json}\nval: {images: a, annotations: a.json}\n")
    with pytest.raises(ValueError, match="--redraw-data: found the data set"):
        embedded_data(load("yolo.yaml", {"data": str(data)}))
