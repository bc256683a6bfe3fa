"""The report against a second computation from the raw run folders, which shares no code with it."""

import csv
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from comparison import figures as pictures
from comparison import report
from comparison.analysis import analyse
from comparison.plan import Plan, make_plan
from comparison.report import write_report
from comparison.runs import read_runs
from tests.comparison.made_runs import write_comparison, write_failed, write_run, write_unfinished

ACTS = ("relu", "leaky_relu", "silu", "mish")
GAINS = {"relu": 0.0, "leaky_relu": 0.1, "silu": 0.8, "mish": 2.5}


def plan_of(acts: Sequence[str], seeds: Sequence[int], **more: Any) -> Plan:
    return make_plan(
        acts=tuple(acts), baseline=acts[0], seeds=tuple(seeds), cfg="yolo.yaml", specs={act: {} for act in acts},
        epochs=dict.fromkeys(acts, 8), **more,
    )  # fmt: skip


def report_of(folder: Path, plan: Plan | None) -> tuple[str, dict[str, Any]]:
    """Write the report; the terminal's text and report.json."""
    runs = read_runs([folder])
    text = write_report(folder, plan.as_compared(runs) if plan else runs, plan=plan)
    return text, json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, for the tests of words and numbers: drawing takes most of a report's time."""
    monkeypatch.setattr("comparison.report.draw", lambda *_: {})


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four activations, five seeds; a failed run, a missing figure, a run that waited, one with company."""
    folder = tmp_path_factory.mktemp("five")
    write_comparison(folder, gains=GAINS, slower={"mish": 1.1})
    shutil.rmtree(folder / "silu-s3")
    write_failed(folder / "silu-s3", act="silu", seed=3, reason="the loss is not finite")
    shutil.rmtree(folder / "mish-s1")
    write_run(folder / "mish-s1", act="mish", seed=1, last=0.65, seconds=20, waited=3.0)
    shutil.rmtree(folder / "relu-s4")
    write_run(folder / "relu-s4", act="relu", seed=4, last=0.62, seconds=15, others=0.4, small=False)
    report_of(folder, plan_of(ACTS, range(5)))
    return folder


def raw(folder: Path) -> dict[tuple[str, int], tuple[dict[str, Any], list[dict[str, str]]]]:
    """Finished runs by activation and seed: run.json and the rows of results.csv, as text."""
    found = {}
    for place in sorted(folder.iterdir()):
        if (place / "run.json").is_file():
            record = json.loads((place / "run.json").read_text())
            if "results" in record:
                with open(place / "results.csv", newline="") as file:
                    rows = list(csv.DictReader(file))
                cell = record["config"]["model"]["act"]["name"], record["config"]["train"]["seed"]
                found[cell] = (record, rows)
    return found


def void(rows: Sequence[Mapping[str, str]]) -> bool:
    wait, train = (sum(float(row[name]) for row in rows) for name in ("time_data_s", "time_train_s"))
    return wait > 0.05 * train or np.mean([float(row["other_cores"]) for row in rows]) > 0.1


def values_of(folder: Path, key: str) -> dict[tuple[str, int], float]:
    """One figure of every run that has it."""
    found = {}
    runs = raw(folder)
    for (act, seed), (record, rows) in runs.items():
        times = np.cumsum([float(row["time_train_s"]) for row in rows])
        clean = [run for (_, other), run in runs.items() if other == seed and not void(run[1])]
        if key.startswith("metrics/"):
            value = 100 * float(rows[-1][key]) if rows[-1][key] else None
        elif key == "best":
            value = 100 * max(float(row["metrics/mAP50-95"]) for row in rows)
        elif key == "time":
            value = None if void(rows) else times[-1]
        elif key == "epoch_seconds":
            value = None if void(rows) else times[-1] / len(rows)
        elif key == "until":
            end = min(sum(float(row["time_train_s"]) for row in each) for _, each in clean)
            value = None if void(rows) else np.interp(end, times, [100 * float(r["metrics/mAP50-95"]) for r in rows])
        elif key in ("wall_hours", "device_hours"):
            parts = ("train", "warmup", "data", "val", "save")
            value = sum(float(row[f"time_{part}_s"]) for row in rows for part in parts) / 3600
            value *= record["machine"]["threads"] if key == "device_hours" else 1
        elif key == "memory":
            value = max(float(row["peak_memory_mib"]) for row in rows)
        elif key == "images_per_s":
            value = np.median([float(row["images_per_s"]) for row in rows])
        else:
            value = record["latency"]["ms_per_image"]
        if value is not None:
            found[act, seed] = float(value)
    return found


KEYS = (
    "metrics/mAP50-95", "metrics/mAP50", "metrics/AP_small", "metrics/AP_medium", "metrics/AP_large", "best", "until",
    "time", "memory", "images_per_s", "latency", "epoch_seconds", "wall_hours", "device_hours",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_every_figure_is_that_of_the_raw_files(five: Path, key: str) -> None:
    numbers = json.loads((five / "report.json").read_text())
    assert set(numbers["metrics"]) == set(KEYS)
    expected = values_of(five, key)
    with open(five / "table.csv", newline="") as file:
        table = {row["activation"]: row for row in csv.DictReader(file)}
    with open(five / "runs.csv", newline="") as file:
        runs = {(row["activation"], int(row["seed"])): row for row in csv.DictReader(file)}
    metric, name = numbers["metrics"][key], key.removeprefix("metrics/")
    assert list(table) == list(ACTS) and len(runs) == 20
    for act in ACTS:
        own = {seed: value for (label, seed), value in expected.items() if label == act}
        cells = metric["cells"][act]
        assert cells["values"] == pytest.approx({str(seed): value for seed, value in own.items()})
        assert cells["mean"] == pytest.approx(np.mean(list(own.values())))
        assert cells["sd"] == pytest.approx(np.std(list(own.values()), ddof=1), abs=1e-9)
        assert float(table[act][f"{name} mean ({metric['unit']})"]) == pytest.approx(cells["mean"])
        assert float(table[act][f"{name} sd"]) == pytest.approx(cells["sd"], abs=1e-9)
        for seed in range(5):
            text = runs[act, seed][f"{name} ({metric['unit']})"]
            assert (float(text) if text else None) == (pytest.approx(own[seed]) if seed in own else None)


def least_squares(values: Mapping[tuple[str, int], float], acts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, float]:
    """Differences from the first activation, their standard errors, the guarded residual sd; any cells missing."""
    cells, seeds = list(values), sorted({seed for _, seed in values})
    design = [[act == each for each in acts[1:]] + [seed == each for each in seeds] for act, seed in cells]
    x, y = np.array(design, float), np.array([values[cell] for cell in cells])
    solution, squares, *_ = np.linalg.lstsq(x, y, rcond=None)
    degrees = len(cells) - len(acts) - len(seeds) + 1
    gaps = [
        [values[act, s] - values[acts[0], s] for s in seeds if {(act, s), (acts[0], s)} <= set(cells)] for act in acts
    ]
    guard = np.mean([np.var(gap, ddof=1) for gap in gaps[1:]]) / 2
    sigma = math.sqrt(max(squares[0] / degrees, guard))
    factors = np.sqrt(np.diag(np.linalg.inv(x.T @ x)))
    return solution[: len(acts) - 1], sigma * factors[: len(acts) - 1], sigma


@pytest.mark.parametrize("key", ["metrics/mAP50-95", "metrics/AP_small", "until", "time"])
def test_differences_and_intervals_are_those_of_least_squares(five: Path, key: str) -> None:
    numbers = json.loads((five / "report.json").read_text())
    comparison, values = numbers["metrics"][key]["comparison"], values_of(five, key)
    if key == "time":
        values = {cell: math.log(value) for cell, value in values.items()}
    estimates, errors, sigma = least_squares(values, ACTS)
    assert comparison["sigma"] == pytest.approx(sigma) and comparison["ratio"] == (key == "time")
    with open(five / "table.csv", newline="") as file:
        table = {row["activation"]: row for row in csv.DictReader(file)}
    for act, estimate, error in zip(ACTS[1:], estimates, errors, strict=True):
        found = comparison["differences"][act]
        ends = [estimate - comparison["critical"] * error, estimate + comparison["critical"] * error]
        expected = [estimate, *ends] if key != "time" else np.exp([estimate, *ends]).tolist()
        assert [found["estimate"], *found["interval"]] == pytest.approx(expected)
        name, what = key.removeprefix("metrics/"), "ratio" if key == "time" else "difference"
        row = [float(table[act][f"{name} {what}{end}"]) for end in ("", " low", " high")]
        assert row == pytest.approx(expected)


def test_two_activations_give_the_paired_t_interval(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(4))
    _, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(4)))
    values = values_of(tmp_path, "metrics/mAP50-95")
    gaps = [values["mish", seed] - values["relu", seed] for seed in range(4)]
    found = numbers["metrics"]["metrics/mAP50-95"]["comparison"]["differences"]["mish"]
    error = stats.sem(gaps)
    expected = stats.t.interval(0.95, 3, loc=np.mean(gaps), scale=error)
    assert found["interval"] == pytest.approx(expected) and found["estimate"] == pytest.approx(np.mean(gaps))
    assert found["correlation"] == pytest.approx(
        np.corrcoef([[values[act, seed] for seed in range(4)] for act in ("relu", "mish")])[0, 1]
    )


# ------------------------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    """What of a page matters here: its elements' attributes and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            self.text += data


def test_the_page_loads_nothing(five: Path) -> None:
    page = Page(five / "report.html")
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
        assert tag not in ("iframe", "object", "embed", "base", "form")
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)|fetch\(|XMLHttpRequest|WebSocket", page.source)
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes and attributes["id"]]
    pictures = [name for name in names if re.match(r"(answer|curves|runs|times)(_wide)?-", name)]
    assert len(pictures) > 20
    used = re.findall(r"(?:href=\"|url\()#([\w-]+)", page.source)
    assert set(used) <= set(names)


def test_the_page_says_first_what_failed_and_why_times_do_not_count(five: Path) -> None:
    page = Page(five / "report.html")
    assert "1 of 5 runs of silu failed (seed 3: the loss is not finite)" in page.text
    assert "mind that 1 of 5 runs of silu failed" in page.text
    assert page.text.index("runs of silu failed") < page.text.index("The answer")
    assert "mish, seed 1: waited for data 15 % of its step time" in page.text
    assert re.search(r"relu, seed 4: other processes used 0\.40 of a core", page.text)
    numbers = json.loads((five / "report.json").read_text())
    assert {(each["act"], each["seed"]) for each in numbers["voided"]} == {("mish", 1), ("relu", 4)}
    assert "chosen on the set it is measured on" in page.text and "unfinished schedule" in page.text


def test_labels_and_reasons_are_text_everywhere(tmp_path: Path) -> None:
    nasty = 'm"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;--> $x_1$'
    for seed in range(3):
        write_run(tmp_path / f"a{seed}", act="relu", seed=seed, last=0.6 + seed / 100)
        write_run(tmp_path / f"b{seed}", act=nasty, seed=seed, last=0.61 + seed / 90)
    write_failed(tmp_path / "b9", act=nasty, seed=9, reason="</style></script><script>alert(3)</script>")
    text, _ = report_of(tmp_path, None)
    page = Page(tmp_path / "report.html")
    assert [tag for tag, _ in page.tags].count("script") == 1 and not any(tag == "img" for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert nasty in page.text and "<script>alert(3)</script>" in page.text and nasty in text
    labels = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert labels and all(label for label in labels)


def test_a_cell_is_no_formula_for_a_spreadsheet(tmp_path: Path, undrawn: None) -> None:
    for seed in range(2):
        write_run(tmp_path / f"a{seed}", act="relu", seed=seed, last=0.6)
    write_failed(tmp_path / "b", act="mish", seed=0, reason="=HYPERLINK(1)")
    write_run(tmp_path / "c", act="mish", seed=1, last=0.6)
    report_of(tmp_path, plan_of(("relu", "mish"), range(2)))
    with open(tmp_path / "runs.csv", newline="") as file:
        assert [row["reason"] for row in csv.DictReader(file) if row["reason"]] == ["'=HYPERLINK(1)"]


# ---------------------------------------------------------------------------------------------------- less than a whole


@pytest.mark.slow
def test_one_seed_gives_no_interval_and_no_advice(tmp_path: Path) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 5.0}, seeds=[0])
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), [0]))
    found = numbers["metrics"]["metrics/mAP50-95"]["comparison"]["differences"]["mish"]
    assert found["interval"] is None and numbers["further"] == {}
    assert "one seed, no verdict" in text and "supports no choice" in text and "take mish" not in text
    assert "one seed, no verdict" in Page(tmp_path / "report.html").text


@pytest.mark.slow
def test_values_without_any_spread_are_drawn_and_not_judged(tmp_path: Path) -> None:
    for seed in range(3):
        for act in ("relu", "mish"):
            write_run(tmp_path / f"{act}-s{seed}", act=act, seed=seed, last=0.5, noise=0.0)
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    found = numbers["metrics"]["metrics/mAP50-95"]["comparison"]["differences"]["mish"]
    assert found["estimate"] == pytest.approx(0, abs=1e-12) and found["interval"] is None
    assert "take" not in text.split("\n")[0] and "support no choice" in text


@pytest.mark.slow
def test_only_failed_candidates_leave_a_report(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"relu-s{seed}", act="relu", seed=seed, last=0.6)
        write_failed(tmp_path / f"mish-s{seed}", act="mish", seed=seed, reason="out of memory")
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(2)))
    assert text.startswith("FAILED: 2 of 2 runs of mish failed (seed 0: out of memory; seed 1: out of memory)")
    assert "No run of mish was completed" in text and numbers["failed"] == {"mish": [2, 2]}
    assert "no candidate has a completed run" in Page(tmp_path / "report.html").text
    assert not (tmp_path / "pictures" / "answer.png").exists() and (tmp_path / "pictures" / "runs.png").exists()


@pytest.mark.slow
def test_without_a_clean_time_nothing_is_said_of_cost(tmp_path: Path) -> None:
    for seed in range(3):
        for act, last in (("relu", 0.50), ("mish", 0.60)):
            write_run(
                tmp_path / f"{act}-s{seed}",
                act=act,
                seed=seed,
                last=last + (seed * (3 + (act == "mish"))) ** 2 / 1000,
                others=0.9,
            )
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert numbers["metrics"]["time"]["comparison"] is None and len(numbers["voided"]) == 6
    page = Page(tmp_path / "report.html")
    assert "Equal time cannot be read off" in page.text
    assert "take mish" in text and "what it costs in training time was not measured cleanly" in text


def test_an_unfinished_run_is_named_and_not_counted(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(3))
    write_unfinished(tmp_path / "mish-s9", act="mish", seed=9)
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert "not finished, not counted: mish, seed 9" in text
    assert numbers["seeds"] == [0, 1, 2] and numbers["exploratory"] == []


def test_runs_beyond_the_plan_stand_apart_as_exploratory(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(5))
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert numbers["seeds"] == [0, 1, 2] and numbers["larger"]["seeds"] == [0, 1, 2, 3, 4]
    planned, larger = text.split("EXPLORATORY, with ")
    assert "exploratory" not in planned and "no verdict" in larger
    text, numbers = report_of(tmp_path, None)
    assert text.startswith("EXPLORATORY: no plan was written") and "Do not choose by these numbers" in text


def test_advice_names_gain_and_cost(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 6.0}, slower={"mish": 1.5}, seeds=range(5))
    text, _ = report_of(tmp_path, plan_of(("relu", "mish"), range(5)))
    first = text.split("\n")[0]
    assert "take mish" in first and re.search(r"training takes (49|5\d)\.\d % longer", first)


def test_an_activation_against_itself_is_called_a_control(tmp_path: Path, undrawn: None) -> None:
    for seed in range(6):
        write_run(tmp_path / f"mish-s{seed}", act="mish", seed=seed, last=0.6 + (seed * seed % 4) / 100)
    labels = ("mish", "mish (other seeds)")
    text, _ = report_of(tmp_path, plan_of(labels, range(3), same=True))
    assert text.startswith("This is a control: mish against itself under other seeds") and "holds 0" in text
    shutil.rmtree(tmp_path)
    for seed in range(6):
        write_run(tmp_path / f"mish-s{seed}", act="mish", seed=seed, last=0.6 + seed // 3 / 10 + seed**2 / 9000)
    text, _ = report_of(tmp_path, plan_of(labels, range(3), same=True))
    assert "leaves 0 outside" in text and "take mish" not in text


def test_what_cannot_be_told_has_a_price(tmp_path: Path, undrawn: None) -> None:
    for seed, gap in enumerate((-2.0, 1.0, 2.5)):
        write_run(tmp_path / f"relu-s{seed}", act="relu", seed=seed, last=0.6)
        write_run(tmp_path / f"mish-s{seed}", act="mish", seed=seed, last=0.6 + gap / 100)
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert text.startswith("It cannot be told from these runs whether mish gains anything over relu.")
    row = numbers["further"]["rows"][0]
    assert row["points"] == 0.5 and 100 < row["seeds"] < 300  # 2.8 ** 2 * 2 * (2.3 / sqrt 2) ** 2 / 0.5 ** 2 and a few
    assert row["cautious"] is None or row["cautious"] > row["seeds"]
    assert f"about {row['seeds']} seeds of each activation" in text
    per_seed = sum(values_of(tmp_path, "wall_hours").values()) / 3
    assert numbers["further"]["hours_per_seed"] == pytest.approx(per_seed)
    assert row["hours"] == pytest.approx(row["seeds"] * per_seed)


@pytest.mark.slow
def test_the_clean_timing_in_the_folder_is_shown(tmp_path: Path) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(2))
    rows = [
        {
            "act": act,
            "norm_act": form,
            "median_ms": 20 * ratio,
            "ratio": ratio,
            "low": ratio - 0.01,
            "high": ratio + 0.01,
        }
        for act, form, ratio in (("relu", "fused", 1.0), ("mish", "fused", 1.07), ("mish_torch", "plain", 1.61))
    ]
    (tmp_path / "timing.json").write_text(json.dumps({"rows": rows, "device": "cpu", "rounds": 30, "block": 5}))
    report_of(tmp_path, plan_of(("relu", "mish"), range(2)))
    page = Page(tmp_path / "report.html")
    assert "Clean timing" in page.text and "mish_torch" in page.text and "cpu, 30 rounds, of 5 steps" in page.text
    assert (tmp_path / "pictures" / "timing.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "timing.json").write_text('{"rows": [{"act": "mish"}]}')
    with pytest.raises(ValueError, match="timing.json: expected rows of act"):
        report_of(tmp_path, plan_of(("relu", "mish"), range(2)))


def test_what_differed_is_named(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(2))
    record = json.loads((tmp_path / "mish-s1" / "run.json").read_text())
    record["machine"]["threads"] = 7
    record["initial_weights"] = "f" * 64
    (tmp_path / "mish-s1" / "run.json").write_text(json.dumps(record))
    _, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(2)))
    assert list(numbers["setting"]["differs"]) == ["machine.threads"]
    assert numbers["setting"]["same"]["data.train"] == "aa" * 32
    text = Page(tmp_path / "report.html").text
    assert "7: mish-s1" in text and "seed 1: the convolution weights at the start differ" in text


def test_a_label_folds_and_is_never_a_formula() -> None:
    label = "backbone=mish,neck=leaky_relu,head=relu"
    assert pictures.folded("mish", 20) == ["mish"] and "".join(pictures.folded(label, 30)) == label
    assert all(len(line) <= 25 for line in pictures.folded("x" * 200, 20))
    assert pictures.plain("$x_1$\n") == r"\$x_1\$?" and len(pictures.plain("y" * 500)) == pictures.LONGEST


def test_colors_and_marks_are_told_apart_and_stay() -> None:
    names = [f"act{number}" for number in range(8)]
    palette = pictures.Palette(names, baseline="act3")
    assert len({palette[name] for name in names}) == 8 and len({palette[name][0] for name in names}) == 8
    assert palette["act3"][0] == pictures.INK
    few = pictures.Palette(names[:5], baseline="act3")
    assert [few[name] for name in names[:5]] == [palette[name] for name in names[:5]]
    page_colors = Path(pictures.__file__).with_name("page.html").read_text()
    assert all(f"{variable}: " in page_colors for variable in pictures.VARIABLES.values())


def test_curves_meet_equal_time_where_it_is_read_off(tmp_path: Path) -> None:
    """Also where the machine was slower in one seed: all end where the line stands, or behind it."""
    for act, seconds in (("relu", 10.0), ("mish", 11.0)):
        for seed, slower in enumerate((1.0, 1.5, 1.1)):
            write_run(tmp_path / f"{act}-s{seed}", act=act, seed=seed, last=0.3, seconds=seconds * slower)
    runs = read_runs([tmp_path])
    analysis = analyse(runs, plan_of(("relu", "mish"), range(3)))
    numbers = report.gather(analysis, runs, None, timing={"rows": [], "words": ""})
    curves, until = report._curves(analysis, numbers)
    assert until == pytest.approx(8 * 10 * 1.2 / 60, rel=0.01)
    for cells in analysis.until.cells:
        for curve, seed in zip(curves[cells.act], analysis.seeds, strict=True):
            assert curve.minutes[-1] >= until - 1e-9
            assert np.interp(until, curve.minutes, curve.points) == pytest.approx(cells.values[seed])


@pytest.mark.slow
def test_pictures_are_all_there_and_old_ones_are_gone(five: Path) -> None:
    (five / "pictures" / "timing.png").write_bytes(b"an old one")
    report_of(five, plan_of(ACTS, range(5)))
    expected = {"answer", "answer_wide", "curves", "curves_wide", "runs", "times"}
    assert {path.stem for path in (five / "pictures").iterdir()} == expected
    assert not [path for path in five.iterdir() if path.name.startswith(".")]
