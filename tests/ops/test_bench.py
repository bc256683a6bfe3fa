"""The benchmark on tiny maps: complete tables, ratios within rounds, host time, graphs, written files."""

import json

import pytest
import torch

from ops import bench, norm_act_bench, timing


def test_a_ratio_compares_within_a_round():
    assert timing.ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0


@pytest.mark.slow
def test_tables_numbers_and_picture(tmp_path, capsys):
    numbers, picture = tmp_path / "numbers.json", tmp_path / "picture.png"
    words = ["--types", "fp32", "bf16", "--sides", "4", "8", "--rounds", "3", "--threads", "1", "--passes"]
    assert bench.main([*words, "--json", str(numbers), "--picture", str(picture)]) == 0
    content = json.loads(numbers.read_text())
    functions = {"copy / add", *bench.FUNCTIONS}
    assert {(row["type"], row["elements"], row["function"]) for row in content["rows"]} == {
        (kind, 16 * 64 * side * side, name) for kind in ("fp32", "bf16") for side in (4, 8) for name in functions
    }
    assert {row["layout"] for row in content["pairs"]} == {"contiguous", "channels_last"}
    assert all(row["forward_ms"] > 0 and row["backward_by_add"] > 0 for row in content["rows"])
    assert all(row["forward_host_us"] > 0 and row["backward_host_us"] > 0 for row in content["rows"])
    assert [row["pass"] for row in content["passes"]] == 4 * ["statistics", "forward", "reduce", "backward"]
    printed = capsys.readouterr().out
    assert all(f"| {name} |" in printed for name in functions) and picture.stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "cuda:77"], "cuda:77"),
        (["--device", "foo"], "foo"),
        (["--device", "meta"], "meta"),
        (["--threads", "0"], "--threads: found 0"),
        (["--sides", "8", "-4"], "--sides: found -4"),
        (["--rounds", "0"], "--rounds: found 0"),
        (["--json", "nowhere/x.json"], "nowhere/x.json"),
        (["--json", "."], "directory"),
        (["--picture", "nowhere/x.png"], "nowhere/x.png"),
        (["--picture", "x.foo"], "x.foo"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_measured(words, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "prepare", lambda device: pytest.fail("measured"))
    assert bench.main(words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_an_unknown_backend_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("YOLO_MISH", "foo")
    assert bench.main([]) == 2 and "YOLO_MISH=foo" in capsys.readouterr().err


def test_bandwidth_counts_reads_and_writes():
    x = torch.empty(1000, dtype=torch.bfloat16)
    assert timing.gb_per_s(x, 3, milliseconds=0.002) == pytest.approx(3.0)  # 6000 bytes in 2 us


def test_host_time_is_the_best_series_per_call(monkeypatch):
    moments = iter([0.0, 3.0, 10.0, 12.0, 20.0, 25.0, 30.0, 34.0, 40.0, 44.0])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(moments))
    calls = []
    found = timing.host_microseconds(lambda number: lambda: calls.append(number), torch.device("cpu"))
    assert found == pytest.approx(1e6 * 2 / timing.HOST_CALLS)
    assert len(calls) == timing.HOST_CALLS * timing.HOST_REPEATS


def test_the_default_sizes_on_a_gpu():
    sizes = [timing.BATCH * bench.CHANNELS * side**2 for side in bench.SIDES["cuda"]]
    assert sizes == pytest.approx([1e7, 1e8, 4e8], rel=5e-3)


class Graph:
    """A CUDA graph that does nothing."""

    replays = 0

    def replay(self) -> None:
        Graph.replays += 1


class Capture:
    """torch.cuda.graph, which records the results that are alive when the capture ends."""

    depth = 0

    def __init__(self, graph, *, pool, stream):
        assert (pool, stream) == ("pool", "stream")

    def __enter__(self):
        Capture.depth = 1

    def __exit__(self, *error):
        Capture.depth = 0


class Event:
    """An event whose time is the number of graph replays before it."""

    def __init__(self, *, enable_timing):
        assert enable_timing

    def record(self):
        self.at = Graph.replays

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 6.0 * (other.at - self.at)


def test_one_replay_of_a_graph_with_a_call_for_each_set_is_timed(monkeypatch):
    """Calls are prepared outside the capture, made once before it, and the timed replay follows an untimed one."""
    import contextlib

    for name, value in {"CUDAGraph": Graph, "graph": Capture, "Event": Event}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    log, alive = [], []

    def case(number):
        log.append(("prepare", number, Capture.depth))

        def run():
            log.append(("run", number, Capture.depth))
            result = torch.zeros(4)
            alive.append(result.data_ptr())
            return result

        return run

    timer = timing._graph(case, "stream", "pool", 3)
    prepared = [("prepare", 0, 0), ("run", 0, 0), *(("prepare", number, 0) for number in range(3))]
    assert log == [*prepared, *(("run", number, 1) for number in range(3))]
    assert len(set(alive[1:])) == 3  # no two calls write to the same memory
    before = Graph.replays
    assert timer() == 2.0 and Graph.replays == before + 2


def test_the_operators_of_the_pair_are_called_on_every_set(kernels):
    xs = [torch.randn(2, 3, 4, 4) for _ in range(2)]
    cases = norm_act_bench.pass_cases(xs)
    outputs = [cases["forward"](number)() for number in range(2)]
    mean, variance = cases["statistics"](1)()
    torch.testing.assert_close(mean, xs[1].mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(variance, xs[1].var((0, 2, 3), unbiased=False), rtol=1e-5, atol=1e-6)
    assert not torch.equal(*outputs)
