"""Keyword arguments of ``compare`` as what the command line of compare.py gives: its own flags, and the overrides."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping

from comparison.flags import add_comparison_flags
from configs.cli import Parser
from configs.keywords import known_names, overrides_from
from configs.loading import Tree
from core.arguments import as_list, plain, shown
from core.text import did_you_mean

WITHOUT_TRAINING = ("report", "verify")


def arguments_from(keywords: Mapping[str, object]) -> tuple[argparse.Namespace, Tree]:
    """The namespace of compare.py's own flags, and the overrides of the configuration by dotted key.

    None stands for the default. TypeError for an unknown name, ValueError for a wrong value.
    """
    parser = Parser(prog="compare")
    add_comparison_flags(parser)
    arguments = parser.parse_args([])
    flags = {action.dest: action for action in parser._actions if action.dest not in ("help", *WITHOUT_TRAINING)}
    others: Tree = {}
    for name, value in keywords.items():
        if value is None:
            continue
        if name == "cfg":
            arguments.cfg = os.fspath(value) if isinstance(value, os.PathLike) else value
        elif name in flags:
            setattr(arguments, name, _value(flags[name], plain(value)))
        elif "." in name or name in known_names():
            others[name] = value
        else:
            hint = did_you_mean(name, [*flags, *known_names()])
            raise TypeError(
                f"compare: unknown argument {name!r}{hint}; expected the flags of compare.py, as in seeds, or of "
                "train.py, as in epochs"
            )
    return arguments, overrides_from("compare", others)


def _value(flag: argparse.Action, value: object) -> object:
    """A value as the parser would give it; ValueError if it would refuse it."""
    if flag.dest == "arm":
        return _arms(value)
    if flag.nargs == 0:  # a switch
        if not isinstance(value, bool):
            raise ValueError(f"{flag.dest}: found {shown(value)}, expected True or False")
        return value
    if flag.nargs == "+":
        return [each if isinstance(each, str) else json.dumps(each) for each in as_list(value)]
    if flag.type in (int, float):
        kinds: tuple[type, ...] = (int,) if flag.type is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"{flag.dest}: found {shown(value)}, expected a number")
        return value
    text = ",".join(map(str, as_list(value)))
    if flag.choices is not None and text not in flag.choices:
        raise ValueError(f"{flag.dest}: found {shown(value)}, expected one of {', '.join(flag.choices)}")
    return text


def _arms(value: object) -> list[list[str]]:
    """Arms as --arm gives them, from settings by the name of the arm."""
    if not isinstance(value, Mapping) or not all(isinstance(settings, Mapping) for settings in value.values()):
        raise ValueError(
            f"arm: found {shown(value)}, expected settings by the name of each arm, as in {{'A': {{'train.lr': 0.01}}}}"
        )
    return [
        [str(name), *(f"{key}={json.dumps(setting)}" for key, setting in settings.items())]
        for name, settings in value.items()
    ]
