"""Whether a loaded version keeps its own promises, before any caller sees it.

Called after every load, and `output_problem` for every answer. A version that fails here is
never put into service; one that cannot be measured is.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from serving.core.datatypes import FLOATS, Array, datatype_of, is_finite
from serving.core.model import TensorSpec
from serving.formats.artifact import Artifact
from serving.formats.loader import LoadedModel
from serving.formats.probe import Basis, Probe, probe_inputs

__all__ = ["Basis", "Probe", "SelfTest", "Verdict", "output_problem", "probe_inputs", "self_test"]

_RTOL = 1e-3
_ATOL = 1e-4


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True, slots=True)
class SelfTest:
    """`seconds` is the duration of the one inference; 0 where there was none."""

    verdict: Verdict
    basis: Basis
    reason: str
    seconds: float = 0.0


def self_test(
    model: LoadedModel, artifact: Artifact, monotonic: Callable[[], float] = time.monotonic
) -> SelfTest:
    """Ask the model once, with the best inputs there are, and judge the answer."""
    probe = probe_inputs(model, artifact)
    if probe is None:
        reason = "the shape of an input is unknown and no example was logged"
        return SelfTest(Verdict.NOT_MEASURED, Basis.NONE, _with_notes(reason, artifact))
    problem = _input_problem(model.inputs, probe.inputs)
    if problem is not None:
        return SelfTest(Verdict.FAILED, probe.basis, f"the {probe.basis} inputs do not fit: {problem}")
    started = monotonic()
    try:
        outputs = model.predict(probe.inputs)
    except Exception as error:  # a model is foreign code: whatever it raises is its verdict
        return _raised(model, probe, error, monotonic() - started)
    seconds = monotonic() - started
    problem = _answer_problem(model, artifact, probe, outputs)
    if problem is not None:
        return SelfTest(Verdict.FAILED, probe.basis, problem, seconds)
    return SelfTest(Verdict.PASSED, probe.basis, _with_notes(_PASSED[probe.basis], artifact), seconds)


_PASSED = {
    Basis.GOLDEN: "answered the golden set as recorded",
    Basis.EXAMPLE: "answered the logged input example within its output specs",
    Basis.ZEROS: "answered zeros within its output specs",
}


def output_problem(specs: Sequence[TensorSpec], outputs: Mapping[str, Array]) -> str | None:
    """What in an answer breaks the output specs, else None. Looks at no element.

    Of an output whose shape is unknown only the name is checked; empty `specs` promise nothing.
    """
    for spec in specs:
        array = outputs.get(spec.name)
        if array is None:
            return f"output '{spec.name}' is missing"
        if spec.dims is None:
            continue
        datatype = datatype_of(array.dtype)
        if datatype != spec.datatype:
            return f"output '{spec.name}' is {datatype or array.dtype}, declared {spec.datatype}"
        if not spec.accepts_shape(array.shape):
            return f"output '{spec.name}' has shape {list(array.shape)}, declared {list(spec.dims)}"
    if specs and len(outputs) != len(specs):
        extra = sorted(set(outputs) - {spec.name for spec in specs})
        return f"output '{extra[0]}' is not declared"
    return None


def _input_problem(specs: Sequence[TensorSpec], inputs: Mapping[str, Array]) -> str | None:
    names = {spec.name for spec in specs}
    if set(inputs) != names:
        return f"they are {sorted(inputs)}, the model takes {sorted(names)}"
    for spec in specs:
        if not spec.accepts_shape(inputs[spec.name].shape):
            return f"input '{spec.name}' has shape {list(inputs[spec.name].shape)}, not {spec.wire_shape}"
    return None


def _raised(model: LoadedModel, probe: Probe, error: Exception, seconds: float) -> SelfTest:
    reason = f"raised {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if probe.basis is Basis.ZEROS and _guessed(model.inputs):
        # One long on an inner axis is our guess; a convolution may rightly refuse it.
        unsure = f"{reason}; not held against it, because the lengths of its inner axes were guessed"
        return SelfTest(Verdict.NOT_MEASURED, probe.basis, unsure, seconds)
    return SelfTest(Verdict.FAILED, probe.basis, reason, seconds)


def _guessed(specs: Sequence[TensorSpec]) -> bool:
    return any(-1 in (spec.dims or ())[1:] for spec in specs)


def _answer_problem(
    model: LoadedModel, artifact: Artifact, probe: Probe, outputs: Mapping[str, Array]
) -> str | None:
    problem = output_problem(model.outputs, outputs)
    if problem is not None or probe.basis is Basis.ZEROS:
        return problem
    for name, array in outputs.items():
        if not is_finite(array):
            return f"output '{name}' is not finite on the {probe.basis} inputs"
    if probe.basis is Basis.GOLDEN and artifact.golden is not None:
        return _golden_problem(artifact.golden.outputs, outputs)
    return None


def _golden_problem(recorded: Mapping[str, Array], outputs: Mapping[str, Array]) -> str | None:
    for name, want in recorded.items():
        got = outputs.get(name)
        if got is None:
            return f"output '{name}' of the golden set is missing"
        if got.shape != want.shape:
            return f"output '{name}' has shape {list(got.shape)}, recorded {list(want.shape)}"
        if datatype_of(want.dtype) not in FLOATS:
            if not np.array_equal(got, want):
                return f"output '{name}' differs from the golden set"
        elif not np.allclose(got.astype(np.float64), want.astype(np.float64), rtol=_RTOL, atol=_ATOL):
            worst = float(np.max(np.abs(got.astype(np.float64) - want.astype(np.float64))))
            return f"output '{name}' differs from the golden set by up to {worst:.3g}"
    return None


def _with_notes(reason: str, artifact: Artifact) -> str:
    return "; ".join((reason, *artifact.notes))
