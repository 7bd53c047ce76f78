"""Shape expressions: arithmetic of symbols passes, and nothing that could run or grow without end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.formats.symbolic import is_calculation

S = "Symbol('s0', positive=True, integer=True)"


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("s0", True),
        ("2*s0 + s1//4", True),
        (S, True),
        (f"Mul(Integer(8), FloorDiv({S}, Integer(2)))", True),
        (f"Max(Integer(1), Pow(Add({S}, Integer(-1)), Integer(2)))", True),
        (f"LessThan({S}, Integer(12))", True),
        ("Float('0.5', precision=53)", True),
        ("true", True),
        ("", False),
        ("(", False),
        ("a" * 30_000, False),
        ("evil", False),
        ("evil()", False),
        ("__import__('os')", False),
        ("s0.__class__", False),
        ("(lambda: 1)()", False),
        ("[s0 for s0 in s1]", False),
        ("'text'", False),
        ("Symbol('s0 + evil()')", False),
        ("Symbol('s0', positive=evil())", False),
        ("Symbol('s0', cls=1)", False),
        ("Symbol('s9999999')", False),
        ("9**16", True),
        ("9**17", False),
        ("9**s0", False),
        ("((9**16)**16)**16", False),
        ("Pow(Pow(Pow(9, 9), 9), 9)", False),
        ("Pow(9, Integer(99))", False),
        (str(1 << 70), False),
        ("s0!", False),
        ("s\N{GREEK SMALL LETTER ALPHA}", False),
        ("(" * 500 + "s0" + ")" * 500, False),
    ],
)
def test_expression_passes_when_it_only_calculates(text: str, allowed: bool) -> None:
    """Both sides of each border."""
    assert is_calculation(text) is allowed


@given(st.text())
def test_expression_is_judged_when_it_is_anything(text: str) -> None:
    """No text makes the check itself fail."""
    assert is_calculation(text) in (True, False)
