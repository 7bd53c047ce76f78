"""Whether the code of a TorchScript archive may be loaded: it must touch no files.

Called by the TorchScript adapter before `torch.jit.load`, once the zip itself is known to be sound.
The code is executed at inference; operators such as `aten::save` and `aten::from_file` then write
and read any path.
Namespaces are allowed by list, so an operator nobody thought of is refused rather than run.
"""

import ast
import re
from collections.abc import Iterator, Mapping

from serving.core.errors import ArtifactRefused
from serving.formats.syntax import parsed

_FILE_OPERATORS = frozenset({"save", "from_file"})
_OPERATOR_NAMESPACES = frozenset(
    {"aten", "prim", "prims", "quantized", "_quantized", "mkldnn", "mkldnn_prepacked", "onednn", "prepacked"}
)
_UNSAFE_PRIMS = frozenset({"PythonOp", "IgnoredPythonOp", "rpc_async", "rpc_sync", "rpc_remote"})
_UNSAFE_NATIVE = frozenset({"data_ptr"})
UNSAFE_OPERATORS = _FILE_OPERATORS | _UNSAFE_NATIVE
_CLASS_NAMESPACES = frozenset({"quantized"})
_MAX_CODE_BYTES = 64 << 20
_CUSTOM_CLASS = re.compile(rb"torch[.\s]+classes[.\s]+(\w+)")

_EXPORT_AGAIN = "export the model again with torch.jit.save and log it again"
_REMOVE = "remove that call, or export the model to ONNX, and log it again"


def check_records(records: Mapping[str, bytes], name: str) -> None:
    """Raise ArtifactRefused if the archive's code or pickled state asks for more than computing.

    `records` holds what the loader itself reads, by name without the archive's top folder.
    """
    if "model.json" in records:
        raise ArtifactRefused(f"'{name}' has the TorchScript layout of before 1.4", next_step=_EXPORT_AGAIN)
    for record, content in records.items():
        for found in _CUSTOM_CLASS.findall(content):
            if found.decode() not in _CLASS_NAMESPACES:
                _refuse(name, f"custom class torch.classes.{found.decode()}")
        if record.endswith(".py"):
            for operator in _unsafe_names(_parsed(content, name)):
                _refuse(name, operator)


def _parsed(content: bytes, name: str) -> ast.AST:
    """The code as Python reads it; control characters, on which the two parsers differ, are refused."""
    try:
        if len(content) > _MAX_CODE_BYTES:
            raise ValueError("too large")
        text = content.decode("ascii")
        if re.search(r"[^\n\x20-\x7e]", text):
            raise ValueError("control character")
        return parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        problem = f"the code in '{name}' cannot be checked for file access"
        raise ArtifactRefused(problem, next_step=_EXPORT_AGAIN) from error


def _unsafe_names(tree: ast.AST) -> Iterator[str]:
    """Every operator or class the code names that is not known to be harmless.

    `torch` and `ops` may only be the start of a complete operator name, so neither can be
    handed to a variable or to `getattr`; any value's method may be an operator as well.
    """
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in _FILE_OPERATORS:
            yield f"operator {node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            yield from _unsafe_getattr(node)
        if isinstance(node, ast.Name | ast.Attribute) and id(node) not in inner:
            yield from _unsafe_chain(_dotted(node))


def _dotted(node: ast.expr) -> list[str]:
    """`a.b.c` as its parts; empty when it does not start at a plain name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _unsafe_chain(parts: list[str]) -> Iterator[str]:
    if parts[:1] == ["torch"] and len(parts) < 2:
        yield "the bare name torch"
    if parts[:1] == ["ops"]:
        known = len(parts) >= 3 and parts[1] in _OPERATOR_NAMESPACES
        if not known or parts[2] in _UNSAFE_PRIMS | _UNSAFE_NATIVE:
            yield f"operator {'.'.join(parts)}"
    if parts[:1] == ["__torch__"]:
        yield from _unsafe_class(parts)


def _unsafe_class(parts: list[str]) -> Iterator[str]:
    if len(parts) < 2 or parts == ["__torch__", "torch"]:
        yield f"the bare namespace {'.'.join(parts)}"
    elif parts[1:3] == ["torch", "classes"] and (len(parts) < 4 or parts[3] not in _CLASS_NAMESPACES):
        yield f"custom class {'.'.join(parts[1:])}"


def _unsafe_getattr(call: ast.Call) -> Iterator[str]:
    name = call.args[1] if len(call.args) == 2 else None
    if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
        yield "getattr without a fixed name"
    elif name.value in _FILE_OPERATORS or len(name.value) + 2 != _width(name):
        yield f"getattr of '{name.value}'"


def _width(node: ast.expr) -> int:
    """Characters the expression takes in the source; a string without escapes takes two for its quotes."""
    return (node.end_col_offset or 0) - node.col_offset if node.lineno == node.end_lineno else -1


def _refuse(name: str, what: str) -> None:
    problem = f"the code in '{name}' uses {what}; only code known to leave files and processes alone is run"
    raise ArtifactRefused(problem, next_step=_REMOVE)
