"""From a command line to a plan: which activations, what they set, in which form they are computed, how long it is."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from comparison.arms import activation_overrides, label_of, parse_numbers, parse_seeds
from comparison.plan import AGAIN, Plan, epochs_in_equal_time, make_plan
from comparison.timing_probe import probe
from configs.schema import load

NORM_ACT = "model.norm_act"
# What a comparison decides itself, by key of the configuration.
INSTEAD = {
    "train.seed": "--seed: the seeds are given with --seeds",
    "run.exist_ok": "--exist-ok: a comparison goes on in its own folder anyway; leave it out",
    "model.act": "--set model.act: the activations are given with --acts",
    "train.profile": "--profile: it would slow what is timed; python train.py has it",
}


class Models(NamedTuple):
    """What the models know of activations, which an experiment does not import."""

    sites: Callable[[Any], Mapping[str, Any]]  # a config's model section -> activation by stage, checked
    has_fused_form: Callable[[Any], bool]


class Acts(NamedTuple):
    """The activations of a comparison."""

    specs: dict[str, dict[str, Any]]  # what each sets on the configuration, by label
    epochs: int  # of a run
    overrides: dict[str, Any]  # what all set
    notes: tuple[str, ...]


def folder_of(given: dict[str, Any]) -> Path:
    """Take the comparison's folder out of what the command line sets; ValueError for what is not its to set."""
    for key, words in INSTEAD.items():
        if key in given:
            raise ValueError(words)
    return Path(given.pop("run.project", "runs/compare")) / given.pop("run.name", "exp")


def resolve(texts: Sequence[str], given: Mapping[str, Any], *, cfg: str, models: Models) -> Acts:
    """The activations that the command line names.

    Where one that they do not share has no form fused with batch norm, all are computed plain. ValueError for one that
    does not exist and for two that are the same.
    """
    specs: dict[str, dict[str, Any]] = {}
    sites: list[Mapping[str, Any]] = []
    for text in texts:
        own = activation_overrides(text, given)
        config = load(cfg, {**given, **own})
        asked = models.sites(config.model)
        if asked in sites:
            raise ValueError(f"--acts: {text} and {list(specs)[sites.index(asked)]} are the same activation")
        specs[label_of(config)] = own
        sites.append(asked)
    compared = [each for asked in sites for stage, each in asked.items() if any(own[stage] != each for own in sites)]
    unfused = [each.name for each in compared if not models.has_fused_form(each)]
    epochs = config.train.epochs or 1  # a loaded configuration has a number there
    if not unfused or config.model.norm_act == "plain":
        return Acts(specs, epochs, dict(given), ())
    names = ", ".join(dict.fromkeys(unfused))
    if NORM_ACT in given:
        raise ValueError(f"{NORM_ACT}=fused: there is no fused form of {names}; leave it out, and all run as plain")
    note = f"{names}: no form fused with batch norm, so all are computed with {NORM_ACT}=plain"
    return Acts(specs, epochs, {**given, NORM_ACT: "plain"}, (note,))


def plan_of(arguments: Any, given: Mapping[str, Any], *, before: Plan | None, models: Models) -> Plan:
    """The plan that the command line asks for, or that of the folder (``before``) with what it asks for more of.

    Nothing is written. Steps are timed where the plan does not hold their times already.
    """
    acts = resolve(arguments.acts, given, cfg=arguments.cfg, models=models)
    labels = list(acts.specs)
    specs = acts.specs
    if arguments.aa:
        if len(labels) != 1:
            raise ValueError(f"--aa: found {', '.join(labels)}; expected one activation, to compare with itself")
        specs = {**specs, labels[0] + AGAIN: specs[labels[0]]}
    baseline = labels[0]
    if arguments.baseline is not None:
        config = load(arguments.cfg, {**given, **activation_overrides(arguments.baseline, given)})
        baseline = label_of(config)
    fields: dict[str, Any] = {
        "acts": tuple(specs),
        "baseline": baseline,
        "seeds": parse_seeds(arguments.seeds),
        "cfg": arguments.cfg,
        "overrides": acts.overrides,
        "specs": specs,
        "epochs": dict.fromkeys(specs, acts.epochs),
        "margin": arguments.margin,
        "looks": parse_numbers(arguments.looks, "--looks") if arguments.looks else (),
        "budget": arguments.budget,
        "same": arguments.aa,
        "sigma_assumed": arguments.sigma,
        "notes": acts.notes,
    }
    plan = make_plan(**fields)  # what is wrong with it is said before anything is timed
    if before is not None and arguments.budget == "epochs":
        before.merged(plan)
    fields |= probe(plan, before, rounds=arguments.probe)
    if arguments.budget == "time":
        if "step_ms" not in fields:
            raise ValueError("--budget time: expected a --probe of some rounds, by which the epochs are planned")
        fields["epochs"] = epochs_in_equal_time(acts.epochs, fields["step_ms"])
    plan = make_plan(**fields)
    return plan if before is None else before.merged(plan)
