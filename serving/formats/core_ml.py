"""Core ML: natively on macOS, elsewhere through the ONNX translation stored beside the original.

A translation computes what the program says; Apple's hardware may round differently. The original is
checked before either way is taken, so that a damaged version is refused on every platform alike.
"""

import platform as system
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from serving.core.datatypes import DTYPES, Array
from serving.core.errors import ArtifactRefused
from serving.core.model import Format, TensorSpec
from serving.formats import onnx_runtime
from serving.formats.artifact import Artifact
from serving.formats.coreml_package import check_coreml, is_mlprogram

_CONVERT_AGAIN = "convert the model again with coremltools, with tensors as inputs and outputs"
# ArrayDataType of Core ML's FeatureTypes.proto: kind in the high half, bits in the low one.
_DATATYPES = {
    0x10000 | 16: "FP16",
    0x10000 | 32: "FP32",
    0x10000 | 64: "FP64",
    0x20000 | 8: "INT8",
    0x20000 | 32: "INT32",
}


class Predictor(Protocol):
    """What a loaded `coremltools.models.MLModel` offers on macOS."""

    def predict(self, data: dict[str, Array]) -> Mapping[str, Any]: ...


class NativeModel:
    """A model in Apple's runtime, asked by one thread at a time, as its documentation demands."""

    def __init__(
        self,
        predictor: Predictor,
        platform: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self._predictor: Predictor | None = predictor
        self._turn = threading.Lock()
        self.platform = platform
        self.inputs = inputs
        self.outputs = outputs

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        predictor = self._predictor
        if predictor is None:
            raise RuntimeError("the model is closed")
        given = {spec.name: np.array(inputs[spec.name], order="C") for spec in self.inputs}
        with self._turn:
            answer = predictor.predict(given)
        # Apple's runtime answers in the type it computed in, which need not be the declared one.
        return {spec.name: np.asarray(answer[spec.name], DTYPES[spec.datatype]) for spec in self.outputs}

    def close(self) -> None:
        self._predictor = None


class TranslatedModel:
    """The ONNX translation under the original's platform name."""

    def __init__(self, translation: onnx_runtime.OnnxModel, platform: str) -> None:
        self._translation = translation
        self.platform = platform
        self.inputs = translation.inputs
        self.outputs = translation.outputs

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._translation.predict(inputs)

    def close(self) -> None:
        self._translation.close()


def load(artifact: Artifact, threads: int) -> NativeModel | TranslatedModel:
    """Load the artifact. Raises ArtifactRefused; Apple's runtime chooses its own threads."""
    check_coreml(artifact.payload)
    platform = "coreml_mlprogram" if is_mlprogram(artifact.payload) else "coreml_neuralnetwork"
    if system.system() == "Darwin":
        return _native(artifact.payload, platform)
    if artifact.translation is None:
        problem = (
            f"'{artifact.payload.name}' is a Core ML model, which runs on macOS, without ONNX translation"
        )
        step = "register it through Signalbox (signalbox register PATH --name NAME), which translates it"
        raise ArtifactRefused(problem, next_step=step)
    stand_in = replace(artifact, format=Format.ONNX, payload=artifact.translation)
    return TranslatedModel(onnx_runtime.load(stand_in, threads), platform)


def _native(path: Path, platform: str) -> NativeModel:
    import coremltools

    try:
        model = coremltools.models.MLModel(str(path))
        return native_model(model, model.get_spec().description, platform)
    except ArtifactRefused:
        raise
    except Exception as error:  # the compiler reports through exceptions of no common class
        reason = " ".join(str(error).split())[:300]
        problem = f"Core ML cannot load '{path.name}' ({reason})"
        raise ArtifactRefused(problem, next_step=_CONVERT_AGAIN) from error


def native_model(predictor: Predictor, description: Any, platform: str) -> NativeModel:
    """A model under the tensors of its ModelDescription. Raises ArtifactRefused for images and maps."""
    inputs = tuple(_specs(description.input, "input"))
    return NativeModel(predictor, platform, inputs, tuple(_specs(description.output, "output")))


def _specs(features: Iterable[Any], role: str) -> Iterator[TensorSpec]:
    for feature in features:
        kind = feature.type.WhichOneof("Type")
        array = feature.type.multiArrayType
        datatype = _DATATYPES.get(array.dataType) if kind == "multiArrayType" else None
        if datatype is None:
            what = str(kind).removesuffix("Type")
            problem = f"{role} '{feature.name}' is of Core ML type {what}, which no request can carry"
            raise ArtifactRefused(problem, next_step=_CONVERT_AGAIN)
        yield TensorSpec(feature.name, datatype, _dims(array))


def _dims(array: Any) -> tuple[int, ...] | None:
    """Lengths that may vary, by a range or a list of shapes, are -1; no shape at all is None."""
    flexibility = array.WhichOneof("ShapeFlexibility")
    if flexibility == "shapeRange":
        ranges = array.shapeRange.sizeRanges
        return tuple(size.lowerBound if size.lowerBound == size.upperBound else -1 for size in ranges)
    if flexibility == "enumeratedShapes":
        shapes = [tuple(entry.shape) for entry in array.enumeratedShapes.shapes]
        if len({len(shape) for shape in shapes}) != 1:
            return None
        lengths = zip(*shapes, strict=True)
        return tuple(given[0] if len(set(given)) == 1 else -1 for given in lengths)
    return tuple(array.shape) or None
