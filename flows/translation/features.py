"""The inputs and outputs that a Core ML network declares, as ONNX types and shapes.

Arrays keep their declared element type and shape. Images are float32 arrays (1, C, H, W) of values
from 0 to 255, channels in the declared order. A dimension that may vary is open.
"""

from dataclasses import dataclass
from typing import Any

from coremltools.proto import FeatureTypes_pb2
from onnx import TensorProto

from flows.translation.layers.tape import Dim
from flows.translation.refusal import TranslationRefused

_Array = FeatureTypes_pb2.ArrayFeatureType
_ELEMENTS = {
    _Array.FLOAT32: TensorProto.FLOAT,
    _Array.DOUBLE: TensorProto.DOUBLE,
    _Array.INT32: TensorProto.INT32,
    _Array.FLOAT16: TensorProto.FLOAT16,
    _Array.INT8: TensorProto.INT8,
    _Array.INVALID_ARRAY_DATA_TYPE: TensorProto.FLOAT,  # outputs may declare no type
}
_CHANNELS = {"GRAYSCALE": 1, "GRAYSCALE_FLOAT16": 1, "RGB": 3, "BGR": 3}
_COLOURS = {number: name for name, number in FeatureTypes_pb2.ImageFeatureType.ColorSpace.items()}
_MAX_DIM = 2**31  # what one axis may hold; more is an attack or a damaged file


@dataclass(frozen=True, slots=True)
class Feature:
    """`shape` is None where an output declares none. `colours` is set for images.

    `default` is what an optional array holds throughout when it is not given.
    """

    name: str
    dtype: int
    shape: tuple[Dim, ...] | None
    colours: str | None = None
    default: float | None = None


def feature_of(declared: Any) -> Feature:
    """One input or output. Raises TranslationRefused for a kind that is neither array, image nor number."""
    kind = declared.type.WhichOneof("Type")
    if not declared.name:
        raise TranslationRefused("an input or output has no name")
    if kind == "multiArrayType":
        return _array(declared)
    if kind == "imageType":
        return _image(declared.name, declared.type.imageType)
    if kind in ("int64Type", "doubleType"):
        dtype = TensorProto.INT64 if kind == "int64Type" else TensorProto.DOUBLE
        return Feature(declared.name, dtype, (1,))
    raise TranslationRefused(
        f"'{declared.name}' is of type '{kind}'; networks are translated that take and give arrays, images "
        "or numbers",
        variable=declared.name,
    )


def _array(declared: Any) -> Feature:
    array = declared.type.multiArrayType
    element = _element(declared.name, array)
    default = None
    if declared.type.isOptional:
        field = array.WhichOneof("defaultOptionalValue")
        default = float(getattr(array, field)) if field else 0.0
    shape = _array_shape(declared.name, array)
    return Feature(declared.name, element, shape, default=default)


def _element(name: str, array: Any) -> int:
    if array.dataType not in _ELEMENTS:
        raise TranslationRefused(
            f"'{name}' is an array of elements of an unknown type ({array.dataType})", variable=name
        )
    return int(_ELEMENTS[array.dataType])


def _array_shape(name: str, array: Any) -> tuple[Dim, ...] | None:
    declared = [int(size) for size in array.shape]
    flexibility = array.WhichOneof("ShapeFlexibility")
    if flexibility == "enumeratedShapes":
        shapes = [tuple(one.shape) for one in array.enumeratedShapes.shapes] or [tuple(declared)]
        if len({len(one) for one in shapes}) > 1:
            raise TranslationRefused(f"'{name}' may have shapes of different rank", variable=name)
        varies = [len(set(sizes)) > 1 for sizes in zip(*shapes, strict=True)]
        declared = [int(size) for size in shapes[0]]
    elif flexibility == "shapeRange":
        ranges = list(array.shapeRange.sizeRanges)
        varies = [one.lowerBound != one.upperBound for one in ranges]
        declared = [int(one.lowerBound) for one in ranges]
    else:
        varies = [False] * len(declared)
    if not declared:
        return None
    _check(name, declared)
    return tuple(
        f"{name}_{axis}" if varied else size
        for axis, (size, varied) in enumerate(zip(declared, varies, strict=True))
    )


def _check(name: str, sizes: list[int]) -> None:
    if not all(0 < size <= _MAX_DIM for size in sizes):
        raise TranslationRefused(
            f"'{name}' declares the shape {sizes}, in which every size should be between 1 and {_MAX_DIM:,}",
            variable=name,
            next_step="export the model again with the shape of its real inputs",
        )


def _image(name: str, image: Any) -> Feature:
    colours = _COLOURS.get(image.colorSpace, "")
    if colours not in _CHANNELS:
        raise TranslationRefused(f"image '{name}' declares no colour space", variable=name)
    sizes: list[Dim] = [int(image.height), int(image.width)]
    flexibility = image.WhichOneof("SizeFlexibility")
    if flexibility == "enumeratedSizes":
        given = image.enumeratedSizes.sizes
        varies = [len({one.height for one in given}) > 1, len({one.width for one in given}) > 1]
    elif flexibility == "imageSizeRange":
        ranges = (image.imageSizeRange.heightRange, image.imageSizeRange.widthRange)
        varies = [one.lowerBound != one.upperBound for one in ranges]
    else:
        varies = [False, False]
    for place, side in enumerate(("height", "width")):
        if varies[place]:
            sizes[place] = f"{name}_{side}"
    _check(name, [size for size in sizes if isinstance(size, int)])
    return Feature(name, TensorProto.FLOAT, (1, _CHANNELS[colours], *sizes), colours=colours)
