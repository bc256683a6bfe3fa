"""Train a detector: ``python train.py --cfg yolo-mish.yaml --data my.yaml --img 640 --epochs 100``.

Without --data it trains on the embedded data set, which is drawn first. Results go to runs/train/exp*/.
``--resume`` continues the newest run, ``--resume runs/train/exp/weights/last.pt`` that one, in its folder; a checkpoint
that was copied elsewhere goes on in a new folder. ``--device 0,1`` trains on several devices, one process each, as does
``torchrun --nproc-per-node N train.py ...``.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from configs.cli import Parser, add_config_flags, overrides, run_script

NEWEST = "newest"


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit code."""
    arguments = parse(argv)

    from core.distributed import joined

    with joined():
        return train(arguments, sys.argv[1:] if argv is None else argv)


def train(arguments: Namespace, argv: Sequence[str]) -> int:
    """Train in this process, alone or with the others of its launcher; or launch a process for each of the devices."""
    from core.distributed import is_main, launched, may_report
    from engine import training
    from engine.launch import launch
    from engine.resume import restarted
    from engine.setup import require_shares

    resumed = restarted()
    if resumed is None:
        config, resumed = training.configure(arguments.cfg, overrides(arguments), resumed_from=arguments.resume)
    else:
        config = resumed.config
    processes = require_shares(config)
    if processes > 1 and launched() == 1:
        return launch(processes, argv)
    try:
        run = training.train(config, resumed)
    except training.TrainingFailed as error:
        if may_report():
            print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        return 1
    if run.finished:
        return 0
    if is_main():
        print(run.message, flush=True)
    return 128 + run.stopped_by


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="train.py", description=__doc__)
    parser.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="LAST.PT",
        help="resume an interrupted run with its own settings; --data says where its data are now",
    )
    add_config_flags(parser)
    arguments = parser.parse_args(argv)
    if arguments.cfg is None and arguments.resume is None:
        parser.error("--cfg is required, as in --cfg yolo-mish.yaml (or --resume to continue a run)")
    return arguments


if __name__ == "__main__":
    run_script(main)
