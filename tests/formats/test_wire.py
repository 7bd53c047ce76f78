"""Outer fields of protobuf messages: listed without a schema, and a cut-off one is seen."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.formats.wire import Outline, outline


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"", Outline((), True)),
        (b"\x08\x07", Outline((1,), True, 7)),
        (b"\x08\x96\x01\x12\x02ab", Outline((1, 2), True, 150)),
        (b"\x12\x02ab\x12\x00", Outline((2, 2), True)),
        (b"\x0d1234\x11" + b"12345678", Outline((1, 2), True)),
        (b"\xb2\x1f\x01a", Outline((502,), True)),
        (b"\x12\x03ab", Outline((2,), False)),
        (b"\x08", Outline((1,), False)),
        (b"\x08\xff", Outline((1,), False)),
        (b"\x0d123", Outline((1,), False)),
        (b"\x00\x01", Outline((), False)),
        (b"\x0b\x00", Outline((1,), False)),
        (b"\xff" * 20, Outline((), False)),
    ],
)
def test_outline_lists_the_fields_when_read(content: bytes, want: Outline, tmp_path: Path) -> None:
    """Numbers, bytes, both fixed widths; ends exactly at the end, or not."""
    path = tmp_path / "message"
    path.write_bytes(content)
    assert outline(path) == want


@given(content=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_outline_ends_when_the_bytes_are_anything(content: bytes, tmp_path: Path) -> None:
    """No bytes make it fail."""
    path = tmp_path / "message"
    path.write_bytes(content)
    assert all(number > 0 for number in outline(path).fields)
