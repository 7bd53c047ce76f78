"""Translating a Core ML file to one ONNX file that computes the same.

MIL programs are translated by `program`, the older layer networks by `network`. What neither covers
is refused by name. The file appears at its target in whole, checked, or not at all.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from flows.translation.graph import OPSET
from flows.translation.refusal import TranslationRefused
from serving.store.durable import write_atomically

_NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")
_FILE_MODE = 0o644
_MAX_PROTO_BYTES = 2**31 - 1
_SAVE_AGAIN = "save the model again with coremltools (MLModel.save) and register that file"


@dataclass(frozen=True, slots=True)
class Translation:
    """What was translated; `notes` are sentences for a report.

    `operators` counts Core ML operator (or layer) types; `precision` is that of the program's own
    arithmetic, "fp32" or "fp16"; `inputs` and `outputs` are names in declared order.
    """

    operators: Mapping[str, int]
    opset: int
    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]


def translate(source: Path, target: Path) -> Translation:
    """Write `source` (.mlpackage folder or .mlmodel file) as ONNX at `target`. Raises TranslationRefused.

    Weights and graph go into one file, which protobuf limits to 2 GiB; larger models are refused.
    """
    with _quiet():
        model = _opened(source)
        spec = model.get_spec()
        proto, operators, precision = _graph(model, spec)
    _write(proto, target)
    return Translation(
        operators=dict(sorted(operators.items())),
        opset=OPSET,
        precision=precision,
        inputs=tuple(value.name for value in proto.graph.input),
        outputs=tuple(value.name for value in proto.graph.output),
        notes=_notes(spec, precision),
    )


def _graph(model: Any, spec: Any) -> tuple[onnx.ModelProto, Mapping[str, int], str]:
    """The ONNX model, counts of what it was made from, and the precision. Imports coremltools late."""
    kind = spec.WhichOneof("Type")
    if kind == "mlProgram":
        from flows.translation.program import program_graph

        program = program_graph(model)
        return program.model, program.operators, program.precision
    if kind in _NETWORKS:
        from flows.translation.network import layer_counts, network_graph

        return network_graph(model), layer_counts(spec), "fp32"
    if kind is None:
        raise TranslationRefused("it holds no model at all", next_step=_SAVE_AGAIN)
    raise TranslationRefused(
        f"it is a Core ML model of type '{kind}', and only programs and neural networks are translated",
        operator=kind,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """coremltools logs on every import under Linux that it cannot predict here."""
    logger = logging.getLogger("coremltools")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _opened(source: Path) -> Any:
    if not source.exists():
        raise TranslationRefused(f"there is no Core ML model at '{source}'", next_step=_SAVE_AGAIN)
    try:
        import coremltools

        return coremltools.models.MLModel(str(source), skip_model_load=True)
    except Exception as error:  # foreign code over a file of unknown origin
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        problem = f"'{source.name}' is not a readable Core ML model ({reason})"
        raise TranslationRefused(problem, next_step=_SAVE_AGAIN) from error


def _write(proto: onnx.ModelProto, target: Path) -> None:
    if proto.ByteSize() > _MAX_PROTO_BYTES:
        raise TranslationRefused(
            "its ONNX file would be larger than the 2 GiB that protobuf allows",
            next_step="compress the weights to float16, or export the original model to ONNX",
        )
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise TranslationRefused(f"its translation is not a valid ONNX graph ({reason})") from error
    write_atomically(target, proto.SerializeToString(), _FILE_MODE)


def _notes(spec: Any, precision: str) -> tuple[str, ...]:
    notes = [
        "The ONNX translation computes the Core ML program; it does not reproduce the numerics, "
        "the speed or the memory use of Apple's hardware."
    ]
    if precision == "fp16":
        notes.append(
            "The program computes in fp16; its weights are kept as they are, and the translation "
            "computes in float32, so results can differ from a device's by about 1e-2 relative."
        )
    notes += [
        f"Input '{feature.name}' was an image; it is now a float32 array (1, C, H, W) of pixel values from 0 "
        "to 255, before the model's own scaling."
        for feature in spec.description.input
        if feature.type.HasField("imageType")
    ]
    notes += [
        f"Output '{feature.name}' was an image; it is now an array of pixel values."
        for feature in spec.description.output
        if feature.type.HasField("imageType")
    ]
    return tuple(notes)
