"""Arms that differ in any config key: the command line, the guard, the pairing, the report."""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import compare
from comparison.arms import Arm, differing_keys, varied_keys
from comparison.cli_spec import arms_from
from comparison.fingerprint import check_comparable, pairing, unpaired
from comparison.plan import Plan, make_plan
from comparison.runs import Run, read_run, read_runs
from comparison.timing_probe import steps_differ
from comparison.wording.captions import paired
from comparison.wording.plans import describe
from tests.comparison.made_runs import report_of, seal, write_run
from tests.support.checkpoints import write_data
from tests.support.scripts import run
from tests.support.training import SMALL

ROOT = Path(__file__).parents[2]


def arms_of(*words: str) -> list[Arm]:
    arguments = compare.parse(list(words))
    return arms_from(arguments, {})


def write_arm(
    folder: Path,
    arm: str,
    seed: int,
    *,
    last: float = 0.6,
    varies: Sequence[str] = ("augment.mosaic",),
    settings: Mapping[str, Any] | None = None,
    batches: int = 0,
    **record: Any,
) -> Path:
    """A made run that carries its arm; ``batches`` is added to its batch checksums."""
    place = folder / f"{arm}-s{seed}"
    write_run(place, act="mish", seed=seed, last=last)
    content = json.loads((place / "run.json").read_text())
    content["config"] |= {"augment": {"mosaic": 1.0, "scale": 0.5}, "run": {"arm": arm, "varies": list(varies)}}
    for key, value in (settings or {}).items():
        section, _, name = key.partition(".")
        content["config"].setdefault(section, {})[name] = value
    if batches:
        file = place / "results.csv"
        header, *lines = file.read_text().splitlines()
        column = header.split(",").index("batches_crc32")
        rows = [line.split(",") for line in lines]
        for row in rows:
            row[column] = str(int(row[column]) + batches)
        file.write_text("\n".join([header, *map(",".join, rows)]) + "\n")
        content["last_epoch"]["batches_crc32"] += batches
    seal(place, {**content, **record})
    return place


def write_mosaic(folder: Path, gains: Mapping[str, float], seeds: Sequence[int] = (0, 1, 2)) -> None:
    for arm, gain in gains.items():
        mosaic = float(arm.partition("=")[2])
        for seed in seeds:
            last = 0.6 + gain / 100 + seed * (3 + (gain > 0)) / 1000
            write_arm(
                folder, arm, seed, last=last, settings={"augment.mosaic": mosaic}, batches=round(100_000 * mosaic)
            )


def plan_of(arms: Mapping[str, Mapping[str, Any]], varies: Sequence[str], seeds: Sequence[int] = (0, 1, 2)) -> Plan:
    names = tuple(arms)
    return make_plan(
        acts=names, baseline=names[0], seeds=tuple(seeds), cfg="yolo.yaml", arms=arms, varies=tuple(varies),
        epochs=dict.fromkeys(names, 8),
    )  # fmt: skip


MOSAIC = {"augment.mosaic=1": {"augment.mosaic": 1}, "augment.mosaic=0": {"augment.mosaic": 0}}


# ----------------------------------------------------------------------------------------------------- the command line


def test_one_arm_per_value_the_first_is_the_baseline() -> None:
    arms = arms_of("--vary", "augment.mosaic=1,0.5", "--arm", "no mosaic, small", "augment.mosaic=0", "model.size=n")
    assert [arm.name for arm in arms] == ["augment.mosaic=1", "augment.mosaic=0.5", "no mosaic, small"]
    assert [arm.config.augment.mosaic for arm in arms] == [1.0, 0.5, 0.0]
    assert varied_keys(arms) == ("augment.mosaic",)
    arms = arms_of("--vary", "augment.extra=[{name: RandomFog, p: 0.1}],[]")
    assert len(arms) == 2 and arms[1].config.augment.extra == []


def test_keys_that_follow_from_a_varied_key_may_differ_too() -> None:
    """The nominal batch size is the batch size unless it is set."""
    assert varied_keys(arms_of("--vary", "train.batch=8,16")) == ("train.batch", "train.nominal_batch")
    pinned = compare.parse(["--vary", "train.batch=8,16"])
    assert varied_keys(arms_from(pinned, {"train.nominal_batch": 16})) == ("train.batch",)


def test_activations_are_labelled_by_name_only_if_nothing_else_differs() -> None:
    assert varied_keys(arms_of("--acts", "relu", "neck=mish")) == ()
    both = arms_of("--acts", "relu", "--arm", "calm", "model.act=mish", "augment.mosaic=0")
    assert set(varied_keys(both)) == {"model.act", "augment.mosaic"} and both[0].name == "relu"
    assert varied_keys(arms_of("--arm", "A", "model.act=relu", "--arm", "B", "model.act=mish")) == ("model.act",)
    assert varied_keys(arms_of("--aa", "--arm", "A", "train.lr=0.01")) == ("train.lr",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--vary", "augment.mosaic=1"], "two or more values"),
        (["--vary", "augment.mosaic=1,1"], "duplicate 1"),
        (["--vary", "augment.mosaik=1,0"], "augment.mosaik"),
        (["--vary", "train.seed=1,2"], "train.seed is set by the comparison"),
        (["--vary", "run.name=a,b"], "run.name is set by the comparison"),
        (["--acts", "mish", "--vary", "augment.mosaic=1,0"], "--acts as well.*--arm"),
        (["--arm", "augment.mosaic=0", "augment.mosaic=1"], "expected a name"),
        (["--arm", "alone"], "expected its settings"),
        (["--arm", "··", "augment.mosaic=0"], "expected a name"),
    ],
)
def test_invalid_arms(words: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        arms_of(*words)
    assert "\n" not in str(error.value)


def test_arms_must_differ_and_have_folders_of_their_own() -> None:
    same = arms_of("--arm", "A", "augment.mosaic=0", "--arm", "B", "augment.mosaic=0.0", "--arm", "C", "train.lr=1")
    assert differing_keys(same[:2]) == []
    with pytest.raises(ValueError, match="--arm B and A are the same arm"):
        compare.common_overrides(same, {})
    with pytest.raises(ValueError, match="ab and a b would have the same folder"):
        plan_of({"ab": {"train.lr": 1}, "a b": {"train.lr": 2}}, ["train.lr"])


def test_runs_carry_their_arm_and_the_plan_names_what_differs() -> None:
    plan = plan_of(MOSAIC, ["augment.mosaic"])
    overrides = plan.overrides_of(plan.runs[1])
    assert overrides["run.arm"] == "augment.mosaic=0" and overrides["run.varies"] == ["augment.mosaic"]
    assert "arms differ in" in describe(plan) and plan.runs[1].name == "augment.mosaic=0-s0"
    with pytest.raises(ValueError, match="varies"):
        plan.merged(plan.model_copy(update={"varies": ("augment.scale",)}))


# ------------------------------------------------------------------------------------------------------------ the guard


def test_the_report_labels_runs_by_arm_and_says_what_was_paired(tmp_path: Path, undrawn: None) -> None:
    write_mosaic(tmp_path, {"augment.mosaic=1": 0.0, "augment.mosaic=0": 5.0})
    _, numbers = report_of(tmp_path, plan_of(MOSAIC, ["augment.mosaic"]))
    assert numbers["acts"] == ["augment.mosaic=1", "augment.mosaic=0"] and numbers["exploratory"] == []
    assert numbers["verdicts"]["augment.mosaic=0"]["kind"] == "higher"
    assert numbers["setting"]["pairing"] == []  # other batches are no deviation here
    assert numbers["setting"]["unpaired"] == {"batches": ["augment.mosaic"]}
    page = (tmp_path / "report.html").read_text()
    assert "shared starting weights and batches as far as the arms have the same augment.mosaic" in page
    assert "activation" not in page.split("<h1>")[1].split("</h1>")[0]


def test_without_a_plan_runs_keep_their_arm(tmp_path: Path) -> None:
    write_mosaic(tmp_path, {"augment.mosaic=1": 0.0, "augment.mosaic=0": 5.0}, seeds=[0])
    runs, remarks = check_comparable(read_runs([tmp_path]))
    assert {run.act for run in runs} == {"augment.mosaic=1", "augment.mosaic=0"} and remarks == []
    write_run(tmp_path / "by-hand", act="mish", seed=0, last=0.6)
    by_hand = read_run(tmp_path / "by-hand")
    assert by_hand.act == "mish"
    with pytest.raises(ValueError, match="arms: differ in augment.mosaic"):
        check_comparable([*runs, by_hand])


@pytest.mark.parametrize("key", ["augment.scale", "train.lr"])
def test_only_the_keys_that_the_arms_name_may_differ(tmp_path: Path, key: str) -> None:
    write_mosaic(tmp_path, {"augment.mosaic=1": 0.0}, seeds=[0])
    write_arm(tmp_path, "augment.mosaic=0", 0, settings={"augment.mosaic": 0.0, key: 0.9})
    with pytest.raises(ValueError, match=f"more than what their arms name and seed.*config.{key}"):
        check_comparable(read_runs([tmp_path]))


def test_a_varied_key_must_not_differ_within_an_arm(tmp_path: Path) -> None:
    write_mosaic(tmp_path, {"augment.mosaic=1": 0.0, "augment.mosaic=0": 0.0}, seeds=[0, 1])
    write_arm(tmp_path, "augment.mosaic=0", 2, settings={"augment.mosaic": 0.3})
    with pytest.raises(ValueError, match=r"config.augment.mosaic: 0.0 .*0.3 \(augment.mosaic=0-s2\)"):
        check_comparable(read_runs([tmp_path]))
    apart, _ = check_comparable(read_runs([tmp_path]), allow=["config.augment.mosaic"])
    assert sorted(run.act for run in apart if "[" in run.act) == [
        "augment.mosaic=0 [augment.mosaic=0.0]", "augment.mosaic=0 [augment.mosaic=0.0]",
        "augment.mosaic=0 [augment.mosaic=0.3]",
    ]  # fmt: skip


def test_runs_that_are_not_of_their_arm_are_refused(tmp_path: Path, undrawn: None) -> None:
    """Labels swapped in run.json: the settings tell."""
    for seed in range(2):
        for arm, mosaic in (("augment.mosaic=1", 0.0), ("augment.mosaic=0", 1.0)):
            write_arm(tmp_path, arm, seed, last=0.5 + mosaic / 10, settings={"augment.mosaic": mosaic})
    with pytest.raises(ValueError, match=r"augment.mosaic is 0.0, expected 1 of augment.mosaic=1"):
        report_of(tmp_path, plan_of(MOSAIC, ["augment.mosaic"], seeds=[0, 1]))
    with pytest.raises(ValueError, match=r"differ in augment.mosaic, those of the plan in augment.scale"):
        report_of(tmp_path, plan_of(MOSAIC, ["augment.scale"], seeds=[0, 1]))


@pytest.mark.parametrize(
    ("text", "held"), [("train.amp=off", "off"), ("train.lr=null", 0.01), ("train.save_minutes=5", 5.0)]
)
def test_settings_may_be_held_in_another_way_than_they_were_given(
    tmp_path: Path, undrawn: None, text: str, held
) -> None:
    """YAML reads off as false; a null is replaced by what it stands for."""
    key = text.partition("=")[0]
    arms = {arm.name: arm.overrides for arm in arms_of("--arm", "A", text, "--arm", "B", "augment.mosaic=0.3")}
    for seed in range(2):
        write_arm(tmp_path, "A", seed, varies=[key, "augment.mosaic"], settings={key: held})
        settings = {key: held, "augment.mosaic": 0.3}
        write_arm(tmp_path, "B", seed, last=0.7, varies=[key, "augment.mosaic"], settings=settings)
    text, _ = report_of(tmp_path, plan_of(arms, [key, "augment.mosaic"], seeds=[0, 1]))
    assert "EXPLORATORY" not in text and "identical difference" in text


def test_training_data_may_differ_and_validation_data_may_not(tmp_path: Path) -> None:
    hashes = {"train": "aa" * 32, "val": "bb" * 32}
    for name, other in (("more", {"train": "cc" * 32}), ("elsewhere", {"val": "dd" * 32})):
        write_arm(tmp_path / name, "A", 0, varies=["data.root"])
        write_arm(tmp_path / name, "B", 0, varies=["data.root"], settings={"data.root": "b"}, data={**hashes, **other})
    assert check_comparable(read_runs([tmp_path / "more"]))[1] == []
    with pytest.raises(ValueError, match="data.val"):
        check_comparable(read_runs([tmp_path / "elsewhere"]))


# ---------------------------------------------------------------------------------------------------------- the pairing


def made(tmp_path: Path, *arms: tuple[str, Mapping[str, Any], int, str]) -> list[Run]:
    """Runs of seed 0: arm, settings, what is added to the batch checksums, initial weights."""
    varies = sorted({key for _, settings, _, _ in arms for key in settings})
    for name, settings, batches, weights in arms:
        write_arm(tmp_path, name, 0, varies=varies, settings=settings, batches=batches, initial_weights=weights)
    return read_runs([tmp_path])


def test_batches_are_compared_between_the_arms_that_leave_them_alike(tmp_path: Path) -> None:
    settings = {"augment.mosaic": 1.0, "train.lr": 0.002}
    runs = made(
        tmp_path,
        ("A", settings, 0, "w"),
        ("B", {**settings, "augment.mosaic": 0.0}, 7, "w"),
        ("C", {**settings, "train.lr": 0.01}, 9, "w"),  # should have those of A
    )
    (remark,) = pairing(runs)
    assert "batches of epoch 1 differ between A-s0, C-s0" in remark
    assert unpaired(runs) == {"batches": ("augment.mosaic",)}


def test_weights_are_compared_between_the_arms_that_leave_them_alike(tmp_path: Path) -> None:
    large = {"model.size": "s", "model.loss": {"box": 7.5}}
    runs = made(
        tmp_path,
        ("A", {"model.size": "n", "model.loss": {"box": 7.5}}, 0, "w"),
        ("B", large, 0, "other"),
        ("C", {"model.size": "n", "model.loss": {"box": 5.0}}, 0, "lost"),  # the loss does not change the weights
    )
    (remark,) = pairing(runs)
    assert "initial convolution weights differ between A-s0, C-s0" in remark
    assert unpaired(runs) == {"weights": ("model.size",)}
    assert paired(unpaired(runs)).startswith("Within each seed, all runs shared starting weights as far as the arms")


def test_arms_in_the_optimizer_share_weights_and_batches(tmp_path: Path) -> None:
    runs = made(tmp_path, ("A", {"train.lr": 0.002}, 0, "w"), ("B", {"train.lr": 0.004}, 0, "w"))
    assert pairing(runs) == [] and unpaired(runs) == {}
    assert paired({}) == "Within each seed, all runs shared starting weights and batches (checked)."


@pytest.mark.slow
@pytest.mark.usefixtures("warm_runs")
def test_mosaic_is_compared_by_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = write_data(tmp_path, train=8, val=3)
    words = [
        "--vary",
        "augment.mosaic=1,0",
        "--seeds",
        1,
        "--data",
        data,
        "--project",
        tmp_path,
        "--set",
        "model.act=relu",
    ]
    small = ["--cfg", SMALL, "--imgsz", 64, "--batch", 4, "--workers", 0, "--amp", "off", "--epochs", 1, "--probe", 0]
    assert run(compare.main, "compare.py", *words, *small) == 0
    numbers = json.loads((tmp_path / "exp" / "report.json").read_text())
    assert numbers["acts"] == ["augment.mosaic=1", "augment.mosaic=0"] and numbers["exploratory"] == []
    assert numbers["setting"]["pairing"] == [] and numbers["setting"]["unpaired"] == {"batches": ["augment.mosaic"]}
    (first, second) = (read_run(tmp_path / "exp" / f"augment.mosaic={value}-s0") for value in (1, 0))
    assert first.record["initial_weights"] == second.record["initial_weights"]
    assert first.rows[0]["batches_crc32"] != second.rows[0]["batches_crc32"]


def test_arguments_are_refused_together() -> None:
    assert isinstance(compare.parse(["--arm", "A", "train.lr=1", "--arm", "B", "train.lr=2"]), Namespace)
    with pytest.raises(SystemExit):
        compare.parse(["--vary", "augment.mosaic=1,0", "--report", "somewhere"])
    with pytest.raises(SystemExit):
        compare.parse([])


@pytest.mark.parametrize(
    ("words", "differ"),
    [
        (["--vary", "train.rect=false,true"], ("train.rect",)),
        (["--vary", "train.imgsz=64,96"], ("train.imgsz",)),
        (["--vary", "train.class_balance=0,0.5"], ()),
        (["--vary", "train.lr=0.01,0.02"], ()),
    ],
)
def test_steps_of_arms_with_batches_of_other_shapes_are_not_timed(words: list[str], differ: tuple[str, ...]) -> None:
    assert steps_differ(Plan.model_construct(varies=varied_keys(arms_of(*words)))) == differ
