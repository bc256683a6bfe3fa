"""The search for a mixture: what can be drawn, the race, its bound, the frozen choice, and what a report checks."""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import compare
from comparison import runner, search
from comparison.arms import parse_arms
from comparison.cli_spec import arms_from
from comparison.journal import note
from comparison.plan import Plan, read_plan
from comparison.report import report
from comparison.search import better_half, groups_of, race, rounds, schedule, unconfirmed
from configs.cli import overrides
from configs.schema import load
from models import resolve_activations
from tests.comparison.made_runs import declare, plan_of, write_comparison, write_failed, write_run
from tests.comparison.test_runner import STUB
from tests.comparison.test_tuning import SMALL, with_journal
from tests.support import training
from tests.support.checkpoints import write_data
from tests.support.scripts import run

ACTS = ("--acts", "relu", "mish")
SEARCH = ("--search", "--budget-runs", "11")


def space_of(*words: str) -> search.Space:
    arguments = compare.parse(list(words))
    search.refuse(arguments)
    given, stages = overrides(arguments), lambda config: resolve_activations(config.model)
    return search.space_from(arguments, arms_from(arguments, given), given, stages)


# --------------------------------------------------------------------------------------------------------- the schedule


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (2, [2]), (3, [2]), (4, [2]), (5, [3, 2]), (6, [4, 2]), (9, [4, 2]), (10, [5, 3, 2]), (11, [6, 3, 2]),
        (13, [7, 4, 2]), (14, [8, 4, 2]), (23, [12, 6, 3, 2]), (24, [12, 6, 3, 2]), (10**9, [14, 7, 4, 2]),
    ],
)  # fmt: skip
def test_the_schedule_is_the_largest_race_of_a_budget(budget: int, expected: list[int]) -> None:
    assert list(schedule(budget, 14)) == expected and sum(expected) <= budget


def test_no_larger_race_would_fit() -> None:
    for budget in range(2, 200):
        found = schedule(budget, 10**6)
        assert sum(found) <= budget < sum(rounds(found[0] + 1))


# ------------------------------------------------------------------------------------------------------------ the space


@pytest.mark.parametrize("cfg", ["yolo.yaml", "yolo-p2.yaml", "yolo-bifpn.yaml"])
def test_every_mixture_resolves_to_its_activations_by_group(cfg: str) -> None:
    space = space_of("--acts", "relu", "silu", "mish", *SEARCH, "--cfg", cfg)
    assert len(set(space.mixtures)) == len(space.mixtures) == 3**4 - 3
    assert all(len(set(mixture)) > 1 for mixture in space.mixtures)
    stages = resolve_activations(load(cfg).model)
    assert sorted(stage for group in space.groups.values() for stage in group) == sorted(stages)
    mixtures = space.mixtures[:6]
    for mixture, arm in zip(mixtures, space.arms(mixtures), strict=True):
        expected = {stage: act for act, group in zip(mixture, space.groups.values(), strict=True) for stage in group}
        assert {stage: spec.name for stage, spec in resolve_activations(arm.config.model).items()} == expected
        assert arm.name == space.text(mixture) == parse_arms([arm.name], {}, cfg=cfg)[0].name


def test_the_draw_is_fixed_and_the_first_stages_are_shallow() -> None:
    one, other = space_of(*ACTS, *SEARCH), space_of(*ACTS, "--search", "--budget-runs", "24")
    assert one.mixtures == other.mixtures and one.most == 6 and one.seeds == (1000, 1001, 1002)
    assert one.mixtures != tuple(sorted(one.mixtures))
    assert groups_of(["backbone.P1", "backbone.P2", "backbone.P3", "neck.N3", "head.P3"]) == {
        "shallow backbone": ("backbone.P1",), "deep backbone": ("backbone.P2", "backbone.P3"), "neck": ("neck.N3",),
        "head": ("head.P3",),
    }  # fmt: skip


def test_activations_with_parameters_are_mixed() -> None:
    space = space_of("--acts", "relu", "{name: swish, learnable: true}", *SEARCH)
    assert space.acts == ("relu", "swish(learnable=true)")
    (arm,) = space.arms([("relu", "swish(learnable=true)", "relu", "relu")])
    assert {spec.name for spec in resolve_activations(arm.config.model).values()} == {"relu", "swish"}
    assert parse_arms([arm.name], {}, cfg="yolo.yaml")[0].overrides == arm.overrides


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*ACTS, "--search"], "expected --budget-runs N"),
        ([*ACTS, "--search", "--budget-runs", "1"], "--budget-runs 1: expected 2 or more"),
        ([*ACTS, "--search", "--budget-runs", "-4"], "--budget-runs -4: expected 2 or more"),
        ([*ACTS, "--budget-runs", "8"], "--budget-runs is for --search"),
        ([*ACTS, "--search-bound", "step=1.1"], "--search-bound is for --search"),
        ([*ACTS, *SEARCH, "--budget", "time"], "cannot be combined with --budget time"),
        ([*ACTS, *SEARCH, "--tune", "train.lr=0.1,0.2"], "cannot be combined with --tune"),
        ([*ACTS, *SEARCH, "--vary", "train.lr=0.1,0.2"], "cannot be combined with --vary"),
        ([*ACTS, *SEARCH, "--arm", "A", "train.lr=0.1"], "cannot be combined with --arm"),
        (["--acts", "mish", *SEARCH, "--aa"], "cannot be combined with --aa"),
        (["--arm", "A", "train.lr=0.1", "--arm", "B", "train.lr=0.2", *SEARCH], "--search mixes the activations"),
        (["--acts", "mish", *SEARCH], "found mish alone"),
        (["--acts", "relu", "mish", "backbone=relu,neck=mish", *SEARCH], "backbone=relu,neck=mish is a mixture"),
        ([*ACTS, *SEARCH, "--seeds", "0,1002"], "seed 1002 is one of --seeds"),
        ([*ACTS, *SEARCH, "--set", "train.holdout=0.1"], "--search: with train.holdout=0.1"),
        ([*ACTS, *SEARCH, "--search-bound", "step"], "--search-bound step: expected"),
        ([*ACTS, *SEARCH, "--search-bound", "step=fast"], "--search-bound step=fast: expected"),
        ([*ACTS, *SEARCH, "--search-bound", "step=-1"], "--search-bound step=-1: expected"),
        ([*ACTS, *SEARCH, "--search-bound", "step=nan"], "--search-bound step=nan: expected"),
        ([*ACTS, *SEARCH, "--search-bound", "onnxruntim=1.1"], "--search-bound: format: unknown format 'onnxruntim'"),
        ([*SEARCH, "--report", "somewhere"], "--search mixes the activations of --acts"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    here: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(compare.main, "compare.py", *words, "--probe", 0) == 2
    err = capsys.readouterr().err
    assert said in err and len([line for line in err.splitlines() if "error" in line]) == 1
    assert "Traceback" not in err and not [*here.iterdir()]


def test_a_darknet_network_has_no_stages_to_mix(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "tiny.cfg").write_text(
        "[net]\nwidth=64\nheight=64\nchannels=3\n[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=2\npad=1\n"
        "activation=leaky\n[convolutional]\nfilters=18\nsize=1\nstride=1\npad=1\nactivation=linear\n"
        "[yolo]\nmask=0,1,2\nanchors=10,14,23,27,37,58\nclasses=1\nnum=3\n"
    )
    assert run(compare.main, "compare.py", "--cfg", "tiny.cfg", *ACTS, *SEARCH, "--probe", 0) == 2
    assert "tiny.cfg is a Darknet network" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- the race


def test_the_better_half_goes_on() -> None:
    assert better_half({"a": [0.1], "b": [0.3], "c": [0.2], "d": [0.4]}) == ["b", "d"]
    assert better_half({"a": [0.2], "b": [0.2], "c": [0.2]}) == ["a", "b"]  # the first of equals
    assert better_half({"a": [0.9, 0.1], "b": [0.4, 0.7]}) == ["b"]  # means 0.5 and 0.55
    assert better_half({"a": [0.9, None], "b": [0.1, 0.1]}) == ["b"]  # a run failed
    assert better_half({"a": [None], "b": [0.2], "c": [None], "d": [None], "e": [0.1]}) == ["b", "e"]
    assert better_half({"a": [None], "b": [None]}) == []


class Killed(Exception):
    """The process ended during a training."""


def trainer(
    scores: Mapping[str, Sequence[float | None]], log: list[tuple[str, int]], *, kill_at: int | None = None
) -> search.Train:
    """A training that gives each mixture these mAPs by round; None: the run fails."""

    def train(plan: Plan, folder: Path) -> None:
        for each in plan.runs:
            if (folder / each.name).exists():
                continue
            if len(log) == kill_at:
                raise Killed
            log.append((each.act, each.seed))
            score = scores[each.act][each.seed - 1000]
            if score is None:
                write_failed(folder / each.name, act=each.act, seed=each.seed, reason="the loss is not finite")
            else:
                write_run(folder / each.name, act=each.act, seed=each.seed, last=score)

    return train


def by_label(space: search.Space, rows: Sequence[Sequence[float | None]]) -> dict[str, Sequence[float | None]]:
    names = [arm.name for arm in space.arms(space.mixtures[: len(rows)])]
    return dict(zip(names, rows, strict=True))


#                means after round 2: 0.45, 0.40, 0.50; after round 3, of the two that are left: 0.43, 0.42
RACE = [[0.40, 0.50, 0.39], [0.10], [0.50, 0.30], [None], [0.45, 0.55, 0.26], [0.40]]


def test_a_race_trains_what_is_left_with_one_more_seed(tmp_path: Path) -> None:
    space, log = space_of(*ACTS, *SEARCH), list[tuple[str, int]]()
    scores = by_label(space, RACE)
    a, b, c, d, e, f = scores
    found = race(space, space.mixtures[: space.most], tmp_path, trainer(scores, log))
    assert log == [*((each, 1000) for each in (a, b, c, d, e, f)), *((each, 1001) for each in (a, c, e)),
                   *((each, 1002) for each in (a, e))]  # fmt: skip
    assert found.trainings == len(log) == 11 == found.budget
    assert found.scores == {name: tuple(row) for name, row in scores.items()} and found.seeds == (1000, 1001, 1002)
    assert found.chosen == a and not search.other_choice(found)
    plans = [read_plan(search.round_folder(tmp_path, number)) for number in (1, 2, 3)]
    for plan in plans:
        assert plan is not None and plan.journaled and plan.varies == ()
        assert all(plan.overrides_of(each)["train.holdout"] == search.HOLDOUT for each in plan.runs)
    assert not (tmp_path / "round-4").exists()


@pytest.mark.parametrize("kill_at", [0, 3, 6, 8, 10])
def test_a_race_that_was_stopped_goes_on_where_it_was(tmp_path: Path, kill_at: int) -> None:
    space, log = space_of(*ACTS, *SEARCH), list[tuple[str, int]]()
    scores, mixtures = by_label(space, RACE), space.mixtures[: space.most]
    with pytest.raises(Killed):
        race(space, mixtures, tmp_path, trainer(scores, log, kill_at=kill_at))
    assert len(log) == kill_at
    found = race(space, mixtures, tmp_path, trainer(scores, log))
    again = race(space, mixtures, tmp_path, trainer(scores, log, kill_at=11))
    assert len(log) == len(set(log)) == 11 and found == again and found.chosen == next(iter(scores))


def test_failures_shorten_a_race_and_end_one_without_survivors(tmp_path: Path) -> None:
    space, log = space_of(*ACTS, *SEARCH), list[tuple[str, int]]()
    scores = by_label(space, [[None], [None], [0.1], [None], [None], [None]])
    found = race(space, space.mixtures[:6], tmp_path / "one", trainer(scores, log))
    assert found.chosen == list(scores)[2] and len(log) == 6 and found.seeds == (1000,)
    assert not search.other_choice(found)
    none = by_label(space, [[0.1, None], [0.2, None], [0.1], [0.1]])
    with pytest.raises(ValueError, match="every mixture of round 2 failed"):
        race(space, space.mixtures[:4], tmp_path / "two", trainer(none, log))


def test_one_mixture_is_chosen_without_a_race(tmp_path: Path) -> None:
    space = space_of(*ACTS, *SEARCH)
    found = race(space, space.mixtures[:1], tmp_path, trainer({}, []))
    assert found.chosen == space.text(space.mixtures[0]) and found.trainings == 0 and not search.other_choice(found)
    assert not [*tmp_path.iterdir()]


def test_a_frozen_choice_is_one_of_the_same_search_only(tmp_path: Path) -> None:
    space = space_of(*ACTS, *SEARCH)
    found = race(space, space.mixtures[:6], tmp_path, trainer(by_label(space, RACE), []))
    assert space.matches(found, None) and not space.matches(None, None) and not space.matches(found, ("step", 1.1))
    assert not space_of(*ACTS, "--search", "--budget-runs", "12").matches(found, None)
    assert not space_of("--acts", "relu", "silu", *SEARCH).matches(found, None)
    assert not space_of(*ACTS, *SEARCH, "--cfg", "yolo-p2.yaml").matches(found, None)


def test_scores_that_were_forged_are_found(tmp_path: Path) -> None:
    space = space_of(*ACTS, *SEARCH)
    found = race(space, space.mixtures[:6], tmp_path, trainer(by_label(space, RACE), []))
    runs = [run for _, each in search.read_rounds(found, tmp_path) for run in each]
    assert unconfirmed(found, runs) == ([], [])
    a, b, *_ = found.candidates
    forged = found.model_copy(update={"scores": {**found.scores, b: (0.101,)}})
    assert unconfirmed(forged, runs) == ([], [f"{b}, seed 1000"])
    failed = list(found.candidates)[3]
    forged = found.model_copy(update={"scores": {**found.scores, failed: (0.05,)}})
    assert unconfirmed(forged, runs) == ([], [f"{failed}, seed 1000"])
    assert unconfirmed(found, runs[1:]) == ([f"{a}, seed 1000"], [])
    assert search.other_choice(found.model_copy(update={"chosen": b}))
    assert search.other_choice(found.model_copy(update={"scores": {**found.scores, b: (0.99,)}}))


# ----------------------------------------------------------------------------------------------------------- the report


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    """A finished comparison of relu, mish and the winner of a search, with the runs of the search."""
    space = space_of(*ACTS, *SEARCH, "--epochs", "8")  # as the runs that are made here
    found = race(space, space.mixtures[:6], tmp_path / "search", trainer(by_label(space, RACE), []))
    for number in (1, 2, 3):
        close(search.round_folder(tmp_path / "search", number))
    acts = ("relu", "mish", found.chosen)
    write_comparison(tmp_path, gains=dict.fromkeys(acts, 0.0), seeds=range(3))
    for label in acts:
        for seed in range(3):
            (tmp_path / f"{label}-s{seed}").rename(tmp_path / runner.PlannedRun(label, seed).name)
    plan_of(acts, range(3), search=found).write(tmp_path)
    with_journal(tmp_path)
    return tmp_path


def close(folder: Path) -> None:
    """Note the ends of the runs of a round in its journal."""
    plan = read_plan(folder)
    assert plan is not None
    declare(folder, plan)
    for each in plan.runs:
        note(folder, each.name, "started")
        note(folder, each.name, "failed" if (folder / each.name / "failure.json").is_file() else "finished")


def exploratory(folder: Path) -> list[str]:
    report([folder], folder)
    reasons = json.loads((folder / "report.json").read_text(encoding="utf-8"))["exploratory"]
    assert isinstance(reasons, list)
    return reasons


def test_the_report_shows_the_search_and_that_its_scores_are_no_verdict(searched: Path, undrawn: None) -> None:
    assert exploratory(searched) == []
    content = json.loads((searched / "report.json").read_text(encoding="utf-8"))
    page = (searched / "report.html").read_text(encoding="utf-8")
    assert 'id="search"' in page and "scores are never the verdict" in page
    rows = content["search"]["rows"]
    a, b, c, d, e, f = content["plan"]["search"]["candidates"]
    assert [row["label"] for row in rows] == [a, e, c, f, b, d]
    assert [row["label"] for row in rows if row["chosen"]] == [a]
    assert rows[0]["mean"] == pytest.approx(43.0) and rows[1]["points"] == pytest.approx([45.0, 55.0, 26.0])
    assert rows[5]["mean"] is None and set(content["verdicts"]) == {"mish", a}
    assert "11 trainings" in dict(content["plan_words"])["search"]


def changed_plan(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write another plan in the place of the old one, as if it had been the plan from the start."""
    plan = read_plan(folder)
    assert plan is not None and plan.search is not None
    content = plan.search.model_dump()
    change(content)
    plan.model_copy(update={"search": type(plan.search).model_validate(content)}).write(folder)
    (folder / "journal.jsonl").unlink()
    with_journal(folder)


def retrained(folder: Path) -> None:
    """Another run in the place of the first one of a round."""
    plan = read_plan(folder)
    assert plan is not None
    shutil.rmtree(folder / plan.runs[0].name)
    write_run(folder / plan.runs[0].name, act=plan.runs[0].act, seed=plan.runs[0].seed, last=0.7)


def first_score(content: dict[str, Any]) -> None:
    name = next(iter(content["scores"]))
    content["scores"][name] = (0.41, *content["scores"][name][1:])


def other_winner(content: dict[str, Any]) -> None:
    content["chosen"] = list(content["candidates"])[4]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: shutil.rmtree(folder / "search"), "seed 1000; .* are missing"),
        (lambda folder: shutil.rmtree(folder / "search/round-2"), "seed 1001 are missing"),
        (lambda folder: retrained(folder / "search/round-1"), "the scores of .*, seed 1000 are not those of the plan"),
        (lambda folder: (folder / "search/round-3/journal.jsonl").unlink(), "search: .*the journal"),
        (lambda folder: changed_plan(folder, first_score), "the scores of .*, seed 1000 are not those of the plan"),
        (lambda folder: changed_plan(folder, other_winner), "give another race or another choice"),
    ],
)
def test_a_search_that_was_edited_or_removed_gives_no_verdict(
    searched: Path, undrawn: None, change: Callable[[Path], object], reason: str
) -> None:
    change(searched)
    assert any(re.search(reason, each) for each in exploratory(searched))


def test_an_edited_run_of_a_search_is_refused(searched: Path, undrawn: None) -> None:
    results = next((searched / "search/round-2").glob("*/results.csv"))
    results.write_text(results.read_text().replace("240.0", "250.0"))  # the memory
    with pytest.raises(ValueError, match=r"run\.json or results\.csv was changed"):
        report([searched], searched)


# ----------------------------------------------------------------------------------------------------------- end to end


def test_a_search_that_was_stopped_from_outside_can_go_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "train_all", lambda *_, **__: None)  # it ends, and no run has
    words = [*ACTS, "--search", "--budget-runs", 6, "--probe", 0]
    assert run(compare.main, "compare.py", *words) == 1
    assert "4 runs were stopped from outside" in capsys.readouterr().out
    assert [path.parent.relative_to(here).as_posix() for path in here.rglob("plan.json")] == [
        "runs/compare/exp/search/round-1"
    ]


@pytest.mark.slow
def test_the_choice_is_frozen_before_fresh_seeds_are_trained(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], undrawn: None
) -> None:
    monkeypatch.setattr(runner.train_all, "__kwdefaults__", {**runner.train_all.__kwdefaults__, "trainer": STUB})
    space, folder = space_of(*ACTS, "--search", "--budget-runs", "6"), here / "runs/compare/exp"
    third = space.arms(space.mixtures[:4])[2].name
    for number, seed in ((1, 1000), (2, 1001)):
        place = search.round_folder(folder / "search", number)
        place.mkdir(parents=True)
        (place / "behaviour.json").write_text(json.dumps({runner.PlannedRun(third, seed).name: {"map": 0.5}}))
    words = [*ACTS, "--search", "--budget-runs", 6, "--seeds", 2, "--data", write_data(here), *SMALL]
    assert run(compare.main, "compare.py", *words) == 0
    out = capsys.readouterr().out
    assert out.index("4 with seed 1000, 2 with seed 1001") < out.index("6 of at most 6") < out.index("starts")
    plan = read_plan(folder)
    assert plan is not None and plan.search is not None and plan.search.chosen == third
    assert plan.acts == ("relu", "mish", third) and plan.varies == ()
    assert all("train.holdout" not in plan.overrides_of(each) for each in plan.runs)

    def starts(place: Path) -> list[float]:
        return [json.loads(line)["time"] for line in (place / "started.jsonl").read_text().splitlines()]

    one, two = (starts(search.round_folder(folder / "search", number)) for number in (1, 2))
    assert (len(one), len(two), len(starts(folder))) == (4, 2, 6)
    assert max(one) < min(two) and max(two) < (folder / "plan.json").stat().st_mtime < min(starts(folder))
    assert len(json.loads((folder / "report.json").read_text())["search"]["rows"]) == 4

    assert run(compare.main, "compare.py", *words) == 0  # nothing is trained or chosen again
    assert read_plan(folder) == plan and len(starts(folder)) == 6
    assert starts(search.round_folder(folder / "search", 1)) == one
    for others in (["--budget-runs", 8], ["--search-bound", "step=1.5"]):
        assert run(compare.main, "compare.py", *words, *others) == 2
    without = [word for word in words if word not in ("--search", "--budget-runs", 6)]
    assert run(compare.main, "compare.py", *without) == 2
    assert "different plan" in capsys.readouterr().err and read_plan(folder) == plan


@pytest.mark.slow
@pytest.mark.usefixtures("warm_runs")
def test_a_real_search(here: Path, monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    data = write_data(here, train=10, val=2)
    small = ("--cfg", training.SMALL, "--imgsz", 64, "--batch", 4, "--workers", 0, "--amp", "off", "--epochs", 1)
    words = [*ACTS, "--search", "--budget-runs", 2, "--seeds", 1, "--probe", 0, "--data", data, *small]
    assert run(compare.main, "compare.py", *words) == 0
    folder = here / "runs/compare/exp"
    plan = read_plan(folder)
    assert plan is not None and plan.search is not None and len(plan.search.candidates) == 2
    assert json.loads((folder / "report.json").read_text())["exploratory"] == []
    records = {path.parent.name: json.loads(path.read_text()) for path in folder.rglob("run.json")}
    for label, acts in plan.search.candidates.items():
        expected = {stage: act for act, group in zip(acts, plan.search.groups.values(), strict=True) for stage in group}
        trained = records[runner.PlannedRun(label, 1000).name]
        assert {f"{row['part']}.{row['stage']}": row["activation"] for row in trained["census"]} == expected
        assert trained["config"]["train"]["holdout"] == search.HOLDOUT
    raced, winner = (records[runner.PlannedRun(plan.search.chosen, seed).name] for seed in (1000, 0))
    assert winner["config"]["train"]["holdout"] == 0 and winner["census"] == raced["census"]
    assert winner["data"]["val"] != raced["data"]["val"]  # other images
