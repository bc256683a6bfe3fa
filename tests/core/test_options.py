"""Options: the keyword arguments of the Python API are the fields of the dataclasses."""

from dataclasses import fields

import numpy as np
import pytest

from core.options import EvalKeywords, EvalOptions, PredictKeywords, PredictOptions


def test_keyword_arguments_are_the_fields():
    for options, keywords in ((PredictOptions, PredictKeywords), (EvalOptions, EvalKeywords)):
        assert {field.name: field.type for field in fields(options)} == {
            name: hint.__forward_arg__ for name, hint in keywords.__annotations__.items()
        }


@pytest.mark.parametrize("value", [np.True_, np.int64(1), True, 1])
def test_truth_values_of_numpy_are_taken(value: object) -> None:
    assert PredictOptions(rect=value).rect is True  # type: ignore[arg-type]


def test_every_switch_of_evaluation_is_checked() -> None:
    for name in ("rect", "single_cls", "strict_data", "allow_skipped"):
        with pytest.raises(ValueError, match=name):
            EvalOptions(**{name: "no"})  # type: ignore[arg-type]
