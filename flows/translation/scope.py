"""Which ONNX name holds which MIL variable, within one block and the blocks around it."""

from typing import Any

from flows.translation.graph import Graph
from flows.translation.variables import constant_of, stored


class Scope:
    """Names of variables by identity: nested blocks reuse names for other variables."""

    def __init__(self, parent: "Scope | None" = None) -> None:
        self._parent = parent
        self._names: dict[int, str] = {}
        self._constants: dict[int, Any] = {} if parent is None else parent._constants
        self._stored: dict[int, str] = {} if parent is None else parent._stored

    def bind(self, variable: Any, name: str) -> None:
        self._names[id(variable)] = name

    def constant(self, variable: Any) -> Any | None:
        """The variable's constant value, unpacked at most once; None if it is computed."""
        key = id(variable)
        if key not in self._constants:
            self._constants[key] = constant_of(variable)
        return self._constants[key]

    def name(self, variable: Any, graph: Graph) -> str:
        """The ONNX name of a variable, storing a constant on its first use."""
        bound = self._bound(variable)
        if bound is not None:
            return bound
        key = id(variable)
        if key not in self._stored:
            value = stored(self.constant(variable), variable.dtype)
            self._stored[key] = graph.constant(value, variable.name)
        return self._stored[key]

    def _bound(self, variable: Any) -> str | None:
        name = self._names.get(id(variable))
        return name if name is not None or self._parent is None else self._parent._bound(variable)
