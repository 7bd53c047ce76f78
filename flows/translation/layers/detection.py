"""Choosing among overlapping boxes."""

import numpy as np

from flows.translation.layers.layer import Layer, NoCounterpart, Outputs, translates
from flows.translation.layers.tape import Tape, Tensor


@translates("NonMaximumSuppression")
def suppress(tape: Tape, layer: Layer) -> Outputs:
    """Boxes (B, N, 4) and scores (B, N, C) give the kept boxes, their scores, places and number.

    A box's score is its best class's. Kept ones come best first and are filled up with zeros
    (places with -1); where no score reaches the threshold, the best box is kept.
    Source: NonMaximumSuppressionLayerParams, NeuralNetwork.proto.
    """
    params = layer.params
    boxes, scores = layer.require(2)[:2]
    if len(layer.inputs) > 4 or boxes.rank != 3 or boxes.shape[0] != 1:
        raise NoCounterpart("handles a batch other than 1, or computes the number of boxes to keep")
    count = int(params.maxBoxes)
    best = tape.add("ReduceMax", scores, tape.ints(2), keepdims=0)
    overlap = _threshold(tape, layer, 2, params.iouThreshold)
    least = _threshold(tape, layer, 3, params.scoreThreshold)
    apart = _spread_by_class(tape, boxes, scores) if params.perClassSuppression else boxes
    places = _kept(tape, apart, best, overlap, least, count)
    return _filled(tape, boxes, scores, places, count)


def _threshold(tape: Tape, layer: Layer, place: int, stored: float) -> Tensor:
    if len(layer.inputs) > place:
        return tape.reshape(layer.inputs[place], [1])
    return tape.constant(np.array([stored], np.float32))


def _spread_by_class(tape: Tape, boxes: Tensor, scores: Tensor) -> Tensor:
    """Moves each class's boxes to a region of their own, where they overlap no others."""
    kind = tape.floats(tape.add("ArgMax", scores, axis=2, keepdims=1))
    reach = tape.add("ReduceMax", tape.add("Abs", boxes), keepdims=0)
    step = tape.add("Add", tape.add("Mul", reach, tape.number(4)), tape.number(1))
    shift = tape.add("Mul", tape.add("Mul", kind, step), tape.constant(np.array([1, 0, 0, 0], np.float32)))
    return tape.add("Add", boxes, shift)


def _kept(tape: Tape, boxes: Tensor, best: Tensor, overlap: Tensor, least: Tensor, count: int) -> Tensor:
    """Places of the kept boxes, of shape (kept,), at least one."""
    chosen = tape.shaped(
        "NonMaxSuppression",
        boxes,
        tape.unsqueeze(best, 1),
        tape.ints(count),
        overlap,
        _just_below(tape, least),
        shape=[tape.open_dim(), 3],
        dtype=7,
        center_point_box=1,
    )
    column = tape.add("Slice", chosen, tape.ints(2), tape.ints(3), tape.ints(1))
    places = tape.squeeze(Tensor(column.name, (chosen.shape[0], 1), column.dtype), 1)
    top = tape.squeeze(tape.add("ArgMax", best, axis=1, keepdims=1), 1)
    padded = tape.add("Concat", places, top, axis=0)
    wanted = tape.add("Max", tape.add("Shape", places), tape.ints(1))
    kept = tape.add("Slice", padded, tape.ints(0), wanted, tape.ints(0))
    return Tensor(kept.name, (tape.open_dim(),), kept.dtype)


def _just_below(tape: Tape, least: Tensor) -> Tensor:
    """ONNX keeps scores above its threshold, Core ML those that reach it."""
    margin = tape.add("Mul", tape.add("Abs", least), tape.number(1e-6))
    return tape.add("Sub", least, tape.add("Add", margin, tape.number(1e-30)))


def _filled(tape: Tape, boxes: Tensor, scores: Tensor, places: Tensor, count: int) -> Outputs:
    """`count` rows of each, the missing ones filled."""
    number = tape.add("Shape", places)
    missing = tape.add("Sub", tape.ints(count), number)

    def filled(rows: Tensor, value: float, width: int | str | None) -> Tensor:
        sides = [tape.ints(0), missing] if width is None else [tape.ints(0, 0), missing, tape.ints(0)]
        amounts = tape.add("Concat", *sides, axis=0)
        shape = [count] if width is None else [count, width]
        done = tape.shaped("Pad", rows, amounts, tape.number(value), shape=shape, mode="constant")
        return tape.unsqueeze(done, 0)

    kept_boxes, kept_scores = (
        tape.add("Gather", tape.squeeze(one, 0), places, axis=0) for one in (boxes, scores)
    )
    return (
        filled(kept_boxes, 0.0, 4),
        filled(kept_scores, 0.0, scores.shape[2]),
        filled(tape.floats(places), -1.0, None),
        tape.floats(number),
    )
