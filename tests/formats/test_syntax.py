"""Python source read by several threads at once."""

import ast
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.formats.syntax import parsed


def test_every_thread_gets_its_tree_when_many_parse_at_once() -> None:
    """Without turns, some fail on the depth another is at."""
    source = "x = " + "+".join(["(1 * (2 - (3 / 4)))"] * 50)
    with ThreadPoolExecutor(8) as threads:
        trees = list(threads.map(parsed, [source] * 64))
    assert {ast.dump(tree) for tree in trees} == {ast.dump(ast.parse(source))}


def test_parser_says_what_it_cannot_read() -> None:
    """And lets the next one in."""
    with pytest.raises(SyntaxError):
        parsed("1 +", mode="eval")
    assert isinstance(parsed("1 + 1", mode="eval"), ast.Expression)
