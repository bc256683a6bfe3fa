"""The GPU day: its options, order, deadlines, record and summary, and a rehearsal of all stages on a CPU."""

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.gpu_day import __main__ as day
from benchmarks.gpu_day import digest, plan, sanitize, start
from benchmarks.gpu_day.processes import ABSENT, FAILED, PASSED, ROOT, SKIPPED, STOPPED, Job, Outcome
from benchmarks.gpu_day.record import MAX_LINES, Record
from benchmarks.gpu_day.training import state_sha256
from ops.backend import Choice, choose


def python(name: str, code: str, **options: object) -> Job:
    return Job(name=name, command=(sys.executable, "-S", "-c", code), **options)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch):
    """Lets the day consist of these stages."""

    def use(*stages: plan.Stage) -> None:
        monkeypatch.setattr(day, "stages", lambda setting: list(stages))

    return use


def run(tmp_path: Path, *more: str, budget: float = 60) -> tuple[int, dict[str, dict]]:
    """Exit code, and the jobs in day.json."""
    words = ["--device", "cpu", "--dry", "--out", str(tmp_path / "out"), "--budget", str(budget), *more]
    code = day.main(words)
    return code, json.loads((tmp_path / "out" / "day.json").read_text())["jobs"]


START = plan.Stage("start", 1, (python("start", "print('ours')"),))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--budget", "5"], "--budget 5: expected more than 10 seconds"),
        (["--budget", "nan"], "--budget nan: expected more than 10 seconds"),
        (["--device", "cpu"], "--device cpu: expected --dry"),
        (["--wheels", "nowhere"], "--wheels nowhere: expected a folder with .whl files"),
    ],
)
def test_wrong_options_are_refused_in_one_line(words, reason, tmp_path, capsys):
    assert day.main(["--out", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ['{"mine": 1}', "[]", "{broken", '{"jobs": 3}', None])
def test_files_of_others_are_left_alone(content, tmp_path, capsys):
    name = "shapes.yaml" if content is None else "day.json"
    (tmp_path / name).write_text(content or "mine: 1\n")
    assert day.main(["--device", "cpu", "--dry", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path) in error
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == (content or "mine: 1\n")


def test_a_damaged_wheel_is_named(tmp_path, capsys):
    (tmp_path / "some-1.0.whl").write_text("no archive")
    words = ["--device", "cpu", "--dry", "--out", str(tmp_path / "out"), "--wheels", str(tmp_path)]
    assert day.main(words) == 2
    error = capsys.readouterr().err
    assert "some-1.0.whl is damaged" in error and error.count("\n") == 1


def test_tests_of_which_none_ran_have_not_passed(tmp_path, fake):
    idle, ran = (
        python(name, f"print({text!r})", digest="tests") for name, text in (("a", "3 skipped"), ("b", "2 passed"))
    )
    fake(START, plan.Stage("correct", 5, (idle, ran), together=True))
    _, jobs = run(tmp_path)
    assert (jobs["correct, a"]["status"], jobs["correct, b"]["status"]) == (SKIPPED, PASSED)


def test_a_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert day.main(["--device", "cpu", "--dry", "--out", str(tmp_path / "file" / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_day_stops_if_our_kernels_do_not_run(tmp_path, fake, capsys):
    first = plan.Stage("start", 1, (python("start", "print('F.mish runs: no NVRTC'); raise SystemExit(1)"),))
    fake(first, plan.Stage("kernels", 1, (python("kernels", "print('measured')"),)))
    code, jobs = run(tmp_path)
    assert code == 1 and list(jobs) == ["start"]
    assert "F.mish runs: no NVRTC" in capsys.readouterr().out.split("=" * 20)[1]


@pytest.mark.slow
def test_missing_programs_and_what_depends_on_failures(tmp_path, fake, capsys):
    absent = Job(name="memcheck", command=("no-such-program",), needs=("no-such-program",))
    cold = python("compile", "raise SystemExit(1)")
    fake(
        START,
        plan.Stage("correct", 5, (absent, cold), together=True),
        plan.Stage("compiled", 5, (python("compiled", "print(1)", after=("compile",)),)),
    )
    _, jobs = run(tmp_path)
    assert jobs["correct, memcheck"]["status"] == ABSENT and jobs["correct, memcheck"]["reason"] == "no-such-program"
    assert (jobs["correct, compile"]["status"], jobs["compiled"]["status"]) == (FAILED, SKIPPED)
    code, jobs = run(tmp_path, "--stages", "compiled")  # asked for by itself: it is run
    assert code == 0 and jobs["compiled"]["status"] == PASSED and jobs["correct, compile"]["status"] == FAILED


def test_only_a_missing_program_is_no_failure(tmp_path, fake):
    fake(START, plan.Stage("correct", 5, (Job(name="memcheck", command=("none",), needs=("no-such-program",)),)))
    assert run(tmp_path)[0] == 0


def test_deadlines_come_from_the_budget_and_time_left_is_passed_on(tmp_path, monkeypatch, fake):
    given = []

    def instant(jobs, logs, *, seconds, environment):
        given.append([jobs[0].name, seconds])
        for log in logs:
            log.write_text("")
        return [Outcome(status=PASSED) for _ in jobs]

    monkeypatch.setattr(day, "run_together", instant)
    jobs = (python("small", ""), python("large", "", weight=3.0))
    fake(
        plan.Stage("start", 10, START.jobs),
        plan.Stage("correct", 20, jobs, together=True),
        plan.Stage("steps", 20, jobs),
    )
    run(tmp_path, budget=110)  # ten are reserved; no time passes, so the last stage may take all
    assert [name for name, _ in given] == ["start", "small", "small", "large"]
    assert [seconds for _, seconds in given] == pytest.approx([20, 50, 25, 100], rel=0.02)


@pytest.mark.slow
def test_figures_are_on_disk_after_every_job_and_old_ones_do_not_return(tmp_path, fake):
    figures = tmp_path / "out" / "figures" / "step.json"
    write = f"open({str(figures)!r}, 'w').write('{{\"value\": 1}}')"
    look = (
        f"import json; print(json.load(open({str(tmp_path / 'out' / 'day.json')!r}))['jobs']['steps, step']['figures'])"
    )
    fake(START, plan.Stage("steps", 5, (python("step", write), python("look", look))))
    assert run(tmp_path)[0] == 0
    assert (tmp_path / "out" / "logs" / "steps-look.txt").read_text() == "{'value': 1}\n"
    assert "{'value': 1}" in (tmp_path / "out" / "day.md").read_text()
    fake(START, plan.Stage("steps", 5, (python("step", ""),)))
    assert run(tmp_path)[1]["steps, step"]["figures"] == {}


@pytest.mark.slow
def test_the_summary_has_at_most_80_lines_and_comes_last(tmp_path, fake, capsys):
    jobs = tuple(Job(name=f"job{number}", command=("echo", "x" * 1000)) for number in range(45))
    fake(START, plan.Stage("kernels", 30, jobs, together=True))
    run(tmp_path)
    summary = capsys.readouterr().out.split("=" * 20 + "\n")[1].splitlines()
    assert len(summary) == MAX_LINES == 80 and max(map(len, summary)) <= 210
    assert "13 lines more in" in summary[-1] and summary[:2] == ["start: passed, 0 s", "  ours"]


@pytest.mark.slow
def test_a_terminated_day_ends_its_jobs_and_prints_its_summary(tmp_path):
    code = (
        "import sys\nfrom benchmarks.gpu_day import __main__ as day, plan\n"
        "from benchmarks.gpu_day.processes import Job\n"
        "wait = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "jobs = (Job(name='start', command=(sys.executable, '-S', '-c', wait)),)\n"
        "day.stages = lambda setting: [plan.Stage('start', 1, jobs)]\n"
        "sys.exit(day.main(['--device', 'cpu', '--dry', '--out', sys.argv[1]]))"
    )
    out = tmp_path / "out"
    words = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        log = out / "logs" / "start-start.txt"
        while not (log.is_file() and log.read_text().endswith("\n")):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 1 and printed.endswith("interrupted\n")
    assert json.loads((out / "day.json").read_text())["jobs"]["start"]["reason"] == "interrupted"
    assert log.read_text() in (out / "day.md").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(int(log.read_text()), 0)


def test_wheels_are_on_the_path_of_jobs_and_caches_lie_in_the_results(tmp_path, fake, monkeypatch):
    for name in ("YOLO_MISH_CACHE", "TORCHINDUCTOR_CACHE_DIR", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "brought-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("brought.py", "value = 7")
    code = "import brought, os; print(brought.value, os.environ['YOLO_MISH_CACHE'])"
    fake(plan.Stage("start", 1, (python("start", code),)))
    assert run(tmp_path, "--wheels", str(tmp_path / "wheels"))[0] == 0
    assert (
        tmp_path / "out" / "logs" / "start-start.txt"
    ).read_text() == f"7 {tmp_path / 'out' / 'caches' / 'kernels'}\n"
    monkeypatch.setenv("YOLO_MISH_CACHE", "given")
    assert day.environment_of(tmp_path, None)["YOLO_MISH_CACHE"] == "given"


def test_stages_take_the_default_budget_and_name_existing_files():
    full = plan.stages(plan.Setting("cuda", False, Path("out")))
    assert sum(stage.seconds for stage in full) == 520 - day.RESERVE
    jobs = {job.name: job for stage in full for job in stage.jobs}
    assert {"memcheck", "racecheck"} <= set(jobs) and set(jobs["compiled"].after) <= set(jobs)
    for name in ("memcheck", "racecheck"):
        assert jobs[name].environment == {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    assert [stage.name for stage in full if stage.together] == ["correct"]  # no time is read there
    words = [word for job in jobs.values() for word in job.command if word.endswith(".py")]
    assert words and all(Path(word).is_file() for word in words)
    cached, timed = jobs["compile-mish"].command, jobs["compiled"].command
    same = {"--size", "--imgsz", "--batch", "--amp", "--threads"}
    assert all(cached[cached.index(flag) + 1] == timed[timed.index(flag) + 1] for flag in same)


def test_the_data_are_those_of_the_embedded_set(tmp_path):
    setting = plan.Setting("cuda", False, tmp_path)
    plan.write_data(setting)
    embedded = yaml.safe_load((ROOT / "configs" / "data" / "shapes.yaml").read_text())["embedded"]
    assert json.loads(setting.data.read_text())["embedded"] == embedded


def test_why_our_kernels_would_not_run(monkeypatch):
    from ops import backend

    monkeypatch.setattr(backend, "_chosen", {})
    monkeypatch.setenv("YOLO_MISH", "torch")
    assert "torch.nn.functional.mish runs in place of our kernels: YOLO_MISH=torch" in start.why_not_ours(
        torch.device("cpu")
    )


def test_the_hash_of_a_state_sees_every_bit_and_type():
    state = {"a": torch.tensor([0.0, 1.0]), "b": [1, {"c": torch.tensor(2)}]}
    changed = [
        {**state, "a": torch.tensor([-0.0, 1.0])},
        {**state, "a": torch.tensor([0.0, 1.0], dtype=torch.bfloat16)},
        {**state, "b": [1, {"c": torch.tensor(3)}]},
        {**state, "b": [2, {"c": torch.tensor(2)}]},
    ]
    hashes = [state_sha256(each) for each in (state, *changed)]
    assert len(set(hashes)) == 5
    assert state_sha256({"b": [1, {"c": torch.tensor(2)}], "a": torch.tensor([0.0, 1.0])}) == hashes[0]


def test_lines_of_the_kernel_table():
    both = {f"{way}_{key}": value for way in ("forward", "backward") for key, value in
            {"gb_per_s": 4000.0, "gain": 2.1, "host_us": 20.0}.items()}  # fmt: skip
    bounds = {"forward_by_copy": 1.25, "backward_by_add": 1.0}
    row = {"type": "bf16", "elements": 10_000_000, **both, **bounds}
    rows = [
        row | {"function": "ReLU", "forward_ms": 1.0, "backward_ms": 2.0},
        row | {"function": "ops.mish", "forward_ms": 1.05, "backward_ms": 3.0},
    ]
    lines = digest.kernels({"rows": rows}, "")
    assert len(lines) == 2 and "bf16 1.0e+07 forward: 4000 GB/s, 80 % of copy's, 1.05x ReLU, F.mish 2.10x" in lines[0]
    assert "100 % of add's, 1.50x ReLU" in lines[1]


def test_lines_of_the_sanitizer():
    output = (
        "========= COMPUTE-SANITIZER\n========= Invalid __global__ read of size 4\n========= ERROR SUMMARY: 1 error\n"
    )
    assert digest.sanitizer({}, output) == ["ERROR SUMMARY: 1 error", "Invalid __global__ read of size 4"]


def test_what_the_sanitizer_runs(monkeypatch, capsys):
    """It passes where our kernels run and their results are finite, and fails otherwise."""
    monkeypatch.setattr(sys, "argv", ["sanitize", "--device", "cpu"])
    if choose(torch.device("cpu")).kernels is None:
        pytest.skip("no kernels")
    assert sanitize.main() == 0 and capsys.readouterr().out == ""
    with monkeypatch.context() as broken:
        broken.setattr(sanitize, "norm_act", lambda x, norm, act: act(norm(x)) * float("nan"))
        assert sanitize.main() == 1 and "not finite: torch.bfloat16" in capsys.readouterr().out
    monkeypatch.setattr(sanitize, "choose", lambda device: Choice("torch.nn.functional.mish", "no kernels"))
    assert sanitize.main() == 1 and "our kernels are not what runs" in capsys.readouterr().out


def test_the_record_replaces_its_json_as_a_whole(tmp_path):
    record = Record(tmp_path)
    job = python("kernels", "")
    record.log("kernels", job).write_text("text")
    record.add("kernels", job, Outcome(status=STOPPED, seconds=3))
    assert {path.name for path in tmp_path.glob("day*")} == {"day.md", "day.json"}
    assert Record(tmp_path).jobs["kernels"]["status"] == STOPPED


@pytest.mark.slow
def test_a_rehearsal_of_all_stages_on_a_cpu(tmp_path, warm_python, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", warm_python)
    if "YOLO_MISH_CACHE" not in os.environ:  # else the kernels are built anew
        monkeypatch.setenv("YOLO_MISH_CACHE", str(Path.home() / ".cache" / "yolo-mish" / "ops"))
    code, jobs = run(tmp_path, budget=900)
    printed = capsys.readouterr().out
    states = {name: job["status"] for name, job in jobs.items()}
    absent = {f"correct, {tool}" for tool in ("memcheck", "racecheck", "synccheck")}
    if shutil.which("compute-sanitizer") is None:
        assert {name for name in states if states[name] == ABSENT} == absent
    if not torch.cuda.is_available():
        assert states["correct, tests"] == SKIPPED
        absent.add("correct, tests")
    assert code == 0 and {states[name] for name in set(states) - absent} == {PASSED}, printed
    assert set(states) - absent | {"correct, tests"} == {
        *("start", "correct, tests", "kernels", "steps, step-n-1", "compiled", "training", "comparison")
    }
    training = jobs["training"]["figures"]
    assert training["equal"] and training["epoch_s"] > 0 and training["deterministic_epoch_s"] > 0
    assert {row["pass"] for row in jobs["kernels"]["figures"]["passes"]} == {
        *("statistics", "forward", "reduce", "backward")
    }
    assert set(jobs["steps, step-n-1"]["figures"]["networks"]) == {"mish, fused"}
    summary = printed.split("=" * 20 + "\n")[1].splitlines()
    assert len(summary) <= MAX_LINES and any("equal bit for bit" in line for line in summary)
    assert (tmp_path / "out" / "compare" / "day" / "report.html").is_file()
