"""The disk space that the runs of a comparison need."""

import shutil
from collections.abc import Callable
from pathlib import Path

from comparison.deployment import DEPLOYED
from comparison.plan import Plan, PlannedRun
from comparison.runner import remaining

OTHER_FILES = 5 << 20  # bytes of a run besides its checkpoints: pictures, detections, logs


def require_space(
    plan: Plan,
    folder: Path,
    checkpoints: Callable[[PlannedRun], tuple[int, int, int]],
    *,
    at_once: int,
    exported: int = 0,
) -> None:
    """Raise ValueError if the disk of ``folder`` has less space than what is left of the plan needs.

    ``checkpoints`` returns the bytes of all checkpoints of a run, of the largest one, of which there are two while it
    is replaced, and of the weights. ``at_once``: runs that train at the same time. ``exported``: files that the weights
    of each run are exported to after it, of the size of the weights at most.
    """
    groups = remaining(plan, folder, retry_failed=False)
    sizes = {run: checkpoints(run) for group in groups for run in group}
    needed = sum(max(0, total + OTHER_FILES - _size(folder / run.name)) for run, (total, _, _) in sizes.items())
    needed += sum(sorted((largest for _, largest, _ in sizes.values()), reverse=True)[:at_once])
    if exported:
        missing = [run for run in plan.runs if not (folder / run.name / DEPLOYED).is_file()]
        needed += exported * sum(checkpoints(run)[2] for run in missing)
    free = shutil.disk_usage(_existing(folder)).free
    if needed > free:
        raise ValueError(
            f"{folder}: what is left of its {len(plan.runs)} runs needs about {_mib(needed)} of disk space and "
            f"{_mib(free)} are free; free some, or choose another disk with --project"
        )


def _existing(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
