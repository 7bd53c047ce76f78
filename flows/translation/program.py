"""A MIL program as an ONNX graph: inputs, then every operation in order, then outputs.

coremltools rebuilds the program from the file on any platform; its module for that is internal, so
its use is confined to this file. A variable whose value is known becomes a constant, the others nodes.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from coremltools import proto
from coremltools.converters.mil.frontend.milproto import load as milproto
from coremltools.converters.mil.mil import types
from onnx import TensorProto

from flows.translation.call import Call
from flows.translation.graph import Graph
from flows.translation.operators.table import CONSTANTS, REASONS, TRANSLATORS
from flows.translation.pruning import prune
from flows.translation.refusal import NO_TRANSLATION, TranslationRefused, Unsupported
from flows.translation.scope import Scope
from flows.translation.variables import computed_type, declared_type, dimensions
from flows.translation.weights import check_weights, operations

_PRODUCER = "signalbox"
_CONVERT_AGAIN = "convert the model again with a current coremltools, or register another format of it"


@dataclass(frozen=True, slots=True)
class ProgramGraph:
    """The finished ONNX model, how often each MIL operator occurs, and the width of the arithmetic."""

    model: onnx.ModelProto
    operators: Counter[str]
    precision: str


def program_graph(model: Any) -> ProgramGraph:
    """Translate a coremltools MLModel that holds a MIL program. Raises TranslationRefused."""
    spec = model.get_spec()
    name = _function_name(spec)
    _check_operators(spec.mlProgram)
    folder = Path(model.weights_dir) if model.weights_dir else None
    check_weights(spec.mlProgram, folder)
    function = _rebuilt(spec, folder).functions[name]
    images = {feature.name for feature in spec.description.input if feature.type.HasField("imageType")}
    kinds = Counter(str(one.type) for one in operations(spec.mlProgram) if one.type != "const")
    return ProgramGraph(_translated(function, name, images), kinds, _precision(spec.mlProgram))


def _function_name(spec: Any) -> str:
    """The one function that is translated: the declared default, or the only one."""
    functions = list(spec.mlProgram.functions)
    default = spec.description.defaultFunctionName or "main"
    if default in functions:
        return str(default)
    if len(functions) == 1:
        return str(functions[0])
    raise TranslationRefused(
        f"it holds the functions {', '.join(sorted(functions))}, and none of them is its default",
        next_step="save the wanted function as a model of its own",
    )


def _check_operators(program: Any) -> None:
    """Name everything unsupported at once, before anything is loaded."""
    unsupported = [
        Unsupported(one.type, _first_output(one), REASONS.get(one.type, NO_TRANSLATION))
        for one in operations(program)
        if one.type not in TRANSLATORS and one.type not in CONSTANTS
    ]
    if unsupported:
        raise TranslationRefused.of(unsupported)


def _first_output(operation: Any) -> str:
    return str(operation.outputs[0].name) if operation.outputs else "none"


def _rebuilt(spec: Any, folder: Path | None) -> Any:
    try:
        return milproto.load(
            spec,
            specification_version=spec.specificationVersion,
            file_weights_dir="" if folder is None else str(folder),
        )
    except Exception as error:  # foreign code over a file of unknown origin
        problem = f"coremltools cannot rebuild its program ({_one_line(error)})"
        raise TranslationRefused(problem, next_step=_CONVERT_AGAIN) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _precision(program: Any) -> str:
    half = any(
        output.type.WhichOneof("type") == "tensorType"
        and output.type.tensorType.dataType == proto.MIL_pb2.FLOAT16
        for one in operations(program)
        for output in one.outputs
    )
    return "fp16" if half else "fp32"


def _translated(function: Any, name: str, images: set[str]) -> onnx.ModelProto:
    graph, scope, names = Graph(), Scope(), _DimensionNames()
    outputs = function.outputs
    for variable in outputs:
        graph.reserve(variable.name)
    for input_name, variable in function.inputs.items():
        _declare_input(input_name, variable, input_name in images, graph, scope, names)
    run = _Run()
    results = run.block(function, graph, scope)
    if run.unsupported:
        raise TranslationRefused.of(run.unsupported)
    # A converter that finds two outputs equal lists one variable twice; ONNX names each output once.
    for variable, result in {
        one.name: (one, name) for one, name in zip(outputs, results, strict=True)
    }.values():
        _declare_output(variable, result, graph, names)
    model = graph.model(name, _PRODUCER)
    prune(model)
    return model


class _Run:
    """Translates blocks in order and gathers what was refused, so that one run names all of it."""

    def __init__(self) -> None:
        self.unsupported: list[Unsupported] = []

    def block(self, block: Any, graph: Graph, scope: Scope) -> list[str]:
        """ONNX names of the block's outputs."""
        for operation in block.operations:
            if any(scope.constant(output) is None for output in operation.outputs):
                self._operation(Call(operation, graph, scope, self.block))
        return [scope.name(variable, graph) for variable in block.outputs]

    def _operation(self, call: Call) -> None:
        try:
            names = TRANSLATORS[call.kind](call)
        except TranslationRefused as refused:
            if not refused.unsupported:
                raise
            self.unsupported += refused.unsupported
            names = [call.graph.fresh(output.name) for output in call.outputs]
        names = [names] if isinstance(names, str) else names
        for output, name in zip(call.outputs, names, strict=True):
            call.scope.bind(output, name)


class _DimensionNames:
    """Names of dynamic dimensions: an output that keeps an input's dimension carries its name."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def shape(self, owner: str, sizes: Sequence[Any]) -> list[int | str]:
        return [
            size if size is not None else self._names.setdefault(str(symbol), f"{owner}_dim_{axis}")
            for axis, (size, symbol) in enumerate(zip(dimensions(sizes), sizes, strict=True))
        ]


def _declare_input(
    name: str, variable: Any, image: bool, graph: Graph, scope: Scope, names: _DimensionNames
) -> None:
    """An input keeps its declared type, but an image is float32, so that 0 to 255 arrive as they are."""
    declared = None if types.is_state(variable.sym_type) else declared_type(variable.dtype)
    if declared is None:
        raise TranslationRefused(f"its input '{name}' is of a type that ONNX does not have", variable=name)
    given, inside = TensorProto.FLOAT if image else declared, computed_type(variable.dtype)
    graph.input(name, given, names.shape(name, variable.shape))
    scope.bind(variable, name if given == inside else graph.add("Cast", name, hint=f"{name}_wide", to=inside))


def _declare_output(variable: Any, result: str, graph: Graph, names: _DimensionNames) -> None:
    if variable.op is not None and variable.op.op_type == "classify":
        return _declare_class(variable, result, graph)
    declared, inside = declared_type(variable.dtype), computed_type(variable.dtype)
    if declared is None:
        name = variable.name
        raise TranslationRefused(f"its output '{name}' is of a type that ONNX does not have", variable=name)
    if declared != inside:
        result = graph.add("Cast", result, hint=f"{variable.name}_narrow", to=declared)
    return graph.output(variable.name, result, declared, names.shape(variable.name, variable.shape))


def _declare_class(variable: Any, result: str, graph: Graph) -> None:
    """A classifier gives one label per row, and the probabilities in the order of its labels."""
    sizes = dimensions(variable.op.probabilities.shape)
    count = len(variable.op.classes.val)
    whole = [size for size in sizes if size is not None]
    rows: int | str = math.prod(whole) // count if len(whole) == len(sizes) else "rows"
    if types.is_dict(variable.sym_type):
        return graph.output(variable.name, result, TensorProto.FLOAT, [rows, count])
    declared = TensorProto.STRING if variable.dtype == types.str else TensorProto.INT64
    return graph.output(variable.name, result, declared, [rows])
