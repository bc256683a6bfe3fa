"""Latency of untrained networks on a runtime: ``compare.py --search-bound`` runs this in a separate process.

Latency does not depend on the weights, so networks with initial weights are exported and timed side by side.
"""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.cli import Parser, add_config_flags, overrides, run_script


def main(argv: Sequence[str] | None = None) -> int:
    """Export and time the networks, the first of them the baseline; write the times."""
    arguments = parse(argv)
    content = measure(arguments)
    Path(arguments.output).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m comparison.untrained_latency", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--acts", nargs="+", required=True, metavar="ACT", help="activations and mixtures")
    add("--target", required=True, help="a format of export.py")
    add("--deploy-threads", type=int, default=1, help="threads of the runtime")
    add("--rounds", type=int, default=30, help="rounds of the latency")
    add("--output", required=True, metavar="FILE", help="where to write the times")
    add_config_flags(parser)
    parser.set_defaults(cfg="yolo-mish.yaml")
    return parser.parse_args(argv)


def measure(arguments: Namespace) -> dict[str, Any]:
    """The times of all networks, with what they were measured on."""
    from comparison.arms import parse_arms
    from comparison.deploy_runs import BLOCK, time_side_by_side
    from data import load_dataset
    from deploy.export import Trained, export_file
    from deploy.images import draw_images
    from deploy.options import ExportOptions
    from deploy.runtime import open_runtime
    from deploy.targets import find_target
    from engine.machine import fingerprint, machine
    from models import build_model, census

    arms = parse_arms(arguments.acts, overrides(arguments), cfg=arguments.cfg)
    config = arms[0].config
    names = load_dataset(config.data, "train", verify=False, progress=False, allow_skipped=True).classes
    side = config.train.imgsz
    assert side is not None  # a loaded configuration has one
    with tempfile.TemporaryDirectory() as place:
        weights = Path(place) / "untrained.pt"
        weights.touch()  # a file names the weights that it was exported from
        runtimes = {}
        for number, arm in enumerate(arms):
            model = build_model(arm.config.model, names=list(names), seed=config.train.seed).eval()
            described = arm.config.model_dump(mode="json")
            trained = Trained(model, weights, census(model), described, (side, side), 0.7, None)
            path = Path(place) / f"{number}{find_target(arguments.target).suffix}"
            options = ExportOptions()
            export_file(trained, arguments.target, options, images=draw_images(1), output=path, say=lambda line: None)
            runtimes[arm.name] = open_runtime(path, threads=arguments.deploy_threads)
        times, cores = time_side_by_side(runtimes, rounds=arguments.rounds)
        return {
            "runtime": next(iter(runtimes.values())).description,
            "threads": arguments.deploy_threads,
            "rounds": arguments.rounds,
            "block": BLOCK,
            "code": fingerprint(),
            "machine": machine(),
            "other_cores": cores,
            "times_ms": times,
        }


if __name__ == "__main__":
    run_script(main)
