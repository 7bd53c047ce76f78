"""MIL programs of one operator, built without torch, with an answer to compare with.

The oracle is MIL's own value inference in numpy: the operator over constants. Where MIL has none, the
test gives its own.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from serving.core.datatypes import Array
from tests.flows.translation.parity import quiet, translated

Oracle = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Single:
    """One operator: run-time inputs by parameter name, constant parameters, and the oldest iOS that has it.

    `expected` answers from the inputs and parameters; without it MIL's value inference does.
    """

    operator: str
    inputs: Mapping[str, Array]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: int = 15
    expected: Oracle | None = None
    note: str = ""

    def __str__(self) -> str:
        return f"{self.operator} {self.note}".strip()


def floats(values: Any) -> Array:
    return np.array(values, np.float32)


def whole(values: Any) -> Array:
    return np.array(values, np.int32)


def _target(version: int) -> Any:
    import coremltools as ct

    return getattr(ct.target, f"iOS{version}")


def inferred(case: Single) -> list[Array]:
    """The operator's value over constants, computed by coremltools in numpy."""
    with quiet():
        from coremltools.converters.mil import Builder as mb

        kept: list[Any] = []

        def body() -> Any:
            given = getattr(mb, case.operator)(**case.inputs, **case.parameters)
            kept.extend(given if isinstance(given, list | tuple) else [given])
            return mb.const(val=np.float32(0))

        mb.program(input_specs=[], opset_version=_target(case.version))(body)
        assert all(one.val is not None for one in kept), "this operator has no value inference"
        return [np.asarray(one.val) for one in kept]


def expected(case: Single) -> list[Array]:
    if case.expected is None:
        return inferred(case)
    given = case.expected(**case.inputs, **case.parameters)
    return [np.asarray(one) for one in (given if isinstance(given, list | tuple) else [given])]


def built(
    inputs: Mapping[str, Array],
    body: Callable[..., Any],
    version: int = 15,
    shapes: Mapping[str, Any] | None = None,
) -> Any:
    """A Core ML model of a program body over named inputs; booleans leave it as whole numbers."""
    with quiet():
        import coremltools as ct
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.mil import types

        def plain(variable: Any) -> Any:
            if variable.dtype in (types.fp32, types.fp16, types.int32):
                return mb.identity(x=variable)
            return mb.cast(x=variable, dtype="int32")

        def outer(*given: Any) -> Any:
            # An input of the program may not bear the name of a parameter's default, hence its own names.
            results = body(**dict(zip(inputs, given, strict=True)))
            results = results if isinstance(results, list | tuple) else [results]
            return tuple(plain(one) for one in results)

        specs = [
            mb.TensorSpec(shape=(shapes or {}).get(name, one.shape), dtype=_mil_type(one))
            for name, one in inputs.items()
        ]
        names = [f"x{at}" for at in range(len(inputs))]
        program = mb.program(input_specs=specs, opset_version=_target(version))(_named(outer, names))
        return ct.convert(
            program,
            source="milinternal",
            convert_to="mlprogram",
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=_target(version),
            pass_pipeline=ct.PassPipeline.EMPTY,
        )


def ran(model: Any, inputs: Sequence[Array]) -> list[Array]:
    """The translation's answers, inputs in order."""
    with tempfile.TemporaryDirectory() as folder:
        _, session = translated(model, Path(folder))
        feed = {f"x{at}": one for at, one in enumerate(inputs)}
        results: list[Array] = session.run(None, feed)
        return results


def answered(case: Single) -> list[Array]:
    """What the translated program of this one operator answers."""
    with quiet():
        from coremltools.converters.mil import Builder as mb

    def body(**given: Any) -> Any:
        return getattr(mb, case.operator)(**given, **case.parameters)

    return ran(built(case.inputs, body, case.version), list(case.inputs.values()))


def _mil_type(array: Array) -> Any:
    from coremltools.converters.mil.mil import types

    return {"f": types.fp32, "i": types.int32, "b": types.bool}[array.dtype.kind]


def _named(function: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """The builder reads the program's input names from the function's signature."""
    parameters = ", ".join(names)
    scope: dict[str, Any] = {"function": function}
    exec(f"def named({parameters}): return function({parameters})", scope)
    named: Callable[..., Any] = scope["named"]
    return named
