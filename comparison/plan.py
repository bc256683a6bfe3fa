"""The plan of a comparison, written before its first run: arms, seeds, order, primary metric, margin, analyses.

Its JSON form is plan.json in the comparison's folder.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from comparison.choices import Search, Tuning
from comparison.power import minimal_detectable
from comparison.runs import Run, run_name, slug
from configs.errors import explain
from configs.fields import Seed
from core.files import write_text
from core.seal import SEAL, seal_of

PLAN = "plan.json"
AA_SUFFIX = " (other seeds)"  # label suffix of the second arm of an A/A control
VAL_STEP_FRACTION = 1 / 3  # time of a validation batch relative to a training step, assumed for the estimate
# Fields that must agree when a comparison is resumed; seeds and arms may be added.
FIXED = {"baseline": "baseline", "cfg": "cfg", "overrides": "overrides", "margin": "margin", "alpha": "alpha",
         "budget": "budget", "varies": "varies", "split": "split", "tuning": "tuning", "search": "search",
         "all_pairs": "all_pairs", "aa": "same", "target": "target", "redrawn": "redraw-data"}  # fmt: skip
# What does not belong to the declaration: estimates and later additions, by their names in plan.json.
NOT_DECLARED = {"notes", "step_ms", "batches", "start_s", "created", "added_acts", "added_seeds", "sigma_assumed",
                "source_sha256"}  # fmt: skip
# Fields with a value for each arm, and their names in messages.
BY_ARM = {"arms": "specs", "epochs": "epochs", "last_epoch_batches": "batches of the last epoch"}

Overrides = dict[str, JsonValue]
"""Config overrides by dotted key."""


class PlannedRun(NamedTuple):
    """One run of the plan."""

    act: str  # the arm's label
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return run_name(self.act, self.seed)


class Plan(BaseModel):
    """The plan; `acts` and `seeds` are those declared before the first run, later additions are kept separately."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    acts: tuple[str, ...]  # labels of the arms
    baseline: str
    seeds: tuple[Seed, ...]
    cfg: str
    overrides: Overrides = {}  # for all runs
    arms: dict[str, Overrides] = Field(alias="specs")  # overrides by arm
    epochs: dict[str, Annotated[int, Field(ge=1)]]  # by arm; they differ if the budget is time
    last_epoch_batches: dict[str, Annotated[int, Field(ge=1)]] = {}  # by arm; without an entry, whole epochs
    primary: Literal["mAP50-95"] = "mAP50-95"  # of the last epoch, EMA weights
    split: Literal["val", "test"] = "val"  # that the primary metric is measured on
    margin: Annotated[float, Field(gt=0, lt=1)] = 0.005  # equivalence margin, mAP as a fraction
    interim: tuple[Annotated[int, Field(ge=1)], ...] = Field((), alias="looks")  # analyses, in seeds; the last is final
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    budget: Literal["epochs", "time"] = "epochs"
    varies: tuple[str, ...] = ()  # config keys in which the arms differ; empty: in their activations only
    tuning: Tuning | None = None
    search: Search | None = None  # its choice is one of the acts
    all_pairs: bool = False  # also the candidates against each other, a family of tests of its own
    aa: bool = Field(False, alias="same")  # A/A control: one activation against itself under other seeds
    redrawn: dict[str, JsonValue] = {}  # section `data` of the embedded set that is drawn anew for each seed; or {}
    journaled: bool = False  # the journal has the end of every run; not of plans of earlier versions
    target: Annotated[float, Field(gt=0, lt=1)] | None = None  # mAP50-95 as a fraction, for the epochs to reach it
    sigma_assumed: Annotated[float, Field(gt=0)] | None = None  # residual sd of one run's mAP50-95; None if unknown
    notes: tuple[str, ...] = ()
    step_ms: dict[str, float] = {}  # time of a training step by arm, from the probe; empty without one
    batches: tuple[int, int] = (0, 0)  # per epoch: training, validation; from the probe
    start_s: Annotated[float, Field(ge=0)] = 0.0  # start-up time of a run, from the probe
    created: str = ""
    source_sha256: str = ""  # of the code that wrote the plan; each run has its own
    added_acts: tuple[str, ...] = ()
    added_seeds: tuple[Seed, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "Plan":
        listed: tuple[tuple[str, tuple[str, ...] | tuple[int, ...]], ...] = (
            ("acts", self.all_acts),
            ("seeds", self.all_seeds),
            ("looks", self.interim),
        )
        for what, values in listed:
            duplicates = [value for value in values if list(values).count(value) > 1]
            if duplicates:
                raise ValueError(f"{what}: duplicate {duplicates[0]}")
        if self.baseline not in self.acts:
            raise ValueError(f"baseline: found {self.baseline}, expected one of {', '.join(self.acts)}")
        if len(self.acts) < 2:
            raise ValueError(f"acts: found {', '.join(self.acts)} alone, expected two or more to compare")
        if not self.seeds:
            raise ValueError("seeds: found none, expected at least one")
        if self.interim and (list(self.interim) != sorted(self.interim) or self.interim[-1] != len(self.seeds)):
            raise ValueError(
                f"looks: found {', '.join(map(str, self.interim))}; expected increasing numbers of seeds, the last of "
                f"them all {len(self.seeds)}"
            )
        if self.split != "val" and self.interim:
            raise ValueError(f"looks: the split {self.split} is scored once, after all seeds; leave the analyses out")
        names = {slug(act): act for act in self.all_acts}
        alike = [act for act in self.all_acts if names[slug(act)] != act]
        if alike:
            raise ValueError(f"acts: {alike[0]} and {names[slug(alike[0])]} would have the same folder; rename one")
        missing = [act for act in self.all_acts if act not in self.arms or act not in self.epochs]
        if missing:
            raise ValueError(f"specs, epochs: {missing[0]} is missing")
        return self

    @property
    def all_acts(self) -> tuple[str, ...]:
        """The planned arms and those added later."""
        return (*self.acts, *self.added_acts)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The planned seeds and those added later."""
        return (*self.seeds, *self.added_seeds)

    # ------------------------------------------------------------------------------------------------------- the runs

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """The runs in order."""
        return tuple(run for group in self.seed_groups for run in group)

    @property
    def seed_groups(self) -> tuple[tuple[PlannedRun, ...], ...]:
        """The runs of each seed, each group starting with the next arm. Additions follow what was planned."""
        count = len(self.seeds)
        groups = [self._group(number, seed, self.acts) for number, seed in enumerate(self.seeds)]
        groups += [self._group(number, seed, self.added_acts) for number, seed in enumerate(self.seeds)]
        groups += [self._group(count + number, seed, self.all_acts) for number, seed in enumerate(self.added_seeds)]
        return tuple(group for group in groups if group)

    def _group(self, number: int, seed: int, acts: Sequence[str]) -> tuple[PlannedRun, ...]:
        start = number % len(acts) if acts else 0
        return tuple(self.planned(act, seed) for act in (*acts[start:], *acts[:start]))

    def planned(self, act: str, seed: int) -> PlannedRun:
        """The run of an arm and a seed as they are compared; an A/A control relabels those of its second arm."""
        if self.aa and act.endswith(AA_SUFFIX):
            return PlannedRun(act.removesuffix(AA_SUFFIX), seed + self._seed_offset)
        return PlannedRun(act, seed)

    @property
    def _seed_offset(self) -> int:
        """What is added to the seeds of the second arm of an A/A control."""
        return max(self.all_seeds) + 1

    def as_compared(self, runs: Sequence[Run]) -> list[Run]:
        """The runs in the order of the arms, baseline first.

        In an A/A control, the runs of the second half of the seeds are relabelled as the second arm.
        """
        if self.aa:
            runs = [
                run
                if run.seed < self._seed_offset
                else replace(run, act=self.acts[1], seed=run.seed - self._seed_offset)
                for run in runs
            ]
        order = {act: number for number, act in enumerate(self.all_acts)} | {self.baseline: -1}
        return sorted(runs, key=lambda run: (order.get(run.act, len(order)), run.seed))

    def overrides_of(self, run: PlannedRun) -> Overrides:
        """The config overrides of a run: common ones, its arm's, its epochs and its seed."""
        return {
            **self.overrides,
            **self.arms[run.act],
            **({"data": redrawn_data(self.redrawn, run.seed)} if self.redrawn else {}),
            "train.epochs": self.epochs[run.act],
            **(
                {"train.last_epoch_batches": self.last_epoch_batches[run.act]}
                if run.act in self.last_epoch_batches
                else {}
            ),
            "train.seed": run.seed,
            **({"run.arm": run.act, "run.varies": list(self.varies)} if self.varies else {}),
            "run.plan": self.reference,
        }

    # -------------------------------------------------------------------------------------------------------- estimates

    def seconds(self, run: PlannedRun) -> float | None:
        """The estimated time of a run: start-up, training steps, validation; None without a probe."""
        if run.act not in self.step_ms:
            return None
        steps = self.train_batches(run.act) + self.epochs[run.act] * VAL_STEP_FRACTION * self.batches[1]
        return self.start_s + steps * self.step_ms[run.act] / 1000

    def train_batches(self, act: str) -> int:
        """The training batches of a run of an arm; 0 without a probe."""
        per_epoch = self.batches[0]
        return (self.epochs[act] - 1) * per_epoch + self.last_epoch_batches.get(act, per_epoch)

    def detectable(self, sigma: float) -> float:
        """The difference in mAP, as a fraction, that the planned seeds detect with 80 % power; inf for one seed."""
        return minimal_detectable(
            sigma=sigma,
            candidates=len(self.acts) - 1,
            seeds=len(self.seeds),
            alpha=self.alpha,
            conservative=True,
        )

    # ---------------------------------------------------------------------------------------------------------- on disk

    def to_json(self, *, exclude_defaults: bool = False) -> dict[str, JsonValue]:
        """The content of plan.json."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=exclude_defaults)

    @property
    def reference(self) -> str:
        """What each run records of the plan: a hash of all that it declares, and the time at which it was written.

        Later additions and estimates do not change it.
        """
        by_arm = {key: getattr(self, key) for key in BY_ARM}
        first = self.model_copy(
            update={key: {act: values[act] for act in self.acts if act in values} for key, values in by_arm.items()}
        )
        declared = {
            key: value for key, value in first.to_json(exclude_defaults=True).items() if key not in NOT_DECLARED
        }
        canonical = json.dumps(declared, sort_keys=True, separators=(",", ":"))
        return f"{hashlib.sha256(canonical.encode()).hexdigest()} {self.created}"

    def write(self, folder: Path) -> None:
        """Write plan.json atomically, with a seal."""
        folder.mkdir(parents=True, exist_ok=True)
        content = self.to_json()
        content[SEAL] = seal_of(content, b"")
        write_text(folder / PLAN, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def merged(self, other: "Plan") -> "Plan":
        """This plan with the additional arms and seeds of ``other``. ValueError if ``other`` is a different plan.

        Arms and seeds that ``other`` leaves out stay in the plan.
        """
        wrong = [
            f"{key}: {brief(getattr(other, name))} instead of {brief(getattr(self, name))}"
            for name, key in FIXED.items()
            if getattr(other, name) != getattr(self, name)
        ]
        if other.interim and other.interim != self.interim:
            wrong.append(f"looks: {brief(other.interim)} instead of {brief(self.interim)}")
        wrong += [f"{act} left out" for act in self.acts if act not in other.acts]
        wrong += [f"seed {seed} left out" for seed in self.seeds if seed not in other.seeds]
        for name, what in BY_ARM.items():
            for act in (act for act in self.all_acts if act in other.acts):
                planned, found = (getattr(plan, name).get(act) for plan in (self, other))
                if found != planned:
                    wrong.append(f"{what} of {act}: {brief(found)} instead of {brief(planned)}")
        if self.aa and set(other.seeds) != set(self.seeds):
            wrong.append("other seeds, which cannot be added to an A/A control")
        if wrong:
            raise ValueError(f"this folder holds a different plan ({'; '.join(wrong)}); choose another --name")
        new = tuple(act for act in other.acts if act not in self.all_acts)
        return self.model_copy(
            update={
                "added_acts": (*self.added_acts, *new),
                "added_seeds": (*self.added_seeds, *(seed for seed in other.seeds if seed not in self.all_seeds)),
                **{
                    name: getattr(self, name) | {act: values[act] for act in new if act in values}
                    for name in (*BY_ARM, "step_ms")
                    for values in [getattr(other, name)]
                },
            }
        )


def redrawn_data(data: Mapping[str, JsonValue], seed: int) -> dict[str, JsonValue]:
    """The section `data` of an embedded set drawn for a seed, in a separate folder beside the set's."""
    old = str(data["root"])
    new = f"{old}-seed{seed}"

    def moved(value: JsonValue) -> JsonValue:
        if isinstance(value, dict):
            return {key: moved(each) for key, each in value.items()}
        return new + value.removeprefix(old) if isinstance(value, str) and value.startswith(old) else value

    section = {key: moved(value) for key, value in data.items()}
    embedded = section["embedded"]
    assert isinstance(embedded, dict) and isinstance(embedded["seed"], int)
    # Not the set itself for any seed: settings may have been chosen on it.
    return {**section, "embedded": {**embedded, "seed": embedded["seed"] + 1 + seed}}


def make_plan(**fields: object) -> Plan:
    """A new plan, dated now. ValueError in one line if a field is wrong."""
    return _validated({**fields, "created": datetime.now().astimezone().isoformat(timespec="seconds")}, "")


def read_plan(folder: Path) -> Plan | None:
    """The plan of a comparison's folder, None without one. ValueError if the file is damaged or was edited.

    Plans of earlier versions have no seal; what they declare is named by their runs (`Plan.reference`).
    """
    file = folder / PLAN
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON, the file is damaged: {error}") from error
    seal = content.pop(SEAL, None) if isinstance(content, dict) else None
    plan = _validated(content, f"{file}: ")
    if (seal is not None or plan.journaled) and seal != seal_of(content, b""):
        raise ValueError(f"{file}: changed after it was written (the seal does not match); restore it")
    return plan


def _validated(content: object, where: str) -> Plan:
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{where}{explain(error, Plan, name='plan')}") from error


def brief(value: object) -> str:
    """A value in a message, as JSON of at most 80 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
