"""The layers of Core ML's neural networks, grouped by what they do, each as a few ONNX nodes."""

from flows.translation.layers import (
    activation,
    convolution,
    detection,
    elementwise,
    filling,
    indexing,
    joining,
    linear,
    normalization,
    padding,
    pooling,
    recurrence,
    reduction,
    reshaping,
    resizing,
    slicing,
)

# Imported because each module enters its functions into the table of translators.
__all__ = [
    "activation",
    "convolution",
    "detection",
    "elementwise",
    "filling",
    "indexing",
    "joining",
    "linear",
    "normalization",
    "padding",
    "pooling",
    "recurrence",
    "reduction",
    "reshaping",
    "resizing",
    "slicing",
]
