"""Compare activations by training: ``python compare.py --acts relu leaky_relu silu mish --seeds 3``.

Any other setting is compared in the same way, with --vary augment.mosaic=1,0.5 or --arm NAME KEY=VALUE ... .
Every arm is trained with every seed, each in a fresh process of train.py; the first arm is the baseline.
The plan is written and printed before the first run. The result is a verdict, a table and report.html. If interrupted,
rerun the same command to resume.
"""

import signal
import sys
import tempfile
from argparse import SUPPRESS, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comparison.flags import add_comparison_flags
from configs.cli import Parser, add_config_flags, overrides, run_script
from configs.flags import AUTO
from core.commands import command

if TYPE_CHECKING:
    from pydantic import JsonValue

    from comparison.arms import Arm
    from comparison.plan import Plan
    from comparison.result import CompareResult
    from comparison.runs import Run

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
    refuse_auto_batch(given)
    if arguments.verify:
        return verify_runs([Path(each) for each in arguments.verify])

    from comparison.bound import Disturbed
    from comparison.cli_spec import take_folder
    from comparison.job import DiskFull
    from comparison.report import report
    from comparison.runner import Interrupted

    folder = take_folder(given, acts=bool(arguments.acts))
    if arguments.report:
        folders = [Path(each) for each in arguments.report]
        print(report(folders, folder, baseline=arguments.baseline, allow=arguments.allow))
        return 0
    resume = f"Rerun the same command to resume:\n  {command('compare.py', *(sys.argv[1:] if argv is None else argv))}"
    try:
        unfinished = start(arguments, given, folder)
    except Interrupted as stopped:
        print(f"{stopped}; the running runs are saved. {resume}", flush=True)
        return 128 + stopped.number
    except DiskFull as full:
        print(f"compare.py: error: {full}; free some space. {resume}", file=sys.stderr, flush=True)
        return 1
    except Disturbed as disturbed:
        print(f"compare.py: error: {disturbed}. {resume}", file=sys.stderr, flush=True)
        return 1
    if unfinished:
        print(f"{unfinished} runs were stopped from outside. {resume}")
    return 1 if unfinished else 0


def compare(acts: Sequence[str | Mapping[str, object]] | None = None, **options: Any) -> "CompareResult":
    """Compare activations from Python, as in ``compare(["relu", "mish"], seeds=3, data="my.yaml", epochs=50)``.

    Keyword arguments are the flags of compare.py and train.py, with the same defaults (``seeds``, ``tune``, ``split``,
    ``timing``, ..., ``epochs``, ``imgsz``, ...), and ``cfg``; ``arm={"A": {"train.lr": 0.01}, ...}`` and
    ``vary="augment.mosaic=1,0.5"`` compare other settings. Every run is trained in a separate process. Ctrl-C
    saves the running runs and returns the comparison as it stands; the same call resumes it.

    Raises TypeError or ValueError for wrong arguments, FileNotFoundError for what is missing.
    """
    from comparison.cli_spec import take_folder
    from comparison.keywords import arguments_from
    from comparison.result import CompareResult
    from comparison.runner import Interrupted

    arguments, given = arguments_from({"cfg": "yolo-mish.yaml", "acts": acts, **options})
    if not (arguments.acts or arguments.vary or arguments.arm):
        raise ValueError("compare: expected what to compare: acts, vary or arm")
    refuse_auto_batch(given)
    folder = take_folder(given, acts=bool(arguments.acts))
    try:
        unfinished = start(arguments, given, folder)
        message = f"{unfinished} runs were stopped from outside" if unfinished else ""
    except Interrupted as stopped:
        message = f"{stopped}; the running runs are saved"
        if stopped.number == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)  # now what it does to this program
    if message:
        message += "; the same call resumes the comparison"
        print(message, flush=True)
    return CompareResult(folder, message)


def start(arguments: Namespace, given: dict[str, Any], folder: Path) -> int:
    """Run what is left of a comparison in its folder; returns the number of runs that were stopped from outside.

    Raises Interrupted after a signal, DiskFull if there is no space for what is left, Disturbed if other processes were
    busy during the measurement that a search starts with.
    """
    from comparison import ray_runner, search, slurm_runner
    from comparison.bound import STEP, parse_bound
    from comparison.cli_spec import arms_from
    from comparison.course import Above, Comparison
    from comparison.runner import group_gpus, list_gpus
    from core.files import check_run_name
    from deploy.targets import runnable
    from engine.checkpoint import checkpoint_bytes
    from engine.machine import source_hash
    from models import resolve_activations

    check_run_name(folder.name)
    search.refuse(arguments)
    arguments.deploy = runnable(arguments.deploy or (), int8=arguments.int8)
    if arguments.search_bound is not None:
        place, limit = parse_bound(arguments.search_bound)
        place = place if place == STEP else runnable([place], flag="--search-bound")[0]
        arguments.search_bound = place, limit
    gpus = list_gpus(given.get("train.device"))
    if gpus:
        given.pop("train.device", None)
    if arguments.deploy_threads < 1:
        raise ValueError(f"--deploy-threads {arguments.deploy_threads}: expected 1 or more")
    if arguments.jobs < 1:
        raise ValueError(f"--jobs {arguments.jobs}: expected 1 or more")
    if arguments.jobs > 1 and (gpus or arguments.engine != "local"):
        raise ValueError("--jobs shares the cores of one machine; GPUs, Ray and Slurm train one run per device anyway")
    if arguments.slurm and arguments.engine != "slurm":
        raise ValueError("--slurm says what the jobs of --engine slurm ask for; add that, or leave it out")
    if arguments.engine == "ray":
        ray_runner.connect()
    if arguments.engine == "slurm":
        with tempfile.TemporaryDirectory() as place:  # its errors come before anything is written
            slurm_runner.connect(Path(place), slurm_runner.read_parameters(arguments.slurm))
    if arguments.gpus_per_run != 1:
        gpus = group_gpus(gpus, arguments.gpus_per_run, engine=arguments.engine)
        given["train.device"] = ",".join(map(str, range(arguments.gpus_per_run)))  # of those that a run can see
    arms = arms_from(arguments, given)
    for arm in arms:
        if arm.config.train.batch % arguments.gpus_per_run:
            batch = arm.config.train.batch
            raise ValueError(
                f"train.batch: found {batch}; expected a multiple of --gpus-per-run {arguments.gpus_per_run}"
            )
    common, notes = common_overrides(arms, given)
    above = Above(
        source_sha256=source_hash(),
        checkpoint_bytes=checkpoint_bytes,
        score=score_runs,
        stages=lambda config: resolve_activations(config.model),
    )
    return Comparison(arguments, folder, gpus, above).run(arms, common, notes)


def refuse_auto_batch(given: Mapping[str, object]) -> None:
    """Raise ValueError for --batch auto."""
    if given.get("train.batch") == AUTO:
        raise ValueError(
            "--batch auto: all runs of a comparison need the same batch size; let a training of the largest arm with "
            "--batch auto choose it, and give that number"
        )


def score_runs(plan: "Plan", runs: Sequence["Run"], device: str) -> None:
    """Score the last epoch of all finished runs on the split of the plan, with pycocotools, in fp32.

    The detections and what they are scored against are kept in the run folders.
    """
    from comparison.evaluation import detection_files
    from comparison.scores import score_all
    from configs.schema import Data
    from data import load_dataset
    from engine.evaluation.coco import write_ground_truth, write_predictions
    from yolo import YOLO

    def score(weights: Path, split: str) -> dict[str, float | None]:
        model = YOLO(weights, device=device)
        val, batch = model.config.val, model.config.val.batch or 2 * model.config.train.batch
        result = model.val(
            split=split,
            conf=val.conf,
            iou=val.iou,
            max_det=val.max_det,
            rect=val.rect,
            batch=batch,
            workers=0,
            progress=False,
        )
        predicted, objects = (weights.parents[1] / name for name in detection_files(split))
        write_predictions(predicted, result.predictions, result.truth)
        write_ground_truth(objects, result.truth)
        return {name: value if value >= 0 else None for name, value in result.stats.columns().items()}

    def data_sha256(run: "Run", split: str) -> str:
        data = Data.model_validate(run.record["config"]["data"])
        return load_dataset(data, split, progress=False, verify=False, allow_skipped=True).sha256

    score_all(plan, runs, score, data_sha256=data_sha256, show=lambda line: print(line, flush=True))


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="compare.py", description=__doc__)
    add_comparison_flags(parser)
    add_config_flags(parser, replaced_help=REPLACED_HELP)
    parser.set_defaults(cfg="yolo-mish.yaml")
    arguments = parser.parse_args(argv)
    compared = arguments.acts or arguments.vary or arguments.arm
    if sum(map(bool, (compared, arguments.report, arguments.verify))) != 1:
        parser.error(
            "expected what to compare (--acts, --vary or --arm), or folders of finished runs (--report or --verify)"
        )
    if arguments.search and not compared:
        parser.error("--search mixes the activations of --acts, as in --acts relu silu mish --search --budget-runs 24")
    if not arguments.deploy and (arguments.int8 or (arguments.deploy_threads != 1 and not arguments.search_bound)):
        parser.error("--int8 and --deploy-threads are for --deploy, as in --deploy onnxruntime openvino --int8")
    if arguments.deploy and not compared:
        parser.error("--deploy measures in the folder of a comparison: rerun its command with --deploy")
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
    """The overrides of all runs, and notes for the plan; checks that all activations exist and all arms differ.

    If an activation by which the arms differ has no form fused with batch norm, all are computed unfused.
    """
    from comparison.arms import differing_keys, is_activation, varied_keys
    from models import resolve_activations
    from models.activations import has_fused_form

    noun = "arm" if varied_keys(arms) else "activation"
    resolved = [resolve_activations(arm.config.model) for arm in arms]
    for number, stages in enumerate(resolved):
        for other in (arm for arm, others in zip(arms[:number], resolved, strict=False) if others == stages):
            if all(map(is_activation, differing_keys([other, arms[number]]))):
                raise ValueError(f"{arms[number].text} and {other.name} are the same {noun}")
    compared = [spec for each in resolved for stage, spec in each.items() if any(o[stage] != spec for o in resolved)]
    unfused = dict.fromkeys(spec.name for spec in compared if not has_fused_form(spec))
    own = any(NORM_ACT in arm.overrides for arm in arms)  # an arm may compare it
    if not unfused or own or arms[0].config.model.norm_act == "plain":
        return dict(given), ()
    names = ", ".join(unfused)
    if NORM_ACT in given:
        raise ValueError(f"{NORM_ACT}=fused: {names} cannot be fused; leave it out to compute all as plain")
    note = f"{names} cannot be fused with batch norm, so all are computed with {NORM_ACT}=plain"
    return {**given, NORM_ACT: "plain"}, (note,)


if __name__ == "__main__":
    run_script(main)
