"""The report against an independent computation from the run folders."""

import csv
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from comparison import figure_style, figures, run_figures, wording
from comparison.analysis import analyse
from comparison.report import summarise
from comparison.runs import read_runs
from comparison.statistics import compare_ratio
from comparison.summary import Timing
from core.seal import seal_of
from tests.comparison.made_detections import KEY, add_detections, edit_rows
from tests.comparison.made_runs import (
    ACTS,
    edit_record,
    plan_of,
    report_of,
    write_comparison,
    write_failed,
    write_run,
    write_unfinished,
)


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


def excluded(rows: Sequence[Mapping[str, str]]) -> bool:
    wait, train = (sum(float(row[name]) for row in rows) for name in ("time_data_s", "time_train_s"))
    return wait > 0.05 * train or np.mean([float(row["other_cores"]) for row in rows]) > 0.1


def values_of(folder: Path, key: str) -> dict[tuple[str, int], float]:
    """One figure of every run that has it."""
    found = {}
    runs = raw(folder)
    for (act, seed), (record, rows) in runs.items():
        times = np.cumsum([float(row["time_train_s"]) for row in rows])
        clean = [run for (_, other), run in runs.items() if other == seed and not excluded(run[1])]
        if key.startswith("metrics/"):
            value = 100 * float(rows[-1][key]) if rows[-1][key] else None
        elif key == "best":
            value = 100 * max(float(row["metrics/mAP50-95"]) for row in rows)
        elif key == "time":
            value = None if excluded(rows) else times[-1]
        elif key == "epoch_seconds":
            value = None if excluded(rows) else times[-1] / len(rows)
        elif key == "until":
            end = min(sum(float(row["time_train_s"]) for row in each) for _, each in clean)
            value = (
                None if excluded(rows) else np.interp(end, times, [100 * float(r["metrics/mAP50-95"]) for r in rows])
            )
        elif key in ("wall_hours", "device_hours"):
            parts = ("train", "warmup", "data", "val", "save")
            value = sum(float(row[f"time_{part}_s"]) for row in rows for part in parts) / 3600
            value *= record["machine"]["threads"] if key == "device_hours" else 1
        elif key == "memory":
            value = max(float(row["peak_memory_mib"]) for row in rows)
        elif key == "images_per_s":
            value = np.median([float(row["images_per_s"]) for row in rows])
        else:
            value = None if excluded(rows) else record["latency"]["ms_per_image"]
        if value is not None:
            found[act, seed] = float(value)
    return found


KEYS = (
    "metrics/mAP50-95", "metrics/mAP50", "metrics/AP_small", "metrics/AP_medium", "metrics/AP_large", "best", "until",
    "time", "memory", "images_per_s", "latency", "epoch_seconds", "wall_hours", "device_hours",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_every_metric_matches_the_run_folders(example: Path, key: str) -> None:
    numbers = json.loads((example / "report.json").read_text())
    assert set(numbers["metrics"]) >= set(KEYS)
    expected = values_of(example, key)
    with open(example / "table.csv", newline="") as file:
        table = {row["activation"]: row for row in csv.DictReader(file)}
    with open(example / "runs.csv", newline="") as file:
        runs = {(row["activation"], int(row["seed"])): row for row in csv.DictReader(file)}
    metric, name = numbers["metrics"][key], key.removeprefix("metrics/")
    assert list(table) == list(ACTS) and len(runs) == 20
    for act in ACTS:
        own = {seed: value for (label, seed), value in expected.items() if label == act}
        arm = metric["arms"][act]
        assert arm["values"] == pytest.approx({str(seed): value for seed, value in own.items()})
        assert arm["mean"] == pytest.approx(np.mean(list(own.values())))
        assert arm["sd"] == pytest.approx(np.std(list(own.values()), ddof=1), abs=1e-9)
        assert float(table[act][f"{name} mean ({metric['unit']})"]) == pytest.approx(arm["mean"])
        assert float(table[act][f"{name} sd"]) == pytest.approx(arm["sd"], abs=1e-9)
        for seed in range(5):
            text = runs[act, seed][f"{name} ({metric['unit']})"]
            assert (float(text) if text else None) == (pytest.approx(own[seed]) if seed in own else None)


def least_squares(values: Mapping[tuple[str, int], float], acts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, float]:
    """Differences from the first activation, their conservative standard errors, and the conservative residual sd."""
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
    own = [np.std(gap, ddof=1) / math.sqrt(len(gap)) for gap in gaps[1:]]
    return solution[: len(acts) - 1], np.maximum(sigma * factors[: len(acts) - 1], own), sigma


@pytest.mark.parametrize("key", ["metrics/mAP50-95", "metrics/AP_small", "until", "time"])
def test_differences_and_intervals_match_least_squares(example: Path, key: str) -> None:
    numbers = json.loads((example / "report.json").read_text())
    comparison, values = numbers["metrics"][key]["comparison"], values_of(example, key)
    if key == "time":
        values = {cell: math.log(value) for cell, value in values.items()}
    estimates, errors, sigma = least_squares(values, ACTS)
    assert comparison["sigma"] == pytest.approx(sigma) and comparison["ratio"] == (key == "time")
    with open(example / "table.csv", newline="") as file:
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
    """A page: its elements with their attributes, and its text."""

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


def test_the_page_loads_nothing(example: Path) -> None:
    page = Page(example / "report.html")
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
        assert tag not in ("iframe", "object", "embed", "base", "form")
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)|fetch\(|XMLHttpRequest|WebSocket", page.source)
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes and attributes["id"]]
    figure_ids = [name for name in names if re.match(r"(answer|curves|runs|times|tradeoff)(_wide)?-", name)]
    assert len(figure_ids) > 20
    used = re.findall(r"(?:href=\"|url\()#([\w-]+)", page.source)
    assert set(used) <= set(names)


def test_failures_come_first_and_exclusions_are_explained(example: Path) -> None:
    page = Page(example / "report.html")
    assert "1 of 5 silu runs failed (seed 3: <script>alert(1)</script>)" in page.text
    assert page.text.index("silu runs failed") < page.text.index("Result")
    assert page.text.count("1 of 5 silu runs failed") > 1
    assert "mish, seed 1: waited for data 15 % of its step time" in page.text
    assert re.search(r"relu, seed 4: other processes used 0\.40 of a core", page.text)
    numbers = json.loads((example / "report.json").read_text())
    assert {(each["act"], each["seed"]) for each in numbers["excluded"]} == {("mish", 1), ("relu", 4)}
    assert wording.page.NOTES["best"] in page.text and "unfinished schedule" in page.text


@pytest.mark.slow
def test_labels_and_reasons_are_escaped(tmp_path: Path) -> None:
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


def test_text_is_not_a_formula_for_a_spreadsheet(tmp_path: Path, undrawn: None) -> None:
    for seed in range(2):
        write_run(tmp_path / f"a{seed}", act="relu", seed=seed, last=0.6)
    write_failed(tmp_path / "b", act="mish", seed=0, reason="=HYPERLINK(1)")
    write_run(tmp_path / "c", act="mish", seed=1, last=0.6)
    report_of(tmp_path, plan_of(("relu", "mish"), range(2)))
    with open(tmp_path / "runs.csv", newline="") as file:
        assert [row["reason"] for row in csv.DictReader(file) if row["reason"]] == ["'=HYPERLINK(1)"]


# ---------------------------------------------------------------------------------------------------- less than a whole


@pytest.mark.slow
def test_one_seed_gives_no_interval_and_no_recommendation(tmp_path: Path) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 5.0}, seeds=[0])
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), [0]))
    found = numbers["metrics"]["metrics/mAP50-95"]["comparison"]["differences"]["mish"]
    assert found["interval"] is None and numbers["required_seeds"] is None
    assert numbers["verdicts"]["mish"]["kind"] == "none" and text.startswith("No recommendation")
    assert numbers["verdicts"]["mish"]["text"] in Page(tmp_path / "report.html").text


@pytest.mark.slow
def test_zero_variance_gives_no_verdict(tmp_path: Path) -> None:
    for seed in range(3):
        for act in ("relu", "mish"):
            write_run(tmp_path / f"{act}-s{seed}", act=act, seed=seed, last=0.5, noise=0.0)
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    found = numbers["metrics"]["metrics/mAP50-95"]["comparison"]["differences"]["mish"]
    assert found["estimate"] == pytest.approx(0, abs=1e-12) and found["interval"] is None
    assert text.startswith("No recommendation")


@pytest.mark.slow
def test_a_report_is_written_if_all_candidates_failed(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"relu-s{seed}", act="relu", seed=seed, last=0.6)
        write_failed(tmp_path / f"mish-s{seed}", act="mish", seed=seed, reason="out of memory")
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(2)))
    assert text.startswith("FAILED: 2 of 2 mish runs failed (seed 0: out of memory; seed 1: out of memory)")
    assert numbers["failed"] == {"relu": [0, 2, 0], "mish": [2, 2, 0]} and numbers["verdicts"]["mish"]["kind"] == "none"
    assert wording.page.PAGE["no_candidate"] in Page(tmp_path / "report.html").text
    assert not (tmp_path / "pictures" / "answer.png").exists() and (tmp_path / "pictures" / "runs.png").exists()


def disturbed_comparison(folder: Path) -> None:
    """Three seeds of relu and mish whose training times do not count, as other processes ran."""
    for seed in range(3):
        for act, last in (("relu", 0.50), ("mish", 0.60)):
            write_run(
                folder / f"{act}-s{seed}",
                act=act,
                seed=seed,
                last=last + 0.004 * seed ** (1 + (act == "mish")),
                others=0.9,
            )


@pytest.mark.slow
def test_the_cost_is_unknown_if_all_runs_are_excluded_from_timing(tmp_path: Path) -> None:
    disturbed_comparison(tmp_path)
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert numbers["metrics"]["time"]["comparison"] is None and len(numbers["excluded"]) == 6
    assert "Equal time is unavailable" in Page(tmp_path / "report.html").text
    assert text.startswith("Use mish") and "training time not compared" in text
    source = Page(tmp_path / "report.html").source
    assert "<figure>" in source[source.index('id="answer"') : source.index('id="limits"')]  # the gain alone
    assert source.count('aria-label="mAP') == 1


def test_unfinished_runs_are_listed_and_not_included(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(3))
    write_unfinished(tmp_path / "mish-s9", act="mish", seed=9)
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert "not finished, not included: mish, seed 9" in text
    assert numbers["seeds"] == [0, 1, 2] and numbers["exploratory"] == []


@pytest.mark.slow
def test_runs_beyond_the_plan_are_reported_separately(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(5))
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert numbers["seeds"] == [0, 1, 2] and numbers["larger"]["seeds"] == [0, 1, 2, 3, 4]
    planned, larger = text.split("EXPLORATORY, including ")
    assert "exploratory" not in planned and "no verdict" in larger
    text, numbers = report_of(tmp_path, None)
    assert text.startswith("EXPLORATORY: no plan was written") and "No recommendation" in text


def test_the_recommendation_names_gain_cost_and_gain_at_equal_time(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 6.0}, slower={"mish": 1.5}, seeds=range(5))
    _, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(5)))
    (only,) = numbers["recommendation"]
    until = numbers["metrics"]["until"]["comparison"]["differences"]["mish"]
    assert only.startswith("Use mish") and re.search(r"training time \+(49|5\d)\.\d %", only)
    assert f"at equal training time {until['estimate']:+.2f} mAP points" in only


def test_a_gain_that_is_a_loss_at_equal_time_is_not_recommended(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 2.0}, slower={"mish": 2.5}, seeds=range(5))
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(5)))
    assert numbers["verdicts"]["mish"]["kind"] == "higher"
    assert numbers["metrics"]["until"]["comparison"]["differences"]["mish"]["interval"][1] < 0
    assert not re.search(r"^Use|^  Use", text, re.MULTILINE) and "not recommended for a fixed training time" in text


def test_no_activation_that_fails_more_often_is_recommended(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 6.0}, seeds=range(5))
    for seed in (1, 2, 4):
        shutil.rmtree(tmp_path / f"mish-s{seed}")
        write_failed(tmp_path / f"mish-s{seed}", act="mish", seed=seed, reason="no space left on device")
    edit_record(tmp_path / "mish-s1", lambda record: record.update(diverged="the loss is not finite"))
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(5)))
    verdict = numbers["verdicts"]["mish"]
    assert "1 candidate, 2 pairs" in verdict["text"] and "two pairs of runs" in verdict["text"]
    assert not any(sentence.startswith("Use") for sentence in numbers["recommendation"])
    if verdict["kind"] == "higher":
        assert any("where it trains" in each and "3 of 5 runs did not" in each for each in numbers["recommendation"])
    assert numbers["failure_rates"]["mish"]["p"] == pytest.approx(stats.fisher_exact([[3, 2], [0, 5]]).pvalue)
    assert "Fisher's exact test against relu p = 0.17" in text
    rates = numbers["failure_rates"]["mish"]
    assert (rates["failed"], rates["diverged"]) == (3, 1)
    rows = Page(tmp_path / "report.html").text
    assert "3 of 5" in rows and "0 of 5" in rows and "15 % to 95 %" in rows


def test_a_finished_run_without_the_primary_metric_counts_as_failed(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 6.0}, seeds=range(3))
    path = tmp_path / "mish-s1" / "results.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    rows[-1]["metrics/mAP50-95"] = ""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    edit_record(path.parent, lambda record: record["last_epoch"].__setitem__("metrics/mAP50-95", None))
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert numbers["failed"] == {"relu": [0, 3, 0], "mish": [1, 3, 1]}
    assert text.startswith("FAILED: 1 of 3 mish runs failed (seed 1: finished without mAP50-95")


@pytest.mark.parametrize(("slower", "equal"), [(1.06, False), (0.93, False), (1.0, True)])
def test_unequal_times_are_not_called_equal(tmp_path: Path, undrawn: None, slower: float, equal: bool) -> None:
    """As many batches of 106 ms as of 100 ms take 6 % longer."""
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, slower={"mish": slower}, seeds=range(5))
    steps = {"relu": 100.0, "mish": 100.0 * slower}
    plan = plan_of(("relu", "mish"), range(5), budget="time", step_ms=steps, batches=(30, 6))
    _, numbers = report_of(tmp_path, plan)
    page = Page(tmp_path / "report.html").text
    ratio = numbers["metrics"]["time"]["comparison"]["differences"]["mish"]
    low, high = ratio["interval"]
    assert f"mish ×{ratio['estimate']:.2f} ({low:.2f} to {high:.2f})" in page
    assert ("compares at about equal time" in page) == equal
    assert ("More than 2 % apart from relu: mish; the last epoch does not compare at equal time" in page) != equal
    assert ("not equal after rounding to whole batches: mish" in page) != equal


def test_a_control_has_no_recommendation(tmp_path: Path, undrawn: None) -> None:
    for seed in range(6):
        write_run(tmp_path / f"mish-s{seed}", act="mish", seed=seed, last=0.6 + (seed * seed % 4) / 100)
    labels = ("mish", "mish (other seeds)")
    text, _ = report_of(tmp_path, plan_of(labels, range(3), aa=True))
    assert text.startswith("A/A control") and "contains 0" in text
    shutil.rmtree(tmp_path)
    for seed in range(6):
        write_run(tmp_path / f"mish-s{seed}", act="mish", seed=seed, last=0.6 + seed // 3 / 10 + seed**2 / 9000)
    text, _ = report_of(tmp_path, plan_of(labels, range(3), aa=True))
    assert text.startswith("A/A control") and "excludes 0" in text


def test_an_inconclusive_result_names_the_required_seeds(tmp_path: Path, undrawn: None) -> None:
    for seed, gap in enumerate((-2.0, 1.0, 2.5)):
        write_run(tmp_path / f"relu-s{seed}", act="relu", seed=seed, last=0.6)
        write_run(tmp_path / f"mish-s{seed}", act="mish", seed=seed, last=0.6 + gap / 100)
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert text.startswith("Inconclusive") and numbers["verdicts"]["mish"]["kind"] == "inconclusive"
    row = numbers["required_seeds"]["rows"][0]
    assert row["points"] == 0.5 and 100 < row["seeds"] < 300  # 2.8 ** 2 * 2 * (2.3 / sqrt 2) ** 2 / 0.5 ** 2 and a few
    assert row["seeds_conservative"] is None or row["seeds_conservative"] > row["seeds"]
    assert f"about {row['seeds']} seeds per activation" in text
    per_seed = sum(values_of(tmp_path, "wall_hours").values()) / 3
    assert numbers["required_seeds"]["hours_per_seed"] == pytest.approx(per_seed)
    assert row["hours"] == pytest.approx(row["seeds"] * per_seed)


@pytest.mark.slow
def test_an_isolated_timing_in_the_folder_is_shown(tmp_path: Path) -> None:
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
    content = {"rows": rows, "device": "cpu", "rounds": 30, "block": 5}
    for cores, said in ((None, "was not recorded"), (0.3, "Excluded: other processes used 0.30"), (0.02, "used 0.02")):
        (tmp_path / "timing.json").write_text(json.dumps({**content, "other_cores": cores}))
        report_of(tmp_path, plan_of(("relu", "mish"), range(2)))
        page = Page(tmp_path / "report.html")
        assert said in page.text and "no seal" in page.text
    assert "Isolated timing" in page.text and "mish_torch" in page.text and "cpu, 30 rounds, 5 steps each" in page.text
    assert (tmp_path / "pictures" / "timing.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "timing.json").write_text('{"rows": [{"act": "mish"}]}')
    with pytest.raises(ValueError, match="timing.json: expected rows of act"):
        report_of(tmp_path, plan_of(("relu", "mish"), range(2)))


def test_differences_between_runs_are_listed(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(2))
    record = json.loads((tmp_path / "mish-s1" / "run.json").read_text())
    record["machine"]["threads"] = 7
    record["initial_weights"] = "f" * 64
    (tmp_path / "mish-s1" / "run.json").write_text(json.dumps(record))
    plan = plan_of(("relu", "mish"), range(2))
    with pytest.raises(ValueError, match="machine.threads"):
        report_of(tmp_path, plan)
    _, numbers = report_of(tmp_path, plan, allow=["machine.threads"])
    assert list(numbers["setting"]["differs"]) == ["machine.threads"]
    assert numbers["setting"]["same"]["data.train"] == "aa" * 32
    text = Page(tmp_path / "report.html").text
    assert "7: mish-s1" in text and "seed 1: the initial convolution weights differ" in text


def test_labels_are_folded_and_escaped() -> None:
    label = "backbone=mish,neck=leaky_relu,head=relu"
    assert figure_style.folded("mish", 20) == ["mish"] and "".join(figure_style.folded(label, 30)) == label
    assert all(len(line) <= 25 for line in figure_style.folded("x" * 200, 20))
    assert figure_style.plain("$x_1$\n") == r"\$x_1\$?" and len(figure_style.plain("y" * 500)) == figure_style.MAX_LABEL


def test_colors_and_markers_are_distinct_and_stable() -> None:
    names = [f"act{number}" for number in range(8)]
    palette = figure_style.Palette(names, baseline="act3")
    assert len({palette[name] for name in names}) == 8 and len({palette[name][0] for name in names}) == 8
    assert palette["act3"][0] == figure_style.INK
    few = figure_style.Palette(names[:5], baseline="act3")
    assert [few[name] for name in names[:5]] == [palette[name] for name in names[:5]]
    page_colors = Path(figures.__file__).with_name("page.html").read_text()
    assert all(f"{variable}: " in page_colors for variable in figure_style.VARIABLES.values())


def test_scaled_curves_match_the_values_at_equal_time(tmp_path: Path) -> None:
    """Also if the machine was slower during one seed: every curve reaches the line of equal time."""
    for act, seconds in (("relu", 10.0), ("mish", 11.0)):
        for seed, slower in enumerate((1.0, 1.5, 1.1)):
            write_run(tmp_path / f"{act}-s{seed}", act=act, seed=seed, last=0.3, seconds=seconds * slower)
    runs = read_runs([tmp_path])
    outcome, larger = analyse(runs, plan_of(("relu", "mish"), range(3)))
    curves, until = run_figures.scaled_curves(summarise(outcome, larger, runs, None, timing=Timing()))
    assert until == pytest.approx(8 * 10 * 1.2, rel=0.01)
    for act, arm in outcome.metrics["until"].arms.items():
        for curve, seed in zip(curves[act], outcome.seeds, strict=True):
            assert curve.seconds[-1] >= until - 1e-9
            assert np.interp(until, curve.seconds, curve.points) == pytest.approx(arm.values[seed])


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("others", "panels"), [(0.0, 2), (0.9, 1)])
def test_learning_curves_have_no_panel_for_times_that_do_not_count(
    tmp_path: Path, others: float, panels: int, wide: bool
) -> None:
    for act, last in (("relu", 0.3), ("mish", 0.4)):
        for seed in range(2):
            write_run(tmp_path / f"{act}-s{seed}", act=act, seed=seed, last=last, others=others)
    runs = read_runs([tmp_path])
    outcome, larger = analyse(runs, plan_of(("relu", "mish"), range(2)))
    curves, until = run_figures.scaled_curves(summarise(outcome, larger, runs, None, timing=Timing()))
    palette = figure_style.Palette(outcome.acts, baseline="relu")
    axes = run_figures.plot_curves(curves, palette, title="", until=until, wide=wide).axes
    assert len(axes) == panels and all(len(axis.get_lines()) >= 2 for axis in axes)


@pytest.mark.slow
def test_gain_against_cost_shows_estimates_and_both_intervals(tmp_path: Path) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "silu": 0.5, "mish": 2.0}, slower={"mish": 1.2}, seeds=range(3))
    for act, jitter in (("relu", 4.0), ("mish", 2.0)):
        for seed in range(3):
            add_detections(tmp_path / f"{act}-s{seed}", jitter=jitter, seed=seed)
    runs = read_runs([tmp_path])
    outcome, larger = analyse(runs, plan_of(("relu", "silu", "mish"), range(3)))
    summary = summarise(outcome, larger, runs, None, timing=Timing())
    palette = figure_style.Palette(outcome.acts, baseline="relu")
    lines = figures.plot_tradeoff(summary, palette).axes[0].get_lines()
    for act in ("silu", "mish"):
        gain, cost = outcome.primary.difference(act), outcome.time.difference(act)
        assert gain and cost and gain.interval and cost.interval
        drawn = [np.array(line.get_xydata()) for line in lines if line.get_color() == palette[act][0]]
        expected = [
            [[cost.interval[0], gain.estimate], [cost.interval[1], gain.estimate]],
            [[cost.estimate, gain.interval[0]], [cost.estimate, gain.interval[1]]],
        ]
        effect = summary.image_sampling.effects.get(act)
        if act == "mish":
            assert effect is not None and effect.both is not None
            expected.append([[cost.estimate, effect.both[0]], [cost.estimate, effect.both[1]]])
        expected.append([[cost.estimate, gain.estimate]])
        assert len(drawn) == len(expected)
        for found, points in zip(drawn, expected, strict=True):
            assert found == pytest.approx(np.array(points))


def test_the_page_says_what_the_result_does_not_say(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 2.0}, seeds=range(2))

    def change(record: dict[str, Any]) -> None:
        record["config"]["train"]["lr"] = 0.125
        record["images"] = {"train": 600, "val": 147}

    for path in tmp_path.glob("*/run.json"):
        edit_record(path.parent, change)
    report_of(tmp_path, plan_of(("relu", "mish"), range(2)))
    text = Page(tmp_path / "report.html").text
    box = text[text.index("What this does not say") : text.index("Gain and cost of each")]
    assert all(
        words in box
        for words in ("shapes", "8 epochs", "learning rate 0.125", "147 validation", "cpu, bf16", "How soon")
    )
    assert "is not known" in box and "147 validation images" in text[: text.index("Result")]


@pytest.mark.slow
def test_all_figures_are_written_and_old_ones_removed(example: Path) -> None:
    (example / "pictures" / "timing.png").write_bytes(b"an old one")
    report_of(example, plan_of(ACTS, range(5)))
    expected = {"answer", "answer_wide", "curves", "curves_wide", "runs", "times", "tradeoff"}
    assert {path.stem for path in (example / "pictures").iterdir()} == expected
    assert not [path for path in example.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("clue", ["weights", "batches"])
def test_runs_of_a_seed_that_do_not_share_what_they_should_are_named_first(
    tmp_path: Path, undrawn: None, clue: str
) -> None:
    """Training images that were replaced for one activation change its batches."""
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 3.0}, seeds=range(3))
    for seed in range(3):
        place = tmp_path / f"mish-s{seed}"
        if clue == "weights":
            edit_record(place, lambda record: record.update(initial_weights="f" * 63 + record["initial_weights"][-1]))
        else:
            edit_rows(
                place, lambda row: {**row, "batches_crc32": int(row["batches_crc32"]) + 77 * (row["epoch"] == "1")}
            )
    text, _ = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    what = "the initial convolution weights differ" if clue == "weights" else "the batches of epoch 1 differ"
    assert text.startswith(f"WARNING: seed 0: {what} between relu-s0, mish-s0")
    page = Page(tmp_path / "report.html").text
    assert page.index(what) < page.index("What this does not say")
    assert "(checked)" not in page
    setting = summarise(*analyse(runs := read_runs([tmp_path]), None), runs, None, timing=Timing()).setting
    assert "share" not in wording.captions.runs(setting) and "share" in wording.captions.runs(
        replace(setting, pairing=())
    )


def test_the_page_says_what_pairing_and_hashes_are_worth(tmp_path: Path, undrawn: None) -> None:
    """Seeds that move both activations alike, and one that does not follow the baseline."""
    values = {"relu": (60.0, 62.0, 64.0), "mish": (61.0, 63.0, 65.1), "silu": (64.0, 62.5, 60.0)}
    for act, points in values.items():
        for seed, each in enumerate(points):
            write_run(tmp_path / f"{act}-s{seed}", act=act, seed=seed, last=each / 100)
    report_of(tmp_path, plan_of(tuple(values), range(3)))
    page = Page(tmp_path / "report.html").text
    silu = np.corrcoef(values["relu"], values["silu"])[0, 1]
    assert f"mish +1.00 and silu {silu:+.2f}. " in page and "has not reduced the variance for silu" in page
    assert "They are no signature" in page


def test_an_interim_analysis_is_called_so(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 3.0}, seeds=range(5))
    plan = plan_of(("relu", "mish"), range(5), interim=(3, 5))
    said = "Interim analysis after 3 of the 5 planned seeds, at its own level of 99 %."
    assert said not in report_of(tmp_path, plan)[0]
    for act in ("relu", "mish"):
        shutil.rmtree(tmp_path / f"{act}-s4")
    text, _ = report_of(tmp_path, plan)
    assert said in text and said in Page(tmp_path / "report.html").text


def test_the_recommendation_does_not_contradict_the_verdict(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path / "slow", gains={"relu": 0.0, "mish": 2.0}, slower={"mish": 2.5})
    text, numbers = report_of(tmp_path / "slow", plan_of(("relu", "mish"), range(5)))
    assert numbers["verdicts"]["mish"]["kind"] == "higher"
    assert text.startswith("Keep relu: the higher mAP of mish has a drawback.\nmish: higher mAP")
    write_comparison(tmp_path / "few", gains={"relu": 0.0, "mish": 1.5}, seeds=range(2))
    text, numbers = report_of(tmp_path / "few", plan_of(("relu", "mish"), range(2)))
    assert numbers["verdicts"]["mish"]["kind"] == "non-inferior"
    assert text.startswith(
        "Keep relu: no candidate is shown to have a higher mAP by the declared margin of 0.5 points."
    )


def test_a_control_at_the_floor_reports_its_interval(tmp_path: Path, undrawn: None) -> None:
    for seed in range(6):
        write_run(tmp_path / f"mish-s{seed}", act="mish", seed=seed, last=0.003 + seed // 3 / 1000 + seed % 3 / 9000)
    edit_rows(tmp_path / "mish-s0", lambda row: {**row, KEY: 0.0031}, last=True)
    text, numbers = report_of(tmp_path, plan_of(("mish", "mish (other seeds)"), range(3), aa=True))
    assert numbers["verdicts"]["mish (other seeds)"]["kind"] == "insensitive" and "excludes 0" in text


def test_nothing_learned_gives_no_required_seeds(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 0.05}, level=0.5, sd=0.02)
    text, _ = report_of(tmp_path, plan_of(("relu", "mish"), range(5)))
    assert "Train longer, or on easier data, before choosing." in text and "required seeds" not in text


def timing_of(**changes: Any) -> dict[str, Any]:
    """A sealed timing.json of the runs' code and machine."""
    row = {"norm_act": "fused", "median_ms": 20.0, "ratio": 1.0, "low": 1.0, "high": 1.0}
    content = {
        "device": "cpu, bf16", "imgsz": 160, "batch": 16, "rounds": 30, "block": 2, "other_cores": 0.02,
        "code": {"source_sha256": "5e" * 32}, "machine": {"cpu": "a processor", "threads": 2},
        "rows": [{**row, "act": "relu"}, {**row, "act": "mish", "ratio": 1.07, "low": 1.05, "high": 1.09}],
    }  # fmt: skip
    content |= changes
    return {**content, "seal": seal_of(content, b"")}


def rounds(ratio: float) -> dict[str, list[float]]:
    """Times of 30 rounds; the ratio varies by a tenth of a percent."""
    base = [20 + number % 7 for number in range(30)]
    return {"relu": base, "mish": [ms * ratio * (1 + (-1) ** number / 1000) for number, ms in enumerate(base)]}


def test_an_isolated_timing_is_the_cost_where_no_training_time_counts(tmp_path: Path, undrawn: None) -> None:
    disturbed_comparison(tmp_path)
    (tmp_path / "timing.json").write_text(json.dumps(timing_of(times_ms=rounds(1.07))))
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert text.startswith("Use mish") and "training step, isolated timing +7.0 % vs relu" in text
    difference = numbers["isolated_time"]["comparison"]["differences"]["mish"]
    low, high = difference["interval"]
    expected = compare_ratio({act: dict(enumerate(each)) for act, each in rounds(1.07).items()}, baseline="relu")
    assert (difference["estimate"], low, high) == pytest.approx(
        (expected.differences["mish"].estimate, *expected.differences["mish"].interval)
    )
    assert (
        numbers["time_verdicts"]["mish"]["kind"] == "higher" and "30 rounds" in numbers["time_verdicts"]["mish"]["text"]
    )
    assert "at equal training time not known (--budget time)" in text
    page = Page(tmp_path / "report.html").text
    assert "Training step, isolated timing" in page and "30 rounds (all runs complete)" in page


@pytest.mark.parametrize(
    "change",
    [{"other_cores": 0.5}, {"other_cores": None}, {"device": "a GPU"}, {"times_ms": {}}, {"times_ms": {"relu": [1.0]}}],
)
def test_a_timing_that_does_not_count_is_no_cost(tmp_path: Path, undrawn: None, change: dict[str, Any]) -> None:
    disturbed_comparison(tmp_path)
    (tmp_path / "timing.json").write_text(json.dumps(timing_of(**{"times_ms": rounds(1.07), **change})))
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert numbers["isolated_time"] is None and "training time not compared" in text


def test_training_times_that_count_are_the_cost(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(3))
    (tmp_path / "timing.json").write_text(json.dumps(timing_of(times_ms=rounds(1.5))))
    text, numbers = report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert numbers["isolated_time"] is None and "mish: training time" in text


@pytest.mark.slow
def test_the_pictures_show_the_isolated_timing(tmp_path: Path) -> None:
    disturbed_comparison(tmp_path)
    (tmp_path / "timing.json").write_text(json.dumps(timing_of(times_ms=rounds(1.07))))
    report_of(tmp_path, plan_of(("relu", "mish"), range(3)))
    assert {"tradeoff.png", "answer_wide.png"} <= {file.name for file in (tmp_path / "pictures").iterdir()}


def test_a_timing_that_was_changed_or_is_of_another_machine_is_found(tmp_path: Path, undrawn: None) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(2))
    file, plan = tmp_path / "timing.json", plan_of(("relu", "mish"), range(2))
    content = timing_of()
    file.write_text(json.dumps(content))
    report_of(tmp_path, plan)
    page = Page(tmp_path / "report.html").text
    assert "Isolated timing" in page and "no seal" not in page and "Unlike" not in page
    content["rows"][1]["ratio"] = 1.06
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="timing.json: changed after it was written"):
        report_of(tmp_path, plan)
    file.write_text(json.dumps(timing_of(imgsz=640, device="a GPU", code={"source_sha256": "00"})))
    report_of(tmp_path, plan)
    said = "Unlike the runs in device, imgsz, code, so these times are not those of this comparison."
    assert said in Page(tmp_path / "report.html").text


@pytest.mark.parametrize("change", [{"ratio": float("nan")}, {"low": 2.0}, {"median_ms": -1.0}])
def test_times_that_cannot_be_are_refused(tmp_path: Path, undrawn: None, change: dict[str, float]) -> None:
    write_comparison(tmp_path, gains={"relu": 0.0, "mish": 1.0}, seeds=range(2))
    content = timing_of()
    del content["seal"]
    content["rows"][1] |= change
    (tmp_path / "timing.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="timing.json"):
        report_of(tmp_path, plan_of(("relu", "mish"), range(2)))


def test_arms_of_other_lengths_are_not_called_equal_epochs(tmp_path: Path, undrawn: None) -> None:
    arms = {"short": 4, "long": 8}
    for name, epochs in arms.items():
        for seed in range(2):
            place = tmp_path / f"{name}-s{seed}"
            write_run(place, act="relu", seed=seed, last=0.5 + epochs / 100 + seed * epochs / 900, epochs=epochs)
            run = {"arm": name, "varies": ["train.epochs"]}
            edit_record(place, lambda record, run=run: record["config"].update(run=run))
    plan = plan_of(tuple(arms), range(2), varies=("train.epochs",)).model_copy(
        update={"arms": {name: {"train.epochs": epochs} for name, epochs in arms.items()}, "epochs": arms}
    )
    report_of(tmp_path, plan)
    page = Page(tmp_path / "report.html").text
    assert "The arms differ in train.epochs, so they were not trained on the same number of images." in page
    assert "Equal epochs: every" not in page
