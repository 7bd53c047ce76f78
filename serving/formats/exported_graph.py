"""The program inside a torch.export archive: read as data, and refused unless it only computes tensors.

torch turns this JSON into Python source, evaluates its shape expressions and looks its operators up by
name, so a text in the wrong place is code. Every text must therefore stand in a place known here and
be of the form that belongs there; a field nobody knows is refused rather than passed on. Called
before torch sees any of it, and torch sees only what comes back.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from serving.core.errors import ArtifactRefused
from serving.formats.symbolic import SYMBOL, is_calculation
from serving.formats.torch_archive import UNSAFE_OPERATORS

_EXPORT_AGAIN = "export the model again with torch.export.save"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,999}")
_PATH = re.compile(r"[A-Za-z0-9_.]{1,2000}")
_OPERATOR = re.compile(r"torch\.ops\.(\w+)\.(\w+)(?:\.(\w+))?")
_NAMESPACES = frozenset(("aten", "prims", "quantized", "quantized_decomposed"))
# Those that run a graph of the same archive; the others start kernels, delegates or foreign objects.
_HIGHER_ORDER = frozenset(
    (
        *("cond", "while_loop", "map_impl", "scan", "associative_scan"),
        *("wrap_with_set_grad_enabled", "wrap_with_autocast"),
    )
)
_PYTHON_NAMES = re.compile(r"__i?(and|or|xor|lshift|rshift)__")
_ARITHMETIC = frozenset(
    (
        *("_operator.eq", "_operator.ne", "_operator.le", "_operator.ge", "_operator.lt", "_operator.gt"),
        *("_operator.neg", "_operator.pos", "_operator.add", "_operator.sub", "_operator.mul"),
        *("_operator.floordiv", "_operator.mod", "_operator.pow", "_operator.truediv"),
        *("_operator.and_", "_operator.or_", "_operator.getitem", "math.trunc"),
        *("torch.sym_not", "torch.sym_int", "torch.sym_float", "torch.sym_ite"),
        *("torch.sym_max", "torch.sym_min", "torch.sym_sqrt"),
    )
)
_CONTAINERS = frozenset(("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"))
# Objects whose keys are a program's own names, which may well be ours for something else.
_BY_NAME = frozenset(
    (
        *("tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"),
        *("range_constraints", "opset_version"),
    )
)
_FOREIGN = frozenset(("as_custom_obj", "custom_obj", "token", "as_string_to_argument"))
_CPU = {"type": "cpu", "index": None}
_MAX_DEPTH = 200


def safe_program(program: object, name: str, schema_major: int) -> dict[str, Any]:
    """The program without its remarks, on the CPU. Raises ArtifactRefused for all but calculations.

    `schema_major` is the version of the form that this torch reads; no other one is touched.
    """
    if not isinstance(program, dict) or not isinstance(program.get("graph_module"), dict):
        raise ArtifactRefused(f"'{name}' holds no exported program", next_step=_EXPORT_AGAIN)
    _check_schema(program, name, schema_major)
    ranges = program.get("range_constraints")
    for symbol in ranges if isinstance(ranges, dict) else ():
        if SYMBOL.fullmatch(str(symbol)) is None:
            _refuse(name, f"the range of '{str(symbol)[:80]}', which is no symbol")
    # Only the whole model's call is needed; guards are Python source, and the ranges say the same.
    graph_module = program["graph_module"]
    calls = graph_module.get("module_call_graph")
    kept = graph_module | {"module_call_graph": calls[:1] if isinstance(calls, list) else []}
    cleaned = _cleaned("", program | {"graph_module": kept, "guards_code": []}, name, 0)
    return dict(cleaned)


def operators(program: Any) -> Iterator[str]:
    """Every operator that a cleaned program names, as often as it does."""
    if isinstance(program, dict):
        for key, value in program.items():
            if key in ("target", "as_operator") and isinstance(value, str):
                yield value
            yield from operators(value)
    elif isinstance(program, list):
        for item in program:
            yield from operators(item)


def _check_schema(program: Mapping[str, Any], name: str, schema_major: int) -> None:
    version = program.get("schema_version")
    major = version.get("major") if isinstance(version, dict) else None
    if major == schema_major:
        return
    written = str(program.get("torch_version", "another version"))[:40]
    problem = f"'{name}' has export schema {major}, written by torch {written}; {schema_major} is read here"
    raise ArtifactRefused(problem, next_step="export it again with the torch version installed here")


def _cleaned(key: str, value: Any, name: str, depth: int) -> Any:
    """A copy of `value`, which stands under `key`, with every text checked against its place."""
    if depth > _MAX_DEPTH:
        _refuse(name, f"values nested more than {_MAX_DEPTH} deep")
    if key in _FOREIGN and value is not None:
        _refuse(name, f"an object of a custom class ({key})")
    if key in ("metadata", "treespec_namedtuple_fields", "custom_obj_values"):
        return {}
    if key in ("device", "as_device"):
        return dict(_CPU)
    if isinstance(value, dict):
        return {
            str(inner): _cleaned("" if key in _BY_NAME else str(inner), item, name, depth + 1)
            for inner, item in value.items()
        }
    if isinstance(value, list):
        return [_cleaned(key, item, name, depth + 1) for item in value]
    if isinstance(value, str):
        check = _TEXTS.get(key)
        if check is None or not check(value):
            _refuse(name, f"{_PLACES.get(key, f'an unexpected text in {key!r}')} '{value[:80]}'")
    return value


def _is_operator(text: str) -> bool:
    found = _OPERATOR.fullmatch(text)
    if found is None:
        return text in _ARITHMETIC
    namespace, operator, overload = found.groups()
    if namespace == "higher_order":
        return operator in _HIGHER_ORDER and overload is None
    # Attributes that every Python object has would lead out of the table of operators.
    ordinary = not operator.startswith("__") or _PYTHON_NAMES.fullmatch(operator) is not None
    known = namespace in _NAMESPACES and operator not in UNSAFE_OPERATORS
    return known and ordinary and overload is not None and not overload.startswith("__")


def _is_name(text: str) -> bool:
    return not text or _NAME.fullmatch(text) is not None


def _is_path(text: str) -> bool:
    parts = text.split(".")
    hidden = any(part.startswith("__") and part.endswith("__") for part in parts)  # what every object has
    return _PATH.fullmatch(text) is not None and not hidden


def _is_structure(text: str) -> bool:
    """Whether a description of nested inputs or outputs names only plain containers with plain keys."""
    try:
        protocol, spec = json.loads(text)
        return protocol == 1 and _plain_container(spec, 0)
    except (ValueError, TypeError, RecursionError):
        return False


def _plain_container(spec: Any, depth: int) -> bool:
    if not isinstance(spec, dict) or depth > _MAX_DEPTH:
        return False
    children = spec.get("children_spec")
    if not isinstance(children, list) or not all(_plain_container(child, depth + 1) for child in children):
        return False
    if spec.get("type") is None:
        return True
    context = spec.get("context")
    keys = json.loads(context) if isinstance(context, str) else None
    plain = keys is None or (isinstance(keys, list) and all(_is_key(key) for key in keys))
    return spec["type"] in _CONTAINERS and plain


def _is_key(key: object) -> bool:
    return isinstance(key, int) or (isinstance(key, str) and _NAME.fullmatch(key) is not None)


def _anything(text: str) -> bool:
    return True


def _is_endless(text: str) -> bool:
    """JSON has no numbers for these."""
    return text in ("Infinity", "-Infinity", "NaN")


# Which form a text must have, by the field it stands in. Constants become quoted literals.
_TEXTS: Mapping[str, Callable[[str], bool]] = {
    "target": _is_operator,
    "as_operator": _is_operator,
    "name": _is_name,
    "as_name": _is_name,
    "forward_arg_names": _is_name,
    "expr_str": is_calculation,
    "parameter_name": _is_path,
    "buffer_name": _is_path,
    "tensor_constant_name": _is_path,
    "user_input_name": _is_name,
    "fqn": lambda text: not text or _is_path(text),
    "in_spec": _is_structure,
    "out_spec": _is_structure,
    "verifiers": lambda text: text in ("TRAINING", "ATEN", "EDGE", ""),
    "as_string": _anything,
    "as_strings": _anything,
    "torch_version": _anything,
    **dict.fromkeys(("as_float", "as_floats", "as_float_lists", "real", "imag"), _is_endless),
}
_PLACES = {
    "target": "operator",
    "as_operator": "operator",
    "expr_str": "the shape expression",
    "in_spec": "inputs that are more than tensors in tuples, lists and dicts:",
    "out_spec": "outputs that are more than tensors in tuples, lists and dicts:",
    "name": "the name",
    "as_name": "the name",
    "forward_arg_names": "the argument name",
}


def _refuse(name: str, what: str) -> None:
    problem = f"the program in '{name}' uses {what}; only standard operators on tensors are run"
    step = "write the model with standard torch operators and plain inputs and outputs, and export it again"
    raise ArtifactRefused(problem, next_step=step)
