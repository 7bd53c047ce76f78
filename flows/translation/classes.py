"""A classifier's two outputs: the probability of every class, and the name of the likeliest."""

from typing import Any

import numpy as np
from onnx import TensorProto

from flows.translation.layers.tape import Tape, Tensor
from flows.translation.layers.walk import EXPORT_AGAIN, Scope
from flows.translation.refusal import TranslationRefused

_LABELS = {"stringClassLabels": np.dtype(np.str_), "int64ClassLabels": np.dtype(np.int64)}


def is_classifier(spec: Any) -> bool:
    return bool(spec.WhichOneof("Type") == "neuralNetworkClassifier")


def class_labels(spec: Any) -> list[str] | list[int]:
    """In the order of the probabilities."""
    network = spec.neuralNetworkClassifier
    field = network.WhichOneof("ClassLabels")
    return [] if field is None else list(getattr(network, field).vector)


def add_classes(tape: Tape, spec: Any, network: Any, scope: Scope) -> None:
    """Probabilities (classes,), or (..., classes) with leading axes, and labels (1,) or (...,)."""
    labels = class_labels(spec)
    description = spec.description
    scores = _by_class(tape, _scores(network, scope), len(labels))
    if description.predictedProbabilitiesName:
        name = description.predictedProbabilitiesName
        tape.graph.output(name, scores.name, TensorProto.FLOAT, scores.shape)
    if description.predictedFeatureName and labels:
        place = tape.add("ArgMax", scores, axis=-1, keepdims=int(scores.rank == 1))
        kind = _LABELS[network.WhichOneof("ClassLabels")]
        table = tape.constant(np.array(labels, kind), "labels")
        label = tape.add("Gather", table, place, axis=0)
        tape.graph.output(description.predictedFeatureName, label.name, label.dtype, label.shape)


def _scores(network: Any, scope: Scope) -> Tensor:
    """The named blob, or the last layer's output."""
    name = network.labelProbabilityLayerName or network.layers[-1].output[0]
    if name not in scope:
        raise TranslationRefused(
            f"no layer gives '{name}', the classes' probabilities", variable=name, next_step=EXPORT_AGAIN
        )
    return scope[name]


def _by_class(tape: Tape, scores: Tensor, classes: int) -> Tensor:
    """With the classes on the last axis."""
    if classes == 0 or scores.shape[-1] == classes:
        leading = scores.sizes(0, -1)
        flat = scores.rank == 5 and leading is not None and set(leading) == {1}
        return tape.reshape(scores, [classes]) if flat and classes else scores
    if scores.count == classes:
        return tape.reshape(scores, [classes])
    if scores.rank == 5 and scores.shape[2:] == (classes, 1, 1):
        return tape.squeeze(scores, 3, 4)
    raise TranslationRefused(
        f"the network names {classes} classes, and its probabilities have shape {list(scores.shape)}",
        next_step=EXPORT_AGAIN,
    )
