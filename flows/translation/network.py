"""A Core ML neural network, of whichever specification version, as one ONNX graph.

In the first versions every blob has five axes (sequence, batch, channel, height, width), whatever
the model declares; inputs are brought to that form on their way in, outputs back on their way out.
Where a layer works along the sequence, an input declared as (C,) takes what Core ML takes there
too: (sequence, batch, C).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from coremltools.proto import NeuralNetwork_pb2
from onnx import helper, numpy_helper

from flows.translation.classes import add_classes, is_classifier
from flows.translation.features import Feature, feature_of
from flows.translation.graph import Graph
from flows.translation.layers.preprocessing import prepared
from flows.translation.layers.tape import Tape, Tensor
from flows.translation.layers.walk import EXPORT_AGAIN, Scope, Walk, every_layer, kind_of, unsupported
from flows.translation.pruning import prune
from flows.translation.refusal import TranslationRefused, Unsupported

NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")

_RANK5_ARRAYS = NeuralNetwork_pb2.RANK5_ARRAY_MAPPING
_RANK5_IMAGES = NeuralNetwork_pb2.RANK5_IMAGE_MAPPING
_RECURRENT = ("simpleRecurrent", "gru", "uniDirectionalLSTM", "biDirectionalLSTM")
_ALONG_SEQUENCE = (*_RECURRENT, "sequenceRepeat", "embedding")


@dataclass(frozen=True, slots=True)
class _Sequences:
    """What decides the two leading axes of five: whether they are open, and which inputs are states."""

    open: bool
    states: frozenset[str]

    @classmethod
    def of(cls, layers: Iterable[Any]) -> "_Sequences":
        """A state is declared for one sequence at a time, so a network that takes one has no batch."""
        found = False
        states: set[str] = set()
        for stored in every_layer(layers):
            kind = kind_of(stored)
            found |= kind in _ALONG_SEQUENCE or (kind == "concat" and stored.concat.sequenceConcat)
            states.update(stored.input[1:] if kind in _RECURRENT else ())
        return cls(found, frozenset(states))


def network_of(spec: Any) -> Any:
    """The network message of a specification; TranslationRefused if it holds another kind of model."""
    kind = spec.WhichOneof("Type")
    if kind not in NETWORKS:
        raise TranslationRefused(f"a model of type '{kind}' is no neural network")
    return getattr(spec, kind)


def layer_counts(spec: Any) -> dict[str, int]:
    """How often each kind of layer occurs, loops' and branches' inside included."""
    counts: dict[str, int] = {}
    for stored in every_layer(network_of(spec).layers):
        counts[kind_of(stored)] = counts.get(kind_of(stored), 0) + 1
    return counts


def network_graph(model: Any) -> onnx.ModelProto:
    """The ONNX model of a loaded coremltools `MLModel`, or of its specification.

    Raises TranslationRefused, naming every layer that cannot be carried over.
    """
    spec = model if hasattr(model, "WhichOneof") else model.get_spec()
    network = network_of(spec)
    if found := unsupported(network.layers):
        raise TranslationRefused.of(found)
    if not network.layers:
        raise TranslationRefused("the network has no layers", next_step=EXPORT_AGAIN)
    if not spec.description.output:
        raise TranslationRefused("the network declares no output", next_step=EXPORT_AGAIN)
    tape = Tape(Graph())
    for declared in spec.description.output:
        tape.graph.reserve(declared.name)
    inputs = [feature_of(declared) for declared in spec.description.input]
    sequences = _Sequences.of(network.layers)
    scope = {feature.name: _entered(tape, feature, network, sequences) for feature in inputs}
    refused: list[Unsupported] = []
    Walk(refused).through(tape, network.layers, scope)
    if refused:
        raise TranslationRefused.of(refused)
    _leave(tape, spec, network, scope)
    return _finished(tape, inputs)


def _entered(tape: Tape, feature: Feature, network: Any, sequences: _Sequences) -> Tensor:
    """The declared input as the blob that the first layer sees."""
    if feature.shape is None:
        raise TranslationRefused(f"input '{feature.name}' declares no shape", variable=feature.name)
    shape = feature.shape
    if feature.colours is not None:
        tape.graph.input(feature.name, feature.dtype, shape)
        blob = prepared(tape, Tensor(feature.name, shape), feature, network)
        return tape.unsqueeze(blob, 0) if network.imageInputShapeMapping == _RANK5_IMAGES else blob
    legacy = network.arrayInputShapeMapping == _RANK5_ARRAYS
    spread = legacy and len(shape) == 1 and sequences.open and feature.name not in sequences.states
    if spread:
        shape = ("sequence", 1 if sequences.states else "batch", *shape)
    tape.graph.input(feature.name, feature.dtype, shape)
    blob = tape.floats(Tensor(feature.name, shape, feature.dtype))
    if not legacy or len(shape) == 5:
        return blob
    if spread:
        return tape.unsqueeze(blob, 3, 4)
    if len(shape) == 1:
        return tape.unsqueeze(blob, 0, 1, 3, 4)
    if len(shape) == 3:
        return tape.unsqueeze(blob, 0, 1)
    raise TranslationRefused(
        f"input '{feature.name}' declares {len(shape)} axes, and this version of networks takes 1 or 3",
        variable=feature.name,
        next_step=EXPORT_AGAIN,
    )


def _leave(tape: Tape, spec: Any, network: Any, scope: Scope) -> None:
    """Every declared output, under its name, in its form and element type."""
    if is_classifier(spec):
        add_classes(tape, spec, network, scope)
    special = {spec.description.predictedFeatureName, spec.description.predictedProbabilitiesName}
    for declared in spec.description.output:
        if is_classifier(spec) and declared.name in special:
            continue
        feature = feature_of(declared)
        if feature.name not in scope:
            raise TranslationRefused(
                f"no layer gives the declared output '{feature.name}'",
                variable=feature.name,
                next_step=EXPORT_AGAIN,
            )
        blob = _declared_form(tape, scope[feature.name], feature, network)
        done = tape.cast(blob, feature.dtype)
        tape.graph.output(feature.name, done.name, feature.dtype, done.shape)


def _declared_form(tape: Tape, blob: Tensor, feature: Feature, network: Any) -> Tensor:
    """Without the axes that Core ML adds on the way in."""
    shape = feature.shape
    declared = None if shape is None else Tensor(feature.name, shape)
    if declared is not None and declared.count is not None and declared.count == blob.count:
        return blob if blob.shape == shape else tape.reshape(blob, declared.sizes() or ())
    if blob.rank != 5 or network.arrayInputShapeMapping != _RANK5_ARRAYS:
        return blob
    if feature.colours is not None:
        return tape.squeeze(blob, 0)
    trailing = (3, 4) if blob.shape[3:] == (1, 1) else ()
    leading = (0, 1) if blob.shape[:2] == (1, 1) else ()
    return tape.squeeze(blob, *leading, *trailing)


def _finished(tape: Tape, inputs: list[Feature]) -> onnx.ModelProto:
    """With defaults for optional inputs, and for images the meaning of their values."""
    model = tape.graph.model("network", "signalbox")
    for declared, feature in zip(model.graph.input, inputs, strict=True):
        if feature.colours is not None:
            declared.doc_string = f"{feature.colours} image, (1, channels, height, width), values 0 to 255"
        shape = [dim.dim_value for dim in declared.type.tensor_type.shape.dim]
        if feature.default is not None and all(shape):
            dtype = helper.tensor_dtype_to_np_dtype(feature.dtype)
            filled = np.full(shape, feature.default, dtype)
            model.graph.initializer.append(numpy_helper.from_array(filled, feature.name))
    prune(model)
    return model
