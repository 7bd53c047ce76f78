"""One model file from what somebody put into a folder to a model that can be registered.

Runs in a process of its own, which the file may hang, bloat or crash. Checked, copied, translated where
need be, loaded with the very loader that serves, asked, recorded, described, and loaded once more as it
will lie in the registry. Whatever refuses it is one `ArtifactRefused`.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
import psutil

from flows.catalog import packaging
from flows.catalog.describe import describe
from flows.catalog.discover import source_digest
from flows.catalog.evaluation import EvaluationRefused, EvaluationSet, misfit, read_evaluation
from flows.catalog.examined import Examined, Task
from flows.catalog.inputs import Origin, Recorded, is_want_of_memory, record
from serving.core.datatypes import Array
from serving.core.errors import ArtifactRefused
from serving.core.model import Format
from serving.formats.artifact import LABELS_FILE, TRANSLATION_FILE, Artifact, inspect_artifact, payload_digest
from serving.formats.golden import write_golden
from serving.formats.loader import LoadedModel, load
from serving.formats.model_file import examine as look_over
from serving.formats.selftest import SelfTest, Verdict, self_test

_INPUT = "input:"
_LOOK_AGAIN = "it is looked at again when it changes"
_TIMED_CALLS = 5


class Translates(Protocol):
    """Writes a Core ML file as ONNX; returns sentences for a report. Raises ArtifactRefused."""

    def __call__(self, source: Path, target: Path) -> Sequence[str]: ...


def examine(task: Task, translates: Translates) -> Examined:
    """Lay the file out in `task.root`, ready to be uploaded, or say why it cannot become a version."""
    members: tuple[str, ...] = ()
    try:
        members = _members(task.source)
        return _examined(task, translates, members)
    except MemoryError:
        return Examined(lacked_memory=True, members=members)
    except ArtifactRefused as refused:
        if is_want_of_memory(refused.__cause__):
            return Examined(lacked_memory=True, members=members)
        return Examined(problem=refused.problem, next_step=refused.next_step, members=members)


def _members(source: Path) -> tuple[str, ...]:
    if source.suffix != ".onnx" or source.is_dir():
        return ()
    from serving.formats.onnx_file import weight_files

    with contextlib.suppress(ArtifactRefused):  # the look over says so better
        return weight_files(source)
    return ()


def _examined(task: Task, translates: Translates, members: tuple[str, ...]) -> Examined:
    format = look_over(task.source, task.limits)
    layout = packaging.lay_out(task.source, members if format is Format.ONNX else (), format, task.root)
    notes: list[str] = []
    if format is Format.COREML:
        notes += translates(layout.payload, task.root / TRANSLATION_FILE)
    packaging.describe_briefly(layout)
    tried = _tried(task)
    _write_all(task, layout, tried)
    artifact = inspect_artifact(task.root)
    final = load(artifact, task.threads)
    verdict = _proven(final, artifact, tried)
    description = describe(artifact, final).completed(task.told)
    return Examined(
        members=members,
        format=format,
        source_digest=source_digest(layout.payload, members),
        digest=payload_digest(task.root),
        description=description.as_json(),
        golden=tried.recorded.said,
        self_test=f"{verdict.verdict.replace('_', ' ')}: {verdict.reason}",
        load_seconds=round(tried.seconds, 4),
        call_ms=round(tried.call_ms, 4),
        grown_bytes=tried.grown_bytes,
        notes=(*notes, *_label_notes(task, tried)),
    )


@dataclass(frozen=True, slots=True)
class _Tried:
    """The model as it answered the first time, and what loading and asking it took."""

    model: LoadedModel
    recorded: Recorded
    seconds: float
    call_ms: float
    grown_bytes: int


def _tried(task: Task) -> _Tried:
    artifact = inspect_artifact(task.root)
    before_bytes, started = _resident_bytes(), perf_counter()
    model = load(artifact, task.threads)
    seconds = perf_counter() - started
    recorded = record(model, _given(task, model))
    grown_bytes = max(0, _resident_bytes() - before_bytes)
    return _Tried(model, recorded, seconds, _call_ms(model, recorded), grown_bytes)


def _given(task: Task, model: LoadedModel) -> dict[Origin, Mapping[str, Array]]:
    """The inputs that somebody named; a set that does not fit the model refuses it."""
    given: dict[Origin, Mapping[str, Array]] = {}
    if task.evaluation is not None:
        evaluation = _evaluation(task.evaluation)
        problem = misfit(evaluation, model.inputs)
        if problem is not None:
            raise ArtifactRefused(problem, next_step=f"correct the set or the side file; {_LOOK_AGAIN}")
        given[Origin.EVALUATION] = evaluation.inputs
    if task.example is not None:
        arrays = _example(task.example)
        problem = misfit(EvaluationSet(arrays, np.zeros(1)), model.inputs)
        if problem is not None:
            said = problem.replace("the evaluation set", f"the example '{task.example.name}'")
            raise ArtifactRefused(said, next_step=f"correct the example; {_LOOK_AGAIN}")
        given[Origin.EXAMPLE] = arrays
    return given


def _evaluation(path: Path) -> EvaluationSet:
    try:
        return read_evaluation(path)
    except EvaluationRefused as refused:
        step = f"save it with numpy.savez as 'input:<name>' arrays and 'labels'; {_LOOK_AGAIN}"
        raise ArtifactRefused(str(refused), next_step=step) from refused


def _example(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name.removeprefix(_INPUT): stored[name] for name in stored.files}
    except Exception as error:  # numpy raises a dozen kinds for a damaged archive
        step = f"save it with numpy.savez, one 'input:<name>' array per input; {_LOOK_AGAIN}"
        problem = f"the example '{path.name}' is damaged or is no .npz file of plain arrays"
        raise ArtifactRefused(problem, next_step=step) from error
    return {n: array.astype(np.object_) if array.dtype.kind == "U" else array for n, array in arrays.items()}


def _write_all(task: Task, layout: packaging.Layout, tried: _Tried) -> None:
    golden, model = tried.recorded.golden, tried.model
    inputs, outputs = model.inputs, model.outputs
    if golden is not None:
        rows = max((len(array) for array in golden.inputs.values() if array.ndim), default=1)
        inputs = packaging.seen(inputs, golden.inputs, rows)
        outputs = packaging.seen(outputs, golden.outputs, rows)
        write_golden(task.root, golden)
    example = None if golden is None else one_row(golden.inputs, model)
    if task.told.labels:
        (task.root / LABELS_FILE).write_text("\n".join(task.told.labels) + "\n")
    packaging.describe_fully(layout, inputs, outputs, example, task.told.dependencies)


def one_row(inputs: Mapping[str, Array], model: LoadedModel) -> dict[str, Array]:
    """One row where the model takes one, for MLflow's page; else all that it takes at once."""
    alone = all(spec.dims is None or (spec.dims and spec.dims[0] == -1) for spec in model.inputs)
    return {name: array[:1] if alone and array.ndim else array for name, array in inputs.items()}


def _proven(model: LoadedModel, artifact: Artifact, tried: _Tried) -> SelfTest:
    """What serving will find when it loads the version. A failure here is serving's refusal there."""
    found = self_test(model, artifact)
    if found.verdict is Verdict.FAILED:
        step = f"correct the model and put it there again; {_LOOK_AGAIN}"
        said = f" ({tried.recorded.said})" if tried.recorded.golden is None else ""
        raise ArtifactRefused(f"its self-test failed: {found.reason}{said}", next_step=step)
    return found


def _label_notes(task: Task, tried: _Tried) -> list[str]:
    """Labels that no output has as many columns as are said in a note: they may still mean something."""
    golden, count = tried.recorded.golden, len(task.told.labels)
    if not count or golden is None:
        return []
    if any(array.ndim > 1 and array.shape[-1] == count for array in golden.outputs.values()):
        return []
    shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in golden.outputs.items())
    return [f"{count} labels are named, and no output has {count} columns ({shapes})"]


def _call_ms(model: LoadedModel, recorded: Recorded) -> float:
    """The quickest of a few calls with one row; only a first idea until the version is benchmarked."""
    if recorded.golden is None:
        return 0.0
    row = one_row(recorded.golden.inputs, model)
    return min(_timed(lambda: model.predict(row)) for _ in range(_TIMED_CALLS)) * 1000


def _timed(call: Callable[[], object]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def _resident_bytes() -> int:
    size_bytes: int = psutil.Process().memory_info().rss
    return size_bytes
