"""The course of a comparison in its folder: tuning or search if asked for, plan, training, scores, report."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison import deployment, ray_runner, runner, search, slurm_runner, timing_probe, tuning
from comparison.arms import Arm
from comparison.bound import STEP, Measure, measure_latency
from comparison.choices import Search, Tuning
from comparison.cli_spec import plan_from
from comparison.disk_space import require_space
from comparison.integrity import check_runs
from comparison.journal import note
from comparison.plan import PLAN, Overrides, Plan, PlannedRun, read_plan
from comparison.report import write_report
from comparison.runs import Run
from comparison.timing_record import TIMING
from comparison.wording import searches
from comparison.wording.plans import describe, describe_tuning
from configs.schema import Config, load

TIMING_ROUNDS = 30
WRITTEN = ("pictures", "report.html", "report.json", "table.csv", "runs.csv")  # by the report


class Stopped(Exception):  # noqa: N818 - not an error
    """Runs before those of the comparison were stopped from outside; it can go on."""

    def __init__(self, unfinished: int) -> None:
        super().__init__(f"{unfinished} runs were stopped")
        self.unfinished = unfinished


@dataclass(frozen=True, kw_only=True)
class Above:
    """What a comparison needs of the packages that may import it, not the other way round."""

    source_sha256: str
    checkpoint_bytes: Callable[[Config], tuple[int, int, int]]  # of all checkpoints of a run, the largest, the weights
    score: Callable[[Plan, Sequence[Run], str], None]  # the finished runs on the plan's split, on a device
    stages: Callable[[Config], Mapping[str, object]]  # the activation of each stage of a network


class Comparison:
    """A comparison in its folder."""

    def __init__(self, arguments: Namespace, folder: Path, gpus: Sequence[str], above: Above) -> None:
        self.arguments, self.folder, self.gpus, self.above = arguments, folder, gpus, above

    def run(self, arms: Sequence[Arm], common: Overrides, notes: Sequence[str]) -> int:
        """Run what is left of it; returns the number of runs that were stopped from outside."""
        arguments, folder = self.arguments, self.folder
        require_own(folder)
        existing = read_plan(folder)
        try:
            tuned = self._tune(arms, common, existing) if arguments.tune is not None else None
            searched = self._search(arms, common, existing) if arguments.search else None
        except Stopped as stopped:
            return stopped.unfinished
        plan = plan_from(
            arguments,
            arms,
            common,
            notes=notes,
            existing=existing,
            folder=folder,
            tuned=tuned,
            searched=searched,
        )
        self._require_space(plan, folder)
        if existing is None:
            plan = plan.model_copy(update={"source_sha256": self.above.source_sha256})
        plan.write(folder)
        print(f"{describe(plan)}\n{'folder':<20}{folder}", flush=True)
        if arguments.timing and not (folder / TIMING).is_file():
            cores = runner.share_of_cores(arguments.jobs)  # as the runs
            print(timing_probe.measure(plan, folder, rounds=TIMING_ROUNDS, environment=cores), flush=True)
            note(folder, TIMING, "timed")
        plans = [(plan, folder)]
        if (at_common := tuning.common_folder(plan, folder)) is not None:
            plans.append((tuning.common_plan(plan, arms, read_plan(at_common)), at_common))
            plans[1][0].write(at_common)  # before any run of the comparison

        def interim_report(seeds: int) -> None:
            if seeds in plan.interim[:-1]:
                print(f"interim analysis after {seeds} seeds\n{self._report(plan)}", flush=True)

        unfinished = sum([self._train(each, place, interim_report) for each, place in plans])
        if plan.split != "val":
            if unfinished:
                return unfinished
            device = str(common.get("train.device", "auto")).partition(",")[0]
            for each, place in plans:
                self.above.score(each, runner.read_outcome(each, place), device)
        if arguments.deploy and not unfinished:
            threads = arguments.deploy_threads
            deployment.measure(folder, arguments.deploy, int8=arguments.int8, threads=threads, split=plan.split)
        print(self._report(plan))
        return unfinished

    def _tune(self, arms: Sequence[Arm], common: Overrides, existing: Plan | None) -> Tuning:
        """The choice of --tune, from the existing plan if it has one. Raises Stopped."""
        grid = tuning.grid_from(self.arguments, arms, common)
        plan_from(self.arguments, arms, common, existing=None, probed=False)  # its errors come before the tuning
        if existing is not None and existing.tuning is not None and grid.matches(existing.tuning):
            return existing.tuning
        place = self.folder / tuning.FOLDER
        self._require_space(grid.plan, place)
        steps = tuning.write_plan(grid.plan, place)
        print(f"{describe_tuning(steps)}\n{'folder':<20}{place}", flush=True)
        self._train_whole(steps, place)
        runs = runner.read_outcome(steps, place)
        check_runs(runs)
        return tuning.choose(grid, runs, common_trained=self.arguments.tune_common)

    def _search(self, arms: Sequence[Arm], common: Overrides, existing: Plan | None) -> Search:
        """The choice of --search, from the existing plan if there is one. Raises Stopped, and Disturbed."""
        limit, place = self.arguments.search_bound, self.folder / search.FOLDER
        space = search.space_from(self.arguments, arms, common, self.above.stages)
        plan_from(self.arguments, arms, common, existing=None, probed=False)  # its errors come before the search
        if existing is not None:
            if existing.search is None or not space.matches(existing.search, limit):
                raise ValueError("this folder holds a plan with another search, or without one; choose another --name")
            return existing.search
        mixtures, bound = list(space.mixtures[: space.most]), None
        if limit is not None:
            baseline = next(arm for arm in arms if arm.name == space.baseline)
            bound, mixtures = search.bounded(space, baseline, limit, place, self._measure(space, limit[0]))
        objective = searches.objective(bound, holdout=search.HOLDOUT)
        sizes, epochs = search.rounds(len(mixtures)), arms[0].config.train.epochs or 1
        described = searches.describe_search(space, sizes, epochs=epochs, objective=objective)
        print("\n".join(f"{name:<20}{text}" for name, text in (*described, ("folder", str(place)))), flush=True)
        notes = [f"{name}: {text}" for name, text in described]
        return search.race(space, mixtures, place, self._train_whole, bound=bound, notes=notes)

    def _measure(self, space: search.Space, place: str) -> Measure:
        """How the networks of a search are timed."""
        if place != STEP:
            threads = self.arguments.deploy_threads
            return lambda arms: measure_latency(place, threads, arms, space.common, cfg=space.cfg)
        cores = runner.share_of_cores(self.arguments.jobs)  # as the runs
        return lambda arms: timing_probe.time_steps(
            search.round_plan(space, arms, 1), rounds=TIMING_ROUNDS, environment=cores
        )

    def _train_whole(self, plan: Plan, folder: Path) -> None:
        """Train what is left of a plan. Raises Stopped if runs were stopped from outside."""
        self._require_space(plan, folder)
        if unfinished := self._train(plan, folder):
            raise Stopped(unfinished)

    def _require_space(self, plan: Plan, folder: Path) -> None:
        """Raise ValueError if the runs that are left do not fit on the disk."""
        arguments, sizes = self.arguments, dict[str, tuple[int, int, int]]()

        def checkpoints(run: PlannedRun) -> tuple[int, int, int]:
            if run.act not in sizes:
                sizes[run.act] = self.above.checkpoint_bytes(load(plan.cfg, plan.overrides_of(run)))
            return sizes[run.act]

        files = (
            len(arguments.deploy or ()) * (1 + arguments.int8) if folder == self.folder else 0
        )  # not of a choice's runs
        require_space(plan, folder, checkpoints, at_once=max(arguments.jobs, len(self.gpus)), exported=files)

    def _train(self, plan: Plan, folder: Path, after_seed: Callable[[int], None] = lambda seeds: None) -> int:
        """Train what is left of a plan; returns the number of runs that were stopped from outside."""
        retry = self.arguments.retry_failed
        if self.arguments.engine == "ray":
            each = self.arguments.gpus_per_run
            ray_runner.train_all(plan, folder, retry_failed=retry, gpus_per_run=each, after_seed=after_seed)
        elif self.arguments.engine == "slurm":
            asked = slurm_runner.read_parameters(self.arguments.slurm)
            slurm_runner.train_all(plan, folder, parameters=asked, retry_failed=retry, after_seed=after_seed)
        else:
            jobs = self.arguments.jobs
            runner.train_all(plan, folder, gpus=self.gpus, at_once=jobs, retry_failed=retry, after_seed=after_seed)
        return sum(map(len, runner.remaining(plan, folder, retry_failed=False)))

    def _report(self, plan: Plan) -> str:
        runs = runner.read_outcome(plan, self.folder)
        return write_report(self.folder, runs, plan=plan, allow=self.arguments.allow)


def require_own(folder: Path) -> None:
    """Raise ValueError for a folder with files of a comparison's names but without its plan: another program's."""
    taken = [name for name in WRITTEN if (folder / name).exists()]
    if taken and not any((folder / place / PLAN).is_file() for place in ("", tuning.FOLDER)):
        raise ValueError(
            f"{folder}: no comparison (it has no {PLAN}), and its {', '.join(taken)} would be overwritten; choose "
            "another --name"
        )
