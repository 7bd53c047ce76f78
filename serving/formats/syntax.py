"""Python's own parser, one caller at a time.

CPython 3.11 counts the depth of a tree for the whole interpreter and gives the lock up in between, so two
threads that parse at once can fail on each other ("SystemError: AST constructor recursion depth mismatch").
"""

import ast
import threading

_PARSING = threading.Lock()


def parsed(text: str, mode: str = "exec") -> ast.AST:
    """Raises SyntaxError, ValueError, RecursionError or MemoryError for what cannot be read."""
    with _PARSING:
        return ast.parse(text, mode=mode)
