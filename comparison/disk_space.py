"""The disk space that the runs of a comparison need."""

import shutil
from collections.abc import Callable
from pathlib import Path

from comparison.plan import Plan, PlannedRun
from comparison.runner import remaining

OTHER_FILES = 5 << 20  # bytes of a run besides its checkpoints: pictures, detections, logs


def require_space(
    plan: Plan, folder: Path, checkpoints: Callable[[PlannedRun], tuple[int, int]], *, at_once: int
) -> None:
    """Raise ValueError if the disk of ``folder`` has less space than the remaining runs of the plan need.

    ``checkpoints`` returns the bytes of all checkpoints of a run and of the largest one, of which there are two while
    it is replaced. ``at_once``: runs that train at the same time.
    """
    sizes = {run: checkpoints(run) for group in remaining(plan, folder, retry_failed=False) for run in group}
    if not sizes:
        return
    needed = sum(max(0, total + OTHER_FILES - _size(folder / run.name)) for run, (total, _) in sizes.items())
    needed += sum(sorted((largest for _, largest in sizes.values()), reverse=True)[:at_once])
    free = shutil.disk_usage(_existing(folder)).free
    if needed > free:
        raise ValueError(
            f"{folder}: its {len(sizes)} runs need about {_mib(needed)} of disk space and {_mib(free)} are free; free "
            "some, or choose another disk with --project"
        )


def _existing(folder: Path) -> Path:
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
