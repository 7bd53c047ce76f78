"""What the measuring process of a benchmark finds in real versions, run in this process."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from flows.catalog.facts import Side, Source
from flows.catalog.limits import BenchmarkPolicy
from flows.catalog.load_test import measure
from flows.catalog.logbook import FINDINGS, Logbook, Task
from flows.catalog.performance import Findings, Statistic
from flows.catalog.sweep import batch_of, batch_sizes, thread_counts
from serving.core.cpus import cpu_count
from serving.formats.golden import Golden, write_golden
from tests.flows.catalog.folders import evaluation_file, one_hot_rows
from tests.models import (
    describe,
    onnx_adder,
    onnx_echo,
    onnx_graph,
    onnx_raises_on_negative,
    save_onnx,
    save_torch_script,
    torch_adder,
)

# Few calls: these tests ask what is found, not how fast this machine is.
QUICK = BenchmarkPolicy(seconds=0.2, window_seconds=0.02, max_batch=4)
PAIR = [("x", "float32", [-1, 3])]


def found(root: Path, champion: Path | None = None, **different: Any) -> Findings:
    rival: dict[str, Any] = {} if champion is None else {"champion_root": champion, "champion_version": "1"}
    task = Task(
        version="2", root=root, threads=1, policy=QUICK, deadline_seconds=60.0, memory_bytes=1 << 32, **rival
    )
    logbook = Logbook(root / "findings.json", 60.0)
    measure(replace(task, **different), logbook)
    logbook.write()
    assert FINDINGS.validate_json((root / "findings.json").read_bytes()) == logbook.findings
    return logbook.findings


def test_everything_is_measured_when_both_sides_take_batches(tmp_path: Path) -> None:
    """Latency and its ratio, every batch, every number of threads, memory and load time."""
    result = found(onnx_adder(tmp_path / "two"), onnx_adder(tmp_path / "one", 2.0))
    ours, theirs = result.candidate, result.champion
    assert ours is not None
    assert theirs is not None
    for side in (ours, theirs):
        assert side.problem is None
        assert side.latency_ms is not None
        assert 0 < side.latency_ms.p50 <= side.latency_ms.p95 <= side.latency_ms.p999
        assert side.calls >= 20
        assert [point.rows for point in side.batches] == [1, 2, 4]
        assert [point.threads for point in side.threads] == thread_counts(cpu_count())
        assert side.cpu_ratio is not None
        assert side.load_seconds is not None
    assert ours.memory_mb is not None
    assert ours.memory_mb.peak >= ours.memory_mb.resident >= 0
    assert ours.first_call_ms is not None
    assert theirs.memory_mb is None, "its memory cannot be told from the candidate's in one process"
    assert result.ratios.keys() == set(Statistic)
    assert result.ratios[Statistic.P50].low <= result.ratios[Statistic.P50].high
    assert (result.source, result.gpu) == (Source.ZEROS, None)
    assert result.is_stable is not None


def test_candidate_is_measured_alone_when_asked(tmp_path: Path) -> None:
    """Only what it costs by itself: first call and memory."""
    ours = found(onnx_adder(tmp_path), alone=True).candidate
    assert ours is not None
    assert ours.memory_mb is not None
    assert (ours.latency_ms, ours.batches) == (None, ())


def test_torch_script_and_onnx_race_when_their_inputs_agree(tmp_path: Path) -> None:
    script = describe(torch_adder(tmp_path / "one"), inputs=PAIR, outputs=PAIR)
    result = found(onnx_adder(tmp_path / "two"), script)
    assert result.champion is not None
    assert (result.champion.format, result.champion.problem) == ("torchscript", None)
    assert result.ratios


def test_single_batch_is_measured_when_the_first_axis_is_fixed(tmp_path: Path) -> None:
    """Rows cannot be joined: the inputs are asked as they are."""
    ours = found(onnx_adder(tmp_path)).candidate
    fixed = save_onnx(tmp_path / "fixed", onnx_graph([_identity()], x=(2, 3), y=(2, 3)))
    result = found(fixed).candidate
    assert ours is not None
    assert result is not None
    assert [point.rows for point in result.batches] == [1]
    assert result.latency_ms is not None


def test_batches_end_where_the_version_takes_no_more(tmp_path: Path) -> None:
    """Declared free, but a reshape inside takes two rows at most: what it answers is measured."""
    shape = helper.make_tensor("limit", TensorProto.INT64, [1], [2])
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["added"]),
        helper.make_node("Add", ["x", "added"], ["y"]),
    ]
    first = helper.make_tensor("first", TensorProto.INT64, [], [0])
    table = helper.make_tensor("table", TensorProto.FLOAT, [3], [0.0, 1.0, 2.0])
    root = save_onnx(tmp_path, onnx_graph(nodes, weights=[shape, first, table]))
    result = found(root).candidate
    assert result is not None
    assert result.problem is None
    assert [point.rows for point in result.batches] == [1, 2]


def test_recorded_inputs_are_asked_first_when_there_are_any(tmp_path: Path) -> None:
    """Golden set, else example, else evaluation rows, else the champion's example, else zeros."""
    example = [[1.0, 2.0, 3.0]]
    rows = np.array(example, dtype=np.float32)
    described = describe(onnx_adder(tmp_path / "a"), flavor="onnx", example=example)
    assert found(described).source is Source.EXAMPLE
    write_golden(described, Golden({"x": rows}, {"y": rows + 1}))
    assert found(described).source is Source.GOLDEN
    rival = describe(onnx_adder(tmp_path / "b"), flavor="onnx", example=example)
    plain = onnx_adder(tmp_path / "c")
    assert found(plain, rival).source is Source.CHAMPION
    evaluation = evaluation_file(tmp_path / "set", {"x": one_hot_rows(9)}, np.arange(9) % 3)
    assert found(plain, rival, evaluation=evaluation).source is Source.EVALUATION
    misfit = evaluation_file(tmp_path / "other", {"z": one_hot_rows(9)}, np.arange(9) % 3)
    assert found(plain, evaluation=misfit).source is Source.ZEROS


def test_problem_is_told_when_the_candidate_raises(tmp_path: Path) -> None:
    """On the inputs it was given; nothing more is measured."""
    root = describe(onnx_raises_on_negative(tmp_path), flavor="onnx", example=[[-1.0, 0.0, 0.0]])
    ours = found(root).candidate
    assert ours is not None
    assert (ours.problem or "").startswith("it raised ")
    assert (ours.problem or "").endswith(" on the input example")
    assert ours.latency_ms is None


def test_problem_is_told_when_no_inputs_can_be_made(tmp_path: Path) -> None:
    """A script of unknown shapes without an example is served all the same, and not measured."""
    ours = found(torch_adder(tmp_path)).candidate
    assert ours is not None
    assert ours.problem == "no inputs are recorded and none can be made, as a shape is unknown"
    assert ours.load_seconds is not None


def test_problem_is_told_when_the_candidate_cannot_be_loaded(tmp_path: Path) -> None:
    root = onnx_adder(tmp_path)
    (root / "model.onnx").write_bytes((root / "model.onnx").read_bytes()[:40])
    ours = found(root).candidate
    assert ours is not None
    assert "model.onnx" in (ours.problem or "")
    changed = found(onnx_adder(tmp_path / "other"), digest="0" * 64).candidate
    assert changed is not None
    assert "the registry recorded 000000000000" in (changed.problem or "")


Make = Callable[[Path], Path]

CHAMPIONS: dict[str, tuple[Make, str]] = {
    "raises": (
        lambda folder: onnx_raises_on_negative(folder),
        "raised ",
    ),
    "takes another input": (
        lambda folder: save_onnx(folder, _renamed()),
        "it takes input 'z', which the candidate does not",
    ),
    "takes another type": (lambda folder: onnx_echo(folder, TensorProto.INT64), "raised "),
}


@pytest.mark.parametrize("name", list(CHAMPIONS))
def test_candidate_is_measured_on_when_the_champion_cannot_be_asked(tmp_path: Path, name: str) -> None:
    """What is wrong with the champion is said, and is no fault of the candidate's."""
    make, problem = CHAMPIONS[name]
    ours = describe(onnx_adder(tmp_path / "two"), flavor="onnx", example=[[-1.0, 0.0, 1.0]])
    result = found(ours, make(tmp_path / "one"))
    assert result.champion is not None
    assert problem in (result.champion.problem or "")
    assert result.candidate is not None
    assert result.candidate.latency_ms is not None
    assert result.ratios == {}


def test_candidate_is_measured_on_when_the_champion_fails_in_the_middle(tmp_path: Path) -> None:
    """It leaves the contest with its reason; what was measured of the candidate is not measured twice."""
    source = """\
def forward(self, x: Tensor) -> Tensor:
    if x.size(0) > 2:
        raise RuntimeError('too many rows')
    return x + 1
"""
    champion = describe(save_torch_script(tmp_path / "one", source), inputs=PAIR, outputs=PAIR)
    result = found(onnx_adder(tmp_path / "two"), champion)
    assert result.champion is not None
    assert "too many rows" in (result.champion.problem or "")
    assert result.champion.latency_ms is not None
    assert result.candidate is not None
    assert [point.rows for point in result.candidate.batches] == [1, 2, 4]
    assert result.ratios


def test_reason_is_noted_when_the_champion_was_not_fetched(tmp_path: Path) -> None:
    result = found(onnx_adder(tmp_path), champion_version="1", champion_problem="its files are gone")
    assert result.champion is not None
    assert result.champion.problem == "its files are gone"
    assert result.candidate is not None
    assert result.candidate.latency_ms is not None


def test_step_is_on_disk_when_it_begins(tmp_path: Path) -> None:
    """Should the process die in it, that is what it died of."""
    logbook = Logbook(tmp_path / "findings.json", 60.0)
    logbook.begin(Side.CHAMPION, "loading")
    assert json.loads((tmp_path / "findings.json").read_text())["step"] == {
        "side": "champion",
        "doing": "loading",
        "stage": "main",
    }


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, [1]), (2, [1, 2]), (32, [1, 2, 4, 8, 16, 32]), (20, [1, 2, 4, 8, 16, 20])]
)
def test_batch_sizes_double_when_listed(largest: int, sizes: list[int]) -> None:
    assert batch_sizes(largest) == sizes


@pytest.mark.parametrize(
    ("cpus", "counts"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (12, [1, 2, 3, 4, 8, 12])]
)
def test_thread_counts_stay_few_when_there_are_many_cpus(cpus: int, counts: list[int]) -> None:
    assert thread_counts(cpus) == counts


class _Echo:
    """A subject that is only asked what it takes."""

    is_batched = True

    def own(self, inputs: Any) -> Any:
        return dict(inputs)


def test_rows_are_repeated_when_a_batch_needs_more_than_there_are() -> None:
    rows = np.array([[1.0], [2.0], [3.0]])
    subject: Any = _Echo()
    assert batch_of(subject, {"x": rows}, 5)["x"].ravel().tolist() == [1.0, 2.0, 3.0, 1.0, 2.0]


def _identity() -> Any:
    return helper.make_node("Identity", ["x"], ["y"])


def _renamed() -> Any:
    model = onnx_graph([helper.make_node("Identity", ["z"], ["y"])])
    model.graph.input[0].name = "z"
    return model
