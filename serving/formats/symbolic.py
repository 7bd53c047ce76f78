"""The shape expressions inside a torch.export program: read as data, and refused unless they only calculate.

torch hands these texts to sympy, which evaluates them as Python. Called for every one of them before.
"""

import ast
import re

from serving.formats.syntax import parsed

_MAX_LENGTH = 20_000
_MAX_POWERS = 100
_MAX_NESTED_POWERS = 2
_MAX_EXPONENT = 16
_MAX_INTEGER = 1 << 63
# Symbols are a prefix of torch's and a counter; a high counter makes torch count up to it.
SYMBOL = re.compile(r"[a-z]{1,5}\d{1,6}")
_NUMBER = re.compile(r"-?\d{1,20}(\.\d{0,20})?(e[+-]?\d{1,3})?")
_CONSTANTS = frozenset(("true", "false", "True", "False"))
_KEYWORDS = frozenset(("positive", "nonnegative", "negative", "integer", "real", "precision", "evaluate"))
_FUNCTIONS = frozenset(
    (
        *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Abs", "Mod"),
        *("Eq", "Equality", "Ne", "Unequality", "And", "Or", "Not", "Where", "Identity"),
        *("StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "Lt", "Le", "Gt", "Ge"),
        *("FloorDiv", "ModularIndexing", "PythonMod", "CleanDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv"),
        *("CeilToInt", "FloorToInt", "TruncToInt", "TruncToFloat", "RoundToInt", "ToFloat"),
    )
)
_OPERATORS = (
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.BitAnd, ast.BitOr, ast.Invert),
)
_STRUCTURE = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Load, *_OPERATORS)


def is_calculation(text: str) -> bool:
    """Whether the expression holds nothing but symbols, numbers and known arithmetic of bounded size."""
    if len(text) > _MAX_LENGTH or not text.isascii():
        return False
    try:
        tree = parsed(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    powers = [node for node in ast.walk(tree) if _is_power(node)]
    names = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return (
        len(powers) <= _MAX_POWERS
        and all(_small_power(node) for node in powers)
        and all(_allowed(node, id(node) in names) for node in ast.walk(tree))
    )


def _allowed(node: ast.AST, called: bool) -> bool:
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS if called else node.id in _CONSTANTS or _is_symbol(node.id)
    if isinstance(node, ast.Constant):
        return _allowed_constant(node.value)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.keyword):
        return node.arg in _KEYWORDS and isinstance(node.value, ast.Constant)
    return isinstance(node, _STRUCTURE)


def _allowed_constant(value: object) -> bool:
    """Text appears only as a symbol's name or a long number; neither can say more than that."""
    if isinstance(value, str):
        return _is_symbol(value) or _NUMBER.fullmatch(value) is not None
    return isinstance(value, float) or (isinstance(value, int) and abs(value) <= _MAX_INTEGER)


def _is_symbol(name: str) -> bool:
    return SYMBOL.fullmatch(name) is not None


def _is_power(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "Pow"
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)


def _small_power(node: ast.AST) -> bool:
    """Powers of powers grow beyond any memory, and sympy calculates those of numbers at once."""
    nested = sum(_is_power(inner) for inner in ast.walk(node))
    return nested <= _MAX_NESTED_POWERS and _small_exponent(node)


def _small_exponent(node: ast.AST) -> bool:
    exponent: ast.AST | None = node.right if isinstance(node, ast.BinOp) else None
    if isinstance(node, ast.Call) and len(node.args) == 2:
        exponent = node.args[1]
    if isinstance(exponent, ast.Call) and len(exponent.args) == 1:  # Integer(2)
        exponent = exponent.args[0]
    if isinstance(exponent, ast.UnaryOp):
        exponent = exponent.operand
    found = exponent.value if isinstance(exponent, ast.Constant) else None
    return isinstance(found, int | float) and abs(found) <= _MAX_EXPONENT
