"""Turn the command line of compare.py into a plan."""

from argparse import Namespace
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from comparison.arms import (
    Arm,
    check_names,
    named_arms,
    parse_arms,
    parse_numbers,
    parse_seeds,
    varied_arms,
    varied_keys,
)
from comparison.choices import Search, Tuning
from comparison.pilot import pilot_from
from comparison.plan import AA_SUFFIX, Plan, make_plan
from comparison.timing_probe import Probe, probe, schedule_in_equal_time
from comparison.tuning import chosen_arms
from configs.schema import Config

# Config keys that a comparison sets itself, and what to use instead.
INSTEAD = {
    "train.seed": "--seed: the seeds are set with --seeds",
    "run.exist_ok": "--exist-ok: a comparison always resumes in its own folder; leave it out",
    "model.act": "--set model.act: the activations are set with --acts",
    "run.arm": "--set run.arm: the arms are named with --arm",
    "train.patience": "--patience: runs of different length cannot be compared; plan fewer epochs with --epochs",
    "train.profile": "--profile: it would slow down what is timed; use --profile with train.py",
}


def take_folder(given: dict[str, JsonValue], *, acts: bool = True) -> Path:
    """Remove the comparison's folder from the overrides; ValueError if they set what a comparison sets itself."""
    for key, message in INSTEAD.items():
        if key in given and (acts or key != "model.act"):
            raise ValueError(message)
    return Path(str(given.pop("run.project", "runs/compare"))) / str(given.pop("run.name", "exp"))


def arms_from(arguments: Namespace, given: Mapping[str, JsonValue]) -> list[Arm]:
    """The arms that --acts, --vary and --arm name, in this order."""
    arms = parse_arms(arguments.acts or (), given, cfg=arguments.cfg)
    if arguments.vary is not None:
        if arms:
            raise ValueError(
                "--vary: found --acts as well; name the combinations with --arm, as in --arm A model.act=mish ..."
            )
        arms += varied_arms(arguments.vary, given, cfg=arguments.cfg)
    check_names(arguments.arm)
    arms += named_arms(arguments.arm, given, cfg=arguments.cfg)
    return arms


def embedded_data(config: Config) -> JsonValue:
    """The config's section `data` for --redraw-data; ValueError if it is not the embedded set."""
    if config.data.embedded is None:
        raise ValueError(
            f"--redraw-data: found the data set {config.data.root}; expected the embedded one, which alone can be "
            "drawn anew"
        )
    return config.data.model_dump(mode="json")


def plan_from(
    arguments: Namespace,
    arms: Sequence[Arm],
    overrides: Mapping[str, JsonValue],
    *,
    notes: Sequence[str] = (),
    existing: Plan | None = None,
    folder: Path | None = None,
    tuned: Tuning | None = None,
    searched: Search | None = None,
    probed: bool = True,
) -> Plan:
    """The plan that the command line describes, merged into the ``existing`` one of the folder.

    Nothing is written. Training steps are timed unless the existing plan holds their times or not ``probed``. Without
    --sigma, the residual sd is that of earlier runs in the ``folder`` and beside it, if there are any.
    """
    sigma = arguments.sigma
    if sigma is None and existing is None and folder is not None:
        known = pilot_from(folder, arms[0].config.model_dump(mode="json"))
        if known is not None:
            sigma = known.sigma
            source = f"{known.folder} ({known.degrees} degrees of freedom)"
            notes = (*notes, f"residual standard deviation of one run {100 * sigma:.2g} mAP points, from {source}")
    if tuned is not None:
        arms = chosen_arms(tuned, arms, dict(overrides), cfg=arguments.cfg)
    if searched is not None:
        arms = [*arms, *parse_arms([searched.chosen], overrides, cfg=arguments.cfg)]
    by_name = {arm.name: arm.overrides for arm in arms}
    epochs = {arm.name: arm.config.train.epochs or 1 for arm in arms}  # a loaded configuration always has a number
    baseline = arms[0].name
    if arguments.aa:
        if len(arms) != 1:
            raise ValueError(f"--aa: found {', '.join(by_name)}; expected one arm, to compare with itself")
        by_name[baseline + AA_SUFFIX] = by_name[baseline]
        epochs[baseline + AA_SUFFIX] = epochs[baseline]
    if arguments.baseline is not None:
        baseline = _arm_name(arguments.baseline, by_name, overrides, cfg=arguments.cfg)
    for arm in arms:
        arm.config.data.split(arguments.split)
    fields: dict[str, object] = {
        "acts": tuple(by_name),
        "baseline": baseline,
        "seeds": parse_seeds(arguments.seeds),
        "split": arguments.split,
        "cfg": arguments.cfg,
        "overrides": dict(overrides),
        "arms": by_name,
        "varies": varied_keys(arms),
        "epochs": epochs,
        "margin": arguments.margin,
        "interim": parse_numbers(arguments.looks, "--looks") if arguments.looks else (),
        "budget": arguments.budget,
        "all_pairs": arguments.all_pairs,
        "aa": arguments.aa,
        "journaled": True,
        "tuning": tuned,
        "search": searched,
        "target": arguments.target,
        "redrawn": embedded_data(arms[0].config) if arguments.redraw_data else {},
        "sigma_assumed": sigma,
        "notes": tuple(notes),
    }
    plan = make_plan(**fields)  # errors are reported before anything is timed
    if existing is not None and arguments.budget == "epochs":
        existing.merged(plan)
    timing = probe(plan, existing, rounds=arguments.probe if probed else 0)
    fields |= _timed(timing, in_equal_time=epochs[arms[0].name] if arguments.budget == "time" else None)
    plan = make_plan(**fields)
    return plan if existing is None else existing.merged(plan)


def _arm_name(text: str, known: Container[str], overrides: Mapping[str, JsonValue], *, cfg: str) -> str:
    """The name of the arm that a flag names: as it stands, or as the label of an activation written otherwise."""
    return text if text in known else parse_arms([text], overrides, cfg=cfg)[0].name


def _timed(timing: Probe | None, *, in_equal_time: int | None) -> dict[str, object]:
    """The fields of a plan that follow from its probe; `in_equal_time`: epochs of the fastest arm, which need one."""
    fields: dict[str, object] = {}
    if timing is not None:
        fields |= {"step_ms": timing.step_ms, "batches": timing.batches, "start_s": timing.start_s}
    if in_equal_time is None:
        return fields
    if timing is None:
        raise ValueError(
            "--budget time: the epochs are planned from a probe; expected --probe 1 or more, and arms that do not "
            "differ in their batches"
        )
    epochs, last = schedule_in_equal_time(in_equal_time, timing.batches[0], timing.step_ms)
    return fields | {"epochs": epochs, "last_epoch_batches": last}
