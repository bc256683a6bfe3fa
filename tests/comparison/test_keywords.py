"""compare() from Python: its keyword arguments are those of the command line, its errors are exceptions."""

import json
import sys
from pathlib import Path

import pytest

import compare
from comparison import runner
from comparison.keywords import arguments_from
from comparison.result import CompareResult
from configs.cli import overrides
from tests.support import training
from tests.support.checkpoints import write_data

ROOT = Path(__file__).parents[2]
STUB = (sys.executable, str(ROOT / "tests/comparison/stub_trainer.py"))


@pytest.mark.parametrize(
    ("words", "keywords"),
    [
        ("--acts relu mish --seeds 3 --epochs 5", {"acts": ["relu", "mish"], "seeds": 3, "epochs": 5}),
        ("--acts relu mish --seeds 0,4 --looks 1,2", {"acts": ("relu", "mish"), "seeds": [0, 4], "looks": [1, 2]}),
        ("--acts mish --aa --margin 0.01 --jobs 2", {"acts": ["mish"], "aa": True, "margin": 0.01, "jobs": 2}),
        ("--acts mish relu --device 0,1", {"acts": ["mish", "relu"], "device": [0, 1]}),
        ("--split test --acts relu", {"split": "test", "acts": "relu"}),
        ("--acts relu --tune train.lr=0.1,0.2", {"acts": "relu", "tune": "train.lr=0.1,0.2"}),
        ("--acts relu --timing", {"acts": "relu", "timing": True}),
        (
            "--acts relu mish --search --budget-runs 8 --search-bound step=1.1",
            {"acts": ["relu", "mish"], "search": True, "budget_runs": 8, "search_bound": "step=1.1"},
        ),
        ("--vary augment.mosaic=1,0.5 --set model.act=mish", {"vary": "augment.mosaic=1,0.5", "act": "mish"}),
        ("--arm A train.lr=0.1 --arm B train.lr=0.2", {"arm": {"A": {"train.lr": 0.1}, "B": {"train.lr": 0.2}}}),
        ("--acts relu --data x.yaml", {"acts": "relu", "data": Path("x.yaml")}),
    ],
)  # fmt: skip
def test_keywords_give_what_the_command_line_gives(words: str, keywords: dict[str, object]) -> None:
    parsed = compare.parse(words.split())
    arguments, given = arguments_from({"cfg": "yolo-mish.yaml", **keywords})
    assert given == overrides(parsed)
    assert vars(arguments).items() <= vars(parsed).items()


def test_an_activation_with_parameters() -> None:
    arguments, _ = arguments_from({"acts": ["relu", {"name": "swish", "learnable": True}]})
    assert arguments.acts == ["relu", '{"name": "swish", "learnable": true}']


@pytest.mark.parametrize(
    ("keywords", "error", "words"),
    [
        ({"acts": ["relu"], "seed_s": 3}, TypeError, "unknown argument 'seed_s', did you mean 'seeds'?"),
        ({"acts": ["relu"], "split": "train"}, ValueError, "split: found 'train', expected one of val, test"),
        ({"acts": ["relu"], "jobs": "2"}, ValueError, "jobs: found '2', expected a number"),
        ({"acts": ["relu"], "aa": 1}, ValueError, "aa: found 1, expected True or False"),
        ({"arm": ["A"]}, ValueError, "expected settings by the name of each arm"),
        ({}, ValueError, "expected what to compare"),
        ({"acts": ["relu", "mish"], "seed": 3}, ValueError, "the seeds are set with --seeds"),
        ({"acts": ["relu", "mush"]}, ValueError, "mush"),
        ({"acts": ["relu", "mish"], "search": True}, ValueError, "expected --budget-runs N"),
        ({"acts": ["relu", "mish"], "search": True, "budget_runs": "8"}, ValueError, "budget_runs: found '8'"),
        ({"acts": ["relu", "mish"], "search": 1, "budget_runs": 8}, ValueError, "search: found 1, expected True"),
    ],
)
def test_wrong_arguments_write_nothing(
    here: Path, keywords: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as found:
        compare.compare(**keywords)  # type: ignore[arg-type]
    assert words in str(found.value) and "\n" not in str(found.value)
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_a_comparison_from_python(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.train_all, "__kwdefaults__", {**runner.train_all.__kwdefaults__, "trainer": STUB})
    result = compare.compare(
        ["relu", "mish"],
        seeds=2,
        cfg=training.SMALL,
        data=write_data(here),
        probe=0,
        imgsz=64,
        batch=4,
        workers=0,
        amp=False,
        epochs=1,
    )
    assert result.finished and result.folder == Path("runs/compare/exp")
    assert result.report == json.loads((result.folder / "report.json").read_text())
    table = result.table
    names = [row["activation"] for row in table] if isinstance(table, list) else list(table["activation"])
    assert names == ["relu", "mish"] and result.report["recommendation"][0] in str(result)
    assert result._repr_html_().count("<img") == 1  # curves take two epochs


def test_a_comparison_that_was_stopped_says_so(tmp_path: Path) -> None:
    result = CompareResult(tmp_path, "stopped by SIGINT; the same call resumes the comparison")
    assert not result.finished and str(result) == f"{tmp_path}: {result.message}"
