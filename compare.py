"""Compare activations in training: ``python compare.py --acts relu leaky_relu silu mish --seeds 3``.

Each (activation, seed) is a fresh run of train.py; the first activation is the baseline. A plan is written and printed
first; it ends with a verdict, a table and report.html. The same command goes on with a comparison that was interrupted.
"""

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.cli import Parser, add_config_flags, overrides, run_script

TIMING_ROUNDS = 30


def main(argv: Sequence[str] | None = None) -> int:
    """Compare as the command line says; returns the exit code."""
    arguments = parse(argv)
    given = overrides(arguments)

    from comparison import cli_spec as asked
    from comparison import conclusion as ending
    from comparison import ray_runner as cluster
    from comparison import runner
    from comparison import timing_probe as probe
    from comparison.plan import read_plan

    folder = asked.folder_of(given)
    if arguments.report:
        places = [Path(each) for each in arguments.report]
        print(ending.report_again(places, folder, baseline=arguments.baseline, allow=arguments.allow))
        return 0
    gpus = runner.gpus_of(given.get("train.device"))
    if gpus:
        given.pop("train.device", None)
    if arguments.engine == "ray":
        cluster.connect()
    plan = asked.plan_of(arguments, given, before=read_plan(folder), models=models(folder))
    plan.write(folder)
    print(f"{plan.describe()}\n{'folder':<16}{folder}", flush=True)
    if arguments.timing and not (folder / probe.TIMING).is_file():
        print(probe.measure(plan, folder, rounds=TIMING_ROUNDS), flush=True)

    def report() -> str:
        return ending.report(runner.outcome(plan, folder), plan, folder, allow=arguments.allow)

    def look(seeds: int) -> None:
        if seeds in plan.looks[:-1]:
            print(f"declared look after {seeds} seeds\n{report()}", flush=True)

    again = f"The same command goes on with the comparison:\n  python {shlex.join(sys.argv)}"
    options: dict[str, Any] = {"retry_failed": arguments.retry_failed, "after_block": look}
    try:
        if arguments.engine == "ray":
            cluster.train_all(plan, folder, **options)
        else:
            runner.train_all(plan, folder, gpus=gpus, **options)
    except runner.Interrupted as stopped:
        print(f"{stopped}; the runs in hand are saved. {again}", flush=True)
        return 128 + stopped.number
    print(report())
    unfinished = runner.left_over(plan, folder, retry_failed=False)
    if unfinished:
        print(f"{sum(map(len, unfinished))} runs were stopped from outside. {again}")
    return 1 if unfinished else 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="compare.py", description=__doc__)
    add = parser.add_argument
    add("--acts", nargs="+", metavar="ACT", help="mish, {name: swish, learnable: true}, backbone=mish,neck=leaky_relu")
    add("--seeds", default="3", help="how many, from 0 on, or which ones: 0,1,5")
    add("--baseline", metavar="ACT", help="what the others are compared to; default: the first")
    add("--aa", action="store_true", help="compare one activation with itself under as many other seeds")
    add("--budget", choices=("epochs", "time"), default="epochs", help="the same epochs, or the fastest one's time")
    add("--margin", type=float, default=0.005, help="mAP within which two count as the same, as a fraction")
    add("--sigma", type=float, default=0.006, help="sd of a run's mAP to plan with, as a fraction")
    add("--looks", help="numbers of seeds after which a verdict is declared, as in 3,5; default: all of them")
    add("--engine", choices=("local", "ray"), default="local", help="where the runs are trained")
    add("--retry-failed", action="store_true", help="train failed runs again, from their start")
    add("--probe", type=int, default=5, metavar="ROUNDS", help="of timed steps, to estimate the time by; 0: none")
    add("--timing", action="store_true", help="also measure the time of a step apart from the training")
    add("--report", nargs="+", metavar="DIR", help="no training: the report of a comparison, or of runs, in DIR")
    add("--allow", nargs="+", default=[], metavar="KEY", help="keep runs apart that differ in this, as in code")
    add_config_flags(parser)
    parser.set_defaults(cfg="yolo-mish.yaml")
    arguments = parser.parse_args(argv)
    if bool(arguments.acts) == bool(arguments.report):
        parser.error("expected --acts with the activations to compare, or --report with the folders of finished runs")
    return arguments


def models(folder: Path) -> Any:
    """What the models know of activations; refuses a name that is none for a folder first."""
    from comparison.cli_spec import Models
    from core.files import check_run_name
    from models import resolve_activations
    from models.activations import has_fused_form

    check_run_name(folder.name)
    return Models(resolve_activations, has_fused_form)


if __name__ == "__main__":
    run_script(main)
