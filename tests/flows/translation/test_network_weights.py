"""Weights of every stored form, decoded by us and by coremltools, and forms that do not add up."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.models.neural_network import quantization_utils
from coremltools.proto import NeuralNetwork_pb2
from torch import nn

from flows.translation.layers.weights import DamagedWeights, array_of, is_stored
from flows.translation.network import network_graph
from serving.core.datatypes import Array
from tests.flows.translation.network_models import run
from tests.flows.translation.network_parity import converted
from tests.flows.translation.parity import Case, answers, quiet

_RNG = np.random.default_rng(12)

# Largest difference to the unquantised model's scores, which are of order 1, that n bits may cause.
_LOSSES = {"linear": {8: 0.02, 6: 0.08, 4: 0.4, 3: 0.8}, "linear_lut": {8: 0.02, 5: 0.15}}


def _stored(**fields: Any) -> Any:
    return NeuralNetwork_pb2.WeightParams(**fields)


def _quantised(values: Array, bits: int) -> Any:
    weights = _stored(
        rawValue=quantization_utils._convert_array_to_nbit_quantized_bytes(values, bits).tobytes()
    )
    weights.quantization.numberOfBits = bits
    return weights


def test_floats_are_read_when_stored_whole() -> None:
    """As float32, or as the float16 they are."""
    values = _RNG.standard_normal((2, 3)).astype(np.float32)
    np.testing.assert_array_equal(array_of(_stored(floatValue=values.ravel()), (2, 3)), values)
    half = values.astype(np.float16)
    read = array_of(_stored(float16Value=half.tobytes()), (2, 3))
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, half)


@pytest.mark.parametrize("bits", range(1, 9))
def test_packed_numbers_are_read_when_of_any_width(bits: int) -> None:
    """A table of 2 to the power of the width, indexed by numbers packed without gaps."""
    indices = _RNG.integers(0, 2**bits, 35)
    weights = _quantised(indices, bits)
    table = _RNG.standard_normal(2**bits).astype(np.float32)
    weights.quantization.lookupTableQuantization.floatValue.extend(table)
    np.testing.assert_array_equal(array_of(weights, (5, 7)), table[indices].reshape(5, 7))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("channels", [1, None])
def test_packed_numbers_are_scaled_when_linear(axis: int, channels: int | None) -> None:
    """With one scale for all, or one for each channel of the axis."""
    values = _RNG.integers(0, 16, (5, 7))
    count = channels or values.shape[axis]
    scale, bias = _RNG.standard_normal((2, count)).astype(np.float32)
    weights = _quantised(values.ravel(), 4)
    weights.quantization.linearQuantization.scale.extend(scale)
    weights.quantization.linearQuantization.bias.extend(bias)
    shape = (-1, 1) if axis == 0 else (1, -1)
    expected = values * scale.reshape(shape) + bias.reshape(shape)
    np.testing.assert_allclose(array_of(weights, (5, 7), axis), expected, atol=1e-6)


def test_signed_bytes_are_scaled_when_stored_for_dynamic_quantisation() -> None:
    """They have a scale and no bias."""
    values = _RNG.integers(-128, 128, (2, 3)).astype(np.int8)
    weights = _stored(int8RawValue=values.tobytes())
    weights.quantization.numberOfBits = 8
    weights.quantization.linearQuantization.scale.append(0.25)
    np.testing.assert_array_equal(array_of(weights, (2, 3)), values * np.float32(0.25))


def _linear(bits: int, scale: list[float]) -> Any:
    weights = _quantised(np.zeros(6, int), bits)
    weights.quantization.linearQuantization.scale.extend(scale)
    return weights


def _table(size: int) -> Any:
    weights = _quantised(np.full(6, 7), 3)
    weights.quantization.lookupTableQuantization.floatValue.extend([0.0] * size)
    return weights


def _wide() -> Any:
    weights = _linear(8, [1.0])
    weights.quantization.numberOfBits = 9
    return weights


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (_stored(), "no values"),
        (_stored(floatValue=[1.0] * 5), "5 values for an array of shape"),
        (_stored(float16Value=b"\0" * 11), "11 bytes"),
        (_stored(float16Value=b"\0" * 10), "5 values"),
        (_stored(rawValue=b"\0" * 6), "0 bits"),
        (_wide(), "9 bits"),
        (_quantised(np.zeros(6, int), 8), "without a scale or a lookup table"),
        (_linear(8, [1.0] * 3), "3 numbers as quantisation scale of 2 channels"),
        (_quantised(np.zeros(7, int), 8), "7 bytes for 6 values of 8 bits"),
        (_table(4), "index 7 into a lookup table of 4 values"),
    ],
)
def test_weights_are_refused_when_they_do_not_add_up(weights: Any, reason: str) -> None:
    """The sentence says what was found and what belongs there."""
    with pytest.raises(DamagedWeights, match=reason):
        array_of(weights, (2, 3))


def test_presence_is_told_when_any_form_is_stored() -> None:
    """An empty message holds nothing."""
    assert not is_stored(_stored())
    assert is_stored(_stored(floatValue=[0.0]))
    assert is_stored(_stored(rawValue=b"\0"))


class _EveryKind(nn.Module):
    """Layers of each kind that coremltools quantises."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2), nn.BatchNorm2d(4), nn.PReLU(4)
        )
        self.lstm = nn.LSTM(4, 6, bidirectional=True)
        self.out = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.body(x).mean(-1).permute(2, 0, 1)
        result: torch.Tensor = self.out(self.lstm(features)[0])
        return result


@cache
def _network() -> tuple[Case, nn.Module, Any]:
    generator = torch.Generator().manual_seed(3)
    case = Case("kinds", "weights", _EveryKind, (torch.randn((1, 3, 8, 8), generator=generator),))
    return (case, *converted(case))


def _quantised_spec(bits: int, mode: str) -> Any:
    _, _, model = _network()
    with quiet():
        quantised = quantization_utils.quantize_weights(model, bits, mode)
        return quantised if hasattr(quantised, "WhichOneof") else quantised.get_spec()


def _answer(spec: Any) -> Array:
    return run(network_graph(spec), {"x0": _network()[0].inputs[0].numpy()})[0]


@pytest.mark.parametrize(("mode", "bits"), [(mode, bits) for mode in _LOSSES for bits in _LOSSES[mode]])
def test_quantised_network_answers_as_its_decoded_twin_when_translated(mode: str, bits: int) -> None:
    """Exactly as coremltools' own decoding, and as the original up to what the bits lose."""
    case, module, _ = _network()
    spec = _quantised_spec(bits, mode)
    answer = _answer(spec)
    with quiet():
        quantization_utils._dequantize_nn_spec(spec.neuralNetwork)
    np.testing.assert_allclose(answer, _answer(spec), atol=1e-5)
    lost = float(np.abs(answer - answers(module, case.inputs)[0]).max())
    assert lost <= _LOSSES[mode][bits]


def test_half_precision_network_answers_like_torch_when_translated() -> None:
    """Within 1e-2 relative; the weights stay float16 in the file."""
    case, module, _ = _network()
    translated = network_graph(_quantised_spec(16, "linear"))
    answer = run(translated, {"x0": case.inputs[0].numpy()})[0]
    expected = answers(module, case.inputs)[0]
    assert np.abs(answer - expected).max() <= 1e-2 * np.abs(expected).max()
    assert any(one.data_type == 10 for one in translated.graph.initializer)
