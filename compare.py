"""Compare activations by training: ``python compare.py --acts relu leaky_relu silu mish --seeds 3``.

Every activation is trained with every seed, each in a fresh process of train.py; the first activation is the baseline.
The plan is written and printed before the first run. The result is a verdict, a table and report.html. If interrupted,
rerun the same command to resume.
"""

import shlex
import sys
from argparse import SUPPRESS, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.cli import Parser, add_config_flags, overrides, run_script

if TYPE_CHECKING:
    from pydantic import JsonValue

    from comparison.arms import Arm

TIMING_ROUNDS = 30
NORM_ACT = "model.norm_act"
REPLACED_HELP = {  # by config key; comparison/cli_spec.py rejects the keys of the hidden flags
    **dict.fromkeys(("train.seed", "train.patience", "train.profile", "run.exist_ok"), SUPPRESS),
    "train.device": "auto, cpu, cuda, a GPU number, or several, as in 0,1; default: all GPUs, or the CPU",
    "run.project": "parent folder of the comparison; default: runs/compare",
    "run.name": "name of the comparison's folder",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a comparison; returns the exit code."""
    arguments = parse(argv)
    given = overrides(arguments)
    if arguments.verify:
        return verify_runs([Path(each) for each in arguments.verify])

    from comparison import ray_runner, runner, timing_probe
    from comparison.arms import parse_arms
    from comparison.cli_spec import plan_from, take_folder
    from comparison.plan import read_plan
    from comparison.report import report, write_report
    from comparison.wording import describe
    from core.files import check_run_name

    folder = take_folder(given)
    if arguments.report:
        folders = [Path(each) for each in arguments.report]
        print(report(folders, folder, baseline=arguments.baseline, allow=arguments.allow))
        return 0
    check_run_name(folder.name)
    gpus = runner.list_gpus(given.get("train.device"))
    if gpus:
        given.pop("train.device", None)
    if arguments.engine == "ray":
        ray_runner.connect()
    arms = parse_arms(arguments.acts, given, cfg=arguments.cfg)
    common, notes = common_overrides(arms, given)
    plan = plan_from(arguments, arms, common, notes=notes, existing=read_plan(folder), folder=folder)
    plan.write(folder)
    print(f"{describe(plan)}\n{'folder':<20}{folder}", flush=True)
    if arguments.timing and not (folder / timing_probe.TIMING).is_file():
        print(timing_probe.measure(plan, folder, rounds=TIMING_ROUNDS), flush=True)

    def current_report() -> str:
        return write_report(folder, runner.read_outcome(plan, folder), plan=plan, allow=arguments.allow)

    def interim_report(seeds: int) -> None:
        if seeds in plan.interim[:-1]:
            print(f"interim analysis after {seeds} seeds\n{current_report()}", flush=True)

    resume = f"Rerun the same command to resume:\n  python {shlex.join(sys.argv)}"
    try:
        if arguments.engine == "ray":
            ray_runner.train_all(plan, folder, retry_failed=arguments.retry_failed, after_seed=interim_report)
        else:
            runner.train_all(plan, folder, gpus=gpus, retry_failed=arguments.retry_failed, after_seed=interim_report)
    except runner.Interrupted as stopped:
        print(f"{stopped}; the running runs are saved. {resume}", flush=True)
        return 128 + stopped.number
    print(current_report())
    unfinished = sum(map(len, runner.remaining(plan, folder, retry_failed=False)))
    if unfinished:
        print(f"{unfinished} runs were stopped from outside. {resume}")
    return 1 if unfinished else 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="compare.py", description=__doc__)
    add = parser.add_argument_group("comparison").add_argument
    add(
        "--acts",
        nargs="+",
        metavar="ACT",
        help="activations: mish, {name: swish, learnable: true}, backbone=mish,neck=leaky_relu",
    )
    add("--seeds", default="3", help="number of seeds, starting at 0, or a list: 0,1,5")
    add("--baseline", metavar="ACT", help="activation that the others are compared with, if not the first")
    add("--aa", action="store_true", help="A/A control: compare one activation with itself, with fresh seeds")
    add("--budget", choices=("epochs", "time"), default="epochs", help="equal epochs, or equal training time")
    add("--margin", type=float, default=0.005, help="equivalence margin (mAP, as a fraction)")
    add(
        "--target",
        type=float,
        metavar="MAP",
        help="also report the epochs to this mAP50-95 (a fraction, as in 0.3)",
    )
    add(
        "--sigma",
        type=float,
        metavar="SD",
        help="assumed residual standard deviation of a run's mAP (as a fraction), for planning; default: that of "
        "earlier runs on this data, else unknown",
    )
    add("--redraw-data", action="store_true", help="draw the embedded data set anew for each seed")
    add("--looks", metavar="N,N", help="interim analyses, in seeds, ending with all seeds, as in 3,5; none by default")
    add("--all-pairs", action="store_true", help="also compare the candidates with each other (Tukey's intervals)")
    add("--engine", choices=("local", "ray"), default="local", help="train on this machine or on a Ray cluster")
    add("--retry-failed", action="store_true", help="restart failed runs")
    add(
        "--probe",
        type=int,
        default=5,
        metavar="ROUNDS",
        help="rounds of timed steps for the time estimate; 0: no estimate",
    )
    add("--timing", action="store_true", help="also measure the training step in isolation")
    add("--report", nargs="+", metavar="DIR", help="report on a finished comparison, or on any runs, without training")
    add("--verify", nargs="+", metavar="DIR", help="score the weights of finished runs again, without training")
    add(
        "--allow",
        nargs="+",
        default=[],
        metavar="KEY",
        help="accept runs that differ in KEY, and compare them as separate arms",
    )
    add_config_flags(parser, replaced_help=REPLACED_HELP)
    parser.set_defaults(cfg="yolo-mish.yaml")
    arguments = parser.parse_args(argv)
    if sum(map(bool, (arguments.acts, arguments.report, arguments.verify))) != 1:
        parser.error(
            "expected --acts with the activations to compare, or --report or --verify with the folders of finished runs"
        )
    return arguments


def verify_runs(folders: Sequence[Path]) -> int:
    """Score the weights of each run again and compare them with results.csv, one line each; 1 if any differs."""
    from comparison.runs import read_runs
    from engine.verify import verify

    wrong = 0
    for run in read_runs(folders):
        equal, line = (
            verify(run.folder, run.rows) if run.status == "finished" else (False, f"not verified: {run.status}")
        )
        print(f"{run.folder.name}: {line}", flush=True)
        wrong += not equal
    return int(wrong > 0)


def common_overrides(
    arms: Sequence["Arm"], given: Mapping[str, "JsonValue"]
) -> tuple[dict[str, "JsonValue"], tuple[str, ...]]:
    """The overrides of all runs, and notes for the plan; checks that all activations exist and differ.

    If an activation by which the arms differ has no form fused with batch norm, all are computed unfused.
    """
    from models import resolve_activations
    from models.activations import has_fused_form

    resolved = [resolve_activations(arm.config.model) for arm in arms]
    for number, stages in enumerate(resolved):
        if stages in resolved[:number]:
            other = arms[resolved.index(stages)]
            raise ValueError(f"--acts: {arms[number].text} and {other.name} are the same activation")
    compared = [spec for each in resolved for stage, spec in each.items() if any(o[stage] != spec for o in resolved)]
    unfused = dict.fromkeys(spec.name for spec in compared if not has_fused_form(spec))
    if not unfused or arms[0].config.model.norm_act == "plain":
        return dict(given), ()
    names = ", ".join(unfused)
    if NORM_ACT in given:
        raise ValueError(f"{NORM_ACT}=fused: {names} cannot be fused; leave it out to compute all as plain")
    note = f"{names} cannot be fused with batch norm, so all are computed with {NORM_ACT}=plain"
    return {**given, NORM_ACT: "plain"}, (note,)


if __name__ == "__main__":
    run_script(main)
