"""Elementwise arithmetic, comparison and logic, with numpy's broadcasting."""

from functools import reduce

from flows.translation.layers.activation import scaled
from flows.translation.layers.layer import Layer, Outputs, translates
from flows.translation.layers.tape import Tape, Tensor

_UNARY = {
    "ceil": "Ceil",
    "floor": "Floor",
    "sign": "Sign",
    "round": "Round",
    "sin": "Sin",
    "cos": "Cos",
    "tan": "Tan",
    "asin": "Asin",
    "acos": "Acos",
    "atan": "Atan",
    "sinh": "Sinh",
    "cosh": "Cosh",
    "tanh": "Tanh",
    "asinh": "Asinh",
    "acosh": "Acosh",
    "atanh": "Atanh",
    "erf": "Erf",
    "copy": "Identity",
}
_BINARY = {
    "minBroadcastable": "Min",
    "maxBroadcastable": "Max",
    "addBroadcastable": "Add",
    "powBroadcastable": "Pow",
    "divideBroadcastable": "Div",
    "multiplyBroadcastable": "Mul",
    "subtractBroadcastable": "Sub",
}
_COMPARED = {
    "equal": "Equal",
    "notEqual": "Equal",
    "lessThan": "Less",
    "lessEqual": "LessOrEqual",
    "greaterThan": "Greater",
    "greaterEqual": "GreaterOrEqual",
}
_LOGICAL = {"logicalOr": "Or", "logicalXor": "Xor", "logicalAnd": "And"}
_FOLDED = {"add": "Add", "multiply": "Mul", "max": "Max", "min": "Min"}


@translates(*_UNARY)
def unary(tape: Tape, layer: Layer) -> Outputs:
    return tape.add(_UNARY[layer.kind], layer.x)


@translates(*_BINARY)
def binary(tape: Tape, layer: Layer) -> Outputs:
    left, right = layer.require(2)[:2]
    return tape.add(_BINARY[layer.kind], left, right)


@translates("add", "multiply", "max", "min")
def folded(tape: Tape, layer: Layer) -> Outputs:
    """Over any number of inputs; `add` and `multiply` with one input use their stored number."""
    if len(layer.inputs) == 1 and layer.kind == "add":
        return scaled(tape, layer.x, 1.0, layer.params.alpha)
    if len(layer.inputs) == 1 and layer.kind == "multiply":
        return scaled(tape, layer.x, layer.params.alpha)
    return _over_all(tape, layer, _FOLDED[layer.kind])


@translates("average")
def average(tape: Tape, layer: Layer) -> Outputs:
    return scaled(tape, _over_all(tape, layer, "Add"), 1 / len(layer.inputs))


def _over_all(tape: Tape, layer: Layer, operator: str) -> Tensor:
    layer.require(1)
    return reduce(lambda left, right: tape.add(operator, left, right), layer.inputs)


@translates(*_COMPARED)
def compared(tape: Tape, layer: Layer) -> Outputs:
    """1.0 where true, else 0.0; with one input, against the stored number."""
    right = layer.inputs[1] if len(layer.inputs) > 1 else tape.number(layer.params.alpha)
    truth = tape.add(_COMPARED[layer.kind], layer.x, right)
    return tape.floats(tape.add("Not", truth) if layer.kind == "notEqual" else truth)


@translates(*_LOGICAL)
def logical(tape: Tape, layer: Layer) -> Outputs:
    left, right = layer.require(2)[:2]
    return tape.floats(tape.add(_LOGICAL[layer.kind], tape.truth(left), tape.truth(right)))


@translates("logicalNot")
def negation(tape: Tape, layer: Layer) -> Outputs:
    return tape.floats(tape.add("Not", tape.truth(layer.x)))


@translates("floorDivBroadcastable")
def floor_division(tape: Tape, layer: Layer) -> Outputs:
    left, right = layer.require(2)[:2]
    return tape.add("Floor", tape.add("Div", left, right))


@translates("modBroadcastable")
def modulo(tape: Tape, layer: Layer) -> Outputs:
    """With the divisor's sign, as numpy's; ONNX's Mod of floats has the dividend's."""
    left, right = layer.require(2)[:2]
    rest = tape.add("Mod", left, right, fmod=1)
    zero = tape.number(0)
    astray = tape.add("Less", tape.add("Mul", rest, right), zero)
    return tape.add("Add", rest, tape.add("Where", astray, right, zero))


@translates("whereBroadcastable")
def where(tape: Tape, layer: Layer) -> Outputs:
    condition, chosen, other = layer.require(3)[:3]
    return tape.add("Where", tape.truth(condition), chosen, other)
