"""Options: the keyword arguments of the Python API are the fields of the dataclasses."""

from dataclasses import fields

from core.options import EvalKeywords, EvalOptions, PredictKeywords, PredictOptions


def test_keyword_arguments_are_the_fields():
    for options, keywords in ((PredictOptions, PredictKeywords), (EvalOptions, EvalKeywords)):
        assert {field.name: field.type for field in fields(options)} == {
            name: hint.__forward_arg__ for name, hint in keywords.__annotations__.items()
        }
