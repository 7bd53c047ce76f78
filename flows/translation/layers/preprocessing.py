"""What a network does to an image before its first layer: scaling, and subtracting a mean image."""

from typing import Any

import numpy as np

from flows.translation.features import Feature
from flows.translation.layers.activation import scaled
from flows.translation.layers.layer import column
from flows.translation.layers.tape import Tape, Tensor
from flows.translation.layers.walk import EXPORT_AGAIN
from flows.translation.refusal import TranslationRefused

_BIASES = {
    "RGB": ("redBias", "greenBias", "blueBias"),
    "BGR": ("blueBias", "greenBias", "redBias"),
    "GRAYSCALE": ("grayBias",),
    "GRAYSCALE_FLOAT16": ("grayBias",),
}


def prepared(tape: Tape, image: Tensor, feature: Feature, network: Any) -> Tensor:
    """Everything that the network stores for this image, in stored order; an empty name means any."""
    for stored in network.preprocessing:
        if stored.featureName not in ("", feature.name):
            continue
        if stored.WhichOneof("preprocessor") == "scaler":
            image = _scaled(tape, image, feature, stored.scaler)
        elif stored.WhichOneof("preprocessor") == "meanImage":
            image = _centred(tape, image, feature, stored.meanImage)
    return image


def _scaled(tape: Tape, image: Tensor, feature: Feature, scaler: Any) -> Tensor:
    """A scale of 0 means that none was set, as a scaler of biases only is written."""
    biases = np.array([getattr(scaler, name) for name in _BIASES[feature.colours or "RGB"]], np.float32)
    product = scaled(tape, image, scaler.channelScale or 1.0)
    return tape.add("Add", product, tape.constant(column(biases))) if biases.any() else product


def _centred(tape: Tape, image: Tensor, feature: Feature, mean: Any) -> Tensor:
    shape = image.sizes(1)
    if shape is None or len(mean.meanImage) != int(np.prod(shape)):
        raise TranslationRefused(
            f"the mean image of '{feature.name}' has {len(mean.meanImage)} values, which do not make up an "
            f"image of shape {list(image.shape[1:])}",
            variable=feature.name,
            next_step=EXPORT_AGAIN,
        )
    return tape.add("Sub", image, tape.constant(np.array(mean.meanImage, np.float32).reshape(shape)))
