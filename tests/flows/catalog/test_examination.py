"""The examining process on real files: what it lays out, what it refuses, and what ends at its limits."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import torch

from flows.catalog.examination import Allowance, ExaminingProcess, examining
from flows.catalog.examined import Examined, Task
from serving.core.model import Format
from serving.formats.artifact import inspect_artifact, payload_digest
from serving.formats.limits import FileLimits
from serving.formats.loader import load
from serving.formats.selftest import Basis, Verdict, self_test
from serving.formats.told import Told
from tests.flows.catalog.folders import evaluation_file
from tests.models import onnx_adder, onnx_nan, onnx_wrong_shape, save_torch_script, torch_adder
from tests.waiting import until

pytestmark = pytest.mark.integration

HANGS = "def forward(self, x: Tensor) -> Tensor:\n    while True:\n        x = x + 0\n    return x"
EATS = (
    "def forward(self, x: Tensor) -> Tensor:\n    y = torch.ones(1000000)\n"
    "    while True:\n        y = torch.cat([y, y])\n    return x"
)


@pytest.fixture(scope="module")
def examiner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExaminingProcess]:
    with examining(Allowance(60.0, 2048.0), tmp_path_factory.mktemp("examiner") / "log") as process:
        yield process


def looked_into(examiner: ExaminingProcess, source: Path, work: Path, **different: Any) -> Examined:
    work.mkdir()
    task = Task(source=source, root=work / "model", threads=1, limits=FileLimits(), **different)
    return examiner.examine(task, work)


def rows_file(folder: Path, width: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"input:x": np.ones((4, width), np.float32)}
    np.savez(folder / "rows.npz", allow_pickle=False, **arrays)
    return folder / "rows.npz"


def test_onnx_is_laid_out_byte_for_byte_when_it_is_sound(examiner: ExaminingProcess, tmp_path: Path) -> None:
    """With everything serving and MLflow look for; the golden set is answered by a fresh load."""
    source = onnx_adder(tmp_path / "a") / "model.onnx"
    found = looked_into(examiner, source, tmp_path / "work", told=Told(labels=("a", "b", "c")))
    root = tmp_path / "work" / "model"
    assert found.problem is None
    assert (found.format, found.digest) == (Format.ONNX, payload_digest(root))
    assert (root / "model.onnx").read_bytes() == source.read_bytes()
    assert (root / "labels.txt").read_text() == "a\nb\nc\n"
    artifact = inspect_artifact(root)
    assert artifact.signature_inputs is not None
    assert artifact.signature_inputs[0].dims == (-1, 3)
    assert artifact.example is not None
    model = load(artifact, 1)
    done = self_test(model, artifact)
    model.close()
    assert (done.verdict, done.basis) == (Verdict.PASSED, Basis.GOLDEN)
    names = {file.name for file in root.iterdir()}
    assert {"requirements.txt", "conda.yaml", "python_env.yaml", "serving_input_example.json"} <= names


def test_weights_are_laid_out_when_they_lie_beside(examiner: ExaminingProcess, tmp_path: Path) -> None:
    """Under their own names, which the file refers to."""
    model = onnx.load(onnx_adder(tmp_path / "a") / "model.onnx")
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(1, 5, np.float32), weight.name))
    source = tmp_path / "m" / "big.onnx"
    (source.parent / "parts").mkdir(parents=True)
    onnx.save_model(model, source, save_as_external_data=True, location="parts/w.bin", size_threshold=0)
    found = looked_into(examiner, source, tmp_path / "work")
    assert (found.problem, found.members) == (None, ("parts/w.bin",))
    root = tmp_path / "work" / "model"
    assert (root / "model.onnx").read_bytes() == source.read_bytes()
    assert (root / "parts" / "w.bin").read_bytes() == (source.parent / "parts" / "w.bin").read_bytes()


@pytest.mark.parametrize("name", ["MLmodel", "golden.npz", "model.onnx"])
def test_file_is_refused_when_its_weights_stand_in_for_ours(
    examiner: ExaminingProcess, tmp_path: Path, name: str
) -> None:
    model = onnx.load(onnx_adder(tmp_path / "a") / "model.onnx")
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ones(1, np.float32), weight.name))
    (tmp_path / "m").mkdir()
    source = tmp_path / "m" / "big.onnx"
    onnx.save_model(model, source, save_as_external_data=True, location=name, size_threshold=0)
    found = looked_into(examiner, source, tmp_path / "work")
    assert found.problem == f"its external data file is called '{name}'"


def test_script_learns_its_shape_when_an_example_shows_it(examiner: ExaminingProcess, tmp_path: Path) -> None:
    """A script declares nothing; the signature then says what the example showed, with free rows."""
    source = torch_adder(tmp_path / "a") / "model.pt"
    found = looked_into(examiner, source, tmp_path / "work", example=rows_file(tmp_path / "rows", 5))
    root = tmp_path / "work" / "model"
    assert found.golden == "recorded with the example of the side file (4 rows)"
    assert (root / "data" / "model.pth").read_bytes() == source.read_bytes()
    model = load(inspect_artifact(root), 1)
    assert (model.inputs[0].name, model.inputs[0].dims) == ("x", (-1, 5))
    assert model.outputs[0].dims == (-1, 5)
    model.close()


def test_script_is_taken_without_golden_set_when_nothing_shows_its_shape(
    examiner: ExaminingProcess, tmp_path: Path
) -> None:
    """It can be served; the report says that nothing could be recorded."""
    found = looked_into(examiner, torch_adder(tmp_path / "a") / "model.pt", tmp_path / "work")
    assert found.problem is None
    assert "the shape of an input is unknown" in str(found.golden)
    assert str(found.self_test).startswith("not measured")


def test_exported_program_is_laid_out_when_it_is_sound(examiner: ExaminingProcess, tmp_path: Path) -> None:
    source = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(3, 2).eval(), (torch.ones(4, 3),)), source)
    found = looked_into(examiner, source, tmp_path / "work")
    assert (found.problem, found.format) == (None, Format.PT2)
    assert (tmp_path / "work" / "model" / "model.pt2").read_bytes() == source.read_bytes()


def test_first_rows_of_the_evaluation_set_are_recorded_when_there_is_one(
    examiner: ExaminingProcess, tmp_path: Path
) -> None:
    rows = np.arange(36, dtype=np.float32).reshape(12, 3)
    given = evaluation_file(tmp_path / "set", {"x": rows}, np.zeros(12, np.int64))
    source = onnx_adder(tmp_path / "a") / "model.onnx"
    found = looked_into(examiner, source, tmp_path / "work", evaluation=given)
    assert found.golden == "recorded with the first rows of the evaluation set (8 rows)"
    golden = inspect_artifact(tmp_path / "work" / "model").golden
    assert golden is not None
    np.testing.assert_array_equal(golden.outputs["y"], rows[:8] + 1)


def test_file_is_refused_when_its_set_does_not_fit(examiner: ExaminingProcess, tmp_path: Path) -> None:
    """A set of other columns, a damaged one, and an example of another input."""
    source = onnx_adder(tmp_path / "a") / "model.onnx"
    wide = evaluation_file(tmp_path / "wide", {"x": np.ones((5, 4), np.float32)}, np.zeros(5))
    (tmp_path / "torn.npz").write_bytes(wide.read_bytes()[:80])
    found = looked_into(examiner, source, tmp_path / "1", evaluation=wide)
    assert found.problem == "input 'x' of the evaluation set has shape [5, 4], the model takes [-1, 3]"
    found = looked_into(examiner, source, tmp_path / "2", evaluation=tmp_path / "torn.npz")
    assert found.problem == "the evaluation set is damaged or is no .npz file of plain arrays"
    found = looked_into(examiner, source, tmp_path / "3", example=rows_file(tmp_path / "rows", 2))
    assert found.problem == "input 'x' of the example 'rows.npz' has shape [4, 2], the model takes [-1, 3]"


def test_model_is_refused_when_it_breaks_its_own_promise(examiner: ExaminingProcess, tmp_path: Path) -> None:
    found = looked_into(examiner, onnx_wrong_shape(tmp_path / "a") / "model.onnx", tmp_path / "work")
    assert found.problem == "its self-test failed: output 'y' has shape [2, 9], declared [-1, 10]"


def test_model_is_taken_when_only_inputs_of_our_making_have_no_finite_answer(
    examiner: ExaminingProcess, tmp_path: Path
) -> None:
    """What we make up may lie outside of what it was trained for."""
    found = looked_into(examiner, onnx_nan(tmp_path / "a") / "model.onnx", tmp_path / "work")
    assert (found.problem, found.golden) == (None, "output 'y' is not finite on zeros")


@pytest.mark.fault("F11")
@pytest.mark.parametrize("kept_share", [0.0, 0.02, 0.5, 0.99])
def test_file_is_refused_when_it_was_cut_short(
    examiner: ExaminingProcess, tmp_path: Path, kept_share: float
) -> None:
    """At any length, of any format; the process lives on for the next file."""
    whole = {
        "net.onnx": (onnx_adder(tmp_path / "o") / "model.onnx").read_bytes(),
        "net.pt": (torch_adder(tmp_path / "t") / "model.pt").read_bytes(),
    }
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content[: int(len(content) * kept_share)])
        found = looked_into(examiner, tmp_path / name, tmp_path / f"work-{name}")
        assert found.problem is not None, name
        assert found.next_step
    found = looked_into(examiner, onnx_adder(tmp_path / "a") / "model.onnx", tmp_path / "after")
    assert found.problem is None


@pytest.mark.fault("F12")
def test_file_ends_at_its_limit_when_it_hangs_or_eats_memory(tmp_path: Path) -> None:
    """Each is told as what it is, and the next file is looked into by the same process."""
    rows = rows_file(tmp_path / "rows")
    with examining(Allowance(5.0, 600.0), tmp_path / "log") as examiner:
        warm = looked_into(examiner, torch_adder(tmp_path / "w") / "model.pt", tmp_path / "0", example=rows)
        assert warm.problem is None
        found = looked_into(
            examiner, save_torch_script(tmp_path / "h", HANGS) / "model.pt", tmp_path / "1", example=rows
        )
        assert found.problem == "it hangs: loading and asking it had no end within 5 s"
        assert "SIGNALBOX_REGISTER_SECONDS" in found.next_step
        found = looked_into(
            examiner, save_torch_script(tmp_path / "e", EATS) / "model.pt", tmp_path / "2", example=rows
        )
        assert found.problem == "loading and asking it takes more than 600 MB of memory"
        assert "SIGNALBOX_REGISTER_MEMORY_MB" in found.next_step
        found = looked_into(examiner, onnx_adder(tmp_path / "a") / "model.onnx", tmp_path / "3")
        assert found.problem is None


def _examiner_with(log: Path) -> psutil.Process | None:
    """The examining process that writes to this log."""
    for process in psutil.Process().children():
        is_ours = "flows.examiner" in " ".join(process.cmdline())
        if is_ours and any(opened.path == str(log) for opened in process.open_files()):
            return process
    return None


def _children(log: Path) -> list[psutil.Process]:
    process = _examiner_with(log)
    return process.children() if process is not None else []


def test_file_is_told_to_crash_its_process_when_that_dies(tmp_path: Path) -> None:
    """A runtime that aborts takes only its own child with it."""
    rows, log = rows_file(tmp_path / "rows"), tmp_path / "log"
    source = save_torch_script(tmp_path / "h", HANGS) / "model.pt"
    with examining(Allowance(120.0, 600.0), log) as examiner:
        # Libraries start short-lived processes of their own while they are imported, once.
        looked_into(examiner, torch_adder(tmp_path / "w") / "model.pt", tmp_path / "0")
        killer = threading.Thread(target=_kill_child, args=(log,))
        killer.start()
        found = looked_into(examiner, source, tmp_path / "1", example=rows)
        killer.join()
        assert found.problem == "it crashes the process that loads it (SIGSEGV)"
        after = looked_into(examiner, onnx_adder(tmp_path / "a") / "model.onnx", tmp_path / "2")
        assert after.problem is None


def _kill_child(log: Path) -> None:
    until(lambda: _children(log), "the child was forked", seconds=60)
    for child in _children(log):
        child.send_signal(signal.SIGSEGV)


def test_next_file_is_looked_into_when_the_examining_process_was_killed(tmp_path: Path) -> None:
    """Its death says nothing about a file: the order is given to a new process."""
    source = onnx_adder(tmp_path / "a") / "model.onnx"
    with examining(Allowance(60.0, 600.0), tmp_path / "log") as examiner:
        assert looked_into(examiner, source, tmp_path / "1").problem is None
        process = _examiner_with(tmp_path / "log")
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        assert looked_into(examiner, source, tmp_path / "2").problem is None
