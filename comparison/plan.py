"""The plan of a comparison, written before its first run: what is compared, in which order, and what will be said.

What stands here cannot be chosen later with the numbers in sight: baseline, seeds, primary figure, margin, looks.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from comparison.runs import Run, cell_name
from comparison.statistics import minimal_detectable, seeds_for_same
from configs.errors import explain
from core.files import write_text
from core.text import format_duration

PLAN = "plan.json"
SIGMA = 0.006  # residual sd of one run's mAP50-95, assumed for planning until there are runs to estimate it from
AGAIN = " (other seeds)"  # the label of the same activation under further seeds
FORWARD = 1 / 3  # of a training step: what a batch costs in validation, assumed for the estimate
# What of a plan has to be the same when a comparison is gone on with; seeds and activations may be added.
FIXED = ("baseline", "cfg", "overrides", "margin", "alpha", "budget", "same")

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Cell(NamedTuple):
    """A run of the plan."""

    act: str  # as the run's own record will name it
    seed: int  # that it trains with

    @property
    def name(self) -> str:
        """The name of its folder."""
        return cell_name(self.act, self.seed)


class Plan(BaseModel):
    """The plan; `acts` and `seeds` are those of before run 1, what was added later is kept apart."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    acts: tuple[str, ...]
    baseline: str
    seeds: tuple[Seed, ...]
    cfg: str
    overrides: dict[str, Any] = {}  # of the configuration, for all runs
    specs: dict[str, dict[str, Any]]  # of the configuration, by activation
    epochs: dict[str, Annotated[int, Field(ge=1)]]  # by activation; they differ where the budget is time
    primary: Literal["mAP50-95"] = "mAP50-95"  # of the last epoch, moving average of the weights
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.005  # mAP as a fraction
    looks: tuple[Annotated[int, Field(ge=1)], ...] = ()  # numbers of seeds after which a verdict is declared
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    budget: Literal["epochs", "time"] = "epochs"
    same: bool = False  # A/A: the one activation against itself under other seeds
    sigma_assumed: Annotated[float, Field(gt=0)] = SIGMA
    notes: tuple[str, ...] = ()  # what was decided for this comparison, in words
    step_ms: dict[str, float] = {}  # of a training step, by activation, from the probe; empty without one
    batches: tuple[int, int] = (0, 0)  # of an epoch's training and validation, from the probe
    start_s: Annotated[float, Field(ge=0)] = 0.0  # of a process until its first step, from the probe
    created: str = ""
    added_acts: tuple[str, ...] = ()
    added_seeds: tuple[Seed, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Plan":
        every = (*self.acts, *self.added_acts)
        for what, values in (("acts", every), ("seeds", (*self.seeds, *self.added_seeds)), ("looks", self.looks)):
            twice = [value for value in values if values.count(value) > 1]
            if twice:
                raise ValueError(f"{what}: {twice[0]} stands twice")
        if self.baseline not in self.acts:
            raise ValueError(f"baseline: found {self.baseline}, expected one of {', '.join(self.acts)}")
        if len(self.acts) < 2:
            raise ValueError(f"acts: found {', '.join(self.acts)} alone, expected two or more to compare")
        if not self.seeds:
            raise ValueError("seeds: found none, expected at least one")
        if self.looks and (list(self.looks) != sorted(self.looks) or self.looks[-1] != len(self.seeds)):
            raise ValueError(
                f"looks: found {', '.join(map(str, self.looks))}; expected rising numbers of seeds, the last of them "
                f"all {len(self.seeds)}"
            )
        lacking = [act for act in every if act not in self.specs or act not in self.epochs]
        if lacking:
            raise ValueError(f"specs, epochs: {lacking[0]} is missing")
        return self

    # ------------------------------------------------------------------------------------------------------- the runs

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The runs in their order: seed by seed, each seed starting with the next activation."""
        return tuple(cell for block in self.blocks for cell in block)

    @property
    def blocks(self) -> tuple[tuple[Cell, ...], ...]:
        """The runs of each seed. What was added comes behind what was planned."""
        planned = [self._block(number, seed, self.acts) for number, seed in enumerate(self.seeds)]
        count = len(self.seeds)
        further = [self._block(number, seed, self.added_acts) for number, seed in enumerate(self.seeds)]
        every = (*self.acts, *self.added_acts)
        further += [self._block(count + number, seed, every) for number, seed in enumerate(self.added_seeds)]
        return tuple(tuple(block) for block in (*planned, *further) if block)

    def _block(self, number: int, seed: int, acts: Sequence[str]) -> list[Cell]:
        if not acts:
            return []
        start = number % len(acts)
        return [self._cell(act, seed) for act in (*acts[start:], *acts[:start])]

    def _cell(self, act: str, seed: int) -> Cell:
        if self.same and act.endswith(AGAIN):
            return Cell(act.removesuffix(AGAIN), seed + self._shift)
        return Cell(act, seed)

    @property
    def _shift(self) -> int:
        return max((*self.seeds, *self.added_seeds)) + 1

    def as_compared(self, runs: Sequence[Run]) -> list[Run]:
        """The runs under the labels and seeds of the comparison, in the order of the activations, baseline first.

        They are the runs' own but for an A/A, where a run of a further seed stands for the partner of the first ones.
        """
        if self.same:
            again = self.acts[1]
            runs = [
                run if run.seed < self._shift else replaced(run, act=again, seed=run.seed - self._shift) for run in runs
            ]
        place = {act: number for number, act in enumerate((self.baseline, *self.acts, *self.added_acts))}
        place[self.baseline] = -1
        return sorted(runs, key=lambda run: (place.get(run.act, len(place)), run.seed))

    def overrides_of(self, cell: Cell) -> dict[str, Any]:
        """What a run sets on the configuration: what all do, its activation, its epochs, its seed."""
        return {
            **self.overrides,
            **self.specs[cell.act],
            "train.epochs": self.epochs[cell.act],
            "train.seed": cell.seed,
        }

    # -------------------------------------------------------------------------------------------------------- in words

    def seconds(self, cell: Cell) -> float | None:
        """The estimate for a run from the probe: its start, training steps, validations; None without a probe."""
        if cell.act not in self.step_ms:
            return None
        train, val = self.batches
        return self.start_s + self.epochs[cell.act] * (train + FORWARD * val) * self.step_ms[cell.act] / 1000

    def detectable(self, sigma: float | None = None) -> float:
        """The difference in mAP, a fraction, that the planned seeds show with a chance of 80 %; inf for one seed."""
        sigma = self.sigma_assumed if sigma is None else sigma
        candidates, seeds = len(self.acts) - 1, len(self.seeds)
        return minimal_detectable(sigma=sigma, candidates=candidates, seeds=seeds, alpha=self.alpha, guarded=True)

    def describe(self) -> str:
        """The plan as printed before the runs."""
        return "\n".join(f"{name:<16}{text}" for name, text in self.entries())

    def entries(self) -> list[tuple[str, str]]:
        """What the plan says, as names and texts."""
        points, count = 100 * self.sigma_assumed, len(self.seeds)
        per_act = dict.fromkeys(self.epochs[act] for act in (*self.acts, *self.added_acts))
        epochs = ", ".join(f"{act} {self.epochs[act]}" for act in self.acts) if len(per_act) > 1 else f"{[*per_act][0]}"
        entries = [
            ("activations", f"{', '.join(self.acts)} (baseline {self.baseline})"),
            ("seeds", f"{', '.join(map(str, self.seeds))}"),
            ("epochs", f"{epochs}{'' if self.budget == 'epochs' else ', planned to take the time of the fastest'}"),
            ("order", ", ".join(cell.name for cell in self.cells[:6]) + (", ..." if len(self.cells) > 6 else "")),
            ("time", self._time()),
            ("primary figure", f"{self.primary} of the last epoch, moving average of the weights"),
            ("will show", self._power(points)),
            ("the same", f"within {100 * self.margin:.2g} mAP points{self._price_of_same()}"),
            ("looks", f"after {', '.join(map(str, self.looks or (count,)))} seeds; alpha {self.alpha:g} in all"),
        ]
        if self.added_acts or self.added_seeds:
            added = [*self.added_acts, *(f"seed {seed}" for seed in self.added_seeds)]
            entries.append(("added", f"{', '.join(added)}, beyond the plan: what they show is exploratory"))
        return entries + [("note", note) for note in self.notes]

    def _time(self) -> str:
        estimates = [self.seconds(cell) for cell in self.cells]
        known = [each for each in estimates if each is not None]
        if len(known) < len(estimates):
            return f"{len(estimates)} runs; no probe, so an estimate comes with the first epoch"
        return (
            f"{len(estimates)} runs, about {format_duration(sum(known))} on one device, estimated from a probe of each "
            "activation's step (a validation batch taken as a third of a step, final evaluation and plots excluded)"
        )

    def _power(self, points: float) -> str:
        smallest = 100 * self.detectable()
        if math.isinf(smallest):
            return "differences only: with one seed there is no interval and no verdict"
        words = f"a difference of {smallest:.2g} mAP points with a chance of 80 %"
        gross = ", so only gross ones: two seeds say little" if len(self.seeds) == 2 else ""
        return f"{words}{gross} (assumed: one run's residual sd is {points:.2g} mAP points, --sigma)"

    def _price_of_same(self) -> str:
        candidates = len(self.acts) - 1
        seeds = seeds_for_same(self.margin, sigma=self.sigma_assumed, candidates=candidates, alpha=self.alpha)
        needed = "more than 1000" if seeds is None else str(seeds)
        return f", which takes {needed} seeds to be found of two that are (80 % chance, same assumption)"

    # ---------------------------------------------------------------------------------------------------------- on disk

    def write(self, folder: Path) -> None:
        """Write plan.json in one step."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
        write_text(folder / PLAN, text)

    def merged(self, asked: "Plan") -> "Plan":
        """This plan with what ``asked`` has more of: activations and seeds. ValueError where it asks for another plan.

        Seeds and activations that ``asked`` leaves out stay in the plan.
        """
        wrong = [
            f"{key}: {_brief(getattr(asked, key))} instead of {_brief(getattr(self, key))}"
            for key in FIXED
            if getattr(asked, key) != getattr(self, key)
        ]
        if asked.looks and asked.looks != self.looks:
            wrong.append(f"looks: {_brief(asked.looks)} instead of {_brief(self.looks)}")
        every, seeds = (*self.acts, *self.added_acts), (*self.seeds, *self.added_seeds)
        wrong += [f"{act} left out" for act in self.acts if act not in asked.acts]
        wrong += [f"seed {seed} left out" for seed in self.seeds if seed not in asked.seeds]
        wrong += [
            f"{what} of {act}: {_brief(getattr(asked, what)[act])} instead of {_brief(getattr(self, what)[act])}"
            for what in ("specs", "epochs")
            for act in every
            if act in asked.acts and getattr(asked, what)[act] != getattr(self, what)[act]
        ]
        if self.same and set(asked.seeds) != set(self.seeds):
            wrong.append("other seeds, which an A/A cannot be added to")
        if wrong:
            raise ValueError(f"the plan in this folder is another one ({'; '.join(wrong)}); take another --name")
        further = tuple(act for act in asked.acts if act not in every)
        return self.model_copy(
            update={
                "added_acts": (*self.added_acts, *further),
                "added_seeds": (*self.added_seeds, *(seed for seed in asked.seeds if seed not in seeds)),
                "specs": {**self.specs, **{act: asked.specs[act] for act in further}},
                "epochs": {**self.epochs, **{act: asked.epochs[act] for act in further}},
                "step_ms": {**self.step_ms, **{act: asked.step_ms[act] for act in further if act in asked.step_ms}},
            }
        )


def replaced(run: Run, *, act: str, seed: int) -> Run:
    """The run under another label and seed."""
    return Run(**{**vars(run), "act": act, "seed": seed})


def make_plan(**fields: Any) -> Plan:
    """A new plan, dated now. ValueError in one line for what is wrong with it."""
    return _validated({**fields, "created": datetime.now().astimezone().isoformat(timespec="seconds")}, "")


def read_plan(folder: Path) -> Plan | None:
    """The plan of a comparison's folder, None where there is none. ValueError where the file is damaged."""
    file = folder / PLAN
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON, the file is damaged: {error}") from error
    return _validated(content, f"{file}: ")


def _validated(content: Any, where: str) -> Plan:
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{where}{explain(error, Plan, name='plan')}") from error


def epochs_in_equal_time(epochs: int, step_ms: Mapping[str, float]) -> dict[str, int]:
    """Epochs by activation whose time is that of `epochs` of the fastest one."""
    fastest = min(step_ms.values())
    return {act: max(1, round(epochs * fastest / own)) for act, own in step_ms.items()}


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
