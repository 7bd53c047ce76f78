"""Operators that work element by element: arithmetic, comparison, logic, casts, choice."""

from collections.abc import Callable
from functools import partial

from onnx import TensorProto

from flows.translation.call import Call

_RANGES = {"int8": (-(2**7), 2**7 - 1), "uint8": (0, 2**8 - 1)}


def _unary(name: str, call: Call) -> str:
    return call.add(name, call.tensor("x"))


def _binary(name: str, call: Call) -> str:
    return call.add(name, call.tensor("x"), call.tensor("y"))


def _square(call: Call) -> str:
    source = call.tensor("x")
    return call.add("Mul", source, source)


def _sign(call: Call) -> str:
    return call.cast(call.add("Sign", call.tensor("x")), call.output_type())


def _exp2(call: Call) -> str:
    return call.add("Pow", call.graph.number(2.0), call.floats("x"))


def _shifted(call: Call, default: float) -> str:
    """x + epsilon, which MIL adds before an operation that has a pole at 0."""
    epsilon = call.number("epsilon", default)
    source = call.floats("x")
    return source if epsilon == 0 else call.add("Add", source, call.graph.number(epsilon))


def _inverse(call: Call) -> str:
    return call.add("Reciprocal", _shifted(call, 1e-4))


def _log(call: Call) -> str:
    return call.add("Log", _shifted(call, 1e-45))


def _rsqrt(call: Call) -> str:
    return call.add("Reciprocal", call.add("Sqrt", _shifted(call, 1e-12)))


def _clip(call: Call) -> str:
    low, high = call.number("alpha"), call.number("beta")
    kind = call.type_of("x")
    return call.add("Clip", call.tensor("x"), call.scalar(low, kind), call.scalar(high, kind))


def _threshold(call: Call) -> str:
    return call.add("Max", call.tensor("x"), call.scalar(call.number("alpha"), call.type_of("x")))


def _real_div(call: Call) -> str:
    quotient = call.add("Div", call.floats("x"), call.floats("y"))
    return quotient if call.output_type() == TensorProto.FLOAT else call.cast(quotient, call.output_type())


def _pow(call: Call) -> str:
    return call.add("Pow", call.tensor("x"), call.tensor("y"))


def _floor_div(call: Call) -> str:
    """Rounded towards minus infinity; ONNX divides integers towards zero."""
    left, right = call.tensor("x"), call.tensor("y")
    quotient = call.add("Div", left, right)
    if call.is_float("x"):
        return call.add("Floor", quotient)
    kind = call.type_of("x")
    rest = call.add("Sub", left, call.add("Mul", quotient, right))
    zero = call.scalar(0, kind)
    inexact = call.add("Not", call.add("Equal", rest, zero))
    opposite = call.add("Xor", call.add("Less", rest, zero), call.add("Less", right, zero))
    return call.add("Sub", quotient, call.cast(call.add("And", inexact, opposite), kind))


def _mod(call: Call) -> str:
    """The rest has the divisor's sign."""
    left, right = call.tensor("x"), call.tensor("y")
    if not call.is_float("x"):
        return call.add("Mod", left, right)
    whole = call.add("Floor", call.add("Div", left, right))
    return call.add("Sub", left, call.add("Mul", whole, right))


def _not_equal(call: Call) -> str:
    return call.add("Not", _binary("Equal", call))


def _logical(name: str, call: Call) -> str:
    return call.add(name, call.booleans("x"), call.booleans("y"))


def _logical_not(call: Call) -> str:
    return call.add("Not", call.booleans("x"))


def _select(call: Call) -> str:
    return call.add("Where", call.booleans("cond"), call.tensor("a"), call.tensor("b"))


def _cast(call: Call) -> str:
    """A cast to fp16 rounds and may overflow, as the program says; everything after it is float32 again."""
    wanted = call.text("dtype")
    source = call.tensor("x")
    if wanted == "string" or call.type_of("x") == TensorProto.STRING:
        raise call.refused("casts from or to a string")
    if wanted == "fp16" and not (call.is_float("x") and _is_half(call)):
        source = call.cast(source, TensorProto.FLOAT16)
    elif call.type_of("x") == call.output_type():
        return call.add("Identity", source)
    return call.cast(source, call.output_type())


def _is_half(call: Call) -> bool:
    return bool(call.variable("x").dtype.__name__ == "fp16")


def _identity(call: Call) -> str:
    return call.add("Identity", call.tensor("x"))


def _quantize(call: Call) -> str:
    scaled = call.add("Round", call.add("Div", call.floats("input"), _along(call, "scale")))
    if call.has("zero_point"):
        scaled = call.add("Add", scaled, _along(call, "zero_point"))
    low, high = _RANGES[call.text("output_dtype")]
    clipped = call.add("Clip", scaled, call.graph.number(low), call.graph.number(high))
    return call.cast(clipped, call.output_type())


def _dequantize(call: Call) -> str:
    source = call.floats("input")
    if call.has("zero_point"):
        source = call.add("Sub", source, _along(call, "zero_point"))
    return call.add("Mul", source, _along(call, "scale"))


def _along(call: Call, name: str) -> str:
    """A scalar, or a vector shaped to lie along the quantised axis, as float32."""
    values = call.array(name).astype("float32")
    if values.ndim == 1:
        rank = call.rank("input")
        shape = [1] * rank
        shape[call.axis("axis", 0, rank)] = -1
        values = values.reshape(shape)
    return call.graph.constant(values, name)


_UNARY = {
    "abs": "Abs",
    "acos": "Acos",
    "asin": "Asin",
    "atan": "Atan",
    "atanh": "Atanh",
    "ceil": "Ceil",
    "cos": "Cos",
    "cosh": "Cosh",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "round": "Round",
    "sin": "Sin",
    "sinh": "Sinh",
    "sqrt": "Sqrt",
    "tan": "Tan",
}
_BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "maximum": "Max",
    "minimum": "Min",
    "equal": "Equal",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
}
_LOGICAL = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}

TRANSLATORS: dict[str, Callable[[Call], str]] = {
    **{name: partial(_unary, operator) for name, operator in _UNARY.items()},
    **{name: partial(_binary, operator) for name, operator in _BINARY.items()},
    **{name: partial(_logical, operator) for name, operator in _LOGICAL.items()},
    "cast": _cast,
    "clip": _clip,
    "dequantize": _dequantize,
    "exp2": _exp2,
    "floor_div": _floor_div,
    "identity": _identity,
    "inverse": _inverse,
    "log": _log,
    "logical_not": _logical_not,
    "mod": _mod,
    "not_equal": _not_equal,
    "pow": _pow,
    "quantize": _quantize,
    "real_div": _real_div,
    "rsqrt": _rsqrt,
    "select": _select,
    "sign": _sign,
    "square": _square,
    "threshold": _threshold,
}
