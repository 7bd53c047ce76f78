"""Weights as a network stores them: float32, float16, or whole numbers of 1 to 8 bits.

Float16 stays float16 in the translated file. Quantised weights are decoded, because Core ML, too,
computes with the decoded values; whole numbers are packed without gaps, highest bit first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from coremltools.proto import NeuralNetwork_pb2

from serving.core.datatypes import Array

WeightParams = NeuralNetwork_pb2.WeightParams
_BYTE_BITS = 8


class DamagedWeights(ValueError):
    """Stored values that do not make up the array that the layer declares."""


def is_stored(weights: Any) -> bool:
    """Whether the message holds any values at all."""
    return bool(weights.floatValue or weights.float16Value or weights.rawValue or weights.int8RawValue)


def array_of(weights: Any, shape: Sequence[int], channel_axis: int = 0) -> Array:
    """The values as float32, or float16 where stored so.

    `channel_axis` is the axis along which quantised values have their own scale and bias.
    Raises DamagedWeights for a count, a table or a bit width that does not fit.
    """
    shape = tuple(int(size) for size in shape)
    count = int(np.prod(shape, dtype=np.int64))
    if weights.floatValue:
        values: Array = _floats(weights.floatValue)
    elif weights.float16Value:
        values = _whole(weights.float16Value, np.dtype("<f2"))
    elif weights.int8RawValue:
        values = _whole(weights.int8RawValue, np.dtype(np.int8))
    elif weights.rawValue:
        values = _unpacked(weights.rawValue, weights.quantization.numberOfBits, count)
    else:
        raise DamagedWeights(f"no values for an array of shape {list(shape)}")
    if values.size != count:
        raise DamagedWeights(f"{values.size} values for an array of shape {list(shape)} ({count} values)")
    return _decoded(values.reshape(shape), weights.quantization, channel_axis)


def flat_array(weights: Any) -> Array:
    """Values that are stored unpacked, however many there are."""
    if weights.floatValue:
        return _floats(weights.floatValue)
    return _whole(weights.float16Value, np.dtype("<f2")).astype(np.float16)


def _floats(stored: Sequence[float]) -> Array:
    """One by one: `np.array` would first make a list of Python numbers, eight times the array's size."""
    return np.fromiter(stored, np.float32, len(stored))


def _whole(stored: bytes, dtype: "np.dtype[Any]") -> Array:
    if len(stored) % dtype.itemsize:
        raise DamagedWeights(f"{len(stored)} bytes, which is no whole number of {dtype.itemsize}-byte values")
    return np.frombuffer(stored, dtype)


def _unpacked(stored: bytes, bits: int, count: int) -> Array:
    if not 1 <= bits <= _BYTE_BITS:
        raise DamagedWeights(f"values of {bits} bits; a quantised value has 1 to {_BYTE_BITS}")
    wanted = -(-count * bits // _BYTE_BITS)
    if len(stored) != wanted:
        raise DamagedWeights(f"{len(stored)} bytes for {count} values of {bits} bits ({wanted} bytes)")
    packed = np.frombuffer(stored, np.uint8)
    if bits == _BYTE_BITS:
        return packed
    digits = np.unpackbits(packed)[: count * bits].reshape(count, bits)
    return np.asarray(digits @ (1 << np.arange(bits - 1, -1, -1)), np.uint8)


def _decoded(values: Array, quantization: Any, channel_axis: int) -> Array:
    if values.dtype.kind == "f":
        return values.astype(values.dtype.newbyteorder("="))
    kind = quantization.WhichOneof("QuantizationType")
    if kind == "lookupTableQuantization":
        return _looked_up(values, np.array(quantization.lookupTableQuantization.floatValue, np.float32))
    if kind != "linearQuantization":
        raise DamagedWeights("quantised values without a scale or a lookup table")
    linear = quantization.linearQuantization
    scale = _per_channel(linear.scale, values, channel_axis, "scale")
    bias = _per_channel(linear.bias, values, channel_axis, "bias") if linear.bias else np.float32(0)
    return np.asarray(values * scale + bias, np.float32)


def _looked_up(values: Array, table: Array) -> Array:
    if values.size and int(values.max()) >= table.size:
        raise DamagedWeights(f"index {int(values.max())} into a lookup table of {table.size} values")
    return np.asarray(table[values])


def _per_channel(numbers: Sequence[float], values: Array, axis: int, name: str) -> Array:
    channels = values.shape[axis]
    if len(numbers) not in (1, channels):
        raise DamagedWeights(f"{len(numbers)} numbers as quantisation {name} of {channels} channels")
    shape = [1] * values.ndim
    shape[axis] = len(numbers)
    return np.array(numbers, np.float32).reshape(shape)
