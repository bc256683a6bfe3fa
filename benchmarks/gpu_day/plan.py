"""The stages of the GPU day in the order of their value, with their jobs and times."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_day.processes import Job

PACKAGE = "benchmarks.gpu_day"
FIRST = "start"  # always run: without it the other stages could measure something else than our kernels
C_COMPILERS = ("cc", "gcc", "clang")  # Triton builds its launcher with one
SIZES = (  # model size, batch size, rounds, share of the stage's time
    *(("n", 16, 25, 1.0), ("n", 64, 25, 1.0), ("m", 64, 12, 2.5)),
    *(("s", 64, 12, 1.2), ("s", 16, 12, 1.0), ("m", 16, 12, 1.0)),
)


@dataclass(frozen=True)
class Stage:
    """Jobs that run side by side (only where no time is read) or one after the other."""

    name: str
    seconds: float  # of the default budget
    jobs: tuple[Job, ...]
    together: bool = False


@dataclass(frozen=True)
class Setting:
    """Where the day runs: the device, tiny sizes or not, and the folder of the results."""

    device: str
    dry: bool
    out: Path

    def figures(self, name: str) -> str:
        """The file for the figures of a job."""
        return str(self.out / "figures" / f"{name}.json")

    @property
    def data(self) -> Path:
        """The data YAML that the trainings use."""
        return self.out / "shapes.yaml"


def stages(setting: Setting) -> list[Stage]:
    """All stages; their seconds add up to what the default budget leaves for them."""
    return [
        Stage(FIRST, 45, (_own("start", setting, "start"),)),
        Stage("correct", 95, _correct(setting), together=True),
        Stage("kernels", 55, (_kernels(setting),)),
        Stage("steps", 120, _steps(setting)),
        Stage("compiled", 40, (_compiled(setting, ("mish, fused", "relu, plain"), 25),)),
        Stage("training", 80, (_own("training", setting, "training", "--data", str(setting.data)),)),
        Stage("comparison", 75, (_comparison(setting),)),
    ]


def _python(*words: str) -> tuple[str, ...]:
    return (sys.executable, *words)


def _own(name: str, setting: Setting, module: str, *more: str) -> Job:
    words = _python("-m", f"{PACKAGE}.{module}", "--device", setting.device, "--json", setting.figures(name))
    dry = ("--dry",) if setting.dry else ()
    return Job(name=name, command=(*words, "--out", str(setting.out), *more, *dry), digest="own")


def _correct(setting: Setting) -> tuple[Job, ...]:
    tests = _python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib")
    tests = (*tests, "-n", "0" if setting.dry else "4", "--maxfail=20")
    files = ("tests/ops/test_mish_cuda.py", "tests/ops/test_norm_act_cuda.py")
    jobs = [Job(name="tests", command=(*tests, *files), digest="tests")]
    script = _python("-m", f"{PACKAGE}.sanitize", "--device", setting.device)
    for tool in ("memcheck", "racecheck", "synccheck"):
        jobs.append(
            Job(
                name=tool,
                command=("compute-sanitizer", "--tool", tool, "--error-exitcode", "1", *script),
                needs=("compute-sanitizer",),
                environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},  # within a cached block every access is legal
                digest="sanitizer",
            )
        )
    if not setting.dry:
        jobs += [_compiled(setting, (name,), 1) for name in ("mish, fused", "relu, plain")]
    return tuple(jobs)


def _kernels(setting: Setting) -> Job:
    words = _python("-m", "ops.bench", "--device", setting.device, "--passes", "--json", setting.figures("kernels"))
    tiny = ("--types", "bf16", "--sides", "4", "--rounds", "2", "--threads", "1")
    sizes = tiny if setting.dry else ("--types", "bf16", "fp32", "--rounds", "10")
    return Job(name="kernels", command=(*words, *sizes), digest="kernels")


def _step(setting: Setting, size: str, batch: int, rounds: int) -> tuple[str, ...]:
    words = _python("-m", "benchmarks.activation_step", "--device", setting.device, "--size", size)
    threads, side, amp = ("1", "64", "off") if setting.dry else ("8", "640", "bf16")
    words = (*words, "--amp", amp, "--threads", threads, "--imgsz", side)
    return (*words, "--batch", str(batch), "--rounds", str(rounds))


def _steps(setting: Setting) -> tuple[Job, ...]:
    networks = ("mish, fused", "relu, fused", "relu, plain", "silu, plain", "F.mish, plain")
    graphed = () if setting.device == "cpu" else ("--graphed", "mish, fused", "relu, plain")
    jobs = []
    for size, batch, rounds, weight in (("n", 1, 2, 1.0),) if setting.dry else SIZES:
        name = f"step-{size}-{batch}"
        words = (*_step(setting, size, batch, rounds), "--networks", *networks[: 1 if setting.dry else None], *graphed)
        jobs.append(Job(name=name, command=(*words, "--json", setting.figures(name)), weight=weight, digest="step"))
    return tuple(jobs)


def _compiled(setting: Setting, networks: tuple[str, ...], rounds: int) -> Job:
    """Compiled steps. With one network: the same configuration, which fills the compiler's cache."""
    name = "compiled" if len(networks) > 1 else f"compile-{networks[0].split(',')[0]}"
    batch, rounds = (1, 2) if setting.dry else (16, rounds)
    words = (*_step(setting, "n", batch, rounds), "--networks", *networks, "--json", setting.figures(name))
    if not setting.dry:  # on a CPU compiling takes minutes
        words = (*words, "--compiled")
    after = ("compile-mish", "compile-relu") if len(networks) > 1 and not setting.dry else ()
    digest = "step" if after or setting.dry else "last"
    return Job(name=name, command=words, needs=C_COMPILERS, after=after, digest=digest)


def train_device(device: str) -> str:
    """The device for train.py and compare.py: one GPU, or the CPU."""
    return "cpu" if device == "cpu" else "0"


def _comparison(setting: Setting) -> Job:
    words = _python("compare.py", "--cfg", "yolo-mish.yaml", "--data", str(setting.data), "--seeds", "1")
    words = (*words, "--acts", "relu", "mish", "--device", train_device(setting.device))
    words = (*words, "--project", str(setting.out / "compare"), "--name", "day", "--probe", "0")
    epochs = ("--epochs", "1", *TINY) if setting.dry else ("--epochs", "6")
    return Job(name="comparison", command=(*words, *epochs), digest="comparison")


TINY = ("--imgsz", "64", "--batch", "2", "--workers", "0", "--set", "model.levels=[2,3]")


def write_data(setting: Setting) -> None:
    """Write the data YAML: the embedded set, drawn into the folder of the results."""
    # As configs/data/shapes.yaml, which a machine without PyYAML could not read.
    counts = {"train": 600, "val": 150, "test": 100, "side": 160, "seed": 0, "epochs": 22}
    if setting.dry:
        counts |= {"train": 4, "val": 2, "test": 1, "side": 64, "epochs": 2}
    splits = {
        name: {"images": f"images/{name}", "annotations": f"annotations/{name}.json"}
        for name in ("train", "val", "test")
    }
    content = {"root": str(setting.out / "data" / "shapes"), **splits, "embedded": counts}
    setting.data.write_text(json.dumps(content) + "\n", encoding="utf-8")  # JSON is YAML
