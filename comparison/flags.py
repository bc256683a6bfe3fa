"""The flags of compare.py besides those of the configuration. Imports nothing slow, so that ``--help`` is instant."""

import argparse
from collections.abc import Callable

Add = Callable[..., argparse.Action]  # add_argument of a group of flags


def add_comparison_flags(parser: argparse.ArgumentParser) -> None:
    """Add the group "comparison"."""
    add = parser.add_argument_group("comparison").add_argument
    _add_arms(add)
    _add_plan(add)
    _add_running(add)
    _add_deployment(add)
    _add_reports(add)


def _add_arms(add: Add) -> None:
    add(
        "--acts",
        nargs="+",
        metavar="ACT",
        help="activations: mish, {name: swish, learnable: true}, backbone=mish,neck=leaky_relu",
    )
    add("--vary", metavar="KEY=VALUE,VALUE", help="compare values of a config key, as in augment.mosaic=1,0.5")
    add(
        "--arm",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "KEY=VALUE"),
        help="an arm with these settings; repeat it for each arm",
    )
    add(
        "--tune",
        metavar="KEY=VALUE,VALUE",
        help="choose one of these values for each arm before the comparison, on held-out training images",
    )
    add("--tune-seeds", type=int, default=2, metavar="N", help="number of seeds of the tuning, starting at 1000")
    add("--tune-common", action="store_true", help="also compare all arms at the config's value of the tuned key")
    add(
        "--search",
        action="store_true",
        help="choose a mixture of the activations over groups of stages before the comparison, on held-out training "
        "images; the winner is one more arm",
    )
    add("--budget-runs", type=int, metavar="N", help="with --search: the most trainings that it may use")
    add(
        "--search-bound",
        metavar="RUNTIME=RATIO",
        help="with --search: only mixtures with a latency on a runtime of --deploy of at most RATIO times that of the "
        "baseline, or a training step (step=RATIO)",
    )


def _add_plan(add: Add) -> None:
    add("--seeds", default="3", help="number of seeds, starting at 0, or a list: 0,1,5")
    add("--baseline", metavar="ARM", help="arm that the others are compared with, if not the first")
    add("--aa", action="store_true", help="A/A control: compare one arm with itself, with fresh seeds")
    add(
        "--split",
        choices=("val", "test"),
        default="val",
        help="split of the primary metric; test: the weights of all runs are scored on it once, at the end",
    )
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


def _add_running(add: Add) -> None:
    add(
        "--engine",
        choices=("local", "ray", "slurm"),
        default="local",
        help="train on this machine, on a Ray cluster, or as jobs of Slurm",
    )
    add(
        "--slurm",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="with --engine slurm: what each job asks for, as in partition=gpu gpus_per_node=1 timeout_min=600",
    )
    add(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="train N runs side by side on the CPU, each with its share of the cores; their times are not compared",
    )
    add(
        "--gpus-per-run",
        type=int,
        default=1,
        metavar="K",
        help="train each run on K GPUs, in a process each (docs/distributed.md)",
    )
    add("--retry-failed", action="store_true", help="restart failed runs")
    add(
        "--probe",
        type=int,
        default=5,
        metavar="ROUNDS",
        help="rounds of timed steps for the time estimate; 0: no estimate",
    )
    add("--timing", action="store_true", help="also measure the training step in isolation")


def _add_deployment(add: Add) -> None:
    add(
        "--deploy",
        nargs="+",
        metavar="RUNTIME",
        help="after the runs, measure each network where it will run: onnxruntime, openvino, ncnn, torchscript; also "
        "on a finished comparison",
    )
    add("--int8", action="store_true", help="with --deploy: also quantised, calibrated on training images")
    add(
        "--deploy-threads",
        type=int,
        default=1,
        metavar="N",
        help="with --deploy or --search-bound: threads of a runtime",
    )


def _add_reports(add: Add) -> None:
    add("--report", nargs="+", metavar="DIR", help="report on a finished comparison, or on any runs, without training")
    add("--verify", nargs="+", metavar="DIR", help="score the weights of finished runs again, without training")
    add(
        "--allow",
        nargs="+",
        default=[],
        metavar="KEY",
        help="accept runs that differ in KEY, and compare them as separate arms",
    )
